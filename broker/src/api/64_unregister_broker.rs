//! UnregisterBroker, key 64: version 0. There is one broker; it is in use, and there is no other.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes};

use super::{Answer, Call, Context, Refusal};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=0;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: UnregisterBrokerRequest = call.decode()?;
    let (error, why) = match request.broker_id == context.config().node_id {
        true => (ErrorCode::InvalidRequest, "this is the only broker of the cluster"),
        false => (ErrorCode::BrokerIdNotRegistered, "there is no such broker"),
    };
    call.answer(&UnregisterBrokerResponse {
        error_code: error.code(),
        error_message: Some(Utf8Bytes::from_static(why)),
        ..UnregisterBrokerResponse::default()
    })
}
