//! ListConfigResources, key 74: versions 0 and 1. Who has settings: the topics and this broker. Version 0 asks for the
//! metrics of clients, which have none. Loggers and groups, which Kafka has settings for, have none either.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::list_config_resources::ConfigResource;
use klamm_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};

use super::configs::{BROKER, TOPIC};
use super::{Answer, Call, Context, Refusal};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=1;
/// From here on a request says which kinds it means; none for all.
const KINDS_FROM: i16 = 1;
const CLIENT_METRICS: i8 = 16;
/// All that Kafka knows: topics, brokers, loggers, metrics of clients, groups.
const KINDS: [i8; 5] = [TOPIC, BROKER, 8, CLIENT_METRICS, 32];

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: ListConfigResourcesRequest = call.decode()?;
    let kinds = match call.version >= KINDS_FROM {
        true if request.resource_types.is_empty() => KINDS.to_vec(),
        true => request.resource_types,
        false => vec![CLIENT_METRICS],
    };
    let mut response = ListConfigResourcesResponse::default();
    if kinds.iter().any(|kind| !KINDS.contains(kind)) {
        response.error_code = ErrorCode::UnsupportedVersion.code();
        return call.answer(&response);
    }
    let of_kind = |resource_type, name: &str| ConfigResource {
        resource_name: name.into(),
        resource_type,
        ..ConfigResource::default()
    };
    let view = context.view();
    if kinds.contains(&TOPIC) {
        response.config_resources.extend(view.image.topics().map(|topic| of_kind(TOPIC, &topic.name)));
    }
    if kinds.contains(&BROKER) {
        response.config_resources.push(of_kind(BROKER, &context.config().node_id.to_string()));
    }
    call.answer(&response)
}
