//! SyncGroup, key 14: versions 0 to 5. The answer comes when the leader has assigned and that is durable. From
//! version 5 on a member says which protocol it was told (KIP-559), and is refused if it does not.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::{Answer, Call, Context, Refusal};
use crate::group::SyncGroup;

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=5;
/// From here on a member has to name the group's type and protocol.
const NAMES_PROTOCOL: i16 = 5;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: SyncGroupRequest = call.decode()?;
    let is_named = request.protocol_type.is_some() && request.protocol_name.is_some();
    if call.version >= NAMES_PROTOCOL && !is_named {
        let error_code = ErrorCode::InconsistentGroupProtocol.code();
        return call.answer(&SyncGroupResponse { error_code, ..SyncGroupResponse::default() });
    }
    let assignments = request.assignments.into_iter();
    let sync = SyncGroup {
        group: request.group_id.into(),
        generation: request.generation_id,
        member_id: request.member_id.into(),
        instance_id: request.group_instance_id.map(Into::into),
        protocol_type: request.protocol_type.map(Into::into),
        protocol: request.protocol_name.map(Into::into),
        assignments: assignments.map(|one| (one.member_id.into(), one.assignment)).collect(),
    };
    let syncing = context.groups().sync(sync).await;
    let reply = call.reply();
    Ok(Answer::later(0, async move {
        let synced = syncing.await;
        let response = SyncGroupResponse {
            error_code: synced.error.code(),
            protocol_type: synced.protocol_type.map(Into::into),
            protocol_name: synced.protocol.map(Into::into),
            assignment: synced.assignment,
            ..SyncGroupResponse::default()
        };
        reply.encode(&response).map(Some)
    }))
}
