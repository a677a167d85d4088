//! Commits: one at a time, as often as somebody asks, and now and then because time went by.

use std::sync::Arc;
use std::time::Duration;

use klamm_client::{ConsumeError, ErrorCode};
use tokio::time::{Instant, MissedTickBehavior};

use super::ListenerFailure;
use super::commit_pace::CommitPace;
use super::shared::Shared;
use super::troubles::Subject;
use crate::listener::builder::AckPolicy;

/// How long commits may be refused for good before the listener stops: who changes permissions needs a moment.
const REFUSED_MAX: Duration = Duration::from_secs(60);

/// Commits until it is dropped.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut interval = tokio::time::interval(CommitPace::interval(shared.settings.ack));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut refused_since = None;
    loop {
        let number = tokio::select! {
            number = shared.commits.wanted() => {
                if let AckPolicy::CountTime(..) = shared.settings.ack {
                    interval.reset();
                }
                number
            }
            _ = interval.tick() => match shared.pace.tick() {
                true => shared.commits.next_round(),
                false => continue,
            },
        };
        shared.pace.commits();
        let committed = shared.commit_all().await;
        refused_since = judge(&shared, &committed, refused_since);
        shared.commits.done(number, committed.err());
        shared.change(|flow| flow.round_done(number));
        shared.nudge.notify_one();
    }
}

/// Commits that are refused for good are told at once, and end the listener after a while: without them it would do
/// everything again after each restart.
fn judge(
    shared: &Shared,
    committed: &Result<(), ConsumeError>,
    refused_since: Option<Instant>,
) -> Option<Instant> {
    match committed {
        Err(error) if is_for_good(error) => {
            shared.troubles.tell(&shared.scope.id, Subject::Commits, &error.to_string());
            let since = refused_since.unwrap_or_else(Instant::now);
            if since.elapsed() >= REFUSED_MAX {
                shared.fail(ListenerFailure::Consumer(error.clone()));
            }
            Some(since)
        }
        Err(error) => {
            tracing::warn!(listener = %shared.scope.id, %error, "offsets were not committed");
            refused_since
        }
        Ok(()) => {
            shared.troubles.over(&Subject::Commits);
            None
        }
    }
}

fn is_for_good(error: &ConsumeError) -> bool {
    let ConsumeError::Commit { code, .. } = error else { return false };
    matches!(
        code,
        ErrorCode::GroupAuthorizationFailed
            | ErrorCode::TopicAuthorizationFailed
            | ErrorCode::OffsetMetadataTooLarge
            | ErrorCode::InvalidCommitOffsetSize
            | ErrorCode::InvalidGroupId
    )
}
