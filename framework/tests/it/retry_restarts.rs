//! Retry topics while processes come, go and die: also on a real cluster (`KLAMM_TEST=host:port`).

use std::time::Duration;

use klamm::listener::{Before, BoxError, Delivery, ListenInterceptor};
use klamm::prelude::*;
use klamm::testing::{RunningTestApp, TestKit};
use tokio::time::{sleep, timeout};

use crate::seen::{Seen, own_names, until};

const SECOND: Duration = Duration::from_secs(1);
const PARTITIONS: i32 = 2;
const RECORDS: i32 = 60;

/// Fails at the first two deliveries. Says in which topic it met a record.
async fn shaky(Value(text): Value<String>, meta: RecordMeta, State(seen): State<Seen>) -> Result<(), String> {
    seen.add(format!("{text} {} {}", meta.topic, meta.attempt));
    if meta.attempt < 3 { Err("not yet".into()) } else { Ok(()) }
}

async fn start(kit: &TestKit, seen: &Seen, (t, g): &(String, String)) -> RunningTestApp {
    let policy = FailurePolicy::new().retry_topics([SECOND, 2 * SECOND]);
    let listener = Listener::on(&**t).group(&**g).concurrency(4).on_failure(policy).handle(shaky);
    kit.app().state(seen.clone()).listener(listener).start().await
}

async fn write(kit: &TestKit, t: &str) {
    for n in 0..RECORDS {
        kit.send_to(t, n % PARTITIONS, "k", format!("{n}")).await;
        sleep(Duration::from_millis(150)).await;
    }
}

/// Each record took its three steps, at least once each and no other; nothing died; all is committed.
async fn all_took_their_steps(kit: &TestKit, seen: &Seen, (t, g): &(String, String)) {
    let steps = [format!("{t} 1"), format!("{t}-retry-1s-{g} 2"), format!("{t}-retry-2s-{g} 3")];
    let all = || (0..RECORDS).all(|n| steps.iter().all(|step| seen.count(&format!("{n} {step}")) > 0));
    timeout(300 * SECOND, until(all)).await.unwrap_or_else(|_| panic!("something is lost: {:?}", seen.all()));
    for seen in seen.all() {
        assert!(steps.iter().any(|step| seen.ends_with(step)), "{seen}");
    }
    for topic in [t.clone(), format!("{t}-retry-1s-{g}"), format!("{t}-retry-2s-{g}")] {
        for partition in 0..PARTITIONS {
            let end = kit.topic(topic.clone()).records().await;
            let end = end.iter().filter(|record| record.partition == partition).count();
            let committed = async {
                while kit.committed(g, &topic, partition).await != Some(i64::try_from(end).unwrap()) {
                    sleep(SECOND).await;
                }
            };
            timeout(60 * SECOND, committed).await.unwrap_or_else(|_| panic!("{topic}-{partition}: {end}"));
        }
    }
}

/// A rolling restart under load, twice.
#[klamm::test(deadline = "10000s")]
async fn members_come_and_go_and_no_step_is_lost(kit: TestKit) {
    let (names, seen) = (own_names(), Seen::default());
    kit.create_topic(&names.0, PARTITIONS).await;
    kit.create_topic(&format!("{}-dlt", names.0), 1).await;
    let (mut one, mut other) = (start(&kit, &seen, &names).await, start(&kit, &seen, &names).await);
    let churn = async {
        for _ in 0..2 {
            sleep(2 * SECOND).await;
            assert!(one.stop().await.is_clean());
            one = start(&kit, &seen, &names).await;
            sleep(2 * SECOND).await;
            assert!(other.stop().await.is_clean());
            other = start(&kit, &seen, &names).await;
        }
        (one, other)
    };
    let ((one, other), ()) = tokio::join!(churn, write(&kit, &names.0));
    all_took_their_steps(&kit, &seen, &names).await;
    kit.topic(format!("{}-dlt", names.0)).stays_empty().await;
    assert!(one.stop().await.is_clean());
    assert!(other.stop().await.is_clean());
}

