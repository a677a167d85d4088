//! The transactions of a listener: one after the other in each partition, under a name that belongs to the partition.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_client::{Acks, Client, ConfigError, TopicPartition, TransactionalProducer};
use tokio::sync::{Mutex as Turns, MutexGuard as HasTurn, mpsc};
use tokio::time::Instant;

use super::faults::{Patience, mark, transactional_id};
use super::item::Item;
use super::outputs::What;
use super::sending::Sending;
use crate::listener::builder::Settings;
use crate::listener::flow::{PartId, Safe, Ticket};

/// All that a transactional listener has beside what others have.
pub(super) struct Transactions {
    client: Client,
    group: Arc<str>,
    prefix: Arc<str>,
    pub(super) timeout: Duration,
    desks: Mutex<BTreeMap<PartId, Arc<Desk>>>,
    /// Of the next transaction.
    number: AtomicU64,
    /// Partitions that came: what their last owner left open is to be ended.
    pub(super) came: mpsc::UnboundedSender<PartId>,
}

/// Where the transactions of one partition are made, from its assignment to its end. The next assignment has another
/// one, whose producer fences this one's.
pub(super) struct Desk {
    pub(super) place: TopicPartition,
    turn: Turns<Turn>,
}

/// Whoever has the turn makes the partition's next transaction.
pub(super) struct Turn {
    /// None before the first, and after it was fenced.
    pub(super) producer: Option<TransactionalProducer>,
    pub(super) notes: Notes,
}

/// What one transaction leaves to the next.
pub(super) struct Notes {
    /// What was to be committed and may have been.
    pub(super) unknown: Option<Asked>,
    pub(super) patience: Patience,
    /// By offset: records that are given up and wait for a transaction of their own.
    given_up: BTreeMap<i64, GivenUp>,
    /// The last record that shares no transaction, after one that it had shared came to nothing.
    alone_to: Option<i64>,
}

/// A commit that was asked for.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) safe: Safe,
    /// What it wrote beside the offset.
    pub(super) mark: Arc<str>,
    /// When the transaction began.
    pub(super) began: Instant,
}

/// A record that is given up: what is to be sent, and how that went so far.
pub(super) struct GivenUp {
    pub(super) ticket: Ticket,
    pub(super) what: What,
    pub(super) sending: Sending,
    pub(super) told: bool,
}

impl Transactions {
    /// And where it is told which partitions came.
    pub(super) fn new(
        client: &Client,
        settings: &Settings,
        timeout: Duration,
    ) -> (Self, mpsc::UnboundedReceiver<PartId>) {
        let (came, coming) = mpsc::unbounded_channel();
        let (group, prefix) = (Arc::clone(&settings.group), Arc::clone(&settings.transactional_id_prefix));
        let (desks, number) = (Mutex::default(), AtomicU64::new(0));
        (Self { client: client.clone(), group, prefix, timeout, desks, number, came }, coming)
    }

    /// The desk of a partition; made when it is asked for first.
    pub(super) fn desk(&self, part: PartId, place: &TopicPartition) -> Arc<Desk> {
        let make = || {
            let (given_up, alone_to) = (BTreeMap::new(), None);
            let notes = Notes { unknown: None, patience: Patience::new(), given_up, alone_to };
            Arc::new(Desk { place: place.clone(), turn: Turns::new(Turn { producer: None, notes }) })
        };
        Arc::clone(self.desks().entry(part).or_insert_with(make))
    }

    /// These partitions are another member's now.
    pub(super) fn gone(&self, parts: &[PartId]) {
        let gone: Vec<_> = {
            let mut desks = self.desks();
            parts.iter().filter_map(|part| desks.remove(part)).collect()
        };
        drop(gone);
    }

    /// What the next transaction writes beside its offset.
    pub(super) fn mark(&self, member_id: &str) -> Arc<str> {
        mark(member_id, self.number.fetch_add(1, Ordering::Relaxed))
    }

    /// A producer for the partition's transactions; its first one fences the producer before it, and ends what that
    /// left open.
    ///
    /// # Errors
    /// Settings of the client that cannot work.
    pub(super) fn producer(&self, place: &TopicPartition) -> Result<TransactionalProducer, ConfigError> {
        let builder = self.client.producer().idempotent(true).acks(Acks::All);
        let builder = builder.transactional_id(transactional_id(&self.prefix, &self.group, place));
        builder.transaction_timeout(self.timeout).build()
    }

    /// Ends all producers, and waits for it. What somebody works on still is ended behind its back.
    pub(super) async fn close(&self) {
        let desks = std::mem::take(&mut *self.desks());
        let closing = desks.into_values().filter_map(|desk| {
            let producer = desk.turn.try_lock().ok()?.producer.take()?;
            Some(producer.close())
        });
        for closed in futures::future::join_all(closing).await {
            if let Err(error) = closed {
                tracing::warn!(%error, "a transaction was not ended in good order; the coordinator ends it");
            }
        }
    }

    fn desks(&self) -> MutexGuard<'_, BTreeMap<PartId, Arc<Desk>>> {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    /// Waits for the turn.
    pub(super) async fn turn(&self) -> HasTurn<'_, Turn> {
        self.turn.lock().await
    }

    /// The turn, unless somebody has it.
    pub(super) fn free_turn(&self) -> Option<HasTurn<'_, Turn>> {
        self.turn.try_lock().ok()
    }
}

impl Notes {
    /// These records shared a transaction that came to nothing: each has one of its own the next time.
    pub(super) fn apart(&mut self, items: &[Item]) {
        self.alone_to = self.alone_to.max(items.iter().map(|item| item.record.offset).max());
    }

    /// Whether the record at this offset shares no transaction.
    pub(super) fn is_alone(&self, offset: i64) -> bool {
        self.alone_to.is_some_and(|last| offset <= last)
    }

    pub(super) fn give_up(&mut self, offset: i64, given_up: GivenUp) {
        self.given_up.insert(offset, given_up);
    }

    /// Takes out what is to become of this delivery, if it is given up.
    pub(super) fn take_given_up(&mut self, offset: i64, ticket: Ticket) -> Option<GivenUp> {
        // The same offset may have come anew.
        self.given_up.remove(&offset).filter(|given_up| given_up.ticket == ticket)
    }

    /// What is to become of the record at this offset, which is given up.
    pub(super) fn given_up(&self, offset: i64) -> Option<&GivenUp> {
        self.given_up.get(&offset)
    }

    pub(super) fn is_given_up(&self, offset: i64, ticket: Ticket) -> bool {
        self.given_up.get(&offset).is_some_and(|given_up| given_up.ticket == ticket)
    }
}
