//! GetTelemetrySubscriptions, key 71: version 0. Clients offer their metrics (KIP-714), and none are wanted: they ask
//! again after a while, and push nothing.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::messages::{GetTelemetrySubscriptionsRequest, GetTelemetrySubscriptionsResponse};

use super::{Answer, Call, Context, Refusal};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=0;
/// Stands for no subscriptions.
pub(super) const NO_SUBSCRIPTIONS: i32 = 0;
/// How often clients ask, as in Kafka.
const PUSH_INTERVAL_MS: i32 = 5 * 60 * 1_000;
/// The default of Kafka's `telemetry.max.bytes`.
pub(super) const TELEMETRY_MAX_BYTES: usize = 1 << 20;
/// zstd, LZ4, gzip and snappy, by Kafka's numbers.
pub(super) const COMPRESSIONS: [i8; 4] = [4, 3, 1, 2];

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: GetTelemetrySubscriptionsRequest = call.decode()?;
    let is_new = request.client_instance_id.is_zero();
    let client_instance_id = if is_new { context.fresh_id() } else { request.client_instance_id };
    call.answer(&GetTelemetrySubscriptionsResponse {
        client_instance_id,
        subscription_id: NO_SUBSCRIPTIONS,
        accepted_compression_types: COMPRESSIONS.to_vec(),
        push_interval_ms: PUSH_INTERVAL_MS,
        telemetry_max_bytes: TELEMETRY_MAX_BYTES as i32,
        delta_temporality: true,
        ..GetTelemetrySubscriptionsResponse::default()
    })
}
