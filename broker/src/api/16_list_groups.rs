//! ListGroups, key 16: versions 0 to 5; filters by state from 4 on, by type from 5 on. Every group here is of the type
//! `classic`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::Utf8Bytes;
use klamm_protocol::messages::list_groups::ListedGroup;
use klamm_protocol::messages::{ListGroupsRequest, ListGroupsResponse};

use super::{Answer, Call, Context, Refusal};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=5;
const CLASSIC: Utf8Bytes = Utf8Bytes::from_static("classic");

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: ListGroupsRequest = call.decode()?;
    let passes = |filter: &[Utf8Bytes], value: &str| {
        filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value))
    };
    // Each filter is gone through once for each state there is, not for each group.
    let is_classic_wanted = passes(&request.types_filter, &CLASSIC);
    let mut wanted_states: BTreeMap<&str, bool> = BTreeMap::new();
    let mut response = ListGroupsResponse::default();
    match context.groups().list().await {
        Err(error) => response.error_code = error.code(),
        Ok(groups) => {
            let listed = groups
                .into_iter()
                .filter(|group| {
                    let state = wanted_states.entry(group.state);
                    is_classic_wanted && *state.or_insert_with(|| passes(&request.states_filter, group.state))
                })
                .map(|group| ListedGroup {
                    group_id: group.group.into(),
                    protocol_type: group.protocol_type.into(),
                    group_state: Utf8Bytes::from_static(group.state),
                    group_type: CLASSIC,
                    ..ListedGroup::default()
                });
            response.groups = listed.collect();
        }
    }
    call.answer(&response)
}
