//! IncrementalAlterConfigs, key 44: versions 0 and 1. Single settings of topics are set, taken back, or have words
//! added to their lists. The changes of a topic are made together or not at all.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use futures::future::join_all;
use klamm_protocol::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterConfigsResourceResponse, AlterableConfig,
};
use klamm_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes};

use super::configs::{Refused, change, named_twice};
use super::context::each_once;
use super::{Answer, Call, Context, Refusal};
use crate::controller::{Adjustment, COMMANDS_AT_ONCE, Change};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=1;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: IncrementalAlterConfigsRequest = call.decode()?;
    let twice =
        named_twice(request.resources.iter().map(|one| (one.resource_type, one.resource_name.clone())));
    let resources = each_once(request.resources, |one| (one.resource_type, one.resource_name.clone()));
    let resources: Vec<_> = resources.collect();
    let mut responses = Vec::new();
    for some in resources.chunks(COMMANDS_AT_ONCE) {
        let changes = some.iter().map(|resource| adjust(context, resource, &twice, request.validate_only));
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
    call.answer(&IncrementalAlterConfigsResponse { responses, ..IncrementalAlterConfigsResponse::default() })
}

async fn adjust(
    context: &Context,
    resource: &AlterConfigsResource,
    twice: &BTreeSet<(i8, Utf8Bytes)>,
    validate_only: bool,
) -> Result<(), Refused> {
    if twice.contains(&(resource.resource_type, resource.resource_name.clone())) {
        return Err((ErrorCode::InvalidRequest, "it is in the request twice".to_owned()));
    }
    let adjustments = resource.configs.iter().map(adjustment).collect::<Result<_, _>>()?;
    let wanted = Change::Adjust(adjustments);
    change(context, resource.resource_type, &resource.resource_name, wanted, validate_only).await
}

fn adjustment(config: &AlterableConfig) -> Result<(String, Adjustment), Refused> {
    let name = config.name.to_string();
    let adjustment = match (config.config_operation, &config.value) {
        (0, Some(value)) => Adjustment::Set(value.to_string()),
        (1, _) => Adjustment::Delete,
        (2, Some(value)) => Adjustment::Append(value.to_string()),
        (3, Some(value)) => Adjustment::Subtract(value.to_string()),
        (0 | 2 | 3, None) => {
            return Err((ErrorCode::InvalidRequest, format!("setting {name} has no value")));
        }
        (other, _) => {
            return Err((
                ErrorCode::InvalidRequest,
                format!("setting {name}: there is no operation {other}"),
            ));
        }
    };
    Ok((name, adjustment))
}
