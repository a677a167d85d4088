//! Clients that write: producers with and without idempotence, and those with transactions over two partitions.

use std::sync::Arc;
use std::time::Duration;

use klamm_client::{Delivery, EnqueueError, Record, TransactionError, TransactionalProducer};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::operation::{Place, Send, Transaction, What};
use super::recorder::{Ticket, payload};
use super::world::{
    DELIVERY, Failure, INPUT, INPUT_PARTITIONS, MOVED, OUTPUT_PARTITIONS, REQUEST, Stop, TRANSACTION, World,
};

/// Records of one producer that are on their way, at most.
const ON_THEIR_WAY: usize = 40;

/// Writes to the input, each record once as far as it can tell.
pub(super) async fn write(world: Arc<World>, name: String, idempotent: bool) {
    loop {
        let life = write_until_it_fails(&world, &name, idempotent).await;
        if !world.goes_on(&name, Stop::Writers, life).await {
            return;
        }
    }
}

async fn write_until_it_fails(world: &Arc<World>, name: &str, idempotent: bool) -> Result<(), Failure> {
    let client = world.client().await?;
    let producer = client.producer().idempotent(idempotent).batch_bytes(2_000).max_block(DELIVERY);
    let producer = producer.delivery_timeout(DELIVERY).request_timeout(REQUEST).build()?;
    let mut deliveries = JoinSet::new();
    while !world.stops(Stop::Writers) {
        let partition = i32::try_from(world.below(INPUT_PARTITIONS as u64))?;
        let place = Place { topic: INPUT, partition };
        let (ticket, record) = new_record(world, name, place, idempotent, None, None);
        deliver(world, &mut deliveries, ticket, producer.enqueue(record).await);
        if world.below(3) == 0 {
            sleep(Duration::from_millis(1 + world.below(6))).await;
        }
        while deliveries.len() > ON_THEIR_WAY {
            deliveries.join_next().await;
        }
        while deliveries.try_join_next().is_some() {}
    }
    // What is not delivered by now is known to be, or not.
    let closed = world.wait(name, "close", producer.close()).await;
    while deliveries.join_next().await.is_some() {}
    closed
}

/// A record that nobody has sent yet, written down as begun.
pub(super) fn new_record(
    world: &World,
    name: &str,
    place: Place,
    idempotent: bool,
    transaction: Option<&Transaction>,
    source: Option<(Place, i64)>,
) -> (Ticket, Record) {
    let number = world.recorder.number();
    let record = Record::to(place.topic).partition(place.partition).value(payload(number));
    let transaction = transaction.cloned();
    let send = Send { place, number, idempotent, transaction, source, offset: None };
    (world.recorder.begin(name, What::Send(send)), record)
}

/// Waits for what becomes of a record, and writes it down.
pub(super) fn deliver(
    world: &Arc<World>,
    deliveries: &mut JoinSet<()>,
    ticket: Ticket,
    taken: Result<Delivery, EnqueueError>,
) {
    match taken {
        Ok(delivery) => {
            let world = Arc::clone(world);
            drop(deliveries.spawn(async move {
                let told = delivery.await;
                world.recorder.delivered(ticket, told.as_ref().map(|written| written.offset));
            }));
        }
        Err(error) => world.recorder.delivered(ticket, Err(error.error())),
    }
}

/// Begins a transaction; the error is for good where nobody can begin another.
pub(super) struct Mover {
    pub(super) world: Arc<World>,
    pub(super) name: String,
    pub(super) id: String,
    /// Whether it ends when another one has its transactional id.
    pub(super) twin: bool,
}

impl Mover {
    /// Writes to two partitions in transactions.
    pub(super) async fn run(self) {
        while !self.world.stops(Stop::Writers) {
            let Err(error) = self.until_it_fails().await else { continue };
            self.world.recorder.trouble(&self.name, &error);
            let fenced = is_fenced(&error);
            if fenced && self.twin {
                return;
            }
            let pause = if fenced { 50 + self.world.below(300) } else { 5 + self.world.below(20) };
            sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn until_it_fails(&self) -> Result<(), Failure> {
        let mut producer = transactional(&self.world, &self.id).await?;
        let instance = self.world.recorder.number();
        while !self.world.stops(Stop::Writers) {
            let moved = self.transaction(&mut producer, instance).await;
            moved.or_else(|error| if is_fatal(&error) { Err(error) } else { Ok(()) })?;
        }
        self.world.wait(&self.name, "close", producer.close()).await
    }

    async fn transaction(&self, producer: &mut TransactionalProducer, instance: u64) -> Result<(), Failure> {
        let (world, name) = (&self.world, &self.name);
        let one = Transaction { id: self.id.clone(), instance, number: world.recorder.number() };
        let ticket = world.recorder.begin(name, What::Begin(one.clone()));
        let transaction = world.wait(name, "begin", producer.begin()).await?;
        world.recorder.done(ticket);
        let mut deliveries = JoinSet::new();
        for _ in 0..=world.below(4) {
            for partition in 0..OUTPUT_PARTITIONS {
                let place = Place { topic: MOVED, partition };
                let (ticket, record) = new_record(world, name, place, true, Some(&one), None);
                deliver(world, &mut deliveries, ticket, transaction.enqueue(record).await);
            }
            if world.below(3) == 0 {
                sleep(Duration::from_millis(world.below(25))).await;
            }
        }
        if world.below(20) == 0 {
            // Longer than it may take: its coordinator gives it up.
            sleep(TRANSACTION + Duration::from_millis(world.below(300))).await;
        }
        let commit = world.below(5) > 0;
        let ticket = world.recorder.begin(name, What::End { transaction: one, commit });
        let ended = match commit {
            true => world.wait(name, "commit", transaction.commit()).await,
            false => world.wait(name, "abort", transaction.abort()).await,
        };
        note_end(world, ticket, commit, &ended);
        while deliveries.join_next().await.is_some() {}
        ended
    }
}

/// What the end of a transaction came to.
pub(super) fn note_end(world: &World, ticket: Ticket, commit: bool, ended: &Result<(), Failure>) {
    match ended {
        Ok(()) => world.recorder.done(ticket),
        Err(error) => {
            let told = error.downcast_ref::<TransactionError>();
            if commit && told.is_some_and(|error| !error.may_have_been_committed()) {
                world.recorder.failed(ticket);
            }
        }
    }
}

pub(super) async fn transactional(world: &World, id: &str) -> Result<TransactionalProducer, Failure> {
    let producer = world.client().await?.producer();
    let producer = producer.delivery_timeout(DELIVERY).request_timeout(REQUEST).max_block(DELIVERY);
    Ok(producer.transactional_id(id).transaction_timeout(TRANSACTION).build()?)
}

pub(super) fn is_fenced(error: &Failure) -> bool {
    matches!(error.downcast_ref(), Some(TransactionError::Fenced { .. }))
}

/// Whether this producer can begin no other transaction.
fn is_fatal(error: &Failure) -> bool {
    error.downcast_ref::<TransactionError>().is_none_or(TransactionError::is_fatal)
}
