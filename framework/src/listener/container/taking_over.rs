//! Partitions that come: what their last owner left open is ended at once, however that one ended, so that nobody waits
//! for the timeout of its transaction. Reading begins behind it.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::concluding::{bear, worked};
use super::conducting::{Wrong, producer_in};
use super::shared::Shared;
use super::transactions::{Desk, Transactions, Turn};
use crate::listener::flow::PartId;

/// How many are taken over at once.
const AT_ONCE: usize = 32;

/// Takes over until it is dropped.
pub(super) async fn run(shared: Arc<Shared>, mut coming: mpsc::UnboundedReceiver<PartId>) {
    let Some(transactions) = &shared.transactions else { return };
    let coming = stream::poll_fn(move |cx| coming.poll_recv(cx));
    coming.for_each_concurrent(AT_ONCE, |part| take_over(&shared, transactions, part)).await;
}

async fn take_over(shared: &Shared, transactions: &Transactions, part: PartId) {
    loop {
        let desk = shared.look(|flow| {
            let place = flow.place(part).filter(|_| !flow.is_closed(part));
            place.map(|place| transactions.desk(part, place))
        });
        let Some(desk) = desk else { return };
        let Err(wait) = try_once(shared, transactions, &desk).await else { return };
        let Some(wait) = wait else { return };
        tokio::select! {
            biased;
            () = shared.closed(part) => return,
            () = sleep(wait) => {}
        }
    }
}

/// Gives how long to wait before the next try; nothing when the listener stops.
async fn try_once(shared: &Shared, transactions: &Transactions, desk: &Desk) -> Result<(), Option<Duration>> {
    let mut turn = desk.turn().await;
    let Turn { producer, notes } = &mut *turn;
    if producer.is_some() && notes.patience.is_fresh() {
        // A record was faster.
        return Ok(());
    }
    let begun = match producer_in(producer, transactions, &desk.place) {
        Ok(producer) => producer.begin().await.map(drop).map_err(|error| Wrong::of_step(&error)),
        Err(wrong) => Err(wrong),
    };
    match begun {
        Ok(()) => {
            worked(shared, desk, &mut turn.notes);
            Ok(())
        }
        Err(wrong) => Err(bear(shared, desk, &mut turn, &wrong)),
    }
}
