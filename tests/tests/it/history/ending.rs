//! What is there in the end: everything that readers find, the committed offsets, and what stands in the files.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use klamm_client::admin::OffsetSpec;
use klamm_client::{Client, TopicPartition};
use klamm_protocol::records::{ControlRecord, RecordBatch, batches};
use tokio::time::{Instant, sleep, timeout};

use super::lookers::level;
use super::operation::{Entry, FinalRead, Found, History, Holds, Isolation, Place};
use super::recorder::number_of;
use super::world::{COPIERS, Failure, INPUT, INPUT_PARTITIONS, READERS, World, partition, place, places};

/// A batch of ours never comes to more.
const BATCH_BYTES: usize = 16 << 20;

/// Waits until both groups are at the end of what they read, or the patience is over, in which case it is said who is
/// not.
pub(super) async fn caught_up(world: &World, patience: Duration) -> Result<(), String> {
    let until = Instant::now() + patience;
    loop {
        let behind = match behind(world).await {
            Ok(behind) if behind.is_empty() => return Ok(()),
            Ok(behind) => behind,
            Err(error) => error.to_string(),
        };
        if Instant::now() > until {
            return Err(behind);
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn behind(world: &World) -> Result<String, Failure> {
    let admin = world.good_client().await?.admin();
    let inputs: Vec<TopicPartition> =
        (0..INPUT_PARTITIONS).map(|at| TopicPartition::new(INPUT, at)).collect();
    let specs = inputs.iter().map(|one| (one.clone(), OffsetSpec::Latest)).collect();
    let mut ends = admin.offsets(&specs).await?;
    let mut behind = String::new();
    let groups = [
        (READERS, admin.committed_offsets(READERS).await?),
        (COPIERS, admin.committed_offsets(COPIERS).await?),
    ];
    for one in inputs {
        let end = ends.remove(&one).ok_or("no answer")??.offset;
        for (group, committed) in &groups {
            if committed.get(&one).copied() != end {
                behind += &format!("{group} is at {:?} of {end:?} in {one}; ", committed.get(&one));
            }
        }
    }
    Ok(behind)
}

/// Writes down what readers and askers find now.
pub(super) async fn look(world: &World, history: &mut History, patience: Duration) -> Result<(), Failure> {
    let client = world.good_client().await?;
    let groups = [READERS, COPIERS];
    for group in groups {
        for (one, offset) in sorted(client.admin().committed_offsets(group).await?) {
            history.committed.insert((group, place(&one.topic, one.partition)), offset);
        }
    }
    for isolation in [Isolation::Uncommitted, Isolation::Committed] {
        for (place, read) in read_all(&client, isolation, patience).await? {
            history.finals.insert((place, isolation), read);
        }
    }
    Ok(())
}

fn sorted(offsets: HashMap<TopicPartition, i64>) -> BTreeMap<TopicPartition, i64> {
    offsets.into_iter().collect()
}

async fn read_all(
    client: &Client,
    isolation: Isolation,
    patience: Duration,
) -> Result<BTreeMap<Place, FinalRead>, Failure> {
    let all: Vec<TopicPartition> = places().into_iter().map(partition).collect();
    let specs = all.iter().map(|one| (one.clone(), OffsetSpec::Latest)).collect();
    let ends = client.admin().offsets(&specs).await?;
    let consumer = client.consumer().assign(all.clone()).isolation(level(isolation)).from_beginning();
    let mut consumer = consumer.fetch_max_wait(Duration::from_millis(20)).start().await?;
    let handle = consumer.handle();
    let starts = handle.beginning_offsets(&all).await?;
    let mut reads = BTreeMap::new();
    for at in places() {
        let end = ends.get(&partition(at)).and_then(|end| end.as_ref().ok()?.offset).ok_or("no end")?;
        let start = *starts.get(&partition(at)).ok_or("no beginning")?;
        reads.insert(at, FinalRead { start, end, records: BTreeMap::new() });
    }
    let until = Instant::now() + patience;
    let at_end = |reads: &BTreeMap<Place, FinalRead>| {
        reads.iter().all(|(at, read)| handle.position(&partition(*at)).is_some_and(|now| now >= read.end))
    };
    while !at_end(&reads) && Instant::now() < until {
        let Ok(next) = timeout(Duration::from_millis(20), consumer.next()).await else { continue };
        let record = next.ok_or("the consumer has ended")??;
        let number = number_of(record.value.as_deref());
        let found = Found { offset: record.offset, number, epoch: record.leader_epoch.unwrap_or(-1) };
        let read = reads.get_mut(&place(&record.topic, record.partition)).ok_or("not asked for")?;
        read.records.insert(record.offset, found);
    }
    if !at_end(&reads) {
        let stuck: Vec<String> = reads
            .iter()
            .map(|(at, read)| format!("{at} at {:?} of {}", handle.position(&partition(*at)), read.end))
            .collect();
        return Err(format!("not read to the end as {isolation:?}: {}", stuck.join(", ")).into());
    }
    Ok(reads)
}

/// What stands in the files of a partition, while no broker runs.
pub(super) fn scan(data: &Path, place: Place) -> Vec<Entry> {
    let folder = data.join(place.to_string());
    let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> =
        names.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    segments.sort();
    let mut entries = Vec::new();
    for segment in segments {
        let bytes = Bytes::from(std::fs::read(&segment).unwrap());
        for batch in batches(bytes) {
            let batch = batch.unwrap_or_else(|wrong| panic!("{}: {wrong}", segment.display()));
            entries.extend(entries_of(&batch));
        }
    }
    entries
}

fn entries_of(batch: &RecordBatch) -> Vec<Entry> {
    batch.verify_crc().unwrap();
    let header = batch.header();
    let producer_id = header.producer_id;
    let records = batch.records(BATCH_BYTES).unwrap();
    let entry = |record: klamm_protocol::records::RecordView<'_>| {
        let holds = match header.is_control() {
            false => {
                Holds::Record { number: number_of(record.value), transactional: header.is_transactional() }
            }
            true => match ControlRecord::parse(record.key, record.value).unwrap() {
                ControlRecord::EndTxn(marker) => Holds::Marker { commit: marker.committed },
                ControlRecord::Other { kind } => panic!("a control record of kind {kind}"),
            },
        };
        Entry { offset: record.offset(header), producer_id, holds }
    };
    records.iter().map(|record| entry(record.unwrap())).collect()
}
