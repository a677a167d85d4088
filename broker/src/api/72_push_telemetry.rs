//! PushTelemetry, key 72: version 0. Nobody has been asked for metrics; who pushes some all the same, as a last word
//! for instance, is told whether it went about it the right way, and they are dropped.
//!
//! Nothing is kept of clients, so that one that pushes too often is not told so, as Kafka does.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{PushTelemetryRequest, PushTelemetryResponse};

use super::get_telemetry_subscriptions::{COMPRESSIONS, NO_SUBSCRIPTIONS, TELEMETRY_MAX_BYTES};
use super::{Answer, Call, Context, Refusal};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=0;
const UNCOMPRESSED: i8 = 0;

pub(super) async fn serve(_: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: PushTelemetryRequest = call.decode()?;
    let is_known = |compression| compression == UNCOMPRESSED || COMPRESSIONS.contains(&compression);
    let error = if request.client_instance_id.is_zero() {
        ErrorCode::InvalidRequest
    } else if request.subscription_id != NO_SUBSCRIPTIONS {
        ErrorCode::UnknownSubscriptionId
    } else if !is_known(request.compression_type) {
        ErrorCode::UnsupportedCompressionType
    } else if request.metrics.len() > TELEMETRY_MAX_BYTES {
        ErrorCode::TelemetryTooLarge
    } else {
        ErrorCode::None
    };
    call.answer(&PushTelemetryResponse { error_code: error.code(), ..PushTelemetryResponse::default() })
}
