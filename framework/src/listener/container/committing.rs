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
/// How long commits may fail for other reasons before that is a trouble.
const FAILING_MAX: Duration = Duration::from_secs(30);

/// Commits until it is dropped.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut interval = tokio::time::interval(CommitPace::interval(shared.settings.ack));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = Failing::default();
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
        judge(&shared, &committed, &mut failing);
        shared.commits.done(number, committed.err());
        shared.change(|flow| flow.round_done(number));
        shared.nudge.notify_one();
    }
}

/// Since when commits fail, with none in between that did not.
#[derive(Debug, Default)]
struct Failing {
    since: Option<Instant>,
    /// For good.
    refused_since: Option<Instant>,
}

/// Commits that are refused for good are told at once, and end the listener after a while: without them it would do
/// everything again after each restart. Those that fail otherwise are told when they do for long.
fn judge(shared: &Shared, committed: &Result<(), ConsumeError>, failing: &mut Failing) {
    let Err(error) = committed else {
        *failing = Failing::default();
        return shared.troubles.over(&Subject::Commits);
    };
    let since = *failing.since.get_or_insert_with(Instant::now);
    if is_for_good(error) {
        shared.troubles.tell(&shared.scope.id, Subject::Commits, &error.to_string());
        if failing.refused_since.get_or_insert_with(Instant::now).elapsed() >= REFUSED_MAX {
            shared.fail(ListenerFailure::Consumer(error.clone()));
        }
        return;
    }
    tracing::warn!(listener = %shared.scope.id, %error, "offsets were not committed");
    if since.elapsed() >= FAILING_MAX {
        let reason = format!("no offset could be committed for {} s: {error}", since.elapsed().as_secs());
        shared.troubles.tell(&shared.scope.id, Subject::Commits, &reason);
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
