//! AlterConfigs, key 33: versions 0 to 2. A topic has these settings then, and no others. Clients from 2.3 on ask for
//! single changes instead (IncrementalAlterConfigs).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::alter_configs::{AlterConfigsResourceResponse, AlterableConfig};
use klamm_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

use super::configs::{Refused, Wanted, change_all, responses};
use super::{Answer, Call, Context, Refusal};
use crate::controller::Change;

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=2;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: AlterConfigsRequest = call.decode()?;
    let resources = request.resources.into_iter().map(|resource| Wanted {
        resource_type: resource.resource_type,
        change: replacement(&resource.configs),
        name: resource.resource_name,
    });
    let outcomes = change_all(context, resources.collect(), request.validate_only).await;
    let responses = responses!(outcomes, AlterConfigsResourceResponse);
    call.answer(&AlterConfigsResponse { responses, ..AlterConfigsResponse::default() })
}

fn replacement(configs: &[AlterableConfig]) -> Result<Change, Refused> {
    let refused = |name: &str, why: &str| Err((ErrorCode::InvalidRequest, format!("setting {name} {why}")));
    let mut settings = BTreeMap::new();
    for config in configs {
        let Some(value) = &config.value else { return refused(&config.name, "has no value") };
        if settings.insert(config.name.to_string(), value.to_string()).is_some() {
            return refused(&config.name, "is in the request twice");
        }
    }
    Ok(Change::Replace(settings))
}
