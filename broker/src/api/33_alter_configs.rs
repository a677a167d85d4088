//! AlterConfigs, key 33: versions 0 to 2. A topic has these settings then, and no others. Clients from 2.3 on ask for
//! single changes instead (IncrementalAlterConfigs).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use futures::future::join_all;
use klamm_protocol::messages::alter_configs::{AlterConfigsResource, AlterConfigsResourceResponse};
use klamm_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes};

use super::configs::{Refused, change, named_twice};
use super::context::each_once;
use super::{Answer, Call, Context, Refusal};
use crate::controller::{COMMANDS_AT_ONCE, Change};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=2;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: AlterConfigsRequest = call.decode()?;
    let twice =
        named_twice(request.resources.iter().map(|one| (one.resource_type, one.resource_name.clone())));
    let resources = each_once(request.resources, |one| (one.resource_type, one.resource_name.clone()));
    let resources: Vec<_> = resources.collect();
    let mut responses = Vec::new();
    for some in resources.chunks(COMMANDS_AT_ONCE) {
        let changes = some.iter().map(|resource| replace(context, resource, &twice, request.validate_only));
        let results = some.iter().zip(join_all(changes).await);
        responses.extend(results.map(|(resource, result)| {
            let (error, message) = result.err().map_or((ErrorCode::None, None), |(e, m)| (e, Some(m.into())));
            AlterConfigsResourceResponse {
                error_code: error.code(),
                error_message: message,
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
                ..AlterConfigsResourceResponse::default()
            }
        }));
    }
    call.answer(&AlterConfigsResponse { responses, ..AlterConfigsResponse::default() })
}

async fn replace(
    context: &Context,
    resource: &AlterConfigsResource,
    twice: &BTreeSet<(i8, Utf8Bytes)>,
    validate_only: bool,
) -> Result<(), Refused> {
    if twice.contains(&(resource.resource_type, resource.resource_name.clone())) {
        return Err((ErrorCode::InvalidRequest, "it is in the request twice".to_owned()));
    }
    let mut settings = BTreeMap::new();
    for config in &resource.configs {
        let Some(value) = &config.value else {
            return Err((ErrorCode::InvalidRequest, format!("setting {} has no value", config.name)));
        };
        if settings.insert(config.name.to_string(), value.to_string()).is_some() {
            return Err((
                ErrorCode::InvalidRequest,
                format!("setting {} is in the request twice", config.name),
            ));
        }
    }
    let wanted = Change::Replace(settings);
    change(context, resource.resource_type, &resource.resource_name, wanted, validate_only).await
}
