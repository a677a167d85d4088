//! LeaveGroup, key 13: versions 0 to 5; several members at once from 3 on.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::leave_group::{MemberIdentity, MemberResponse};
use klamm_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use super::{Answer, Call, Context, Refusal};
use crate::group::Caller;

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=5;
/// From here on a request names several members.
const BATCHED: i16 = 3;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: LeaveGroupRequest = call.decode()?;
    let caller = |member_id: String, instance_id| Caller { member_id, instance_id, generation: -1 };
    let callers: Vec<Caller> = if call.version >= BATCHED {
        let members = request.members.iter();
        members
            .map(|member| {
                let instance_id = member.group_instance_id.as_ref().map(ToString::to_string);
                caller(member.member_id.to_string(), instance_id)
            })
            .collect()
    } else {
        vec![caller(request.member_id.into(), None)]
    };
    let leaving = context.groups().leave(&request.group_id, callers).await;
    // Copies: the answer may wait, and would keep the request's frame.
    let copy = |member: MemberIdentity| {
        let instance_id = member.group_instance_id.map(|instance| instance.to_string());
        (member.member_id.to_string(), instance_id)
    };
    let members: Vec<(String, Option<String>)> = request.members.into_iter().map(copy).collect();
    let held_bytes = members.iter().map(held_bytes).sum();
    let reply = call.reply();
    Ok(Answer::later(held_bytes, async move {
        let mut response = LeaveGroupResponse::default();
        match leaving.await {
            Err(error) => response.error_code = error.code(),
            Ok(codes) if reply.version < BATCHED => {
                response.error_code = codes.first().map_or(0, |code| code.code());
            }
            Ok(codes) => {
                let members = members.into_iter().zip(codes);
                let members = members.map(|((member_id, instance_id), code)| MemberResponse {
                    member_id: member_id.into(),
                    group_instance_id: instance_id.map(Into::into),
                    error_code: code.code(),
                    ..MemberResponse::default()
                });
                response.members = members.collect();
            }
        }
        reply.encode(&response).map(Some)
    }))
}

/// What a member takes until the answer is there: its names, and a code to come.
fn held_bytes((member_id, instance_id): &(String, Option<String>)) -> usize {
    let names = member_id.len() + instance_id.as_ref().map_or(0, String::len);
    size_of::<(String, Option<String>)>() + names + size_of::<ErrorCode>()
}
