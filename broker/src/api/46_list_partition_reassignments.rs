//! ListPartitionReassignments, key 46: version 0. Nothing ever moves here.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::messages::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};

use super::{Answer, Call, Context, Refusal};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=0;

pub(super) async fn serve(_: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let _: ListPartitionReassignmentsRequest = call.decode()?;
    call.answer(&ListPartitionReassignmentsResponse {
        error_message: None,
        ..ListPartitionReassignmentsResponse::default()
    })
}
