//! Members that come and go, clocks that jump and brokers that fail, while records are in work, in retry, held, or on
//! their way to the dead letters.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm::client::testing::{Answer, FakeBroker};
use klamm::client::{ApiKey, ErrorCode};
use klamm::listener::ListenerHandle;
use klamm::prelude::*;
use klamm::testing::TestKit;
use tokio::time::{Instant, advance, sleep, timeout};

use crate::picky::{listening, send};
use crate::seen::{Gate, Seen, own_names, until};

const TEN_MINUTES: Duration = Duration::from_secs(600);
const PARTITIONS: i32 = 4;

/// What is finished, by partition and offset.
#[derive(Clone, Default)]
struct Done(Arc<Mutex<BTreeSet<(i32, i64)>>>);

impl Done {
    fn add(&self, meta: &RecordMeta) {
        self.0.lock().unwrap().insert((meta.partition, meta.offset));
    }

    fn all_below(&self, partition: i32, offset: i64) -> bool {
        let done = self.0.lock().unwrap();
        (0..offset).all(|below| done.contains(&(partition, below)))
    }
}

/// Of ten, one fails always, two at first, and all take their time.
async fn flaky(
    Value(text): Value<String>,
    meta: RecordMeta,
    State(seen): State<Seen>,
    State(done): State<Done>,
) -> Result<(), String> {
    let number: u64 = text.parse().unwrap();
    seen.add(&text);
    sleep(Duration::from_millis(number % 7 * 200)).await;
    match number % 10 {
        3 => {
            if meta.attempt == 3 {
                // Its dead letter is awaited before it counts.
                done.add(&meta);
            }
            Err(text)
        }
        5 | 8 if meta.attempt < 3 => Err(text),
        _ => {
            done.add(&meta);
            Ok(())
        }
    }
}

#[klamm::test(deadline = "100000s")]
async fn whoever_comes_and_goes_nothing_is_lost_or_committed_too_early(kit: TestKit) {
    let (t, g) = own_names();
    const RECORDS: usize = 400;
    kit.create_topic(&t, PARTITIONS).await;
    let (seen, done) = (Seen::default(), Done::default());
    let app = || {
        let policy = FailurePolicy::new()
            .retry_in_place(Backoff::fixed(Duration::from_secs(3)).attempts(3))
            .dead_letter();
        let listener = Listener::on(&*t).group(&*g).concurrency(8).max_in_flight(60);
        let listener = listener.dispatch(Dispatch::by_key()).on_failure(policy).handle(flaky);
        kit.app().state(seen.clone()).state(done.clone()).listener(listener)
    };
    let first = app().start().await;
    let write = async {
        for n in 0..RECORDS {
            kit.send_to(&t, n as i32 % PARTITIONS, format!("{}", n % 13), format!("{n}")).await;
            sleep(Duration::from_millis(100)).await;
        }
    };
    let churn = async {
        for round in 0..8_u64 {
            let other = app().start().await;
            sleep(Duration::from_millis(700 + round * 900)).await;
            other.stop().await;
            sleep(Duration::from_millis(300 * round)).await;
        }
    };
    let look = async {
        for _ in 0..100 {
            sleep(Duration::from_millis(500)).await;
            for partition in 0..PARTITIONS {
                let committed = kit.committed(&g, &t, partition).await.unwrap_or(0);
                assert!(done.all_below(partition, committed), "{partition} is committed to {committed}");
            }
        }
    };
    tokio::join!(write, churn, look);
    let all = RECORDS as i64 / i64::from(PARTITIONS);
    timeout(TEN_MINUTES, async {
        for partition in 0..PARTITIONS {
            while kit.committed(&g, &t, partition).await != Some(all) {
                sleep(Duration::from_secs(1)).await;
            }
        }
    })
    .await
    .expect("all of it is finished and committed");
    let letters: BTreeSet<String> =
        kit.topic(format!("{t}-dlt")).values::<String>().await.into_iter().collect();
    assert_eq!(letters.len(), RECORDS / 10);
    let handle = first.listener("flaky").unwrap();
    assert_eq!((handle.unfinished(), handle.in_retry(), handle.in_flight()), (0, 0, 0));
    assert!(first.stop().await.is_clean());
}

/// Acknowledges from another task, later.
async fn acknowledges_later(Value(text): Value<String>, ack: Ack, State(seen): State<Seen>) {
    let number: u64 = text.parse().unwrap();
    seen.add(text);
    #[allow(clippy::disallowed_methods)] // Somebody else's task is what is looked at.
    tokio::task::spawn(async move {
        sleep(Duration::from_millis(number % 11 * 100)).await;
        ack.mark();
    });
}

