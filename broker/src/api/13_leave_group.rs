//! LeaveGroup, key 13: versions 0 to 5; several members at once from 3 on.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::messages::leave_group::MemberResponse;
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
    let mut response = LeaveGroupResponse::default();
    match context.groups().leave(&request.group_id, &callers) {
        Err(error) => response.error_code = error.code(),
        Ok(codes) if call.version < BATCHED => {
            response.error_code = codes.first().map_or(0, |code| code.code());
        }
        Ok(codes) => {
            let members = request.members.into_iter().zip(codes);
            let members = members.map(|(member, code)| MemberResponse {
                member_id: member.member_id,
                group_instance_id: member.group_instance_id,
                error_code: code.code(),
                ..MemberResponse::default()
            });
            response.members = members.collect();
        }
    }
    call.answer(&response)
}
