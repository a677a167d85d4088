//! Who waits for whom: partitions, keys, records in retry, and a thread that handlers do not give back.

use std::time::Duration;

use klamm::prelude::*;
use klamm::testing::TestKit;
use tokio::task::yield_now;

use crate::seen::{Gate, Seen, note};

/// What begins with "stuck" waits at the gate.
async fn may_get_stuck(Value(text): Value<String>, State(seen): State<Seen>, State(gate): State<Gate>) {
    if text.starts_with("stuck") {
        gate.pass().await;
    }
    seen.add(text);
}

/// With one worker, which was the default, the slow handler stopped everything.
#[klamm::test]
async fn by_default_a_slow_handler_stops_only_its_own_partition(kit: TestKit) {
    kit.create_topic("t", 4).await;
    let (seen, gate) = (Seen::default(), Gate::default());
    kit.send_to("t", 0, "k", "stuck").await;
    for n in 0..10 {
        for partition in 0..4 {
            kit.send_to("t", partition, "k", format!("{partition}: {n}")).await;
        }
    }
    let listener = Listener::on("t").group("g").handle(may_get_stuck);
    let app = kit.app().state(seen.clone()).state(gate.clone()).listener(listener).start().await;
    app.handled("may_get_stuck", 30).await;
    assert!(seen.all().iter().all(|text| !text.starts_with('0')));
    gate.let_through(1);
    app.handled("may_get_stuck", 41).await;
    assert_eq!(kit.committed("g", "t", 0).await, Some(11));
}

#[klamm::test]
async fn a_stuck_key_stops_no_other(kit: TestKit) {
    let (seen, gate) = (Seen::default(), Gate::default());
    for n in 0..3 {
        kit.send("t", "stuck", format!("stuck {n}")).await;
    }
    for n in 0..200 {
        kit.send("t", format!("{}", n % 20), format!("{n}")).await;
    }
    let listener =
        Listener::on("t").group("g").concurrency(4).dispatch(Dispatch::by_key()).handle(may_get_stuck);
    let app = kit.app().state(seen.clone()).state(gate.clone()).listener(listener).start().await;
    app.handled("may_get_stuck", 200).await;
    assert_eq!(kit.committed("g", "t", 0).await, None, "the first record is not finished");
    gate.let_through(3);
    app.handled("may_get_stuck", 203).await;
    let stuck: Vec<_> = seen.all().into_iter().filter(|text| text.starts_with("stuck")).collect();
    assert_eq!(stuck, ["stuck 0", "stuck 1", "stuck 2"]);
}

/// More records wait for their next attempt than there are workers.
#[klamm::test]
async fn what_waits_for_another_attempt_takes_no_worker(kit: TestKit) {
    async fn fails_once(
        Value(text): Value<String>,
        meta: RecordMeta,
        State(seen): State<Seen>,
    ) -> Result<(), String> {
        seen.add(&text);
        if text.starts_with("ill") && meta.attempt == 1 { Err(text) } else { Ok(()) }
    }
    let ten_minutes = Duration::from_secs(600);
    for dispatch in [Dispatch::by_key(), Dispatch::unordered()] {
        let seen = Seen::default();
        let topic = format!("{dispatch:?}").replace(|c: char| !c.is_alphanumeric(), "");
        for n in 0..5 {
            kit.send(&topic, format!("ill {n}"), format!("ill {n}")).await;
        }
        kit.send(&topic, "well", "well").await;
        let policy = FailurePolicy::new().retry_in_place(Backoff::fixed(ten_minutes));
        let listener =
            Listener::on(&*topic).group("g").id("l").concurrency(1).dispatch(dispatch).on_failure(policy);
        let app = kit.app().state(seen.clone()).listener(listener.handle(fails_once)).start().await;
        app.handled("l", 1).await;
        assert_eq!(seen.all().len(), 6);
        assert_eq!(app.listener("l").unwrap().in_retry(), 5);
        app.handled("l", 6).await;
        assert_eq!(seen.all().len(), 11);
        app.stop().await;
    }
}

/// On a runtime of one thread nothing else would happen until all records that were read are handled.
#[klamm::test]
async fn handlers_that_never_wait_leave_turns_to_others(kit: TestKit) {
    const RECORDS: u64 = 5_000;
    for dispatch in [Dispatch::by_partition(), Dispatch::by_key(), Dispatch::unordered()] {
        let topic = format!("{dispatch:?}").replace(|c: char| !c.is_alphanumeric(), "");
        for n in 0..RECORDS {
            kit.send(&topic, format!("{}", n % 100), "v").await;
        }
        let listener = Listener::on(&*topic).group("g").dispatch(dispatch).handle(note);
        let app = kit.app().state(Seen::default()).listener(listener).start().await;
        let handle = app.listener("note").unwrap();
        let mut most = 0;
        let others = async {
            let mut before = handle.handled();
            while handle.handled() < RECORDS {
                yield_now().await;
                let now = handle.handled();
                most = most.max(now - before);
                before = now;
            }
        };
        others.await;
        // Sixteen workers, a slice each.
        assert!(most <= 16 * 128, "{dispatch:?}: {most} records between two turns");
        app.stop().await;
    }
}
