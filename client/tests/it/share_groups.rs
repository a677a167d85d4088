//! Share groups, against Apache Kafka: who gets which record, and when it comes again. Run as `apache_kafka.rs` says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use klamm_client::admin::{ConfigChange, ConfigResource};
use klamm_client::{
    AcquireMode, Client, Record, ShareConsumer, ShareConsumerBuilder, ShareError, ShareRecord,
};
use tokio::time::{Instant, timeout};

use crate::apache_kafka::{STEP, address, fresh, topic};

/// How long nothing comes before it is believed that nothing will.
const QUIET: Duration = Duration::from_secs(3);

/// A topic with records `0` to `records`, and a group that reads it from its beginning.
struct Queue {
    client: Client,
    topic: String,
    group: String,
}

impl Queue {
    async fn new(name: &str, records: usize, settings: &[(&str, &str)]) -> Option<Self> {
        Self::over(name, 1, records, settings).await
    }

    async fn over(name: &str, partitions: i32, records: usize, settings: &[(&str, &str)]) -> Option<Self> {
        let client = timeout(STEP, Client::connect(address()?)).await.unwrap().unwrap();
        let topic = topic(&client, name, partitions).await;
        let group = fresh(name);
        let set = |(name, value): &(&str, &str)| ConfigChange::Set((*name).into(), (*value).into());
        let mut changes = vec![set(&("share.auto.offset.reset", "earliest"))];
        changes.extend(settings.iter().map(set));
        let changes = [(ConfigResource::group(&*group), changes)].into();
        let results = timeout(STEP, client.admin().alter_configs(&changes)).await.unwrap().unwrap();
        results.into_values().for_each(|result| result.unwrap());
        let queue = Self { client, topic, group };
        queue.send(0..records).await;
        Some(queue)
    }

    async fn send(&self, numbers: std::ops::Range<usize>) {
        let producer = self.client.producer().build().unwrap();
        for number in numbers {
            let record = Record::to(&*self.topic).value(number.to_string());
            drop(timeout(STEP, producer.enqueue(record)).await.unwrap().unwrap());
        }
        timeout(STEP, producer.close()).await.unwrap().unwrap();
    }

    fn member(&self) -> ShareConsumerBuilder {
        self.client.share_consumer(&*self.group).topics([&*self.topic])
    }

    async fn explicit(&self) -> ShareConsumer {
        self.member().explicit().start().await.unwrap()
    }
}

fn number(record: &ShareRecord) -> usize {
    std::str::from_utf8(record.value.as_deref().unwrap()).unwrap().parse().unwrap()
}

async fn next(member: &mut ShareConsumer) -> ShareRecord {
    timeout(STEP, member.next()).await.expect("a record in time").unwrap().unwrap()
}

async fn nothing_comes(member: &mut ShareConsumer, within: Duration) {
    if let Ok(record) = timeout(within, member.next()).await {
        panic!("{record:?}");
    }
}

/// Everything said so far was taken.
async fn committed(member: &mut ShareConsumer) -> u64 {
    let results = timeout(STEP, member.commit()).await.unwrap().unwrap();
    results.into_values().map(|result| result.unwrap()).sum()
}

