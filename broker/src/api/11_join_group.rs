//! JoinGroup, key 11: versions 0 to 9. The answer comes when the group's next generation begins.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::Utf8Bytes;
use klamm_protocol::messages::join_group::JoinGroupResponseMember;
use klamm_protocol::messages::{JoinGroupRequest, JoinGroupResponse};

use super::{Answer, Call, Context, Refusal};
use crate::group::{JoinGroup, JoinReply, Protocol};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=9;
/// From here on a first join is answered with an id to come back with (KIP-394).
const MEMBER_ID_REQUIRED: i16 = 4;
/// From here on the protocol's name may be null.
const NULLABLE_PROTOCOL: i16 = 7;
/// From here on a leader can be told to leave the assignment alone (KIP-814).
const SKIP_ASSIGNMENT: i16 = 9;
/// A member id begins with the client's name for itself, up to here.
const CLIENT_ID_IN_MEMBER_ID: usize = 255;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: JoinGroupRequest = call.decode()?;
    let protocols = request.protocols.into_iter();
    let protocols =
        protocols.map(|protocol| Protocol { name: protocol.name.into(), metadata: protocol.metadata });
    let join = JoinGroup {
        group: request.group_id.into(),
        member_id: request.member_id.into(),
        instance_id: request.group_instance_id.map(Into::into),
        client_id: shortened(call.client_id.as_deref().unwrap_or_default()),
        client_host: format!("/{}", call.peer.host),
        fresh_id: String::new(),
        knows_member_id_required: call.version >= MEMBER_ID_REQUIRED,
        knows_skip_assignment: call.version >= SKIP_ASSIGNMENT,
        session_timeout_ms: request.session_timeout_ms,
        // Version 0 has one timeout for both.
        rebalance_timeout_ms: if call.version == 0 {
            request.session_timeout_ms
        } else {
            request.rebalance_timeout_ms
        },
        protocol_type: request.protocol_type.into(),
        protocols: protocols.collect(),
    };
    let joining = context.groups().join(join).await;
    let reply = call.reply();
    Ok(Answer::later(0, async move {
        let response = response(joining.await, reply.version);
        reply.encode(&response).map(Some)
    }))
}

fn response(joined: JoinReply, version: i16) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|member| JoinGroupResponseMember {
        member_id: member.id.into(),
        group_instance_id: member.instance_id.map(Into::into),
        metadata: member.metadata,
        ..JoinGroupResponseMember::default()
    });
    let no_protocol = (version < NULLABLE_PROTOCOL).then(Utf8Bytes::new);
    JoinGroupResponse {
        error_code: joined.error.code(),
        generation_id: joined.generation,
        protocol_type: joined.protocol_type.map(Into::into),
        protocol_name: joined.protocol.map(Into::into).or(no_protocol),
        leader: joined.leader.into(),
        skip_assignment: joined.skip_assignment,
        member_id: joined.member_id.into(),
        members: members.collect(),
        ..JoinGroupResponse::default()
    }
}

fn shortened(text: &str) -> String {
    let end = (0..=CLIENT_ID_IN_MEMBER_ID.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or(0)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_between_characters() {
        assert_eq!(shortened("app"), "app");
        assert_eq!(shortened(&"ä".repeat(200)).len(), 254);
        assert_eq!(shortened(&"x".repeat(4_096)).len(), 255);
    }
}
