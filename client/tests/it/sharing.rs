//! What a share consumer promises when its broker does not do what it should.

use std::time::Duration;

use klamm_client::{Client, ErrorCode, Record, ShareConsumer, ShareError, ShareRecord, TopicPartition, Uuid};
use klamm_protocol::ApiKey;
use tokio::time::{Instant, timeout};

use crate::fake::{FakeBroker, Fault, TOPIC};

const SECOND: Duration = Duration::from_secs(1);

async fn broker(records: usize) -> (FakeBroker, Client) {
    let broker = FakeBroker::start(1).await;
    broker.state().topic_id = Uuid::from_u128(7);
    let client = broker.client().await;
    let producer = client.producer().build().unwrap();
    for number in 0..records {
        producer.send(Record::to(TOPIC).partition(0).value(number.to_string())).await.unwrap();
    }
    (broker, client)
}

async fn member(client: &Client) -> ShareConsumer {
    client.share_consumer("g").topics([TOPIC]).explicit().start().await.unwrap()
}

async fn next(member: &mut ShareConsumer) -> ShareRecord {
    timeout(5 * SECOND, member.next()).await.expect("a record in time").unwrap().unwrap()
}

/// Offsets and delivery counts of so many records, which are all accepted.
async fn accept(member: &mut ShareConsumer, count: usize) -> Vec<(i64, u16)> {
    let mut seen = Vec::new();
    for _ in 0..count {
        let record = next(member).await;
        seen.push((record.offset, record.delivery_count()));
        record.accept().unwrap();
    }
    seen
}

async fn committed(member: &mut ShareConsumer) -> Option<Result<u64, ShareError>> {
    let mut results = timeout(60 * SECOND, member.commit()).await.unwrap().unwrap();
    results.remove(&TopicPartition::new(TOPIC, 0))
}

