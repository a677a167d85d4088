//! Fetch sessions (KIP-227) over the wire: who remembers what it was told knows what a full fetch would show.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::fetch::{FetchPartition, FetchTopic, ForgottenTopic, PartitionData};
use klamm_protocol::messages::{FetchRequest, FetchResponse};
use klamm_runtime::{Rng, SeededRng};
use tokio::time::Instant;

use super::fetch_waits::{create, delete};
use super::wire::*;

/// The last version that names topics by name.
const BY_NAME: i16 = 12;

/// A fetch of partition 0 of each topic, in a session.
fn fetch(session: (i32, i32), topics: &[(&str, i64)], max_wait_ms: i32) -> FetchRequest {
    let topics = topics.iter().map(|(topic, fetch_offset)| {
        let partition = FetchPartition {
            fetch_offset: *fetch_offset,
            partition_max_bytes: 1 << 20,
            ..FetchPartition::default()
        };
        FetchTopic { topic: (*topic).into(), partitions: vec![partition], ..FetchTopic::default() }
    });
    let topics = topics.collect();
    let (session_id, session_epoch) = session;
    FetchRequest { max_wait_ms, min_bytes: 1, session_id, session_epoch, topics, ..FetchRequest::default() }
}

fn forget(request: FetchRequest, topic: &str) -> FetchRequest {
    let topic = ForgottenTopic { topic: topic.into(), partitions: vec![0], ..ForgottenTopic::default() };
    FetchRequest { forgotten_topics_data: vec![topic], ..request }
}

/// Topics with their errors and high watermarks.
fn told(response: &FetchResponse) -> Vec<(String, ErrorCode, i64)> {
    assert_eq!(response.error_code, 0);
    let all = response.responses.iter().flat_map(|topic| {
        let told = |one: &PartitionData| (ErrorCode::from_code(one.error_code), one.high_watermark);
        topic.partitions.iter().map(move |one| (topic.topic.to_string(), told(one).0, told(one).1))
    });
    all.collect()
}

fn well(topic: &str, high_watermark: i64) -> (String, ErrorCode, i64) {
    (topic.to_owned(), ErrorCode::None, high_watermark)
}

#[tokio::test(start_paused = true)]
async fn an_answer_names_what_is_new_and_nothing_else() {
    let memory = InMemory::start().await;
    let (mut reader, mut writer) = (memory.connect().await, memory.connect().await);
    for topic in ["a", "b"] {
        create(&mut writer, topic).await;
    }
    let first = reader.ask_in(&fetch((0, 0), &[("a", 0), ("b", 0)], 0), BY_NAME).await;
    let id = first.session_id;
    assert!(id > 0);
    assert_eq!(told(&first), [well("a", 0), well("b", 0)]);
    // A long poll of what is remembered: nothing for half a second, and then nothing is said.
    let start = Instant::now();
    let nothing = reader.ask_in(&fetch((id, 1), &[], 500), BY_NAME).await;
    assert_eq!((told(&nothing), nothing.session_id), (vec![], id));
    assert_eq!(start.elapsed(), Duration::from_millis(500));
    // It is woken by a partition that it did not name.
    reader.send_in(&fetch((id, 2), &[], 10_000), BY_NAME).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    assert_eq!(writer.produce("b", batch(&["x"])).await.error_code, 0);
    let (_, woken) = reader.receive_in::<FetchRequest>(BY_NAME).await;
    assert_eq!(told(&woken), [well("b", 1)]);
    assert_eq!(values(&woken.responses[0].partitions[0]), [(0, "x".to_owned())]);
    assert!(start.elapsed() < Duration::from_secs(1));
    // It reads on behind them, one comes and one goes.
    create(&mut writer, "c").await;
    let request = forget(fetch((id, 3), &[("b", 1), ("c", 0)], 0), "a");
    assert_eq!(told(&reader.ask_in(&request, BY_NAME).await), [well("c", 0)]);
    assert_eq!(writer.produce("a", batch(&["x"])).await.error_code, 0);
    assert_eq!(told(&reader.ask_in(&fetch((id, 4), &[], 0), BY_NAME).await), []);
    // What fails is told as long as it does, and when it is well again.
    delete(&mut writer, "c").await;
    let gone = ("c".to_owned(), ErrorCode::UnknownTopicOrPartition, -1);
    for epoch in [5, 6] {
        let again = told(&reader.ask_in(&fetch((id, epoch), &[], 0), BY_NAME).await);
        assert_eq!(again, std::slice::from_ref(&gone));
    }
    create(&mut writer, "c").await;
    assert_eq!(told(&reader.ask_in(&fetch((id, 7), &[], 0), BY_NAME).await), [well("c", 0)]);
    // The end: a fetch without a session that ends it.
    let last = reader.ask_in(&fetch((id, -1), &[("b", 0)], 0), BY_NAME).await;
    assert_eq!((told(&last), last.session_id), (vec![well("b", 1)], 0));
    let over = reader.ask_in(&fetch((id, 8), &[], 0), BY_NAME).await;
    assert_eq!((over.error_code, over.session_id), (ErrorCode::FetchSessionIdNotFound.code(), 0));
}