/// As a process that is killed: nothing is drained, committed or left.
#[klamm::test(deadline = "10000s")]
async fn who_is_killed_between_copy_and_commit_loses_no_step(kit: TestKit) {
    let (names, seen) = (own_names(), Seen::default());
    kit.create_topic(&names.0, PARTITIONS).await;
    kit.create_topic(&format!("{}-dlt", names.0), 1).await;
    let last = start(&kit, &seen, &names).await;
    let churn = async {
        for round in 0..5_u32 {
            let other = start(&kit, &seen, &names).await;
            let handle = other.listener("shaky").unwrap();
            // Somewhere between a failure, its copy, the acknowledgement and the commit, if it gets something.
            let _ = timeout(5 * SECOND, until(|| handle.in_flight() > 0)).await;
            sleep(Duration::from_millis(u64::from(round * 7 % 5))).await;
            drop(other);
        }
    };
    tokio::join!(churn, write(&kit, &names.0));
    all_took_their_steps(&kit, &seen, &names).await;
    kit.topic(format!("{}-dlt", names.0)).stays_empty().await;
    assert!(last.stop().await.is_clean());
}

/// Discards every third record and refuses every fifth, wherever it meets them; says how they ended.
#[derive(Debug, Clone)]
struct Sieve(Seen);

impl ListenInterceptor for Sieve {
    fn before(&self, delivery: &Delivery<'_>) -> Result<Before, BoxError> {
        let text =
            String::from_utf8_lossy(delivery.record().value.as_deref().unwrap_or_default()).into_owned();
        match text.parse::<u32>()? {
            number if number % 3 == 0 => Ok(Before::Discard),
            number if number % 5 == 0 => Err("refused".into()),
            _ => Ok(Before::Handle),
        }
    }

    fn after(&self, delivery: &Delivery<'_>, _failure: Option<&klamm::listener::Failure>) {
        self.0.add(format!("after {}", delivery.attempt()));
    }
}

/// What is discarded, refused, failed and acknowledged later in one batch each finds its end, in topic and retry topic.
#[klamm::test(deadline = "10000s")]
async fn a_batch_of_all_fates_by_hand(kit: TestKit) {
    async fn later(
        batch: Batch<(Value<String>, RecordMeta)>,
        ack: Ack,
        State(seen): State<Seen>,
    ) -> BatchOutcome {
        let mut outcome = BatchOutcome::ok();
        for (index, (text, meta)) in batch.into_iter().enumerate() {
            seen.add(format!("{} {}", *text, meta.attempt));
            if text.parse::<u32>().unwrap() % 7 == 0 && meta.attempt == 1 {
                outcome.fail(index, "once");
            }
        }
        #[allow(clippy::disallowed_methods)] // Somebody else's task acknowledges.
        tokio::task::spawn(async move {
            sleep(Duration::from_millis(300)).await;
            ack.mark();
        });
        outcome
    }
    let ((t, g), seen, heard) = (own_names(), Seen::default(), Seen::default());
    kit.create_topic(&t, 1).await;
    kit.create_topic(&format!("{t}-dlt"), 1).await;
    let policy = FailurePolicy::new().retry_topics([SECOND]);
    let listener = Listener::on(&*t).group(&*g).ack(AckPolicy::Manual).batch(20, SECOND).on_failure(policy);
    let listener = listener.intercept(Sieve(heard.clone())).handle(later);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    for n in 1..=105 {
        kit.send(&t, "k", format!("{n}")).await;
    }
    // Refused ones are copied once and refused again; those that fail once are copied once.
    let (refused, once) = ((1..=105).filter(|n| n % 3 != 0 && n % 5 == 0), (1..=105).filter(|n| n % 7 == 0));
    let once: Vec<i32> = once.filter(|n| n % 3 != 0 && n % 5 != 0).collect();
    let (refused, copies) = (refused.count(), once.len());
    app.handled("later", u64::try_from(105 + refused + copies).unwrap()).await;
    for n in 1..=105 {
        let handled = usize::from(n % 3 != 0 && n % 5 != 0);
        assert_eq!(seen.count(&format!("{n} 1")), handled, "{n}");
        assert_eq!(seen.count(&format!("{n} 2")), usize::from(once.contains(&n)), "{n}");
    }
    assert_eq!(kit.topic(format!("{t}-dlt")).values::<String>().await.len(), refused);
    assert_eq!(kit.committed(&g, &t, 0).await, Some(105));
    assert_eq!(kit.committed(&g, &format!("{t}-retry-1s-{g}"), 0).await, Some((refused + copies) as i64));
    assert_eq!(app.listener("later").unwrap().lag(), Some(0));
    assert!(app.health().is_ready(), "{}", app.health());
    assert!(app.stop().await.is_clean());
}
