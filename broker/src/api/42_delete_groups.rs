//! DeleteGroups, key 42: versions 0 to 2. Each group goes with its offsets, also with those that open transactions have
//! committed for it, unless it has members.
//!
//! The groups are handed to their partitions before the next request of the connection is looked at, and answered when
//! all are durably gone. A group that is named twice is answered once.

use std::ops::RangeInclusive;
use std::sync::Arc;

use futures::future::join_all;
use klamm_protocol::messages::delete_groups::DeletableGroupResult;
use klamm_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes};

use super::context::each_once;
use super::{Answer, Call, Context, Refusal};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=2;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: DeleteGroupsRequest = call.decode()?;
    let mut deleting = Vec::new();
    let mut held_bytes = 0;
    for group in each_once(request.groups_names, Utf8Bytes::clone) {
        // A copy: the answer may wait, and would keep the request's frame.
        let group_id = group.to_string();
        held_bytes += size_of::<(String, DeletableGroupResult)>() + group_id.len();
        let deleted = context.groups().delete(&group_id).await;
        deleting.push(async move { deletable(group_id, deleted.await) });
    }
    let reply = call.reply();
    Ok(Answer::later(held_bytes, async move {
        let results = join_all(deleting).await;
        reply.encode(&DeleteGroupsResponse { results, ..DeleteGroupsResponse::default() }).map(Some)
    }))
}

fn deletable(group_id: String, code: ErrorCode) -> DeletableGroupResult {
    DeletableGroupResult {
        group_id: group_id.into(),
        error_code: code.code(),
        ..DeletableGroupResult::default()
    }
}