#[tokio::test(start_paused = true)]
async fn nothing_is_acquired_that_nobody_waits_for() {
    let (broker, client) = broker(3).await;
    let mut member = member(&client).await;
    tokio::time::sleep(60 * SECOND).await;
    let fetches = || broker.state().seen.get(&ApiKey::ShareFetch.code()).copied();
    assert_eq!(fetches(), None);
    assert_eq!(accept(&mut member, 3).await, [(0, 1), (1, 1), (2, 1)]);
    assert_eq!(fetches(), Some(1));
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(fetches(), Some(1), "what was said went by itself");
    assert!((0..3).all(|offset| broker.state().share.is_done(offset)));
    member.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn heartbeats_tell_the_subscription_once_and_again_after_a_failure() {
    let (broker, client) = broker(1).await;
    let mut member = member(&client).await;
    accept(&mut member, 1).await;
    tokio::time::sleep(2 * SECOND + SECOND / 2).await;
    assert_eq!(broker.state().share.beats, [(0, Some(1)), (1, None), (1, None)]);
    broker.state().share.beats.clear();
    broker.script(ApiKey::ShareGroupHeartbeat, [Fault::Disconnect]);
    tokio::time::sleep(SECOND).await;
    assert_eq!(broker.state().share.beats, [(1, Some(1))]);
    broker.state().share.beats.clear();
    broker.state().share.refusals = vec![ErrorCode::FencedMemberEpoch];
    tokio::time::sleep(SECOND + SECOND / 2).await;
    let beats = broker.state().share.beats.clone();
    assert_eq!(beats[..2], [(1, None), (0, Some(1))], "it joins again");
    member.close().await.unwrap();
    assert_eq!(broker.state().share.beats.last(), Some(&(-1, None)));
    assert_eq!(broker.state().share.session, None);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_refuses_ends_the_consumer() {
    let (broker, client) = broker(1).await;
    broker.state().share.refusals = vec![ErrorCode::GroupAuthorizationFailed];
    let mut member = member(&client).await;
    let error = timeout(5 * SECOND, member.next()).await.unwrap().unwrap().unwrap_err();
    assert!(error.is_fatal() && matches!(error, ShareError::Group { .. }), "{error}");
    assert!(timeout(SECOND, member.next()).await.unwrap().is_none());
    member.close().await.unwrap();
}

/// Whether the broker took them is not known: the program is told so, and the session begins anew.
#[tokio::test(start_paused = true)]
async fn acknowledgements_whose_answer_is_lost_are_told() {
    let (broker, client) = broker(3).await;
    let mut member = member(&client).await;
    let mut records = timeout(5 * SECOND, member.next_batch()).await.unwrap().unwrap().unwrap();
    let (third, second) = (records.pop().unwrap(), records.pop().unwrap());
    records.pop().unwrap().accept().unwrap();
    broker.script(ApiKey::ShareAcknowledge, [Fault::ServeThenDisconnect]);
    let error = committed(&mut member).await.unwrap().unwrap_err();
    assert!(error.may_have_been_acknowledged(), "{error}");
    assert_eq!(error.to_string().split(':').next(), Some("t-0"));
    assert!(matches!(second.accept(), Err(ShareError::LockLost { offset: 1, .. })));
    assert!(matches!(third.release(), Err(ShareError::LockLost { offset: 2, .. })));
    assert_eq!(accept(&mut member, 2).await, [(1, 2), (2, 2)]);
    assert_eq!(committed(&mut member).await.unwrap().unwrap(), 2);
    assert!(committed(&mut member).await.is_none());
    member.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_session_that_the_broker_forgot_begins_anew() {
    let (broker, client) = broker(2).await;
    let mut member = member(&client).await;
    let record = next(&mut member).await;
    broker.state().share.session = None;
    record.accept().unwrap();
    let error = committed(&mut member).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("SHARE_SESSION_NOT_FOUND"), "{error}");
    assert!(!error.may_have_been_acknowledged());
    assert_eq!(accept(&mut member, 2).await, [(0, 2), (1, 2)]);
    member.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_older_broker_cannot_renew() {
    let (broker, client) = broker(1).await;
    broker.state().share.up_to = Some(1);
    let mut member = member(&client).await;
    let mut record = next(&mut member).await;
    let error = timeout(5 * SECOND, record.renew()).await.unwrap().unwrap_err();
    assert!(matches!(error, ShareError::CannotRenew { .. }), "{error}");
    record.accept().unwrap();
    assert_eq!(committed(&mut member).await.unwrap().unwrap(), 1);
    member.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lock_is_renewed_while_the_consumer_waits_for_more() {
    let (broker, client) = broker(1).await;
    let mut member = member(&client).await;
    let mut record = next(&mut member).await;
    let waiting = tokio::spawn(async move {
        let nothing = timeout(100 * SECOND, member.next()).await;
        (nothing.is_err(), member)
    });
    for _ in 0..4 {
        tokio::time::sleep(20 * SECOND).await;
        let started = Instant::now();
        timeout(5 * SECOND, record.renew()).await.unwrap().unwrap();
        assert!(started.elapsed() <= SECOND, "no longer than a fetch is held: {:?}", started.elapsed());
    }
    record.accept().unwrap();
    let (nothing, member) = waiting.await.unwrap();
    assert!(nothing && broker.state().share.is_done(0));
    member.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lock_runs_out_without_its_broker() {
    let (_broker, client) = broker(1).await;
    let mut member = member(&client).await;
    let record = next(&mut member).await;
    tokio::time::sleep(30 * SECOND).await;
    assert!(matches!(record.accept(), Err(ShareError::LockLost { offset: 0, .. })));
    member.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn closing_has_a_deadline() {
    let (broker, client) = broker(1).await;
    let mut member = member(&client).await;
    let record = next(&mut member).await;
    broker.script(ApiKey::ShareAcknowledge, [Fault::Hang]);
    let started = Instant::now();
    let error = member.close_within(3 * SECOND).await.unwrap_err();
    assert_eq!(started.elapsed().as_secs(), 3, "{error}");
    assert!(matches!(record.accept(), Err(ShareError::LockLost { .. })), "nobody is there any more");
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_consumer_that_ended_is_told() {
    let (broker, client) = broker(1).await;
    let mut member = member(&client).await;
    let mut record = next(&mut member).await;
    broker.script(ApiKey::ShareAcknowledge, [Fault::Hang]);
    let waiting = tokio::spawn(async move { record.renew().await });
    tokio::time::sleep(SECOND).await;
    drop(member);
    let error = timeout(SECOND, waiting).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, ShareError::LockLost { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn settings_that_cannot_work_are_refused() {
    let (_broker, client) = broker(0).await;
    let error = client.share_consumer("g").start().await.unwrap_err();
    assert_eq!(error.to_string(), "setting `topics`: nothing to read: name at least one");
}

/// A fetch that is under way may be held longer than `request_timeout`, and what is said goes after it.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_held_fetch_is_not_given_up_before_its_time() {
    let (broker, client) = broker(2).await;
    let members = client.share_consumer("g").topics([TOPIC]).explicit();
    let members = members.request_timeout(2 * SECOND).fetch_max_wait(10 * SECOND);
    let mut member = members.start().await.unwrap();
    let mut records = timeout(5 * SECOND, member.next_batch()).await.unwrap().unwrap().unwrap();
    assert!(timeout(SECOND / 10, member.next()).await.is_err(), "a fetch is held from now on");
    timeout(60 * SECOND, records[0].renew()).await.unwrap().unwrap();
    for record in records {
        record.accept().unwrap();
    }
    assert!(timeout(SECOND / 10, member.next()).await.is_err(), "and another one");
    assert_eq!(committed(&mut member).await.unwrap().unwrap(), 2);
    assert!((0..2).all(|offset| broker.state().share.is_done(offset)));
    assert!(timeout(SECOND / 10, member.next()).await.is_err());
    member.close().await.unwrap();
}
