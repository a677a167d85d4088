//! IncrementalAlterConfigs, key 44: versions 0 and 1. Single settings of topics are set, taken back, or have words
//! added to their lists. The changes of a topic are made together or not at all.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::incremental_alter_configs::{AlterConfigsResourceResponse, AlterableConfig};
use klamm_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::configs::{Refused, Wanted, change_all, responses};
use super::{Answer, Call, Context, Refusal};
use crate::controller::{Adjustment, Change};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=1;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: IncrementalAlterConfigsRequest = call.decode()?;
    let resources = request.resources.into_iter().map(|resource| Wanted {
        resource_type: resource.resource_type,
        change: resource.configs.iter().map(adjustment).collect::<Result<_, _>>().map(Change::Adjust),
        name: resource.resource_name,
    });
    let outcomes = change_all(context, resources.collect(), request.validate_only).await;
    let responses = responses!(outcomes, AlterConfigsResourceResponse);
    call.answer(&IncrementalAlterConfigsResponse { responses, ..IncrementalAlterConfigsResponse::default() })
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
