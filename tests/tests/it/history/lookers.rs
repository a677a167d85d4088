//! Clients that only look: readers of everything, and who asks for the ends of logs and for committed offsets.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::admin::OffsetSpec;
use klamm_client::{Client, ConsumerHandle, IsolationLevel};
use tokio::time::{sleep, timeout};

use super::groups::note_read;
use super::operation::{End, Isolation, Place, Read, What};
use super::world::{
    COPIERS, Failure, INPUT, INPUT_PARTITIONS, READERS, REQUEST, Stop, World, partition, place, places,
};

const WAIT: Duration = Duration::from_millis(200);
/// So often does one client ask before the next one does.
const QUESTIONS: u64 = 8;

pub(super) fn level(isolation: Isolation) -> IsolationLevel {
    match isolation {
        Isolation::Uncommitted => IsolationLevel::ReadUncommitted,
        Isolation::Committed => IsolationLevel::ReadCommitted,
    }
}

/// Reads all partitions from their beginning, and again when something fails.
pub(super) async fn read_everything(world: Arc<World>, name: String, isolation: Isolation) {
    loop {
        let life = read_until_it_fails(&world, &name, isolation).await;
        if !world.goes_on(&name, Stop::All, life).await {
            return;
        }
    }
}

async fn read_until_it_fails(world: &World, name: &str, isolation: Isolation) -> Result<(), Failure> {
    let consumer = world.client().await?.consumer().assign(places().into_iter().map(partition));
    let consumer = consumer.from_beginning().isolation(level(isolation)).fetch_max_wait(WAIT / 2);
    let mut consumer = world.wait(name, "start", consumer.request_timeout(REQUEST).start()).await?;
    let session = world.recorder.number();
    for place in places() {
        let read = Read { place, isolation, session, group: None, records: Vec::new(), next: 0 };
        world.recorder.note(name, world.recorder.now(), What::Read(read));
    }
    while !world.stops(Stop::All) {
        let begun = world.recorder.now();
        match timeout(WAIT, consumer.next_batch()).await {
            Err(_) => {}
            Ok(None) => return Err("the consumer has ended".into()),
            Ok(Some(Ok(batch))) => note_read(world, name, begun, &batch, (session, isolation, None)),
            Ok(Some(Err(error))) if error.is_retriable() => {}
            Ok(Some(Err(error))) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Asks for the ends of logs and for committed offsets, all the time, with one new client after the other.
pub(super) async fn ask(world: Arc<World>, name: String) {
    loop {
        let life = ask_until_it_fails(&world, &name).await;
        if !world.goes_on(&name, Stop::All, life).await {
            return;
        }
    }
}

async fn ask_until_it_fails(world: &World, name: &str) -> Result<(), Failure> {
    let client = world.client().await?;
    let all: Vec<_> = places().into_iter().map(partition).collect();
    let mut consumers = Vec::new();
    for group in [READERS, COPIERS] {
        let consumer = client.consumer().group(group).assign(all.clone());
        let consumer = consumer.isolation(IsolationLevel::ReadCommitted).request_timeout(REQUEST);
        let consumer = world.wait(name, "start", consumer.start()).await?;
        consumer.handle().pause(&all);
        consumers.push((group, consumer));
    }
    for _ in 0..QUESTIONS {
        if world.stops(Stop::All) {
            return Ok(());
        }
        for (group, consumer) in &consumers {
            ends(world, name, &client, &consumer.handle()).await?;
            offsets(world, name, group, &consumer.handle()).await?;
        }
        sleep(Duration::from_millis(world.below(25))).await;
    }
    Ok(())
}

async fn ends(world: &World, name: &str, client: &Client, handle: &ConsumerHandle) -> Result<(), Failure> {
    let all: Vec<_> = places().into_iter().map(partition).collect();
    let begun = world.recorder.now();
    let stable = world.wait(name, "end offsets", handle.end_offsets(&all)).await?;
    let note = |begun, end, place, found| world.recorder.note(name, begun, What::Look { place, end, found });
    let look = |begun, end, place: Place, found: Option<&i64>| {
        found.into_iter().for_each(|found| note(begun, end, place, *found));
    };
    places().into_iter().for_each(|at| look(begun, End::LastStable, at, stable.get(&partition(at))));
    let begun = world.recorder.now();
    let starts = world.wait(name, "beginning offsets", handle.beginning_offsets(&all)).await?;
    places().into_iter().for_each(|at| look(begun, End::LogStart, at, starts.get(&partition(at))));
    let begun = world.recorder.now();
    let specs: HashMap<_, _> = all.into_iter().map(|one| (one, OffsetSpec::Latest)).collect();
    let mut latest = world.wait(name, "offsets", client.admin().offsets(&specs)).await?;
    for at in places() {
        let found = latest.remove(&partition(at)).and_then(Result::ok).and_then(|found| found.offset);
        look(begun, End::HighWatermark, at, found.as_ref());
    }
    Ok(())
}

/// By name: a partition whose first offset is committed by a transaction under way is waited for then. Who asks for all
/// there are is not told of it, by Apache Kafka neither.
async fn offsets(
    world: &World,
    name: &str,
    group: &'static str,
    handle: &ConsumerHandle,
) -> Result<(), Failure> {
    let inputs: Vec<Place> = (0..INPUT_PARTITIONS).map(|index| place(INPUT, index)).collect();
    let named: Vec<_> = inputs.iter().map(|place| partition(*place)).collect();
    let begun = world.recorder.now();
    let found = world.wait(name, "committed offsets", handle.committed(&named)).await?;
    for place in inputs {
        let found = found.get(&partition(place)).map(|found| found.offset);
        world.recorder.note(name, begun, What::FetchOffset { group, place, found });
    }
    Ok(())
}
