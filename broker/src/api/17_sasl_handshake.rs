//! SaslHandshake, key 17: versions 0 and 1. There is no authentication here, so that nobody may begin one.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{SaslHandshakeRequest, SaslHandshakeResponse};

use super::{Answer, Call, Context, Refusal};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=1;

pub(super) async fn serve(_: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let _: SaslHandshakeRequest = call.decode()?;
    call.answer(&SaslHandshakeResponse {
        error_code: ErrorCode::IllegalSaslState.code(),
        ..SaslHandshakeResponse::default()
    })
}