#[klamm::test(deadline = "100000s")]
async fn whoever_comes_and_goes_in_order_repeats_nothing(kit: TestKit) {
    let (t, g) = own_names();
    const RECORDS: usize = 300;
    kit.create_topic(&t, PARTITIONS).await;
    let seen = Seen::default();
    let app = || {
        let listener = Listener::on(&*t).group(&*g).ack(AckPolicy::Manual).handle(acknowledges_later);
        kit.app().state(seen.clone()).listener(listener)
    };
    let first = app().start().await;
    let write = async {
        for n in 0..RECORDS {
            kit.send_to(&t, n as i32 % PARTITIONS, "k", format!("{n}")).await;
            sleep(Duration::from_millis(100)).await;
        }
    };
    let churn = async {
        for round in 0..8_u64 {
            let other = app().start().await;
            sleep(Duration::from_millis(500 + round * 700)).await;
            assert!(other.stop().await.is_clean());
        }
    };
    tokio::join!(write, churn);
    until(|| (0..RECORDS).all(|n| seen.count(&n.to_string()) > 0)).await;
    sleep(Duration::from_secs(10)).await;
    assert!(first.stop().await.is_clean());
    for partition in 0..PARTITIONS {
        assert_eq!(kit.committed(&g, &t, partition).await, Some(RECORDS as i64 / i64::from(PARTITIONS)));
    }
    let doubles: Vec<_> = (0..RECORDS).filter(|n| seen.count(&n.to_string()) > 1).collect();
    assert_eq!(doubles, [0_usize; 0], "delivered twice without cause");
}

async fn gated(Value(text): Value<String>, State(seen): State<Seen>, State(gate): State<Gate>) {
    seen.add(text);
    gate.pass().await;
}

/// A process that was paused longer than its session.
#[klamm::test]
async fn a_clock_that_jumps_over_the_session_loses_nothing(kit: TestKit) {
    let (t, g) = own_names();
    kit.create_topic(&t, 2).await;
    let (seen, gate) = (Seen::default(), Gate::default());
    let listener = Listener::on(&*t).group(&*g).concurrency(4).handle(gated);
    let app = kit.app().state(seen.clone()).state(gate.clone()).listener(listener).start().await;
    for n in 0..20 {
        kit.send_to(&t, n % 2, "k", format!("{n}")).await;
    }
    for _ in 0..5 {
        until(|| !seen.all().is_empty()).await;
        advance(Duration::from_secs(120)).await;
        gate.let_through(2);
        sleep(Duration::from_secs(3)).await;
    }
    gate.let_through(1_000);
    until(|| (0..20).all(|n| seen.count(&n.to_string()) > 0)).await;
    sleep(Duration::from_secs(60)).await;
    assert!(app.stop().await.is_clean());
    for partition in 0..2 {
        assert_eq!(kit.committed(&g, &t, partition).await, Some(10));
    }
}

#[tokio::test(start_paused = true)]
async fn commits_and_fetches_that_fail_in_every_way_are_made_in_the_end() {
    let (broker, seen) = (FakeBroker::start_in_memory().await.unwrap(), Seen::default());
    broker.topic("t", 1).topic("t-dlt", 1);
    let (app, handle) = listening(&broker, &seen).await;
    let answers = [
        Answer::DisconnectBefore,
        Answer::DisconnectAfter,
        Answer::ThenDisconnect,
        Answer::Never,
        Answer::Hang,
        Answer::Delayed(Duration::from_secs(40)),
        Answer::Error(ErrorCode::NotCoordinator),
        Answer::Error(ErrorCode::CoordinatorLoadInProgress),
        Answer::Error(ErrorCode::CoordinatorNotAvailable),
        Answer::Error(ErrorCode::RequestTimedOut),
        Answer::Error(ErrorCode::UnknownServerError),
        Answer::Error(ErrorCode::UnknownTopicOrPartition),
    ];
    let apis =
        [ApiKey::OffsetCommit, ApiKey::Fetch, ApiKey::Heartbeat, ApiKey::FindCoordinator, ApiKey::Produce];
    let mut sent = 0;
    for api in apis {
        for answer in &answers {
            match api {
                ApiKey::Produce => broker.next_for("t-dlt", api, 1, answer.clone()),
                _ => broker.next(api, 1, answer.clone()),
            };
            let values = [format!("{sent}"), format!("bad {sent}")];
            timeout(TEN_MINUTES, send(&broker, &values))
                .await
                .unwrap_or_else(|_| panic!("{api:?} {answer:?}"));
            sent += 2;
            let all = async {
                while broker.committed("g", ("t", 0)) != Some(sent) {
                    assert!(handle.is_running(), "{api:?} {answer:?}");
                    sleep(Duration::from_millis(100)).await;
                }
            };
            timeout(TEN_MINUTES, all)
                .await
                .unwrap_or_else(|_| panic!("{api:?} {answer:?}: {:?}", broker.committed("g", ("t", 0))));
            broker.behave();
        }
    }
    assert!(handle.troubles().is_empty(), "{:?}", handle.troubles());
    assert!(app.shutdown(TEN_MINUTES).await.is_clean());
}

