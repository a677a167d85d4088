//! Lies to a reader: offsets, batches that are damaged or explode, transactions that end twice, sessions.

use bytes::Bytes;
use klamm_client::testing::{Answer, FakeBroker};
use klamm_client::{Compression, IsolationLevel, Record};
use klamm_protocol::compression::compress;
use klamm_protocol::messages::fetch::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, PartitionData,
};
use klamm_protocol::messages::list_offsets::ListOffsetsPartitionResponse;
use klamm_protocol::messages::*;
use klamm_protocol::records::{
    BATCH_HEADER_LEN, BatchBuilder, BatchHeader, BatchOptions, EndTxnMarker, crc32c, end_txn_batch,
};
use klamm_protocol::{ApiKey, ErrorCode, Records, Uuid};
use tokio::time::timeout;

use super::{Case, LIE, Watch, client, reads_through};
use crate::scripted::{self, TOPIC};

fn answer(name: &str, edit: impl Fn(&mut FetchResponse) + Clone + Send + Sync + 'static) -> Case {
    Case::edited::<FetchRequest>(format!("fetch: {name}"), edit)
}

fn parts(name: &str, edit: impl Fn(&mut PartitionData) + Clone + Send + Sync + 'static) -> Case {
    answer(name, move |answer| {
        answer.responses.iter_mut().flat_map(|topic| &mut topic.partitions).for_each(&edit);
    })
}

/// What a partition brings, where it brings anything.
fn records(name: &str, edit: impl Fn(Vec<u8>) -> Vec<u8> + Clone + Send + Sync + 'static) -> Case {
    parts(name, move |part| {
        let bytes = part.records.as_ref().and_then(Records::as_bytes).filter(|bytes| !bytes.is_empty());
        if let Some(bytes) = bytes {
            part.records = Some(Records::Bytes(edit(bytes.to_vec()).into()));
        }
    })
}

/// The first batch with another header, under a checksum that is right.
fn header(name: &str, edit: impl Fn(&mut BatchHeader) + Clone + Send + Sync + 'static) -> Case {
    records(name, move |bytes| {
        let Ok(mut header) = BatchHeader::parse(&bytes) else { return bytes };
        let body = bytes[BATCH_HEADER_LEN..header.total_len()].to_vec();
        let rest = bytes[header.total_len()..].to_vec();
        edit(&mut header);
        [sealed(&header, &body), rest].concat()
    })
}

