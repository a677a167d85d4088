//! Transactional listeners whose records share transactions: what waits goes together, and what fails goes alone.

use std::time::Duration;

use klamm::client::admin::TransactionFilter;
use klamm::client::testing::Answer;
use klamm::client::{ApiKey, NewTopic};
use klamm::listener::BoxError;
use klamm::prelude::*;
use klamm::testing::TestKit;
use tokio::time::sleep;

use crate::seen::{Gate, Seen, until};
use crate::transactional::committed;

const LONG: Duration = Duration::from_secs(30);

/// "bad" fails always, "slow" takes a second, "panic" panics the first time, "large" sends what no broker takes.
async fn copies(Value(text): Value<String>, tx: Tx, State(seen): State<Seen>) -> Result<(), BoxError> {
    seen.add(&text);
    let kind = text.split(' ').next();
    let sent = if kind == Some("large") { "x".repeat(4_000) } else { text.clone() };
    tx.send("out", "k", sent).await?;
    match kind {
        Some("bad") => Err("it is bad".into()),
        Some("panic") if seen.count(&text) == 1 => panic!("it panics"),
        Some("slow") => {
            sleep(Duration::from_secs(1)).await;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn listener(most: usize, within: Duration) -> Listener {
    let policy = FailurePolicy::new().retry_in_place(Backoff::fixed(Duration::from_secs(1)).attempts(3));
    let listener = Listener::on("in").group("g").on_failure(policy).concurrency(1);
    listener.shared_transactions(most, within).handle(copies)
}

async fn fill(kit: &TestKit, texts: &[&str]) {
    kit.create_topic("in", 1).await;
    for text in texts {
        kit.send("in", "k", *text).await;
    }
}

/// How many transactions were committed or aborted.
fn ended(kit: &TestKit) -> usize {
    kit.faults().requests(ApiKey::EndTxn)
}

#[klamm::test(needs_paused_clock)]
async fn records_that_wait_share_a_transaction(kit: TestKit) {
    fill(&kit, &["0", "1", "2", "3", "4", "5", "6"]).await;
    let app = kit.app().state(Seen::default()).listener(listener(3, LONG)).start().await;
    app.handled("copies", 7).await;
    assert_eq!(ended(&kit), 3, "three, three and one");
    assert_eq!(kit.committed("g", "in", 0).await, Some(7));
    assert_eq!(committed(&kit, "out").await, ["0", "1", "2", "3", "4", "5", "6"]);
    assert!(app.stop().await.is_clean());
}

#[klamm::test(needs_paused_clock)]
async fn a_transaction_takes_nothing_more_when_its_time_is_over(kit: TestKit) {
    fill(&kit, &["slow 0", "slow 1", "slow 2", "slow 3"]).await;
    let within = Duration::from_millis(1_500);
    let app = kit.app().state(Seen::default()).listener(listener(100, within)).start().await;
    app.handled("copies", 4).await;
    assert_eq!(ended(&kit), 2, "the third begins after 2 s");
    assert_eq!(committed(&kit, "out").await, ["slow 0", "slow 1", "slow 2", "slow 3"]);
}

#[klamm::test]
async fn what_fails_goes_its_way_alone(kit: TestKit) {
    fill(&kit, &["0", "1", "bad", "3", "panic", "5"]).await;
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(listener(100, LONG)).start().await;
    app.handled("copies", 6).await;
    assert_eq!(committed(&kit, "out").await, ["0", "1", "3", "panic", "5"]);
    assert_eq!(committed(&kit, "in-dlt").await, ["bad"]);
    assert_eq!(kit.committed("g", "in", 0).await, Some(6));
    // Those that had shared the transaction come again, each alone; the failure of another is none of theirs.
    let expected = ["0", "1", "bad", "0", "1", "bad", "bad", "3", "panic", "panic", "5"];
    assert_eq!(seen.all(), expected);
}

/// The record that is refused was sent long before the broker says so: nobody knows then whose it was.
#[klamm::test]
async fn a_refused_output_is_the_fault_of_its_own_record(kit: TestKit) {
    let small = NewTopic::new("out").partitions(1).config("max.message.bytes", "2000");
    kit.client().admin().create_topics(&[small]).await.unwrap();
    fill(&kit, &["0", "large", "2"]).await;
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(listener(100, LONG)).start().await;
    app.handled("copies", 3).await;
    assert_eq!(committed(&kit, "out").await, ["0", "2"]);
    assert_eq!(committed(&kit, "in-dlt").await, ["large"]);
    assert_eq!(
        (seen.count("0"), seen.count("large")),
        (2, 4),
        "shared, and then as often as the policy says"
    );
}

/// Nobody is to blame for a lost connection, and nothing comes twice or is lost.
#[klamm::test(needs_paused_clock)]
async fn a_cut_connection_costs_nobody_an_attempt(kit: TestKit) {
    fill(&kit, &["0", "1", "2", "3"]).await;
    kit.faults().next(ApiKey::EndTxn, 1, Answer::DisconnectAfter);
    kit.faults().next(ApiKey::TxnOffsetCommit, 1, Answer::DisconnectBefore);
    let app = kit.app().state(Seen::default()).listener(listener(2, LONG)).start().await;
    app.handled("copies", 4).await;
    assert_eq!(committed(&kit, "out").await, ["0", "1", "2", "3"]);
    assert_eq!(committed(&kit, "in-dlt").await, Vec::<String>::new());
}

async fn outlasts(Value(text): Value<String>, tx: Tx, State(seen): State<Seen>) -> Result<(), BoxError> {
    seen.add(&text);
    if text == "late" {
        sleep(Duration::from_secs(25)).await;
    }
    Ok(tx.send("out", "k", text).await?)
}

/// A record kept the transaction open until the coordinator gave it up, and what it sent then was refused: all of them
/// came again together, for ever. Alone it takes too long for nobody: its transaction begins with what it sends.
#[klamm::test]
async fn records_that_take_too_long_together_go_alone(kit: TestKit) {
    fill(&kit, &["0", "late", "2"]).await;
    let listener = Listener::on("in").group("g").on_failure(FailurePolicy::new());
    let listener = listener.transaction_timeout(Duration::from_secs(5));
    let listener = listener.shared_transactions(100, Duration::from_secs(3)).handle(outlasts);
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    app.handled("outlasts", 3).await;
    assert_eq!(committed(&kit, "out").await, ["0", "late", "2"]);
    assert_eq!(seen.all(), ["0", "late", "0", "late", "2"]);
}

async fn at_the_gate(_: Value<String>, State(seen): State<Seen>, State(gate): State<Gate>) {
    seen.add("in");
    gate.pass().await;
    seen.add("out");
}

#[klamm::test]
async fn a_drain_commits_what_was_begun_and_begins_no_more(kit: TestKit) {
    fill(&kit, &["0", "1", "2", "3"]).await;
    let (seen, gate) = (Seen::default(), Gate::default());
    let listener = Listener::on("in").group("g").shared_transactions(100, LONG).handle(at_the_gate);
    let app = kit.app().state(seen.clone()).state(gate.clone()).listener(listener).start().await;
    gate.let_through(1);
    until(|| seen.count("in") == 2).await;
    let (report, ()) = tokio::join!(app.shutdown(Duration::from_secs(10)), async {
        sleep(Duration::from_secs(1)).await;
        gate.let_through(100);
    });
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(seen.all(), ["in", "out", "in", "out"]);
    assert_eq!(kit.committed("g", "in", 0).await, Some(2));
}

#[kafka_listener(topics = "in", group = "g", transactional(max = 10, within = "1s", id_prefix = "eu-"))]
async fn shares_by_attribute(Value(text): Value<String>, tx: Tx) -> Result<(), BoxError> {
    Ok(tx.send("out", "k", text).await?)
}

#[klamm::test(needs_paused_clock)]
async fn the_attribute_shares_transactions_and_names_them(kit: TestKit) {
    fill(&kit, &["0", "1", "2"]).await;
    let app = kit.app().listener(shares_by_attribute).start().await;
    app.handled("shares_by_attribute", 3).await;
    assert_eq!(ended(&kit), 1);
    let listed = kit.client().admin().list_transactions(&TransactionFilter::new()).await.unwrap();
    let ids: Vec<_> = listed.iter().map(|listed| &*listed.transactional_id).collect();
    assert_eq!(ids, ["eu-g/in/0"]);
}

#[tokio::test]
async fn what_cannot_be_shared_is_refused_at_the_start() {
    let said = async |listener: Listener| {
        let started = App::new("127.0.0.1:1").state(Seen::default()).listener(listener).start().await;
        started.unwrap_err().to_string()
    };
    assert!(said(listener(0, LONG)).await.contains("shared by 0 records"));
    async fn of_batches(_: Batch<Value<String>>) {}
    let batches = Listener::on("in").group("g").shared_transactions(7, LONG).handle(of_batches);
    assert!(said(batches).await.contains("takes a batch"));
    let late =
        Listener::on("in").group("g").transaction_timeout(LONG).shared_transactions(7, LONG).handle(copies);
    assert!(said(late).await.contains("longer than its transaction_timeout"));
    async fn plain(_: Value<String>) {}
    let prefix = Listener::on("in").group("g").transactional_id_prefix("eu-").handle(plain);
    assert!(said(prefix).await.contains("transactional_id_prefix"));
}
