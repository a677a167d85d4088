//! DescribeGroups, key 15: versions 0 to 6. A group that does not exist is `Dead`; from version 6 on it is an error
//! (KIP-1043).

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::messages::describe_groups::{DescribedGroup, DescribedGroupMember};
use klamm_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes};

use super::context::each_once;
use super::{Answer, Call, Context, Refusal};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=6;
/// From here on a group that does not exist is an error.
const NOT_FOUND: i16 = 6;
const DEAD: Utf8Bytes = Utf8Bytes::from_static("Dead");
const NO_SUCH_GROUP: Utf8Bytes = Utf8Bytes::from_static("there is no such group");

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: DescribeGroupsRequest = call.decode()?;
    // Groups that do not exist are as many as the request may list, `request.elements.max`.
    let groups = each_once(request.groups, Utf8Bytes::clone);
    let groups = groups.map(|group| describe(context, call.version, group)).collect();
    call.answer(&DescribeGroupsResponse { groups, ..DescribeGroupsResponse::default() })
}

fn describe(context: &Context, version: i16, group_id: Utf8Bytes) -> DescribedGroup {
    match context.groups().describe(&group_id) {
        Err(error) => DescribedGroup { group_id, error_code: error.code(), ..DescribedGroup::default() },
        Ok(None) if version >= NOT_FOUND => DescribedGroup {
            error_code: ErrorCode::GroupIdNotFound.code(),
            // The same text for all of them, because there may be many.
            error_message: Some(NO_SUCH_GROUP),
            group_id,
            group_state: DEAD,
            ..DescribedGroup::default()
        },
        Ok(None) => DescribedGroup { group_id, group_state: DEAD, ..DescribedGroup::default() },
        Ok(Some(group)) => {
            let members = group.members.into_iter().map(|member| DescribedGroupMember {
                member_id: member.id.into(),
                group_instance_id: member.instance_id.map(Into::into),
                client_id: member.client_id.into(),
                client_host: member.client_host.into(),
                member_metadata: member.metadata,
                member_assignment: member.assignment,
                ..DescribedGroupMember::default()
            });
            DescribedGroup {
                group_id,
                group_state: Utf8Bytes::from_static(group.state),
                protocol_type: group.protocol_type.into(),
                protocol_data: group.protocol.into(),
                members: members.collect(),
                ..DescribedGroup::default()
            }
        }
    }
}
