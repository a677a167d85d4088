//! Clients in groups: members that process and then commit, and copiers that commit with what they write.

use std::sync::Arc;
use std::time::Duration;

use klamm_client::{
    Assignor, Consumer, ConsumerRecords, IsolationLevel, TopicPartition, TransactionalProducer,
};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::operation::{Found, Isolation, Micros, Place, Read, Transaction, What};
use super::recorder::number_of;
use super::sessions::Sessions;
use super::world::{
    COPIERS, COPIES, Failure, HEARTBEAT, INPUT, OUTPUT_PARTITIONS, READERS, REQUEST, SESSION, Stop, World,
    place,
};
use super::writers::{deliver, is_fenced, new_record, note_end, transactional};

/// What a rebalance waits for.
const REBALANCE: Duration = Duration::from_secs(3);
const CLOSE: Duration = Duration::from_secs(6);
/// How long a member waits for records before it looks whether it is to stop.
const WAIT: Duration = Duration::from_millis(200);

async fn join(
    world: &Arc<World>,
    name: &str,
    group: &'static str,
    isolation: IsolationLevel,
    assignor: Assignor,
) -> Result<(Consumer, Arc<Sessions>), Failure> {
    let sessions = Sessions::new(world, name, group);
    let consumer = world.client().await?.consumer().group(group).topics([INPUT]).isolation(isolation);
    let consumer =
        consumer.session_timeout(SESSION).heartbeat_interval(HEARTBEAT).rebalance_timeout(REBALANCE);
    let consumer = consumer.assignor(assignor).fetch_max_wait(WAIT / 2).request_timeout(REQUEST);
    let consumer = consumer.rebalance_listener(Arc::clone(&sessions) as _).from_beginning();
    let consumer = world.wait(name, "start", consumer.start()).await?;
    sessions.started(consumer.handle());
    Ok((consumer, sessions))
}

/// The next that there is in a while, with when it was asked for and when it was there.
async fn poll(
    world: &World,
    consumer: &mut Consumer,
) -> Result<Option<(ConsumerRecords, Micros, Micros)>, Failure> {
    let begun = world.recorder.now();
    match timeout(WAIT, consumer.next_batch()).await {
        Err(_) => Ok(None),
        Ok(None) => Err("the consumer has ended".into()),
        Ok(Some(Ok(batch))) => Ok(Some((batch, begun, world.recorder.now()))),
        Ok(Some(Err(error))) if error.is_retriable() => Ok(None),
        Ok(Some(Err(error))) => Err(error.into()),
    }
}

