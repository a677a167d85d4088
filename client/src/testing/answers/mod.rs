//! What the broker answers, by the API. Pure.
//!
//! ```text
//! data.rs           records: Produce, Fetch, ListOffsets
//! cluster.rs        who and what there is: ApiVersions, Metadata, FindCoordinator, CreateTopics, logins
//! groups.rs         classic groups and their offsets
//! transactions.rs   producer ids and transactions
//! outcome.rs        a frame, nothing, or not yet
//! ```

mod cluster;
mod data;
mod groups;
mod outcome;
mod transactions;

use tokio::time::Instant;

use super::received::{Body, Received};
use super::script::Verdict;
use super::state::State;
pub(super) use outcome::Outcome;

/// Carries a request out, but for what the script refuses. `arrived` is when it came; a request that is held is given
/// again, with `arriving` false.
pub(super) fn answer(
    state: &mut State,
    received: &Received,
    verdict: &Verdict,
    (arrived, arriving): (Instant, bool),
    now: Instant,
) -> Outcome {
    let Some(body) = &received.body else { return cluster::unknown_version(state, received) };
    if !state.offers(received.api, received.version) {
        return cluster::unknown_version(state, received);
    }
    match body {
        Body::Produce(request) => data::produce(state, received, request, verdict),
        Body::Fetch(request) => data::fetch(state, received, request, verdict, arrived, now),
        Body::ListOffsets(request) => received.answer(&data::list_offsets(state, request, verdict)),
        Body::ApiVersions(_) => received.answer(&cluster::api_versions(state, verdict)),
        Body::Metadata(request) => {
            received.answer(&cluster::metadata(state, request, received.version, verdict))
        }
        Body::FindCoordinator(request) => {
            received.answer(&cluster::coordinators(state, request, received.version, verdict))
        }
        Body::CreateTopics(request) => received.answer(&cluster::create_topics(state, request, verdict)),
        Body::SaslHandshake(request) => received.answer(&cluster::handshake(request, verdict)),
        Body::SaslAuthenticate(_) => received.answer(&cluster::authenticate(verdict)),
        Body::JoinGroup(request) => groups::join(state, received, request, verdict, arriving, now),
        Body::SyncGroup(request) => groups::sync(state, received, request, verdict, now),
        Body::Heartbeat(request) => received.answer(&groups::heartbeat(state, request, verdict, now)),
        Body::LeaveGroup(request) => {
            received.answer(&groups::leave(state, request, received.version, verdict, now))
        }
        Body::OffsetCommit(request) => received.answer(&groups::commit(state, request, verdict, now)),
        Body::OffsetFetch(request) => {
            received.answer(&groups::committed(state, request, received.version, verdict))
        }
        Body::DescribeGroups(request) => received.answer(&groups::describe(state, request, verdict)),
        Body::InitProducerId(request) => received.answer(&transactions::init(state, request, verdict)),
        Body::AddPartitionsToTxn(request) => {
            received.answer(&transactions::add_partitions(state, request, verdict))
        }
        Body::AddOffsetsToTxn(request) => received.answer(&transactions::add_group(state, request, verdict)),
        Body::TxnOffsetCommit(request) => {
            received.answer(&transactions::commit_offsets(state, request, verdict, now))
        }
        Body::EndTxn(request) => received.answer(&transactions::end(state, request, verdict)),
    }
}
