//! Heartbeat, key 12: versions 0 to 4. Answered at once, unless what is said of the group is not durable yet.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::{Answer, Call, Context, Refusal};
use crate::group::Caller;

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=4;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: HeartbeatRequest = call.decode()?;
    let caller = Caller {
        member_id: request.member_id.into(),
        instance_id: request.group_instance_id.map(Into::into),
        generation: request.generation_id,
    };
    let beating = context.groups().heartbeat(&request.group_id, caller);
    let reply = call.reply();
    Ok(Answer::later(0, async move {
        let error_code = beating.await.code();
        reply.encode(&HeartbeatResponse { error_code, ..HeartbeatResponse::default() }).map(Some)
    }))
}
