//! Client quotas: set, told, kept after a crash, and kept to.

use std::time::Duration;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::alter_client_quotas::{EntityData, EntryData, OpData};
use klamm_protocol::messages::describe_client_quotas::ComponentData;
use klamm_protocol::messages::{AlterClientQuotasRequest, DescribeClientQuotasRequest};
use tokio::time::Instant;

use super::configs::{Durable, create};
use super::wire::*;

const PRODUCED: &str = "producer_byte_rate";
const FETCHED: &str = "consumer_byte_rate";
/// What the connections of these tests call themselves.
const ME: (&str, Option<&str>) = ("client-id", Some("wire"));

async fn alter(
    wire: &mut Wire,
    entity: &[(&str, Option<&str>)],
    ops: &[(&str, Option<f64>)],
    validate_only: bool,
) -> i16 {
    let part = |(kind, name): &(&str, Option<&str>)| EntityData {
        entity_type: (*kind).into(),
        entity_name: name.map(Into::into),
        ..EntityData::default()
    };
    let op = |(key, value): &(&str, Option<f64>)| OpData {
        key: (*key).into(),
        value: value.unwrap_or(0.0),
        remove: value.is_none(),
        ..OpData::default()
    };
    let entry = EntryData {
        entity: entity.iter().map(part).collect(),
        ops: ops.iter().map(op).collect(),
        ..EntryData::default()
    };
    let request = AlterClientQuotasRequest { entries: vec![entry], validate_only, ..Default::default() };
    wire.ask(&request).await.entries[0].error_code
}

async fn told(
    wire: &mut Wire,
    filters: &[(&str, i8, Option<&str>)],
    strict: bool,
) -> Result<Vec<String>, i16> {
    let component = |(kind, match_type, name): &(&str, i8, Option<&str>)| ComponentData {
        entity_type: (*kind).into(),
        match_type: *match_type,
        r#match: name.map(Into::into),
        ..ComponentData::default()
    };
    let components = filters.iter().map(component).collect();
    let answer = wire.ask(&DescribeClientQuotasRequest { components, strict, ..Default::default() }).await;
    let Some(entries) = answer.entries else { return Err(answer.error_code) };
    let entry = |entry: klamm_protocol::messages::describe_client_quotas::EntryData| {
        let name =
            |name: Option<klamm_protocol::Utf8Bytes>| name.map_or("*".to_owned(), |name| name.to_string());
        let parts =
            entry.entity.into_iter().map(|part| format!("{}={}", part.entity_type, name(part.entity_name)));
        let values = entry.values.into_iter().map(|value| format!("{}:{}", value.key, value.value));
        parts.chain(values).collect::<Vec<_>>().join(" ")
    };
    Ok(entries.into_iter().map(entry).collect())
}

#[tokio::test(start_paused = true)]
async fn quotas_are_told_by_filters_and_survive_a_crash() {
    let disk = Durable::default();
    let mut broker = disk.start().await;
    let mut wire = disk.connect(&broker).await;
    assert_eq!(alter(&mut wire, &[ME], &[(PRODUCED, Some(100.0)), (FETCHED, Some(200.0))], false).await, 0);
    assert_eq!(alter(&mut wire, &[("client-id", None)], &[(PRODUCED, Some(7.0))], false).await, 0);
    let both = [("user", None), ("client-id", Some("x"))];
    assert_eq!(alter(&mut wire, &both, &[(FETCHED, Some(5e9))], false).await, 0);
    assert_eq!(alter(&mut wire, &[ME], &[(PRODUCED, Some(1.0))], true).await, 0, "only asked");
    let me = "client-id=wire consumer_byte_rate:200 producer_byte_rate:100".to_owned();
    let default = "client-id=* producer_byte_rate:7".to_owned();
    let both = "client-id=x user=* consumer_byte_rate:5000000000".to_owned();
    for crash in [false, true] {
        if crash {
            broker = disk.crash(broker).await;
            wire = disk.connect(&broker).await;
        }
        for (filters, strict, expected) in [
            (&[][..], false, vec![&default, &me, &both]),
            (&[("client-id", 2, None)], false, vec![&default, &me, &both]),
            (&[("client-id", 2, None)], true, vec![&default, &me]),
            (&[("client-id", 1, None)], false, vec![&default]),
            (&[("client-id", 0, Some("wire"))], true, vec![&me]),
            (&[("user", 2, None), ("client-id", 2, None)], true, vec![&both]),
            (&[("ip", 2, None)], false, vec![]),
        ] {
            let mut all = told(&mut wire, filters, strict).await.unwrap();
            let mut expected: Vec<String> = expected.into_iter().cloned().collect();
            all.sort();
            expected.sort();
            assert_eq!(all, expected, "{filters:?}");
        }
    }
    let invalid = ErrorCode::InvalidRequest.code();
    for (filters, error) in [
        (&[("group", 2, None)][..], ErrorCode::UnsupportedVersion.code()),
        (&[("user", 3, None)], invalid),
        (&[("user", 0, None)], invalid),
        (&[("user", 2, None), ("user", 2, None)], invalid),
        (&[("user", 2, None), ("ip", 2, None)], invalid),
    ] {
        assert_eq!(told(&mut wire, filters, false).await, Err(error), "{filters:?}");
    }
    for (entity, op) in [
        (&[][..], (PRODUCED, Some(5.0))),
        (&[("user", Some("alice"))], (PRODUCED, Some(5.0))),
        (&[("ip", Some("127.0.0.1"))], ("connection_creation_rate", Some(5.0))),
        (&[ME], (PRODUCED, Some(0.0))),
        (&[ME], ("request_percentage", Some(50.0))),
        (&[ME, ("client-id", None)], (PRODUCED, Some(5.0))),
    ] {
        assert_eq!(alter(&mut wire, entity, &[op], false).await, invalid, "{entity:?} {op:?}");
    }
    assert_eq!(alter(&mut wire, &[ME], &[(PRODUCED, None), (FETCHED, None)], false).await, 0);
    assert_eq!(
        told(&mut wire, &[("client-id", 0, Some("wire"))], false).await.unwrap(),
        Vec::<String>::new()
    );
    drop(broker);
}