/// Writes down what was read.
pub(super) fn note_read(
    world: &World,
    name: &str,
    begun: Micros,
    batch: &ConsumerRecords,
    (session, isolation, group): (u64, Isolation, Option<&'static str>),
) {
    let place = place(&batch.topic, batch.partition);
    let records = batch.records.iter().map(|record| Found {
        offset: record.offset,
        number: number_of(record.value.as_deref()),
        epoch: record.leader_epoch.unwrap_or(-1),
    });
    let (records, next) = (records.collect(), batch.next_offset);
    world.recorder.note(name, begun, What::Read(Read { place, isolation, session, group, records, next }));
}

/// A member that commits what it has processed.
pub(super) async fn read_as_member(world: Arc<World>, name: String, assignor: Assignor) {
    loop {
        let life = be_member(&world, &name, assignor).await;
        if !world.goes_on(&name, Stop::All, life).await {
            return;
        }
    }
}

async fn be_member(world: &Arc<World>, name: &str, assignor: Assignor) -> Result<(), Failure> {
    let joined = join(world, name, READERS, IsolationLevel::ReadUncommitted, assignor).await?;
    let (mut consumer, sessions) = joined;
    let ended = process(world, name, &mut consumer, &sessions).await;
    // One that only goes away is waited for by the others.
    world.wait(name, "close", consumer.close_within(CLOSE)).await.and(ended)
}

async fn process(
    world: &World,
    name: &str,
    consumer: &mut Consumer,
    sessions: &Sessions,
) -> Result<(), Failure> {
    while !world.stops(Stop::All) {
        let Some((batch, begun, got)) = poll(world, consumer).await? else { continue };
        let _work = sessions.work.lock().await;
        let at = place(&batch.topic, batch.partition);
        let Some((session, metadata)) = sessions.of(at, got) else { continue };
        note_read(world, name, begun, &batch, (session, Isolation::Uncommitted, Some(READERS)));
        let (generation, member) = (metadata.generation, metadata.member_id.to_string());
        let offset = batch.next_offset;
        let commit = What::Commit { group: READERS, generation, member, place: at, offset, again: false };
        let (cuts, asked) = (world.net.counts(), world.recorder.now());
        let ticket = world.recorder.begin(name, commit);
        let handle = consumer.handle();
        match world.wait(name, "commit", handle.commit([(batch.topic_partition(), offset)])).await {
            Ok(()) => world.recorder.done_with(ticket, |what| {
                let slow = u128::from(world.recorder.now() - asked) >= REQUEST.as_micros();
                if let What::Commit { again, .. } = what {
                    *again = slow || world.net.counts() != cuts;
                }
            }),
            // It may have been done.
            Err(error) => world.recorder.trouble(name, &error),
        }
    }
    Ok(())
}

/// Reads committed records of the input and writes a copy of each, in transactions.
pub(super) struct Copier {
    pub(super) world: Arc<World>,
    pub(super) name: String,
    pub(super) id: String,
    /// Whether it ends when another one has its transactional id.
    pub(super) twin: bool,
}

impl Copier {
    pub(super) async fn run(self) {
        while !self.world.stops(Stop::All) {
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
        let (world, name) = (&self.world, &self.name);
        let isolation = IsolationLevel::ReadCommitted;
        let (mut consumer, sessions) = join(world, name, COPIERS, isolation, Assignor::default()).await?;
        let mut producer = transactional(world, &self.id).await?;
        let instance = world.recorder.number();
        let mut ended = Ok(());
        while ended.is_ok() && !world.stops(Stop::All) {
            ended = match poll(world, &mut consumer).await {
                Ok(Some(read)) => self.copy(&mut producer, instance, &sessions, read).await,
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
        }
        // What was read and not copied is to be read again, by whoever has it then.
        let closed = world.wait(name, "close", consumer.close_within(CLOSE)).await;
        if let Err(error) = closed {
            world.recorder.trouble(name, &error);
        }
        world.wait(name, "close", producer.close()).await.and(ended)
    }

    async fn copy(
        &self,
        producer: &mut TransactionalProducer,
        instance: u64,
        sessions: &Sessions,
        (batch, begun, got): (ConsumerRecords, Micros, Micros),
    ) -> Result<(), Failure> {
        let (world, name) = (&self.world, &self.name);
        let _work = sessions.work.lock().await;
        let at = place(&batch.topic, batch.partition);
        let Some((session, metadata)) = sessions.of(at, got) else { return Ok(()) };
        note_read(world, name, begun, &batch, (session, Isolation::Committed, Some(COPIERS)));
        let one = Transaction { id: self.id.clone(), instance, number: world.recorder.number() };
        let ticket = world.recorder.begin(name, What::Begin(one.clone()));
        let transaction = world.wait(name, "begin", producer.begin()).await?;
        world.recorder.done(ticket);
        let mut deliveries = JoinSet::new();
        for record in &batch.records {
            let partition = i32::try_from(world.below(OUTPUT_PARTITIONS as u64))?;
            let to = Place { topic: COPIES, partition };
            let source = Some((at, record.offset));
            let (ticket, record) = new_record(world, name, to, true, Some(&one), source);
            deliver(world, &mut deliveries, ticket, transaction.enqueue(record).await);
        }
        let offsets = vec![(at, batch.next_offset)];
        let what = What::SendOffsets { transaction: one.clone(), group: COPIERS, offsets };
        let ticket = world.recorder.begin(name, what);
        let offsets = [(TopicPartition::new(at.topic, at.partition), batch.next_offset)];
        world.wait(name, "send offsets", transaction.send_offsets(offsets, &metadata)).await?;
        world.recorder.done(ticket);
        let commit = world.below(60) > 0;
        let ticket = world.recorder.begin(name, What::End { transaction: one, commit });
        let ended = match commit {
            true => world.wait(name, "commit", transaction.commit()).await,
            false => world.wait(name, "abort", transaction.abort()).await,
        };
        note_end(world, ticket, commit, &ended);
        while deliveries.join_next().await.is_some() {}
        ended?;
        if commit { Ok(()) } else { Err("aborted: what was read comes again".into()) }
    }
}
