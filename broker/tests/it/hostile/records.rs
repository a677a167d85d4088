//! Record batches on their way in, on the disk and out again: whatever is acknowledged can be read by everybody, now,
//! after a restart and after a compaction, and stands where the producer was told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_broker::Broker;
use klamm_broker::disk::MemoryDisk;
use klamm_protocol::Records;
use klamm_protocol::compression::{Compression, compress};
use klamm_protocol::messages::CreateTopicsRequest;
use klamm_protocol::messages::create_topics::{CreatableTopic, CreatableTopicConfig};
use klamm_protocol::records::{
    BATCH_HEADER_LEN, BatchBuilder, BatchHeader, BatchOptions, RecordBatch, batches, crc32c,
};
use klamm_runtime::{MemoryNet, Rng, SeededRng, TokioClock};

use super::target::NOW_MS;
use super::wire::Wire;
use super::{rng, seed, times};

const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
/// What a consumer takes of one batch.
const CAP: usize = 64 << 20;

/// A key or a value.
type Part = Option<Vec<u8>>;
/// A record as it is read: its key, its value, and what it is dated.
type Found = (Part, Part, i64);

struct World {
    disk: MemoryDisk,
    net: Arc<MemoryNet>,
    clock: Arc<TokioClock>,
    broker: Broker,
}

impl World {
    async fn start(disk: MemoryDisk, net: Arc<MemoryNet>, clock: Arc<TokioClock>) -> Self {
        let builder = Broker::builder().data_dir("/data").disk(Arc::new(disk.clone())).net(net.clone());
        let settings = [
            ("log.segment.bytes", "20000"),
            ("message.max.bytes", "10000"),
            ("log.index.interval.bytes", "500"),
            ("log.cleaner.backoff.ms", "1000"),
            ("log.cleaner.min.cleanable.ratio", "0"),
        ];
        let builder = settings.iter().fold(builder, |builder, (key, value)| builder.set(*key, value));
        let broker = builder.clock(clock.clone()).start().await.unwrap();
        Self { disk, net, clock, broker }
    }

    async fn again(self, orderly: bool) -> Self {
        let Self { disk, net, clock, broker } = self;
        if orderly {
            broker.shutdown().await.unwrap();
        }
        drop(broker);
        disk.kill();
        Self::start(disk, net, clock).await
    }

    async fn connect(&self) -> Wire {
        Wire::connect(&*self.net, self.broker.bootstrap()).await
    }
}

fn some_bytes(rng: &SeededRng) -> Option<Vec<u8>> {
    let len = match rng.below(8) {
        0 => return None,
        1 => 0,
        2 => 1 + rng.below(600),
        _ => 1 + rng.below(12),
    };
    Some((0..len).map(|_| rng.next_u64() as u8).collect())
}

/// A batch that a producer may send.
fn sound(rng: &SeededRng, keyed: bool) -> Bytes {
    let codec = CODECS[rng.below(5) as usize];
    let mut batch = BatchBuilder::new(BatchOptions { compression: codec, ..BatchOptions::default() });
    for _ in 0..1 + rng.below(8) {
        let key = match keyed {
            true => Some(vec![b'a' + rng.below(20) as u8]),
            false => some_bytes(rng),
        };
        let value = some_bytes(rng);
        let headers: Vec<(String, Option<Vec<u8>>)> =
            (0..rng.below(3)).map(|at| (format!("h{at}"), some_bytes(rng))).collect();
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
        let timestamp = NOW_MS + rng.below(10_000) as i64 - 5_000;
        batch.append(timestamp, key.as_deref(), value.as_deref(), headers).unwrap();
    }
    batch.build().unwrap()
}

/// The same with something wrong in the header or among the records, and a checksum that is right again.
fn bent(batch: &Bytes, rng: &SeededRng) -> Bytes {
    let mut header = BatchHeader::parse(batch).unwrap();
    let mut body = batch[BATCH_HEADER_LEN..].to_vec();
    for _ in 0..1 + rng.below(2) {
        let number = [0, -1, 1, 2, i64::MAX, i64::MIN, rng.below(300) as i64][rng.below(7) as usize];
        match rng.below(14) {
            0 => header.base_offset = number,
            1 => header.partition_leader_epoch = number as i32,
            2 => header.attributes = number as i16,
            3 => header.attributes ^= 1 << rng.below(16),
            4 => header.last_offset_delta = number as i32,
            5 => header.base_timestamp = number,
            6 => header.max_timestamp = number,
            7 => header.producer_id = number,
            8 => header.record_count = number as i32,
            _ if body.is_empty() => {}
            9 => body.truncate(rng.below(body.len() as u64) as usize),
            10 => body.extend((0..rng.below(9)).map(|_| rng.next_u64() as u8)),
            11 => {
                let records: Vec<u8> = (0..rng.below(60)).map(|_| rng.next_u64() as u8 & 0x1f).collect();
                let codec = CODECS[rng.below(5) as usize];
                body.clear();
                compress(codec, &records, &mut body).unwrap();
                header.attributes = header.attributes & !7 | codec as i16;
            }
            _ => {
                let at = rng.below(body.len() as u64) as usize;
                body[at] ^= 1 << rng.below(8);
            }
        }
    }
    header.batch_length = (BATCH_HEADER_LEN - 12 + body.len()) as i32;
    let mut bytes = [&header.to_bytes()[..], &body].concat();
    let sum = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&sum.to_be_bytes());
    bytes.into()
}