#[tokio::test(start_paused = true)]
async fn steps_that_are_not_the_next_are_refused_and_change_nothing() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    create(&mut wire, "a").await;
    let id = wire.ask_in(&fetch((0, 0), &[("a", 0)], 0), BY_NAME).await.session_id;
    for (request, version, error) in [
        (fetch((0, 1), &[], 0), BY_NAME, ErrorCode::FetchSessionIdNotFound),
        (fetch((id, 2), &[("b", 0)], 0), BY_NAME, ErrorCode::InvalidFetchSessionEpoch),
        (fetch((id, 1), &[], 0), newest::<FetchRequest>(), ErrorCode::FetchSessionTopicIdError),
    ] {
        let refused = wire.ask_in(&request, version).await;
        assert_eq!((refused.error_code, refused.responses.len()), (error.code(), 0), "{request:?}");
    }
    assert_eq!(told(&wire.ask_in(&fetch((id, 1), &[], 0), BY_NAME).await), []);
    // Who does not wait for an answer has no use for it: what it says would not be true of the step that came after it.
    wire.send_in(&fetch((id, 2), &[], 1_000), BY_NAME).await;
    wire.send_in(&fetch((id, 3), &[("b", 0)], 0), BY_NAME).await;
    let (_, overtaken) = wire.receive_in::<FetchRequest>(BY_NAME).await;
    let error = ErrorCode::InvalidFetchSessionEpoch.code();
    assert_eq!((overtaken.error_code, overtaken.session_id), (error, id));
    let (_, last) = wire.receive_in::<FetchRequest>(BY_NAME).await;
    assert_eq!(told(&last), [("b".to_owned(), ErrorCode::UnknownTopicOrPartition, -1)]);
    // A name that no topic can have is not remembered.
    let long = "x".repeat(250);
    assert_eq!(wire.ask_in(&fetch((0, 0), &[(&long, 0)], 0), BY_NAME).await.session_id, 0);
    let refused = wire.ask_in(&fetch((id, 4), &[(&long, 0)], 0), BY_NAME).await;
    assert_eq!(refused.error_code, ErrorCode::FetchSessionIdNotFound.code());
}

