//! Templates as arguments of handlers: what they send, and to which transaction that belongs.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm::app::StartError;
use klamm::listener::BoxError;
use klamm::prelude::*;
use klamm::template::SendError;
use klamm::testing::TestKit;

use crate::seen::Seen;
use crate::transactional::{committed, written};

type Invoices = Template<String, String>;

async fn bill(Value(order): Value<String>, invoices: Invoices) -> Result<(), SendError> {
    invoices.send("k", format!("invoice for {order}")).await?;
    Ok(())
}

#[klamm::test]
async fn a_handler_sends_with_a_template_that_the_app_declares(kit: TestKit) {
    let listener = Listener::on("orders").group("g").handle(bill);
    let app = kit.app().template::<String, String>("${to:invoices}").listener(listener).start().await;
    kit.send("orders", "k", "one").await;
    app.handled("bill", 1).await;
    assert_eq!(committed(&kit, "invoices").await, ["invoice for one"]);
}

#[klamm::test]
async fn of_a_batch_handler_it_is_the_same(kit: TestKit) {
    async fn bill_all(orders: Batch<Value<String>>, invoices: Invoices) -> Result<(), SendError> {
        for Value(order) in orders {
            invoices.send("k", order).await?;
        }
        Ok(())
    }
    let plain = Listener::on("orders").group("plain").id("plain").handle(bill_all);
    let atomic = Listener::on("orders").group("atomic").id("atomic").transactional().handle(bill_all);
    for n in 0..5 {
        kit.send("orders", "k", format!("{n}")).await;
    }
    let app = kit.app().template::<String, String>("invoices").listener(plain).listener(atomic).start().await;
    app.handled("plain", 5).await;
    app.handled("atomic", 5).await;
    let mut found = committed(&kit, "invoices").await;
    found.sort();
    assert_eq!(found, ["0", "0", "1", "1", "2", "2", "3", "3", "4", "4"]);
}

/// Sends, says where that is, and fails once.
async fn weak(
    Value(order): Value<String>,
    invoices: Invoices,
    State(seen): State<Seen>,
) -> Result<(), BoxError> {
    let sent = invoices.send("k", order.clone()).await?;
    seen.add(format!("{}-{}", sent.topic, sent.partition));
    if seen.all().len() == 1 { Err("it is weak".into()) } else { Ok(()) }
}

#[klamm::test]
async fn in_a_transactional_listener_its_sends_belong_to_the_transaction(kit: TestKit) {
    kit.create_topic("invoices", 1).await;
    let policy = FailurePolicy::new().retry_in_place(Backoff::immediate());
    let weak = |group: &str| Listener::on("orders").group(group).on_failure(policy.clone());
    let (plain, atomic) = (Seen::default(), Seen::default());
    kit.send("orders", "k", "one").await;

    let listener = weak("plain").handle(self::weak);
    let app =
        kit.app().state(plain.clone()).template::<String, String>("invoices").listener(listener).start();
    let app = app.await;
    app.handled("weak", 1).await;
    assert_eq!(committed(&kit, "invoices").await, ["one", "one"], "what it sent before it failed stays");
    app.stop().await;

    let listener = weak("atomic").transactional().handle(self::weak);
    let app = kit.app().state(atomic.clone()).template::<String, String>("aborted").listener(listener);
    let app = app.start().await;
    app.handled("weak", 1).await;
    assert_eq!(atomic.all(), ["aborted-0", "aborted-0"], "the handler is told before the commit");
    assert_eq!((written(&kit, "aborted").await, committed(&kit, "aborted").await.len()), (2, 1));
}

