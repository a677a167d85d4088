//! The end of a listener: what holds it up, and what it tells.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use klamm::listener::AckError;
use klamm::prelude::*;
use klamm::testing::TestKit;
use tokio::time::Instant;

use crate::seen::{Gate, Seen, until};

#[derive(Clone, Default)]
struct Later(Arc<Mutex<Vec<Ack>>>);

async fn keeps(ack: Ack, State(later): State<Later>) {
    later.0.lock().unwrap().push(ack);
}

/// It held the drain up to its deadline, and then the leaving of the group for as long as a revoke may take.
#[klamm::test]
async fn an_acknowledgement_that_is_held_outlasts_nothing(kit: TestKit) {
    let later = Later::default();
    let app = || {
        let listener = Listener::on("t").group("g").ack(AckPolicy::Manual).handle(keeps);
        kit.app().state(later.clone()).listener(listener)
    };
    kit.send("t", "k", "v").await;
    let first = app().start().await;
    until(|| later.0.lock().unwrap().len() == 1).await;
    let started = Instant::now();
    let report = first.shutdown(Duration::from_secs(3)).await;
    let took = started.elapsed();
    assert!((Duration::from_secs(3)..Duration::from_millis(3_500)).contains(&took), "{took:?}");
    assert_eq!(report.unfinished.len(), 1);
    let late = later.0.lock().unwrap().remove(0);
    assert!(matches!(late.now().await, Err(AckError::Gone)));
    assert_eq!(kit.committed("g", "t", 0).await, None);

    // Nobody has to wait for the session of the one that left.
    let started = Instant::now();
    let _second = app().start().await;
    until(|| later.0.lock().unwrap().len() == 1).await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

async fn gated(Value(text): Value<String>, State(seen): State<Seen>, State(gate): State<Gate>) {
    seen.add(text);
    gate.pass().await;
}

/// Records that had been taken for a worker which was not there yet were told as unfinished.
#[klamm::test]
async fn what_waited_is_not_in_the_report(kit: TestKit) {
    kit.create_topic("t", 3).await;
    let (seen, gate) = (Seen::default(), Gate::default());
    for n in 0..3 {
        for partition in 0..3 {
            kit.send_to("t", partition, "k", format!("{partition} {n}")).await;
        }
    }
    for (dispatch, concurrency) in [(Dispatch::by_partition(), 1), (Dispatch::unordered(), 2)] {
        let listener =
            Listener::on("t").group(format!("{dispatch:?}")).concurrency(concurrency).dispatch(dispatch);
        let app = kit.app().state(seen.clone()).state(gate.clone());
        let app = app.listener(listener.handle(gated)).start().await;
        let handle = app.listener("gated").unwrap();
        until(|| handle.unfinished() == 9).await;
        let report = app.shutdown(Duration::from_secs(1)).await;
        assert_eq!(report.unfinished.len(), concurrency, "{dispatch:?}: {report:?}");
    }
}

/// A handler that blocks its thread cannot be stopped, but the rest of the app can.
#[test]
#[allow(clippy::disallowed_methods)] // Real time is what is measured.
fn a_handler_that_blocks_its_thread_holds_nothing_up() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    let (release, blocked) = mpsc::channel::<()>();
    let (begun, begin) = mpsc::channel::<()>();
    let blocked = Arc::new(Mutex::new(blocked));
    let handler = move |Value(_): Value<String>| {
        let (blocked, begun) = (Arc::clone(&blocked), begun.clone());
        async move {
            begun.send(()).unwrap();
            let _ = blocked.lock().unwrap().recv();
        }
    };
    let took = runtime.block_on(async move {
        let broker =
            klamm::broker::Broker::builder().ephemeral().listen("127.0.0.1:0").start().await.unwrap();
        let listener = Listener::on("t").group("g").id("l").handle(handler);
        let app = App::new(broker.bootstrap()).listener(listener).start().await.unwrap();
        app.template::<String, String>("t").send("k", "v".to_owned()).await.unwrap();
        while begin.try_recv().is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let started = std::time::Instant::now();
        let report = app.shutdown(Duration::from_millis(200)).await;
        assert_eq!(report.unfinished.len(), 1, "{report:?}");
        drop(broker);
        started.elapsed()
    });
    drop(release);
    assert!(took < Duration::from_secs(5), "{took:?}");
    runtime.shutdown_timeout(Duration::from_secs(1));
}
