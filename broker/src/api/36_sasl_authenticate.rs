//! SaslAuthenticate, key 36: versions 0 to 2. There is no authentication here, so that nobody can be in the middle of
//! one.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::messages::{SaslAuthenticateRequest, SaslAuthenticateResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes};

use super::{Answer, Call, Context, Refusal};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=2;
const WHY: Utf8Bytes = Utf8Bytes::from_static("this listener has no authentication");

pub(super) async fn serve(_: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let _: SaslAuthenticateRequest = call.decode()?;
    call.answer(&SaslAuthenticateResponse {
        error_code: ErrorCode::IllegalSaslState.code(),
        error_message: Some(WHY),
        ..SaslAuthenticateResponse::default()
    })
}