#[tokio::test(start_paused = true)]
async fn there_are_as_many_as_there_may_be() {
    let slots = "max.incremental.fetch.session.cache.slots";
    let memory = InMemory::with(|builder| builder.set(slots, 2).set("max.partitions", 60)).await;
    let mut wire = memory.connect().await;
    let mut begin = async |partitions: i32| {
        let mut request = fetch((0, 0), &[("a", 0)], 0);
        let one = |partition| FetchPartition { partition, ..FetchPartition::default() };
        request.topics[0].partitions = (0..partitions).map(one).collect();
        wire.ask_in(&request, BY_NAME).await.session_id
    };
    assert_eq!(begin(61).await, 0, "more partitions than there may be");
    assert!(begin(1).await > 0 && begin(1).await > 0);
    assert_eq!(begin(60).await, 0);
    tokio::time::sleep(Duration::from_secs(121)).await;
    assert!(begin(60).await > 0);
    assert_eq!(memory.broker.request_bytes_taken(), 0);
    let none = InMemory::with(|builder| builder.set(slots, 0)).await;
    let declined = none.connect().await.ask_in(&fetch((0, 0), &[("a", 0)], 0), BY_NAME).await;
    assert_eq!(declined.session_id, 0);
}

/// A small fetch may be for many partitions, and waits in no more room than one that names them.
#[tokio::test(start_paused = true)]
async fn what_waits_in_a_session_takes_the_room_of_what_it_is_for() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    let id = create(&mut wire, "a").await;
    let mut sessions = Vec::new();
    for _ in 0..20 {
        let mut request = fetch((0, 0), &[("", 0)], 0);
        request.topics[0].topic_id = id;
        let one = |partition| FetchPartition { partition, ..FetchPartition::default() };
        request.topics[0].partitions = (0..10_000).map(one).collect();
        sessions.push(wire.ask(&request).await.session_id);
    }
    for (number, id) in sessions.iter().enumerate() {
        assert!(*id > 0, "{number}");
        let mut request = fetch((*id, 1), &[], 10_000);
        request.max_bytes = 1 << 20;
        wire.send_in(&request, newest::<FetchRequest>()).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut writer = memory.connect().await;
    assert_eq!(writer.produce("a", batch(&["x"])).await.error_code, 0);
    let mut waited = Vec::new();
    for _ in &sessions {
        let (_, answer) = wire.receive_in::<FetchRequest>(newest::<FetchRequest>()).await;
        waited.push(answer.responses[0].partitions.iter().any(|one| !values(one).is_empty()));
    }
    // Twelve of a third of a megabyte have room to wait; the others had been looked at before there was anything.
    let expected: Vec<bool> = (0..20).map(|number| number < 12).collect();
    assert_eq!(waited, expected);
    assert_eq!(memory.broker.request_bytes_taken(), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_knows_an_older_leader_is_told_who_leads() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    let id = create(&mut wire, "a").await;
    let mut request = fetch((0, -1), &[("", 0)], 0);
    request.topics[0].topic_id = id;
    // There was no leader before the first, so nobody can know one: -1 says nothing, and later ones are not known yet.
    for (epoch, error) in [(-1, ErrorCode::None), (7, ErrorCode::UnknownLeaderEpoch)] {
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        let answer = wire.ask(&request).await;
        assert_eq!(answer.responses[0].partitions[0].error_code, error.code());
        assert!(answer.node_endpoints.is_empty());
    }
    request.topics[0].partitions[0].current_leader_epoch = -2;
    for (version, hints) in [(15, 0), (16, 1)] {
        let answer = wire.ask_in(&request, version).await;
        let partition = &answer.responses[0].partitions[0];
        assert_eq!(partition.error_code, ErrorCode::FencedLeaderEpoch.code());
        assert_eq!(answer.node_endpoints.len(), hints);
        if let [endpoint] = &answer.node_endpoints[..] {
            assert_eq!(format!("{}:{}", endpoint.host, endpoint.port), memory.broker.bootstrap());
            assert_eq!((partition.current_leader.leader_id, partition.current_leader.leader_epoch), (1, 0));
        }
    }
}

/// Random topics, records and sessions; the client knows at all times what a full fetch shows.
#[tokio::test(start_paused = true)]
async fn a_session_shows_what_full_fetches_show() {
    const TOPICS: [&str; 4] = ["a", "b", "c", "d"];
    for seed in 0..40 {
        let rng = SeededRng::new(seed);
        let memory = InMemory::with(|builder| builder.set("auto.create.topics.enable", false)).await;
        let (mut reader, mut other) = (memory.connect().await, memory.connect().await);
        let mut there = [false; 4];
        let (mut session, mut offsets, mut sent) = ((0, 0), [0_i64; 4], [-1_i64; 4]);
        let mut knows: BTreeMap<String, (ErrorCode, i64)> = BTreeMap::new();
        for _ in 0..60 {
            let index = rng.below(4) as usize;
            let topic = TOPICS[index];
            match (rng.below(6), there[index]) {
                (0, true) => {
                    delete(&mut other, topic).await;
                    there[index] = false;
                }
                (1..=3, false) => {
                    create(&mut other, topic).await;
                    there[index] = true;
                    offsets[index] = 0;
                }
                (1..=4, true) => assert_eq!(other.produce(topic, batch(&["x"])).await.error_code, 0),
                _ => {}
            }
            if rng.below(15) == 0 {
                session.1 = 0;
            }
            let changed = (0..4).filter(|index| session.1 == 0 || sent[*index] != offsets[*index]);
            let named: Vec<(&str, i64)> = changed.map(|index| (TOPICS[index], offsets[index])).collect();
            let mut request = fetch(session, &named, 0);
            request.max_bytes = 100;
            let answer = reader.ask_in(&request, BY_NAME).await;
            assert_eq!(answer.error_code, 0, "seed {seed}");
            sent = offsets;
            session = (answer.session_id, session.1 + 1);
            for (topic, error, high_watermark) in told(&answer) {
                knows.insert(topic, (error, high_watermark));
            }
            for topic in &answer.responses {
                let index = TOPICS.iter().position(|name| topic.topic == **name).unwrap();
                offsets[index] += values(&topic.partitions[0]).len() as i64;
            }
            let all: Vec<(&str, i64)> = TOPICS.iter().copied().zip(sent).collect();
            let full = other.ask_in(&fetch((0, -1), &all, 0), BY_NAME).await;
            let full = told(&full).into_iter().map(|(topic, error, mark)| (topic, (error, mark)));
            assert_eq!(knows, full.collect(), "seed {seed}");
        }
    }
}

/// It was answered with an error: what it had found was lost, and all of it was asked for again.
#[tokio::test(start_paused = true)]
async fn a_session_that_goes_while_its_fetch_waits_is_missed_by_the_next() {
    let slots = "max.incremental.fetch.session.cache.slots";
    let memory = InMemory::with(|builder| builder.set(slots, 1)).await;
    let (mut reader, mut other) = (memory.connect().await, memory.connect().await);
    for topic in ["a", "b"] {
        create(&mut other, topic).await;
    }
    let id = reader.ask_in(&fetch((0, 0), &[("a", 0)], 0), BY_NAME).await.session_id;
    assert!(id > 0);
    tokio::time::sleep(Duration::from_secs(121)).await;
    reader.send_in(&fetch((id, 1), &[], 10_000), BY_NAME).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let larger = other.ask_in(&fetch((0, 0), &[("a", 0), ("b", 0)], 0), BY_NAME).await;
    assert!(larger.session_id > 0, "it takes the only place");
    assert_eq!(other.produce("a", batch(&["x"])).await.error_code, 0);
    let (_, answer) = reader.receive_in::<FetchRequest>(BY_NAME).await;
    assert_eq!((told(&answer), answer.session_id), (vec![well("a", 1)], id));
    assert_eq!(values(&answer.responses[0].partitions[0]), [(0, "x".to_owned())]);
    let gone = reader.ask_in(&fetch((id, 2), &[("a", 1)], 0), BY_NAME).await;
    assert_eq!(gone.error_code, ErrorCode::FetchSessionIdNotFound.code());
}