/// The records of a batch, by offset.
fn records_of(batch: &RecordBatch, what: &str) -> Vec<(i64, Found)> {
    batch.verify_crc().unwrap_or_else(|error| panic!("{what}: {error}"));
    let records = batch.records(CAP).unwrap_or_else(|error| panic!("{what}: {error}"));
    let all: Vec<_> = records
        .iter()
        .map(|record| {
            let record = record.unwrap_or_else(|error| panic!("{what}: {error}"));
            let (key, value) = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
            (record.offset(batch.header()), (key, value, record.timestamp(batch.header())))
        })
        .collect();
    assert_eq!(all.len(), batch.header().record_count as usize, "{what}");
    all
}

/// Everything in partition 0, as a consumer reads it.
async fn read_all(wire: &mut Wire, topic: &str, what: &str) -> BTreeMap<i64, Found> {
    let (mut offset, mut all) = (0, BTreeMap::new());
    loop {
        let found = wire.fetch(topic, offset, 1).await;
        assert_eq!(found.error_code, 0, "{what} from {offset} on");
        let before = offset;
        for batch in batches(found.records.and_then(Records::into_bytes).unwrap_or_default()) {
            let batch = batch.unwrap_or_else(|error| panic!("{what} from {offset} on: {error}"));
            offset = batch.header().next_offset();
            all.extend(records_of(&batch, what).into_iter().filter(|(at, _)| *at >= before));
        }
        if offset == before {
            assert_eq!(offset, found.high_watermark, "{what}: the end");
            return all;
        }
    }
}

async fn create(wire: &mut Wire, name: &str, policy: &str) {
    let config = |(name, value): (&str, &str)| CreatableTopicConfig {
        name: name.into(),
        value: Some(value.into()),
        ..CreatableTopicConfig::default()
    };
    // Records may be dated as they please.
    let configs = [("cleanup.policy", policy), ("retention.ms", "-1")].map(config);
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: 1,
        replication_factor: 1,
        configs: configs.into(),
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
    assert_eq!(wire.ask(&request).await.topics[0].error_code, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_can_be_read_and_stands_where_the_producer_was_told() {
    let seed = seed();
    let clock = Arc::new(TokioClock::starting_at(NOW_MS));
    let mut world = World::start(MemoryDisk::new(), Arc::new(MemoryNet::new()), clock).await;
    let mut wire = world.connect().await;
    create(&mut wire, "kept", "delete").await;
    create(&mut wire, "compacted", "compact").await;
    let mut expected: BTreeMap<&str, BTreeMap<i64, Found>> = BTreeMap::new();
    let (mut taken, mut refused) = (0, 0);
    for round in 0..times(600, 20_000) {
        let rng = rng(seed, "records", round);
        let topic = ["kept", "compacted"][rng.below(2) as usize];
        let batch = sound(&rng, topic == "compacted");
        let batch = if rng.below(3) == 0 { batch } else { bent(&batch, &rng) };
        let what = format!("round {round}, {topic}: {batch:02x?}");
        let produced = wire.produce(topic, batch.clone()).await;
        if produced.error_code != 0 {
            assert_eq!(produced.base_offset, -1, "{what}");
            refused += 1;
            continue;
        }
        taken += 1;
        let stored = wire.fetch(topic, produced.base_offset, 0).await;
        let bytes = stored.records.and_then(Records::into_bytes).unwrap_or_default();
        let stored = batches(bytes).next().expect(&what).unwrap();
        let found = records_of(&stored, &what);
        assert_eq!(found[0].0, produced.base_offset, "{what}");
        // As in Kafka, none before 1970 counts.
        let newest = found.iter().map(|(_, (_, _, timestamp))| *timestamp).fold(-1, i64::max);
        assert_eq!(stored.header().max_timestamp, newest, "{what}");
        expected.entry(topic).or_default().extend(found);
    }
    assert!(taken > 150 && refused > 150, "{taken} {refused}");
    for orderly in [false, true] {
        let what = format!("orderly {orderly}");
        world = world.again(orderly).await;
        let mut wire = world.connect().await;
        assert!(read_all(&mut wire, "kept", &what).await == expected["kept"], "{what}");
        let compacted = read_all(&mut wire, "compacted", &what).await;
        assert!(latest(&compacted) == latest(&expected["compacted"]), "{what}: the latest of each key");
        // Time for the cleaner.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let cleaned = read_all(&mut wire, "compacted", &what).await;
        assert!(latest(&cleaned) == latest(&expected["compacted"]), "{what}: compacted");
        assert!(cleaned.len() < expected["compacted"].len(), "{what}: nothing was compacted");
        assert!(cleaned.iter().all(|(at, record)| expected["compacted"].get(at) == Some(record)), "{what}");
    }
}

/// The last value of each key, and where it is.
fn latest(all: &BTreeMap<i64, Found>) -> BTreeMap<&Part, (i64, &Part)> {
    all.iter().map(|(at, (key, value, _))| (key, (*at, value))).collect()
}