async fn close(member: ShareConsumer) {
    timeout(STEP, member.close()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_have_one_partition_in_common_and_each_record_goes_to_one() {
    let Some(queue) = Queue::new("common", 0, &[]).await else { return };
    let members = [queue.member().max_poll_records(5), queue.member().max_poll_records(5)];
    let mut readers = Vec::new();
    for builder in members {
        let mut member = builder.explicit().acquire_mode(AcquireMode::RecordLimit).start().await.unwrap();
        readers.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            while let Ok(records) = timeout(2 * QUIET, member.next_batch()).await {
                let records = records.unwrap().unwrap();
                assert!(records.len() <= 5);
                for record in records {
                    assert_eq!(record.delivery_count(), 1);
                    seen.push(number(&record));
                    record.accept().unwrap();
                }
            }
            assert_eq!(committed(&mut member).await, seen.len() as u64);
            close(member).await;
            seen
        }));
    }
    tokio::time::sleep(QUIET).await;
    queue.send(0..500).await;
    let mut all = Vec::new();
    for reader in readers {
        let seen = reader.await.unwrap();
        assert!(!seen.is_empty(), "both get some");
        all.extend(seen);
    }
    all.sort_unstable();
    assert_eq!(all, (0..500).collect::<Vec<_>>());
    let mut later = queue.explicit().await;
    nothing_comes(&mut later, QUIET).await;
    close(later).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_released_record_comes_again_and_a_rejected_one_does_not() {
    let Some(queue) = Queue::new("again", 3, &[]).await else { return };
    let mut member = queue.explicit().await;
    for expected in 0..3 {
        let record = next(&mut member).await;
        assert_eq!((number(&record), record.delivery_count()), (expected, 1));
        match expected {
            0 => record.accept().unwrap(),
            1 => record.release().unwrap(),
            _ => record.reject().unwrap(),
        }
    }
    assert_eq!(committed(&mut member).await, 3);
    let again = next(&mut member).await;
    assert_eq!((number(&again), again.delivery_count()), (1, 2));
    again.accept().unwrap();
    assert_eq!(committed(&mut member).await, 1);
    assert_eq!(committed(&mut member).await, 0, "each is told once");
    nothing_comes(&mut member, QUIET).await;
    close(member).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_given_up_after_its_last_delivery() {
    let Some(queue) = Queue::new("limit", 2, &[]).await else { return };
    let mut member = queue.explicit().await;
    let mut deliveries = Vec::new();
    // The group's coordinator may still have to begin.
    let mut patience = STEP;
    while let Ok(record) = timeout(patience, member.next()).await {
        patience = QUIET;
        let record = record.unwrap().unwrap();
        if number(&record) == 0 {
            deliveries.push(record.delivery_count());
            record.release().unwrap();
        } else {
            record.accept().unwrap();
        }
    }
    // `group.share.delivery.count.limit` is 5 by default.
    assert_eq!(deliveries, [1, 2, 3, 4, 5]);
    close(member).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_runs_out_gives_the_record_to_another_member() {
    let Some(queue) = Queue::new("slow", 1, &[("share.record.lock.duration.ms", "2000")]).await else {
        return;
    };
    let mut slow = queue.explicit().await;
    let record = next(&mut slow).await;
    let mut other = queue.explicit().await;
    let started = Instant::now();
    let again = next(&mut other).await;
    assert_eq!((number(&again), again.delivery_count()), (0, 2));
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    again.accept().unwrap();
    assert_eq!(committed(&mut other).await, 1);
    let error = record.accept().unwrap_err();
    assert!(matches!(error, ShareError::LockLost { offset: 0, .. }), "{error}");
    assert_eq!(committed(&mut slow).await, 0);
    close(slow).await;
    close(other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_lock_lasts() {
    let Some(queue) = Queue::new("renewed", 2, &[("share.record.lock.duration.ms", "3000")]).await else {
        return;
    };
    let mut patient = queue.explicit().await;
    let mut record = next(&mut patient).await;
    let forgotten = next(&mut patient).await;
    assert_eq!((number(&record), number(&forgotten)), (0, 1));
    let mut other = queue.explicit().await;
    let others = tokio::spawn(async move {
        let mut seen = Vec::new();
        let until = Instant::now() + Duration::from_secs(8);
        while let Ok(record) = tokio::time::timeout_at(until, other.next()).await {
            let record = record.unwrap().unwrap();
            seen.push((number(&record), record.delivery_count()));
            record.accept().unwrap();
        }
        close(other).await;
        seen
    });
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        timeout(STEP, record.renew()).await.unwrap().unwrap();
    }
    assert_eq!(others.await.unwrap(), [(1, 2)], "what was not renewed went to the other");
    record.accept().unwrap();
    assert_eq!(committed(&mut patient).await, 1);
    drop(forgotten);
    nothing_comes(&mut patient, QUIET).await;
    close(patient).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_member_held_that_was_killed_goes_to_another() {
    let Some(queue) = Queue::new("killed", 10, &[("share.record.lock.duration.ms", "60000")]).await else {
        return;
    };
    // A client of its own: with it end the connections.
    let client = timeout(STEP, Client::connect(address().unwrap())).await.unwrap().unwrap();
    let mut killed =
        client.share_consumer(&*queue.group).topics([&*queue.topic]).explicit().start().await.unwrap();
    let held = timeout(STEP, killed.next_batch()).await.unwrap().unwrap().unwrap();
    assert_eq!(held.len(), 10);
    let mut other = queue.explicit().await;
    nothing_comes(&mut other, QUIET).await;
    drop(killed);
    drop(client);
    let started = Instant::now();
    let mut seen = BTreeMap::new();
    while seen.len() < 10 {
        let record = next(&mut other).await;
        seen.insert(number(&record), record.delivery_count());
        record.accept().unwrap();
    }
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "long before the locks run out: {:?}",
        started.elapsed()
    );
    for record in held {
        let error = record.accept().unwrap_err();
        assert!(matches!(error, ShareError::LockLost { .. }), "{error}");
    }
    close(other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_gives_back_what_is_undecided() {
    let Some(queue) = Queue::new("closing", 4, &[("share.record.lock.duration.ms", "60000")]).await else {
        return;
    };
    let mut first = queue.explicit().await;
    let mut records = timeout(STEP, first.next_batch()).await.unwrap().unwrap().unwrap();
    assert_eq!(records.len(), 4);
    records.remove(2).accept().unwrap();
    close(first).await;
    let mut second = queue.explicit().await;
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        let record = next(&mut second).await;
        seen.insert(number(&record));
        record.accept().unwrap();
    }
    assert_eq!(seen, [0, 1, 3].into());
    nothing_comes(&mut second, QUIET).await;
    close(second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asking_for_more_accepts_implicitly() {
    let Some(queue) = Queue::new("implicit", 4, &[]).await else { return };
    let mut first = queue.member().start().await.unwrap();
    for expected in 0..3 {
        let record = next(&mut first).await;
        assert_eq!(number(&record), expected);
        if expected == 1 {
            record.release().unwrap();
        }
    }
    // What was said goes by itself. The last one is not accepted: nobody asked for more.
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(first);
    let mut second = queue.member().start().await.unwrap();
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        seen.insert(number(&next(&mut second).await));
    }
    assert_eq!(seen, [1, 2, 3].into());
    close(second).await;
    let mut third = queue.explicit().await;
    nothing_comes(&mut third, QUIET).await;
    close(third).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_is_given_up_loses_nothing() {
    let Some(queue) = Queue::over("given-up", 3, 0, &[]).await else { return };
    let mut member = queue.explicit().await;
    let mut seen = Vec::new();
    let sending = queue.send(0..200);
    let reading = async {
        let started = Instant::now();
        while seen.len() < 200 && started.elapsed() < STEP {
            // Most of these are dropped while they wait for a leader.
            if let Ok(record) = timeout(Duration::from_millis(3), member.next()).await {
                let record = record.unwrap().unwrap();
                assert_eq!(record.delivery_count(), 1);
                seen.push(number(&record));
                record.accept().unwrap();
            }
        }
    };
    tokio::join!(sending, reading);
    seen.sort_unstable();
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
    close(member).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_subscription_is_followed() {
    let Some(queue) = Queue::new("first", 1, &[]).await else { return };
    let second = topic(&queue.client, "second", 2).await;
    let mut member = queue.explicit().await;
    next(&mut member).await.accept().unwrap();
    assert_eq!(member.assignment(), [(&*queue.topic, 0).into()]);
    member.subscribe([&*second]);
    let producer = queue.client.producer().build().unwrap();
    timeout(STEP, producer.send(Record::to(&*second).value("7"))).await.unwrap().unwrap();
    let record = next(&mut member).await;
    assert_eq!((&*record.topic, number(&record)), (&*second, 7));
    record.accept().unwrap();
    close(member).await;
}

/// From where a group reads is told, set and forgotten; what is locked by a member keeps others from setting it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_of_a_group_are_told_and_set() {
    let Some(queue) = Queue::new("offsets", 5, &[]).await else { return };
    let admin = queue.client.admin();
    let mut member = queue.explicit().await;
    for _ in 0..3 {
        next(&mut member).await.accept().unwrap();
    }
    assert_eq!(committed(&mut member).await, 3);
    let described = timeout(STEP, admin.describe_share_groups(&[&*queue.group])).await.unwrap().unwrap();
    let group = described[&*queue.group].as_ref().unwrap();
    assert_eq!((&*group.state, &*group.group_type, group.members.len()), ("Stable", "share", 1));
    let filter = klamm_client::admin::GroupFilter::new().group_type("share");
    let listed = timeout(STEP, admin.list_groups_with(&filter)).await.unwrap().unwrap();
    assert!(listed.iter().any(|listed| *listed.group == *queue.group), "{listed:?}");

    let at = |offset| [((&*queue.topic, 0).into(), offset)].into();
    let refused =
        timeout(STEP, admin.alter_share_group_offsets(&queue.group, &at(1))).await.unwrap().unwrap();
    assert!(refused.into_values().all(|result| result.is_err()), "it has a member");
    close(member).await;
    let position = async || {
        let groups = timeout(STEP, admin.list_share_group_offsets(&[&*queue.group])).await.unwrap().unwrap();
        groups[&*queue.group].as_ref().unwrap().get(&(&*queue.topic, 0).into()).copied()
    };
    let told = position().await.unwrap();
    assert_eq!((told.start_offset, told.lag), (3, Some(2)));
    let set = timeout(STEP, admin.alter_share_group_offsets(&queue.group, &at(1))).await.unwrap().unwrap();
    set.into_values().for_each(|result| result.unwrap());
    assert_eq!(position().await.unwrap().start_offset, 1);
    let mut member = queue.explicit().await;
    let record = next(&mut member).await;
    assert_eq!((number(&record), record.delivery_count()), (1, 1));
    close(member).await;
    let topics = [&*queue.topic];
    let deleted =
        timeout(STEP, admin.delete_share_group_offsets(&queue.group, &topics)).await.unwrap().unwrap();
    deleted.into_values().for_each(|result| result.unwrap());
    assert_eq!(position().await, None);
}

/// The broker is one without logins: it refuses each of these in its own words, which shows that it understood them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_and_tokens_that_are_not_there_are_errors() {
    use klamm_client::ErrorCode;
    use klamm_client::admin::NewDelegationToken;
    let Some(address) = address() else { return };
    let client = timeout(STEP, Client::connect(address)).await.unwrap().unwrap();
    let admin = client.admin();
    let group = fresh("nobody");
    let streams = timeout(STEP, admin.describe_streams_groups(&[&*group])).await.unwrap().unwrap();
    assert_eq!(streams[&*group].as_ref().unwrap_err().code(), Some(ErrorCode::GroupIdNotFound));
    let hmac = bytes::Bytes::from_static(b"none");
    let created = timeout(STEP, admin.create_delegation_token(&NewDelegationToken::new())).await.unwrap();
    let described = timeout(STEP, admin.describe_delegation_tokens(&[])).await.unwrap();
    let renewed = timeout(STEP, admin.renew_delegation_token(&hmac, None)).await.unwrap();
    let expired = timeout(STEP, admin.expire_delegation_token(&hmac, None)).await.unwrap();
    let codes = [created.unwrap_err(), described.unwrap_err(), renewed.unwrap_err(), expired.unwrap_err()];
    for error in codes {
        let code = error.code();
        let expected = [ErrorCode::DelegationTokenRequestNotAllowed, ErrorCode::DelegationTokenAuthDisabled];
        assert!(expected.iter().any(|expected| code == Some(*expected)), "{error}");
    }
}

/// Sends from a thread of its own, and stops this one for so long, as a process is that gets no time.
fn send_and_stand_still(queue: &Queue, numbers: std::ops::Range<usize>, pause: Duration) {
    let (topic, group) = (queue.topic.clone(), queue.group.clone());
    let sender = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = timeout(STEP, Client::connect(address().unwrap())).await.unwrap().unwrap();
            Queue { client, topic, group }.send(numbers).await;
        });
    });
    sender.join().unwrap();
    std::thread::sleep(pause);
}

/// Locks that ran out at the broker are told together with others that last, as they are when the answer of a fetch was
/// read late: the broker refuses all of them at first.
#[tokio::test]
async fn locks_that_ran_out_at_the_broker_do_not_fail_the_others() {
    let Some(queue) = Queue::new("halves", 0, &[("share.record.lock.duration.ms", "15000")]).await else {
        return;
    };
    let pause = Duration::from_secs(5);
    let held = queue.member().explicit().fetch_max_wait(Duration::from_secs(20));
    let mut member = held.start().await.unwrap();
    // Until it has joined, and then until a fetch is held.
    while member.assignment().is_empty() {
        nothing_comes(&mut member, QUIET / 10).await;
    }
    nothing_comes(&mut member, QUIET).await;
    send_and_stand_still(&queue, 0..7, pause);
    let acquired = Instant::now() - pause;
    let mut records = timeout(STEP, member.next_batch()).await.unwrap().unwrap().unwrap();
    assert_eq!(records.len(), 7);
    tokio::time::sleep_until(acquired + Duration::from_secs(10)).await;
    queue.send(7..40).await;
    while records.len() < 40 {
        records.extend(timeout(STEP, member.next_batch()).await.unwrap().unwrap().unwrap());
    }
    tokio::time::sleep_until(acquired + Duration::from_secs(17)).await;
    for record in records {
        record.accept().unwrap();
    }
    let result = timeout(STEP, member.commit()).await.unwrap().unwrap().into_values().next().unwrap();
    let error = result.unwrap_err();
    assert!(matches!(error, ShareError::NotAcknowledged { records: 7, .. }), "{error}");
    let mut again = BTreeSet::new();
    while again.len() < 7 {
        let record = next(&mut member).await;
        assert_eq!(record.delivery_count(), 2);
        again.insert(number(&record));
        record.accept().unwrap();
    }
    assert_eq!(again, (0..7).collect());
    assert_eq!(committed(&mut member).await, 7);
    close(member).await;
}

/// Futures are dropped at any moment, from many tasks verdicts come, and each record is done once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_that_are_given_up_lose_nothing() {
    let Some(queue) = Queue::over("dropped", 3, 2_000, &[]).await else { return };
    let mut member = queue.member().explicit().max_poll_records(50).start().await.unwrap();
    let (mut seen, mut asked, mut said) = (BTreeMap::new(), 0_u64, Vec::new());
    let deadline = Instant::now() + 3 * STEP;
    while seen.len() < 2_000 && Instant::now() < deadline {
        asked += 1;
        let wait = Duration::from_micros(asked * 37 % 3_000);
        match timeout(wait, member.next_batch()).await {
            Ok(records) => {
                for record in records.unwrap().unwrap() {
                    *seen.entry(number(&record)).or_insert(0) += 1;
                    said.push(tokio::spawn(async move { record.accept() }));
                }
            }
            Err(_) if asked % 5 == 0 => drop(timeout(wait, member.commit()).await),
            Err(_) => {}
        }
    }
    for said in said {
        said.await.unwrap().unwrap();
    }
    timeout(STEP, member.commit()).await.unwrap().unwrap();
    assert!(seen.values().all(|&count| count == 1), "{seen:?}");
    assert_eq!(seen.len(), 2_000);
    close(member).await;
    let mut later = queue.explicit().await;
    nothing_comes(&mut later, QUIET).await;
    close(later).await;
}

/// A subscription to nothing is no reason to be thrown out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_may_subscribe_to_nothing_for_a_while() {
    let Some(queue) = Queue::new("nothing", 2, &[]).await else { return };
    let mut member = queue.explicit().await;
    let record = next(&mut member).await;
    assert_eq!(committed(&mut member).await, 0);
    member.subscribe(Vec::<String>::new());
    while !member.assignment().is_empty() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    record.accept().unwrap();
    assert_eq!(committed(&mut member).await, 1);
    member.subscribe([queue.topic.clone()]);
    let again = next(&mut member).await;
    again.accept().unwrap();
    close(member).await;
}