/// A client that does not wait is made to: it is not listened to.
#[tokio::test(start_paused = true)]
async fn whoever_produces_or_fetches_too_much_is_told_and_not_listened_to() {
    let memory = InMemory::start().await;
    let (mut wire, mut admin) = (memory.connect().await, memory.connect().await);
    create(&mut wire, "t").await;
    let large = "x".repeat(10_000);
    let produce = async |wire: &mut Wire| {
        let answer = wire.ask_in(&produce_request("t", batch(&[&large]), -1), 9).await;
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
        u64::try_from(answer.throttle_time_ms).unwrap()
    };
    assert_eq!(alter(&mut admin, &[ME], &[(PRODUCED, Some(1_000.0))], false).await, 0);
    let start = Instant::now();
    let told_ms = produce(&mut wire).await;
    assert!((100..=300).contains(&told_ms), "ten thousand bytes and a little are there: {told_ms}");
    let ten_more = produce(&mut wire).await;
    assert!((10_100..=10_300).contains(&ten_more), "{ten_more}");
    assert_eq!(
        start.elapsed(),
        Duration::from_millis(told_ms),
        "the answer came at once, the request was put off"
    );
    wire.metadata(&["t"]).await;
    assert_eq!(start.elapsed(), Duration::from_millis(told_ms + ten_more));
    // Others are listened to, and who has no quota any more.
    let before = Instant::now();
    admin.metadata(&["t"]).await;
    assert_eq!(alter(&mut admin, &[ME], &[(PRODUCED, None), (FETCHED, Some(1_000.0))], false).await, 0);
    assert_eq!((produce(&mut wire).await, before.elapsed()), (0, Duration::ZERO));
    let fetched = wire.ask_in(&fetch_request("t", 0, 0), 12).await;
    let told_ms = u64::try_from(fetched.throttle_time_ms).unwrap();
    assert!((100..=400).contains(&told_ms), "ten thousand bytes and a little: {told_ms}");
    assert_eq!(values(&fetched.responses[0].partitions[0]).len(), 1);
    wire.metadata(&["t"]).await;
    assert_eq!(before.elapsed(), Duration::from_millis(told_ms));
}

/// All that there is to read at once would be followed by hours in which the connection is good for nothing.
#[tokio::test(start_paused = true)]
async fn a_fetch_brings_no_more_at_once_than_ten_seconds_of_its_quota() {
    let memory = InMemory::start().await;
    let (mut wire, mut admin) = (memory.connect().await, memory.connect().await);
    create(&mut wire, "t").await;
    let large = "x".repeat(1_000);
    for _ in 0..100 {
        assert_eq!(wire.produce("t", batch(&[&large])).await.error_code, 0);
    }
    assert_eq!(alter(&mut admin, &[ME], &[(FETCHED, Some(1_000.0))], false).await, 0);
    let (mut offset, start) = (0, Instant::now());
    while offset < 100 {
        let fetched = wire.ask_in(&fetch_request("t", offset, 10_000), 12).await;
        let some = values(&fetched.responses[0].partitions[0]);
        assert!((1..=9).contains(&some.len()), "{} of a thousand bytes and more", some.len());
        assert!(fetched.throttle_time_ms < 11_000, "{}", fetched.throttle_time_ms);
        offset = some.last().unwrap().0 + 1;
    }
    let seconds = start.elapsed().as_secs();
    assert!((80..=110).contains(&seconds), "{seconds}");
    // A batch that is larger is read all the same.
    assert_eq!(alter(&mut admin, &[ME], &[(FETCHED, Some(1.0))], false).await, 0);
    let fetched = wire.ask_in(&fetch_request("t", 99, 10_000), 12).await;
    assert_eq!(values(&fetched.responses[0].partitions[0]).len(), 1);
}

/// Whoever is not listened to cannot say goodbye either.
#[tokio::test(start_paused = true)]
async fn who_is_not_listened_to_for_long_is_let_go() {
    let memory = InMemory::with(|builder| builder.set("max.connections", 1)).await;
    let mut wire = memory.connect().await;
    create(&mut wire, "t").await;
    assert_eq!(alter(&mut wire, &[ME], &[(PRODUCED, Some(1.0))], false).await, 0);
    let answer = wire.ask_in(&produce_request("t", batch(&[&"x".repeat(10_000)]), -1), 9).await;
    assert!(answer.throttle_time_ms > 9_000_000);
    drop(wire);
    tokio::time::sleep(Duration::from_secs(610)).await;
    memory.connect().await.metadata(&["t"]).await;
}

/// The stop of the broker does not wait for somebody who has to wait.
#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_whoever_used_too_much() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    create(&mut wire, "t").await;
    assert_eq!(alter(&mut wire, &[("user", None)], &[(PRODUCED, Some(1.0))], false).await, 0);
    let answer = wire.ask_in(&produce_request("t", batch(&[&"x".repeat(10_000)]), -1), 9).await;
    assert!(answer.throttle_time_ms > 9_000_000);
    let start = Instant::now();
    memory.broker.shutdown().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
}