/// The listener waits for nothing but the letter, and makes it when there is somewhere to.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_topic_that_comes_later_gets_its_letters() {
    let (broker, seen) = (FakeBroker::start_in_memory().await.unwrap(), Seen::default());
    broker.topic("t", 1).without(ApiKey::CreateTopics);
    broker.always_for("t-dlt", ApiKey::Metadata, Answer::Error(ErrorCode::UnknownTopicOrPartition));
    let (_app, handle) = listening(&broker, &seen).await;
    send(&broker, &["bad".to_owned(), "good".to_owned()]).await;
    timeout(TEN_MINUTES, until(|| handle.troubles().len() == 1)).await.unwrap();
    assert_eq!((seen.count("good"), broker.committed("g", ("t", 0))), (1, None));
    broker.topic("t-dlt", 1).behave();
    timeout(TEN_MINUTES, handle.wait_handled(2)).await.unwrap().unwrap();
    assert_eq!(broker.values("t-dlt", 0), ["bad"]);
    assert_eq!(broker.committed("g", ("t", 0)), Some(2));
    assert!(handle.troubles().is_empty(), "{:?}", handle.troubles());
}

#[klamm::test]
async fn a_stop_during_a_rebalance_is_in_time(kit: TestKit) {
    let (t, g) = own_names();
    kit.create_topic(&t, 2).await;
    let (seen, gate) = (Seen::default(), Gate::default());
    let app = || {
        let listener = Listener::on(&*t).group(&*g).concurrency(4).handle(gated);
        kit.app().state(seen.clone()).state(gate.clone()).listener(listener)
    };
    let first = app().start().await;
    for partition in 0..2 {
        kit.send_to(&t, partition, "k", format!("{partition}")).await;
    }
    until(|| seen.all().len() == 2).await;
    let second = async { app().start().await };
    let stop = async {
        // The first waits for its handlers, the second for its partitions.
        sleep(Duration::from_secs(4)).await;
        let started = Instant::now();
        let report = first.shutdown(Duration::from_secs(1)).await;
        assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
        report
    };
    let (second, report) = tokio::join!(second, stop);
    assert!(!report.unfinished.is_empty());
    let other = second.listener("gated").unwrap();
    let before = Instant::now();
    until(|| other.assignment().len() == 2 && seen.all().len() == 4).await;
    assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
    gate.let_through(100);
    second.handled("gated", 2).await;
}

/// Its partition was about to go: nobody waited for it, nobody told of it, and the group was not left.
#[klamm::test]
async fn a_drain_waits_for_handlers_of_partitions_that_are_about_to_go(kit: TestKit) {
    for busy in 0..2 {
        let topic = format!("t{busy}");
        kit.create_topic(&topic, 2).await;
        let (seen, gate) = (Seen::default(), Gate::default());
        let app = || {
            let listener = Listener::on(topic.as_str()).group(topic.as_str()).handle(gated);
            kit.app().state(seen.clone()).state(gate.clone()).listener(listener)
        };
        let first = app().start().await;
        kit.send_to(&topic, busy, "k", "v").await;
        until(|| seen.all().len() == 1).await;
        let second = async { app().start().await };
        let stop = async {
            sleep(Duration::from_secs(4)).await;
            first.shutdown(Duration::from_secs(60)).await
        };
        let open = async {
            sleep(Duration::from_secs(6)).await;
            gate.let_through(100);
        };
        let (_second, report, ()) = tokio::join!(second, stop, open);
        assert!(report.is_clean(), "{report:?}");
        sleep(TEN_MINUTES).await;
        assert_eq!(seen.all(), ["v"], "it was finished where it was begun");
        assert_eq!(kit.committed(&topic, &topic, busy).await, Some(1));
    }
}

/// Where a handler finds its own listener.
#[derive(Clone, Default)]
struct Own(Arc<Mutex<Option<ListenerHandle>>>);

async fn pauses(State(own): State<Own>, State(gate): State<Gate>, State(seen): State<Seen>) {
    seen.add("begun");
    gate.pass().await;
    let own = own.0.lock().unwrap().clone().unwrap();
    seen.add(format!("{:?}", own.pause().await));
}

/// The drain waited for the handler, and the handler for the poll loop that had ended.
#[klamm::test]
async fn a_handler_that_gives_a_command_holds_no_drain_up(kit: TestKit) {
    let (t, g) = own_names();
    let (seen, gate, own) = (Seen::default(), Gate::default(), Own::default());
    kit.send(&t, "k", "v").await;
    let listener = Listener::on(&*t).group(&*g).handle(pauses);
    let app =
        kit.app().state(seen.clone()).state(gate.clone()).state(own.clone()).listener(listener).start().await;
    *own.0.lock().unwrap() = app.listener("pauses");
    until(|| seen.count("begun") == 1).await;
    let started = Instant::now();
    let opener = async {
        sleep(Duration::from_secs(1)).await;
        gate.let_through(1);
    };
    let (report, ()) = tokio::join!(app.shutdown(Duration::from_secs(60)), opener);
    assert!(report.is_clean(), "{report:?}");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(seen.all(), ["begun", "Err(Ended)"]);
    assert_eq!(kit.committed(&g, &t, 0).await, Some(1));
}
