//! What an application sends, when the application or the world misbehaves: transactions in one another, twins of a
//! name, callbacks that panic, ends in the middle.

#![allow(clippy::disallowed_methods)] // Tasks beside the test are what is looked at.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use klamm::client::ApiKey;
use klamm::client::testing::{Answer, FakeBroker};
use klamm::prelude::*;
use klamm::template::{SendError, Tx};
use klamm::testing::TestKit;
use tokio::time::{sleep, timeout};

/// Of the paused clock: whatever takes longer is stuck.
const LONG: Duration = Duration::from_secs(3_600);

async fn nothing() {}

fn listener() -> Listener {
    Listener::on("t").group("g").handle(nothing)
}

/// Handlers that run side by side ask the app for transactions of one name: they wait for one another, as those of one
/// `Transactions` do. They fenced one another.
#[klamm::test]
async fn transactions_of_one_name_in_one_app_do_not_fence_one_another(kit: TestKit) {
    let app = kit.app().listener(listener()).start().await;
    let work = |tx: Tx| async move {
        tx.send("a", "k", "v").await?;
        sleep(Duration::from_secs(1)).await;
        tx.send("a", "k", "w").await
    };
    let ended = futures::future::join_all((0..5).map(|_| {
        let transactions = app.transactions("shop-1").timeout(Duration::from_secs(30));
        async move { transactions.run(work).await }
    }));
    for ended in ended.await {
        ended.unwrap();
    }
    assert_eq!(kit.topic("a").records().await.len(), 10);
}

/// A transaction in the work of another of the same name waits for itself.
#[klamm::test]
async fn a_transaction_within_itself_is_refused(kit: TestKit) {
    let app = kit.app().listener(listener()).start().await;
    let transactions = app.transactions("shop-1");
    let inner = transactions.clone();
    let outer = transactions.run(|tx| async move {
        tx.send("a", "k", "outer").await?;
        let nested = inner.run(|tx| async move { tx.send("a", "k", "inner").await }).await;
        let refused = nested.unwrap_err().to_string();
        assert!(refused.contains("shop-1"), "{refused}");
        Ok::<_, SendError>(())
    });
    timeout(LONG, outer).await.expect("it does not wait for itself").unwrap();
    // Another name is no trouble.
    let other = app.transactions("shop-2");
    let outer = transactions.run(|_tx| async move {
        other.run(|tx| async move { tx.send("b", "k", "inner").await }).await.unwrap();
        Ok::<_, SendError>(())
    });
    timeout(LONG, outer).await.expect("another name does not wait").unwrap();
}

/// The coordinator does not answer to the commit: nobody knows, and that is said. The next one goes on.
#[tokio::test(start_paused = true)]
async fn a_commit_without_an_answer_is_told_as_unknown() {
    let broker = FakeBroker::start_in_memory().await.unwrap();
    broker.topic("t", 1).topic("a", 1);
    let client = broker.client().await.unwrap();
    let transactions = klamm::template::Transactions::new(&client, "shop-1");
    broker.always(ApiKey::EndTxn, Answer::Hang);
    let ended = timeout(LONG, transactions.run(|tx| async move { tx.send("a", "k", "v").await })).await;
    let ended = ended.expect("it ends").unwrap_err();
    assert!(ended.may_have_been_committed(), "{ended:?}");
    broker.behave();
    let again = timeout(LONG, transactions.run(|tx| async move { tx.send("a", "k", "w").await })).await;
    again.expect("it ends").unwrap();
}

/// Callbacks are the user's code.
#[klamm::test]
async fn a_callback_that_panics_harms_nothing_else(kit: TestKit) {
    let template = kit.template::<String, String>("t");
    for _ in 0..3 {
        template.record("v".into()).on_result(|_| panic!("the callback panics")).await.unwrap();
    }
    timeout(LONG, template.send("k", "after".into())).await.expect("it goes on").unwrap();
    timeout(LONG, template.flush()).await.expect("it ends").unwrap();
    assert_eq!(kit.topic("t").records().await.len(), 4);
}

/// What was enqueued before the end is delivered, or its failure is told: once each.
#[tokio::test(start_paused = true)]
async fn what_was_enqueued_before_the_end_meets_its_fate() {
    for answer in [Answer::Usual, Answer::Delayed(Duration::from_secs(2)), Answer::Hang] {
        let broker = FakeBroker::start_in_memory().await.unwrap();
        broker.topic("t", 1).topic("a", 1);
        let app =
            App::with_client(broker.client().await.unwrap()).listener(listener()).start().await.unwrap();
        broker.always_for("a", ApiKey::Produce, answer.clone());
        let template = app.template::<String, String>("a");
        let (well, badly) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut waiting = Vec::new();
        for number in 0..50 {
            let (well, badly) = (Arc::clone(&well), Arc::clone(&badly));
            let count = move |result: Result<_, SendError>| {
                if result.is_ok() { &well } else { &badly }.fetch_add(1, Ordering::SeqCst);
            };
            template.record(format!("{number}")).key("k").on_result(count).await.unwrap();
            waiting.push(template.record(format!("{number}")).key("k").enqueue().await.unwrap());
        }
        timeout(LONG, app.shutdown(Duration::from_secs(5))).await.expect("it ends");
        let hangs = matches!(answer, Answer::Hang);
        for sending in waiting {
            assert_eq!(timeout(LONG, sending).await.expect("it is told").is_err(), hangs);
        }
        let told = (well.load(Ordering::SeqCst), badly.load(Ordering::SeqCst));
        assert_eq!(told, if hangs { (0, 50) } else { (50, 0) });
        let late = timeout(Duration::from_secs(1), template.send("k", "late".into())).await;
        let late = late.expect("at once").unwrap_err().to_string();
        assert!(late.contains("closed"), "{late}");
    }
}

/// A topic that goes away between two sends, and comes back with fewer partitions.
#[klamm::test]
async fn a_topic_that_comes_back_smaller_is_sent_to(kit: TestKit) {
    kit.create_topic("t", 6).await;
    let template = kit.template::<String, String>("t");
    for number in 0..20 {
        template.send(format!("{number}"), "v".into()).await.unwrap();
    }
    kit.client().admin().delete_topics(&["t"]).await.unwrap();
    kit.create_topic("t", 1).await;
    for number in 0..20 {
        let sent = timeout(LONG, template.send(format!("{number}"), "v".into())).await.expect("it ends");
        assert_eq!(sent.unwrap().partition, 0);
    }
}

#[klamm::test]
async fn a_type_without_a_route_is_told(kit: TestKit) {
    let producer = kit.client().producer().build().unwrap();
    let routing = klamm::template::RoutingTemplate::new(&producer).values::<String>("t");
    let error = routing.send("k".to_owned(), 7_i64).await.unwrap_err().to_string();
    assert!(error.contains("i64") && error.contains("values::<i64>"), "{error}");
}
