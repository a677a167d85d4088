//! One unit of a transactional listener's work, a record, several that share a transaction, or a batch: what the
//! handler sends, what becomes of records that are given up, and the offset behind them are committed together, or not
//! at all.

use std::sync::Arc;

use super::call::sift;
use super::concluding::{conclude, judge};
use super::conducting::{Begun, Halt, Outcome, begin, committed, producer_in};
use super::given_up::send_off;
use super::handling::handle;
use super::idle_offsets::commit_place;
use super::item::Hand;
use super::shared::Shared;
use super::transactions::{Desk, Notes, Transactions, Turn};
use crate::listener::flow::PartId;

/// Has records of a partition handled in a transaction. What comes again is in `hand.back` then.
pub(super) async fn unit(shared: &Arc<Shared>, transactions: &Transactions, part: PartId, hand: &mut Hand) {
    hand.items.retain(|item| shared.look(|flow| flow.wants(item.ticket)));
    let Some(first) = hand.items.first().map(|item| item.ticket) else { return };
    // A partition that is gone has none, and gets none.
    let desk = shared.look(|flow| {
        let place = flow.place(part).filter(|_| !flow.is_gone(part));
        place.map(|place| transactions.desk(part, place))
    });
    let Some(desk) = desk else { return hand.items.clear() };
    let mut turn = tokio::select! {
        biased;
        turn = desk.turn() => turn,
        () = shared.void(first) => return hand.items.clear(),
    };
    let given_up = split(&turn.notes, hand);
    if shared.settings.shared_transaction.is_some() && turn.notes.is_alone(first.offset()) {
        hand.begin_only(1);
    }
    if given_up {
        hand.begun_to = Some(first.offset());
    } else {
        let refused = sift(shared, &mut hand.items);
        if let Some((first, _)) = refused.first() {
            // Nothing above an unfinished record may be committed: it would come again with it.
            hand.begun_to = Some(first.record.offset);
            let below = hand.items.partition_point(|item| item.record.offset < first.record.offset);
            hand.begin_only(below);
        }
        hand.back.extend(judge(shared, part, &mut turn.notes, refused));
    }
    if !hand.items.is_empty() {
        let outcome = conduct(shared, transactions, &desk, &mut turn, (part, given_up), hand).await;
        let items = std::mem::take(&mut hand.items);
        hand.back.extend(conclude(shared, &desk, &mut turn, (part, given_up), items, outcome));
    }
    hand.back.sort_by_key(|item| item.record.offset);
}

/// Leaves one record that is given up, or those before the first such; `true`: the former.
fn split(notes: &Notes, hand: &mut Hand) -> bool {
    let at = hand.items.iter().position(|item| notes.is_given_up(item.record.offset, item.ticket));
    if let Some(at) = at {
        hand.begin_only(at.max(1));
    }
    at == Some(0)
}

async fn conduct(
    shared: &Arc<Shared>,
    transactions: &Transactions,
    desk: &Desk,
    Turn { producer, notes }: &mut Turn,
    (part, given_up): (PartId, bool),
    hand: &mut Hand,
) -> Outcome {
    let first = hand.items[0].ticket;
    let producer = match producer_in(producer, transactions, &desk.place) {
        Ok(producer) => producer,
        Err(wrong) => return Outcome::Halted(Halt::Wrong(wrong)),
    };
    if notes.unknown.is_none() && shared.look(|flow| flow.is_moved(part)) {
        // Before anything is made of what is there: it would be made again if we ended now.
        let committed = commit_place(shared, producer, part).await;
        if let Err(wrong) = committed {
            return Outcome::Halted(Halt::Wrong(wrong));
        }
    }
    let (transaction, began) = {
        let begun = tokio::select! {
            biased;
            begun = begin(shared, producer, notes, &desk.place) => begun,
            () = shared.void(first) => return Outcome::Halted(Halt::Void),
        };
        match begun {
            Ok(Begun::Open(transaction, began)) => (transaction, began),
            Ok(Begun::Before(asked)) => return Outcome::Before(asked.safe),
            Err(wrong) => return Outcome::Halted(Halt::Wrong(wrong)),
        }
    };
    let (transaction, asked) = {
        let filled = match given_up {
            true => send_off(shared, transactions, (transaction, began), part, &hand.items[0], notes).await,
            false => handle(shared, transactions, (transaction, began), part, hand).await,
        };
        match filled {
            Ok(filled) => filled,
            Err(outcome) => return outcome,
        }
    };
    // From here on it may be committed, whatever becomes of us.
    notes.unknown = Some(asked.clone());
    let answer = transaction.commit().await;
    let committed = tokio::select! {
        biased;
        committed = committed(shared, transactions, producer, notes, (asked, answer)) => committed,
        () = shared.void(first) => Err(Halt::Void),
    };
    match committed {
        Ok(safe) => Outcome::Done(safe),
        Err(halt) => Outcome::Halted(halt),
    }
}
