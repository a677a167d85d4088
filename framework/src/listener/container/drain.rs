//! The end of a listener: nothing more is begun, what is in work may finish, offsets are committed, the group is left.
//! All of it within the deadline and a goodbye.

use std::sync::Arc;
use std::time::Duration;

use klamm_runtime::Tasks;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::obey::refuse;
use super::poll::PollLoop;
use super::status::{DrainReport, UnfinishedRecord};
use crate::listener::flow::{Flow, PartId};

/// How long the last commit and leaving the group may take, each, on top of the drain's deadline.
const GOODBYE: Duration = Duration::from_secs(5);

/// How long handlers that are cut off may take to let go of what they hold.
const FAREWELL: Duration = Duration::from_secs(1);

pub(super) async fn drain(mut this: PollLoop, workers: Tasks, deadline: Instant) -> DrainReport {
    let shared = Arc::clone(&this.shared);
    let id = &shared.scope.id;
    let mut report = DrainReport::default();
    this.sought.note_all(&shared);
    let parts = shared.change(Flow::close_all);
    idle_by(&mut this, &parts, deadline).await;
    // Commits are served as long as handlers may wait for one, until here; this one is the last.
    match timeout_at(deadline.max(Instant::now()) + GOODBYE, shared.commit_of(&parts)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(listener = %id, %error, "the last commit failed");
            report.uncommitted.push(Arc::clone(id));
        }
        Err(_) => report.uncommitted.push(Arc::clone(id)),
    }
    shared.commits.end();
    report.unfinished = unfinished(&this, &parts);
    // Acknowledgements that somebody holds, and handlers that cannot be stopped, are not waited for any more: neither
    // here nor when the group is left.
    shared.change(|flow| parts.iter().for_each(|part| flow.give_up(*part)));
    // Who works on with a blocked thread does so without us.
    let _ = timeout(FAREWELL, workers.shutdown()).await;
    if let Some(transactions) = &shared.transactions
        && timeout(GOODBYE, transactions.close()).await.is_err()
    {
        tracing::warn!(listener = %id, "ending its transactions took too long; the coordinator ends them");
    }
    match timeout(GOODBYE, this.consumer.close_within(GOODBYE)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(listener = %id, %error, "leaving the group failed"),
        Err(_) => tracing::warn!(listener = %id, "leaving the group took too long"),
    }
    report
}

/// Waits until nothing is in work, or the deadline, which may be drawn nearer meanwhile.
async fn idle_by(this: &mut PollLoop, parts: &[PartId], mut deadline: Instant) {
    let shared = Arc::clone(&this.shared);
    let idle = shared.idle(parts);
    tokio::pin!(idle);
    loop {
        tokio::select! {
            () = &mut idle => return,
            () = sleep_until(deadline) => return,
            // The handler that is waited for may be who gives it.
            Some(command) = this.commands.recv() => refuse(command),
            Ok(()) = this.stopping.changed() => {
                let asked = *this.stopping.borrow_and_update();
                deadline = asked.map_or(deadline, |asked| asked.min(deadline));
            }
        }
    }
}

fn unfinished(this: &PollLoop, parts: &[PartId]) -> Vec<UnfinishedRecord> {
    let mut records = Vec::new();
    for part in parts {
        let of_part = this.shared.look(|flow| (flow.place(*part).cloned(), flow.begun_and_unfinished(*part)));
        let (Some(place), offsets) = of_part else { continue };
        records.extend(offsets.into_iter().map(|offset| UnfinishedRecord {
            listener: Arc::clone(&this.shared.scope.id),
            topic: Arc::clone(&place.topic),
            partition: place.partition,
            offset,
        }));
    }
    records
}
