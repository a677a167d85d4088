//! Runs the commits of one consumer in their order (`commit.rs`): sends them, and answers whoever waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use klamm_protocol::ErrorCode;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tracing::{Instrument, debug_span};

use super::commit::{Commits, Offsets};
use super::metrics::CommitEnd;
use super::shared::Shared;
use super::standing::Standing;
use crate::error::{ConsumeError, RequestError};
use crate::group::offsets::{self, Committer};
use crate::group::{CoordinatorLink, moved};
use crate::types::TopicPartition;

/// The answer to a call, for whoever waits.
type Waiter = oneshot::Sender<Result<(), ConsumeError>>;
type Refused = BTreeMap<TopicPartition, ErrorCode>;

/// What callers and the task share.
#[derive(Debug)]
pub(super) struct CommitQueue {
    state: Mutex<State>,
    /// Wakes the task.
    called: Notify,
}

#[derive(Debug)]
struct State {
    commits: Commits,
    waiters: BTreeMap<u64, Waiter>,
    /// The task is gone: nothing is committed any more.
    ended: bool,
}

impl CommitQueue {
    pub(super) fn new(commits: Commits) -> Self {
        let state = State { commits, waiters: BTreeMap::new(), ended: false };
        Self { state: Mutex::new(state), called: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a call and waits for its answer. The call stands when the caller goes away.
    async fn ask(&self, call: impl FnOnce(&mut Commits) -> u64) -> Result<(), ConsumeError> {
        let answer = {
            let mut state = self.state();
            if state.ended {
                return Err(ConsumeError::Closed);
            }
            let (sender, answer) = oneshot::channel();
            let number = call(&mut state.commits);
            state.waiters.insert(number, sender);
            answer
        };
        self.called.notify_one();
        answer.await.unwrap_or(Err(ConsumeError::Closed))
    }
}

impl Shared {
    /// Commits after everything that was asked for before, and waits for the answer: at most `request_timeout`. A
    /// rebalance meanwhile is waited for; what this consumer still owns after it is committed then.
    pub(super) async fn commit(&self, offsets: Offsets) -> Result<(), ConsumeError> {
        let queue = self.commits.as_ref().ok_or(ConsumeError::NoGroup)?;
        let deadline = Instant::now() + self.config.request_timeout;
        queue.ask(|commits| commits.call(offsets, deadline)).await
    }

    /// Commits in the background; refusals are logged.
    pub(super) fn commit_later(&self, offsets: Offsets) {
        let Some(queue) = &self.commits else { return };
        queue.state().commits.later(offsets, Instant::now() + self.config.request_timeout);
        queue.called.notify_one();
    }

    /// Everything that must be committed before partitions go: what was asked for, and with `auto_commit` what is
    /// processed.
    pub(super) async fn commit_before_revoke(&self, partitions: &[TopicPartition]) {
        let Some(queue) = &self.commits else { return };
        let mut result = Ok(());
        if self.config.auto_commit.is_some() {
            let mut processed = self.processed();
            processed.retain(|partition, _| partitions.contains(partition));
            result = self.commit(processed).await;
        }
        let deadline = Instant::now() + self.config.request_timeout;
        // Those who asked hear of their own refusals.
        let _ = queue.ask(|commits| commits.flush(deadline)).await;
        if let Err(error) = result {
            tracing::warn!(%error, "the commit before a rebalance failed; records will come again");
        }
    }

    /// How far the program has come, for `auto_commit`.
    fn processed(&self) -> Offsets {
        self.partitions().positions(true).into_iter().map(|(partition, at)| (partition, at.into())).collect()
    }

    /// What this consumer may commit; anything when it assigns partitions by hand.
    fn committable(&self) -> Option<BTreeSet<TopicPartition>> {
        self.wanted.as_ref().map(|_| self.partitions().assignment().into_iter().collect())
    }
}

/// The task: runs until it is aborted.
pub(super) async fn run_commits(shared: Arc<Shared>) {
    let (Some(queue), Some(link)) = (&shared.commits, &shared.offsets) else { return };
    let _ended = Ended(queue);
    let mut standing = shared.watch_standing();
    let mut in_flight: Option<BoxFuture<'_, Result<Refused, RequestError>>> = None;
    loop {
        let (next, wake_at) = step(&shared, queue, &standing.borrow_and_update());
        if let Some((offsets, by)) = next {
            in_flight = Some(Box::pin(send(&shared, link, offsets, by)));
        }
        let answer = async {
            match &mut in_flight {
                Some(request) => request.await,
                None => std::future::pending().await,
            }
        };
        let timer = async {
            match wake_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            result = answer => {
                in_flight = None;
                queue.state().commits.answered(result, Instant::now());
            }
            () = queue.called.notified() => {}
            // The sender lives in `shared`.
            _ = standing.changed() => {}
            () = timer => {}
        }
    }
}

/// Answers whoever can be answered, and gives what is to be sent.
fn step(
    shared: &Shared,
    queue: &CommitQueue,
    standing: &Standing,
) -> (Option<(Offsets, Standing)>, Option<Instant>) {
    let now = Instant::now();
    let owned = shared.committable();
    let mut state = queue.state();
    state.commits.expire(now);
    let next = state.commits.next(standing, owned.as_ref(), now);
    for (call, answer) in state.commits.take_answers() {
        match state.waiters.remove(&call) {
            // It may have gone.
            Some(waiter) => drop(waiter.send(answer)),
            None => drop(answer.inspect_err(|error| tracing::warn!(%error, "a background commit failed"))),
        }
    }
    (next.map(|offsets| (offsets, standing.clone())), state.commits.wake_at())
}

async fn send(
    shared: &Shared,
    link: &CoordinatorLink,
    offsets: Offsets,
    by: Standing,
) -> Result<Refused, RequestError> {
    let committer = Committer {
        group_instance_id: shared.config.group_instance_id.clone().filter(|_| by.generation >= 0),
        generation: by.generation,
        member_id: by.member_id,
    };
    let started = Instant::now();
    let timeout = shared.config.request_timeout;
    let span = debug_span!("commit", group = %link.group(), partitions = offsets.len());
    let commit = offsets::commit(&shared.core, link, &committer, &offsets, timeout).instrument(span);
    let result = commit.await;
    let end = match &result {
        Ok(refused) if refused.is_empty() => CommitEnd::Made,
        Ok(_) => CommitEnd::Refused,
        Err(_) => CommitEnd::Failed,
    };
    shared.metrics.committed(end, started.elapsed());
    match &result {
        Err(error) => link.learn_from(error),
        Ok(refused) if !shared.config.interceptors.is_empty() => {
            let committed = offsets.iter().filter(|(partition, _)| !refused.contains_key(*partition));
            let committed = committed.map(|(partition, at)| (partition.clone(), at.clone())).collect();
            shared.config.interceptors.committed(&committed);
        }
        Ok(_) => {}
    }
    match &result {
        Ok(refused) if refused.values().any(|&code| moved(code)) => link.forget(),
        _ => {}
    }
    result
}

/// Whoever waits when the task ends learns that nothing is committed any more.
struct Ended<'a>(&'a CommitQueue);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.ended = true;
        state.waiters.clear();
    }
}

/// The task that commits by the clock, with `auto_commit`: runs until it is aborted.
pub(super) async fn commit_by_clock(shared: Arc<Shared>) {
    let Some(interval) = shared.config.auto_commit else { return };
    let mut last = Offsets::new();
    loop {
        tokio::time::sleep(interval).await;
        let processed = shared.processed();
        let mut changed = processed.clone();
        changed.retain(|partition, offset| last.get(partition) != Some(offset));
        match shared.commit(changed).await {
            Ok(()) => last = processed,
            Err(error) => tracing::warn!(%error, "an automatic commit failed; the next one includes it"),
        }
    }
}
