//! What becomes of the records of a unit when its transaction has ended, one way or another.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::call::{Failed, Failures, tell_interceptors};
use super::conducting::{Halt, Outcome, Wrong};
use super::faults::{Fault, Next};
use super::given_up::{given_up, is_there, refused};
use super::handling::failures;
use super::judge::{Judged, decide, stop};
use super::shared::{Item, Shared};
use super::status::ListenerFailure;
use super::transactions::{Desk, Notes, Turn};
use super::troubles::Subject;
use crate::listener::failure::Failure;
use crate::listener::flow::{PartId, Safe, after};

/// Notes what is finished, and gives what comes again.
pub(super) fn conclude(
    shared: &Shared,
    desk: &Desk,
    turn: &mut Turn,
    (part, is_given_up): (PartId, bool),
    mut items: Vec<Item>,
    outcome: Outcome,
) -> Vec<Item> {
    let is_shared = shared.settings.shared_transaction.is_some() && items.len() > 1;
    if is_shared && is_of_records(&outcome) {
        turn.notes.apart(&items);
    }
    match outcome {
        Outcome::Done(safe) => {
            worked(shared, desk, &mut turn.notes);
            if !is_given_up {
                tell_interceptors(shared, &items, &Failures::new());
            }
            finish(shared, &mut turn.notes, &safe, &items);
            Vec::new()
        }
        Outcome::Before(safe) => {
            worked(shared, desk, &mut turn.notes);
            if shared.look(|flow| flow.is_current(&safe)) {
                let rest = items.split_off(items.partition_point(|item| item.record.offset < safe.offset));
                finish(shared, &mut turn.notes, &safe, &items);
                items = rest;
            }
            items
        }
        Outcome::Failed(failures) => again(shared, part, &mut turn.notes, items, failures),
        Outcome::Apart => items,
        Outcome::Halted(Halt::Refused(_) | Halt::Overdue(_)) if is_shared => items,
        Outcome::Halted(Halt::Void) => Vec::new(),
        Outcome::Halted(Halt::Refused(error)) if is_given_up => {
            let wait = items.first().map(|item| refused(shared, &mut turn.notes, part, item, error));
            delayed(items, wait.flatten())
        }
        Outcome::Halted(Halt::Overdue(error)) if is_given_up => {
            halted(shared, desk, turn, part, items, &Wrong::passing(error.to_string()))
        }
        Outcome::Halted(Halt::Refused(error)) => {
            not_committed(shared, part, turn, items, Failure::not_committed(error))
        }
        Outcome::Halted(Halt::Overdue(error)) => {
            not_committed(shared, part, turn, items, Failure::not_committed(error))
        }
        Outcome::Halted(Halt::Wrong(wrong)) => halted(shared, desk, turn, part, items, &wrong),
    }
}

/// Whether it came to nothing because of a record.
fn is_of_records(outcome: &Outcome) -> bool {
    let halted = matches!(outcome, Outcome::Halted(Halt::Refused(_) | Halt::Overdue(_)));
    halted || matches!(outcome, Outcome::Failed(_) | Outcome::Apart)
}

/// The records are finished, as far as this was safe to commit.
fn finish(shared: &Shared, notes: &mut Notes, safe: &Safe, items: &[Item]) {
    shared.finish_committed(safe, items);
    items.iter().for_each(|item| is_there(shared, notes, item));
}

/// All failed, when their handler was done.
fn not_committed(
    shared: &Shared,
    part: PartId,
    turn: &mut Turn,
    items: Vec<Item>,
    failure: Failure,
) -> Vec<Item> {
    let failed = failures(&items, failure);
    tell_interceptors(shared, &items, &failed);
    again(shared, part, &mut turn.notes, items, failed)
}

/// Some failed, and nothing is committed: the others come again as they came.
fn again(
    shared: &Shared,
    part: PartId,
    notes: &mut Notes,
    items: Vec<Item>,
    failures: Failures,
) -> Vec<Item> {
    let (mut back, failed) = apart(items, failures);
    back.extend(judge(shared, part, notes, failed));
    back
}

/// Takes out what failed. `failures` come by rising index.
fn apart(items: Vec<Item>, failures: Failures) -> (Vec<Item>, Failed) {
    let (mut others, mut failed) = (Vec::with_capacity(items.len()), Failed::new());
    let mut failures = failures.into_iter().peekable();
    for (index, item) in items.into_iter().enumerate() {
        match failures.next_if(|(failed, _)| *failed == index) {
            Some((_, failure)) => failed.push((item, failure)),
            None => others.push(item),
        }
    }
    (others, failed)
}

/// Asks the failure policy. Gives what comes again: to be handled once more, or to be sent where it belongs.
pub(super) fn judge(shared: &Shared, part: PartId, notes: &mut Notes, failed: Failed) -> Vec<Item> {
    let mut back = Vec::with_capacity(failed.len());
    for (mut item, failure) in failed {
        if !shared.look(|flow| flow.wants(item.ticket)) {
            continue;
        }
        match decide(shared, &mut item, &failure) {
            Judged::Retry(wait) => {
                item.due = Some(after(Instant::now(), wait));
                back.push(item);
            }
            Judged::Send(what) => {
                notes.give_up(item.record.offset, given_up(shared, &item, what));
                back.push(item);
            }
            // The next transaction takes the offset along.
            Judged::Skip => shared.finish([item.ticket]),
            Judged::Stop => stop(shared, part, &item, failure),
        }
    }
    back
}

/// A step succeeded.
pub(super) fn worked(shared: &Shared, desk: &Desk, notes: &mut Notes) {
    if notes.patience.worked() {
        shared.troubles.over(&Subject::Transactions(desk.place.clone()));
    }
}

/// No record is to blame: all come again, and it does not count.
fn halted(
    shared: &Shared,
    desk: &Desk,
    turn: &mut Turn,
    part: PartId,
    items: Vec<Item>,
    wrong: &Wrong,
) -> Vec<Item> {
    match bear(shared, desk, turn, wrong) {
        Some(wait) => delayed(items, Some(wait)),
        None => {
            shared.change(|flow| flow.close(part));
            Vec::new()
        }
    }
}

/// After something that no record is to blame for: how long to wait. `None`: the listener stops.
pub(super) fn bear(shared: &Shared, desk: &Desk, turn: &mut Turn, wrong: &Wrong) -> Option<Duration> {
    let (listener, Wrong { fault, text }) = (&shared.scope.id, wrong);
    if *fault == Fault::Fenced {
        turn.producer = None;
    }
    match turn.notes.patience.failed(*fault, Instant::now(), shared.rng.next_u64()) {
        Next::Again { wait, tell } => {
            if tell {
                let reason = format!("its transactions fail, and are tried again: {text}");
                shared.troubles.tell(listener, Subject::Transactions(desk.place.clone()), &reason);
            } else {
                tracing::warn!(
                    %listener, partition = %desk.place, reason = text, retry_in = ?wait,
                    "a transaction failed; nothing of it is visible"
                );
            }
            Some(wait)
        }
        Next::Stop => {
            let (partition, reason) = (desk.place.clone(), Arc::from(&**text));
            shared.fail(ListenerFailure::Transactions { partition, reason });
            None
        }
    }
}

fn delayed(mut items: Vec<Item>, wait: Option<Duration>) -> Vec<Item> {
    let Some(wait) = wait else { return Vec::new() };
    let due = after(Instant::now(), wait);
    items.iter_mut().for_each(|item| item.due = Some(due));
    items
}