fn sealed(header: &BatchHeader, body: &[u8]) -> Vec<u8> {
    let mut batch = [&header.to_bytes()[..], body].concat();
    let crc = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

/// More than a case may take: what stops it is `max_batch_bytes`.
const BOMB_BYTES: usize = 64 * 1024 * 1024;

/// A batch of one record count whose compressed body becomes far larger than it is.
fn bomb(codec: Compression) -> Vec<u8> {
    let mut body = Vec::new();
    compress(codec, &vec![0; BOMB_BYTES], &mut body).unwrap();
    let options = BatchOptions { compression: codec, ..BatchOptions::default() };
    let mut one = BatchBuilder::new(options);
    one.append(0, None, Some(b"x"), []).unwrap();
    let mut header = BatchHeader::parse(&one.build().unwrap()).unwrap();
    header.batch_length = (BATCH_HEADER_LEN - 12 + body.len()) as i32;
    sealed(&header, &body)
}

fn of_batches() -> Vec<Case> {
    let mut cases = vec![
        records("a checksum that is wrong", |mut bytes| {
            bytes[17] ^= 1;
            bytes
        }),
        records("a batch that is cut off", |bytes| bytes[..bytes.len() - 1].to_vec()),
        records("half a header", |bytes| bytes[..30].to_vec()),
        records("one byte", |bytes| bytes[..1].to_vec()),
        records("no batch", |bytes| vec![0xff; bytes.len()]),
        records("zeros", |bytes| vec![0; bytes.len()]),
        records("a batch twice", |bytes| [&bytes[..], &bytes[..]].concat()),
        records("an older format", |mut bytes| {
            bytes[16] = 1;
            bytes
        }),
        records("a format to come", |mut bytes| {
            bytes[16] = 127;
            bytes
        }),
        records("a negative batch length", |mut bytes| {
            bytes[8..12].copy_from_slice(&(-1_i32).to_be_bytes());
            bytes
        }),
        records("the greatest batch length", |mut bytes| {
            bytes[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
            bytes
        }),
        records("lengths of records that lie", |mut bytes| {
            bytes[BATCH_HEADER_LEN] = 0x7e;
            let Ok(header) = BatchHeader::parse(&bytes) else { return bytes };
            let body = bytes[BATCH_HEADER_LEN..header.total_len()].to_vec();
            sealed(&header, &body)
        }),
        records("varints without end", |bytes| {
            let Ok(header) = BatchHeader::parse(&bytes) else { return bytes };
            sealed(&header, &vec![0xff; header.total_len() - BATCH_HEADER_LEN])
        }),
        header("a negative record count", |header| header.record_count = -1),
        header("the greatest record count", |header| header.record_count = i32::MAX),
        header("no records", |header| header.record_count = 0),
        header("a negative offset delta", |header| header.last_offset_delta = -1),
        header("the greatest offset", |header| header.base_offset = i64::MAX),
        header("offsets far ahead", |header| header.base_offset = i64::MAX - 1_000).believed(),
        header("negative offsets", |header| header.base_offset = -7),
        header("offsets that go back", |header| header.base_offset = 0),
        header("timestamps before all time", |header| header.base_timestamp = i64::MIN),
        header("timestamps after all time", |header| {
            (header.base_timestamp, header.max_timestamp) = (i64::MAX, i64::MAX);
        }),
        header("codecs that there are not", |header| header.attributes |= 7),
        header("a codec that it is not", |header| header.attributes |= 1),
        header("a control batch", |header| header.attributes |= 0x20).believed(),
        header("a transaction of nobody's", |header| header.attributes |= 0x10),
        header("a leader epoch below zero", |header| header.partition_leader_epoch = i32::MIN),
        header("the last leader epoch", |header| header.partition_leader_epoch = i32::MAX),
    ];
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let bomb = bomb(codec);
        cases.push(records(&format!("a bomb of {codec}"), move |_| bomb.clone()));
    }
    cases
}

fn of_partitions() -> Vec<Case> {
    vec![
        answer("nothing at all", |answer| answer.responses.clear()),
        answer("everything twice", |answer| answer.responses.extend(answer.responses.clone())),
        answer("another topic", |answer| {
            answer.responses.iter_mut().for_each(|topic| topic.topic_id = Uuid::from_u128(99));
        }),
        answer("topics that nobody asked for", |answer| {
            let other = |id| FetchableTopicResponse { topic_id: Uuid::from_u128(id), ..Default::default() };
            answer.responses.extend((100..20_000).map(other));
        }),
        answer("a session that nobody asked for", |answer| answer.session_id = i32::MIN),
        answer("an unknown session", |answer| {
            answer.error_code = ErrorCode::FetchSessionIdNotFound.code();
            answer.responses.clear();
        }),
        answer("a wrong session epoch", |answer| {
            answer.error_code = ErrorCode::InvalidFetchSessionEpoch.code();
            answer.responses.clear();
        }),
        answer("an error that nobody knows", |answer| answer.error_code = 12_345),
        answer("the longest throttle", |answer| answer.throttle_time_ms = i32::MAX),
        answer("a negative throttle", |answer| answer.throttle_time_ms = i32::MIN),
        parts("another partition", |part| part.partition_index = 1),
        parts("a partition below zero", |part| part.partition_index = i32::MIN),
        parts("no records", |part| part.records = None),
        parts("a high watermark before all", |part| part.high_watermark = i64::MIN),
        parts("a high watermark beyond all", |part| part.high_watermark = i64::MAX),
        parts("a stable offset before all", |part| part.last_stable_offset = i64::MIN),
        parts("a log that starts at its end", |part| part.log_start_offset = i64::MAX),
        parts("a replica that there is not", |part| part.preferred_read_replica = 99),
        parts("the greatest replica", |part| part.preferred_read_replica = i32::MAX),
        parts("itself as a replica", |part| part.preferred_read_replica = 1),
        parts("a divergence at the beginning", |part| {
            part.diverging_epoch = EpochEndOffset { epoch: 0, end_offset: 0, ..Default::default() };
        }),
        parts("a divergence below zero", |part| {
            part.diverging_epoch = EpochEndOffset { epoch: 3, end_offset: i64::MIN, ..Default::default() };
        }),
        parts("a divergence ahead", |part| {
            part.diverging_epoch =
                EpochEndOffset { epoch: i32::MAX, end_offset: i64::MAX, ..Default::default() };
        }),
        parts("a leader that there is not", |part| {
            part.error_code = ErrorCode::NotLeaderOrFollower.code();
            part.current_leader = LeaderIdAndEpoch { leader_id: 99, leader_epoch: 9, ..Default::default() };
        }),
        parts("200,000 aborted transactions", |part| {
            let aborted =
                |id| AbortedTransaction { producer_id: id, first_offset: -id, ..Default::default() };
            part.aborted_transactions = Some((0..200_000).map(aborted).collect());
        }),
    ]
}

fn errors() -> Vec<Case> {
    let codes = [
        ErrorCode::OffsetOutOfRange,
        ErrorCode::UnknownServerError,
        ErrorCode::NotLeaderOrFollower,
        ErrorCode::FencedLeaderEpoch,
        ErrorCode::UnknownLeaderEpoch,
        ErrorCode::OffsetNotAvailable,
        ErrorCode::UnknownTopicId,
        ErrorCode::InconsistentTopicId,
        ErrorCode::TopicAuthorizationFailed,
        ErrorCode::KafkaStorageError,
        ErrorCode::CorruptMessage,
        ErrorCode::Unknown(i16::MAX),
        ErrorCode::Unknown(i16::MIN),
    ];
    codes.into_iter().map(|code| Case::answered(ApiKey::Fetch, Answer::Error(code))).collect()
}

fn lookups() -> Vec<Case> {
    type Edit = fn(&mut ListOffsetsPartitionResponse);
    let edits: [(&str, Edit); 6] = [
        ("an offset of -1", |part| part.offset = -1),
        ("the least offset", |part| part.offset = i64::MIN),
        ("the greatest offset", |part| part.offset = i64::MAX),
        ("another partition", |part| part.partition_index = 1),
        ("an epoch below zero", |part| part.leader_epoch = i32::MIN),
        ("an error that nobody knows", |part| part.error_code = 12_345),
    ];
    let mut cases: Vec<Case> = Vec::new();
    for (name, edit) in edits {
        cases.push(Case::edited::<ListOffsetsRequest>(format!("offsets: {name}"), move |answer| {
            answer.topics.iter_mut().flat_map(|topic| &mut topic.partitions).for_each(edit);
        }));
    }
    cases.push(Case::edited::<ListOffsetsRequest>("offsets: none", |answer| answer.topics.clear()));
    cases.push(Case::edited::<ListOffsetsRequest>("offsets: twice", |answer| {
        answer.topics.extend(answer.topics.clone());
    }));
    cases.push(Case::edited::<ListOffsetsRequest>("offsets: of another topic", |answer| {
        answer.topics.iter_mut().for_each(|topic| topic.name = "other".into());
    }));
    cases
}

#[tokio::test(start_paused = true)]
async fn about_batches() {
    reads_through(of_batches(), false).await;
}

#[tokio::test(start_paused = true)]
async fn about_partitions() {
    reads_through(of_partitions(), false).await;
}

#[tokio::test(start_paused = true)]
async fn errors_for_ever() {
    reads_through(errors(), false).await;
}

#[tokio::test(start_paused = true)]
async fn about_offsets() {
    reads_through(lookups(), false).await;
}

/// A topic in which a transaction was committed between plain records.
async fn with_a_transaction(broker: &FakeBroker) {
    let client = client(broker).await;
    let mut producer = client.producer().transactional_id("x").build().unwrap();
    let transaction = producer.begin().await.unwrap();
    transaction.send(Record::to(TOPIC).partition(0).value("0")).await.unwrap();
    transaction.commit().await.unwrap();
    let plain = client.producer().build().unwrap();
    plain.send(Record::to(TOPIC).partition(0).value("2")).await.unwrap();
}

/// Markers that come twice, of producers that nobody knows, and that say nothing: what is read is what was committed.
#[tokio::test(start_paused = true)]
async fn about_transactions() {
    let marker = |committed, producer_id, epoch| {
        end_txn_batch(EndTxnMarker { committed, coordinator_epoch: 0 }, producer_id, epoch, 0).unwrap()
    };
    let mut garbage = BatchBuilder::new(BatchOptions { control: true, ..BatchOptions::default() });
    garbage.append(0, Some(b"?"), None, []).unwrap();
    let inserted: [(&str, Bytes); 5] = [
        ("committed twice", marker(true, 1, 0)),
        ("aborted after its commit", marker(false, 1, 0)),
        ("the end of nobody's transaction", marker(false, 777, 0)),
        ("the end of a transaction of the least producer", marker(true, i64::MIN, i16::MIN)),
        ("a marker without a meaning", garbage.build().unwrap()),
    ];
    for (name, marker) in inserted {
        let case = records(&format!("transactions: {name}"), move |bytes| {
            // Before and after what is there, at the offset of the marker that is really there.
            let at = |offset: i64| {
                let mut header = BatchHeader::parse(&marker).unwrap();
                header.base_offset = offset;
                sealed(&header, &marker[BATCH_HEADER_LEN..])
            };
            let first = BatchHeader::parse(&bytes).unwrap();
            let (before, after) = bytes.split_at(first.total_len());
            [before, &at(1), &at(1), after].concat()
        });
        for isolation in [IsolationLevel::ReadCommitted, IsolationLevel::ReadUncommitted] {
            let broker = scripted::start(1).await;
            with_a_transaction(&broker).await;
            let client = client(&broker).await;
            let watch = Watch::begin(&case, &broker);
            let builder = client.consumer().assign([(TOPIC, 0)]).from_beginning().isolation(isolation);
            let mut consumer = builder.start().await.unwrap();
            let mut values = Vec::new();
            let reading = async {
                while let Some(result) = consumer.next().await {
                    match result {
                        Ok(record) => values.push((record.offset, record.value.unwrap())),
                        Err(error) => assert!(!error.is_fatal(), "{name}: {error}"),
                    }
                }
            };
            let _ = timeout(LIE, reading).await;
            watch.end();
            let known = [(0, Bytes::from_static(b"0")), (2, Bytes::from_static(b"2"))];
            let in_order = values.windows(2).all(|pair| pair[0].0 < pair[1].0);
            assert!(in_order && values.iter().all(|value| known.contains(value)), "{name}: {values:?}");
        }
    }
}