#[klamm::test]
async fn what_is_not_waited_for_is_in_the_transaction_too(kit: TestKit) {
    async fn forward(
        Value(order): Value<String>,
        invoices: Invoices,
        seen: State<Seen>,
    ) -> Result<(), SendError> {
        drop(invoices.record(order.clone()).key("k").enqueue().await?);
        let note = seen.clone();
        let tell = move |sent: Result<_, SendError>| note.add(format!("told {}", sent.is_ok()));
        invoices.record(order.clone()).key("k").on_result(tell).await?;
        // Of a callback that panics, the transaction knows nothing.
        invoices.record(order).key("k").on_result(|_| panic!("it panics")).await?;
        invoices.flush().await
    }
    let seen = Seen::default();
    let listener = Listener::on("orders").group("g").transactional().handle(forward);
    let app = kit.app().state(seen.clone()).template::<String, String>("invoices").listener(listener).start();
    let app = app.await;
    kit.send("orders", "k", "one").await;
    app.handled("forward", 1).await;
    assert_eq!(seen.all(), ["told true"]);
    assert_eq!(committed(&kit, "invoices").await, ["one"; 3]);
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Option<Invoices>>>);

#[klamm::test]
async fn it_is_of_no_use_after_its_transaction(kit: TestKit) {
    async fn keep(_: Value<String>, invoices: Invoices, State(kept): State<Kept>) {
        *kept.0.lock().unwrap() = Some(invoices);
    }
    let kept = Kept::default();
    let listener = Listener::on("orders").group("g").transactional().handle(keep);
    let app = kit.app().state(kept.clone()).template::<String, String>("invoices").listener(listener).start();
    let app = app.await;
    kit.send("orders", "k", "one").await;
    app.handled("keep", 1).await;
    let late = kept.0.lock().unwrap().take().unwrap();
    let error = late.send("k", "late".to_owned()).await.unwrap_err();
    assert!(matches!(error, SendError::TransactionEnded) && !error.may_have_been_written(), "{error}");
    let timely = late.record("late".to_owned()).timeout(Duration::from_secs(1)).send().await;
    assert!(matches!(timely, Err(SendError::TransactionEnded)), "{timely:?}");
}

#[klamm::test]
async fn a_template_goes_within_a_transaction_of_ones_own(kit: TestKit) {
    let listener = Listener::on("orders").group("g").handle(crate::seen::note);
    let app = kit.app().state(Seen::default()).listener(listener).start().await;
    let invoices = app.template::<String, String>("invoices");
    let transactions = app.transactions("t");
    let work = async |tx: Tx, fails: bool| {
        let invoices = invoices.within(&tx);
        let sent = invoices.send("k", "one".to_owned()).await?;
        // Nobody else holds the `Tx` while this is waited for.
        drop(tx);
        let sending = invoices.record("two".to_owned()).key("k").enqueue().await?;
        drop(invoices);
        assert_eq!(sending.await?.offset, sent.offset + 1);
        if fails { Err(BoxError::from("it fails")) } else { Ok(()) }
    };
    transactions.run(|tx| work(tx, true)).await.unwrap_err();
    transactions.run(|tx| work(tx, false)).await.unwrap();
    assert_eq!(committed(&kit, "invoices").await, ["one", "two"]);
}

#[klamm::test]
async fn what_does_not_fit_is_an_error_at_the_start(kit: TestKit) {
    let billing = || Listener::on("orders").group("g").handle(bill);
    let error = kit.app().listener(billing()).try_start().await.unwrap_err();
    assert!(matches!(error, StartError::MissingTemplate { .. }), "{error}");
    assert!(error.to_string().contains("Template<alloc::string::String, alloc::string::String>"), "{error}");

    let twice = kit.app().template::<String, String>("a").template::<String, String>("b");
    let error = twice.listener(billing()).try_start().await.unwrap_err();
    assert!(matches!(error, StartError::DuplicateTemplate { .. }), "{error}");

    let error =
        kit.app().template::<String, String>("a b").listener(billing()).try_start().await.unwrap_err();
    assert!(matches!(error, StartError::IllegalTemplateTopic { .. }), "{error}");

    let unset = kit.app().template::<String, String>("${nobody.sets.this}");
    let error = unset.listener(billing()).try_start().await.unwrap_err();
    assert!(matches!(error, StartError::TemplatePlaceholder { .. }), "{error}");
}
