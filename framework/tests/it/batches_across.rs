//! Batches of records from several partitions: an outcome for each, commits for each partition, and what happens when a
//! partition goes while its records are in somebody's hands.

use std::time::Duration;

use klamm::client::testing::Answer;
use klamm::client::{ApiKey, ErrorCode};
use klamm::prelude::*;
use klamm::testing::TestKit;
use tokio::time::sleep;

use crate::seen::{Gate, Seen, until};

const LONG: Duration = Duration::from_secs(30);

fn policy() -> FailurePolicy {
    FailurePolicy::new().retry_in_place(Backoff::fixed(Duration::from_secs(1)).attempts(2))
}

#[kafka_listener(topics = "t", group = "g", batch(max = 6, wait = "1s", across_partitions), on_failure = policy)]
async fn each_across(batch: Batch<(RecordMeta, Value<String>)>, State(seen): State<Seen>) -> BatchOutcome {
    let places: Vec<_> =
        batch.iter().map(|(meta, _)| format!("{}:{}", meta.partition, meta.offset)).collect();
    seen.add(places.join(" "));
    batch
        .each(|(meta, Value(text))| async move {
            match &*text {
                "always" => Err("never works"),
                "once" if meta.attempt == 1 => Err("did not work"),
                "panic" if meta.attempt == 1 => panic!("did not work"),
                _ => Ok(()),
            }
        })
        .await
}

async fn fill(kit: &TestKit, partitions: i32, records: &[(i32, &str)]) {
    kit.create_topic("t", partitions).await;
    for (partition, text) in records {
        kit.send_to("t", *partition, "k", *text).await;
    }
}

async fn committed(kit: &TestKit, partitions: i32) -> Vec<Option<i64>> {
    let mut all = Vec::new();
    for partition in 0..partitions {
        all.push(kit.committed("g", "t", partition).await);
    }
    all
}

#[klamm::test]
async fn one_batch_has_records_of_all_partitions(kit: TestKit) {
    fill(&kit, 3, &[(0, "a"), (1, "b"), (0, "c"), (2, "d")]).await;
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(each_across).start().await;
    app.handled("each_across", 4).await;
    let [batch] = &seen.all()[..] else { panic!("{:?}", seen.all()) };
    let mut places: Vec<_> = batch.split(' ').collect();
    places.sort_unstable();
    assert_eq!(places, ["0:0", "0:1", "1:0", "2:0"]);
    assert_eq!(committed(&kit, 3).await, [Some(2), Some(1), Some(1)]);
    assert!(app.stop().await.is_clean());
}

#[klamm::test]
async fn what_fails_comes_again_and_holds_up_its_own_partition_alone(kit: TestKit) {
    fill(&kit, 3, &[(0, "always"), (0, "a"), (1, "b"), (1, "once"), (2, "panic"), (2, "c")]).await;
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(each_across).start().await;
    until(|| seen.all().len() == 1).await;
    // New records of partitions with a retry wait behind it.
    kit.send_to("t", 1, "k", "late").await;
    app.handled("each_across", 7).await;
    let all = seen.all();
    let sorted = |batch: &str| {
        let mut places: Vec<_> = batch.split(' ').map(str::to_owned).collect();
        places.sort_unstable();
        places
    };
    assert_eq!(sorted(&all[1]), ["0:0", "1:1", "2:0"], "the retries go together: {all:?}");
    assert_eq!(all[2..], ["1:2"]);
    assert_eq!(kit.topic("t-dlt").values::<String>().await, ["always"]);
    assert_eq!(committed(&kit, 3).await, [Some(2), Some(3), Some(2)]);
}

async fn gated(
    batch: Batch<(RecordMeta, Value<String>)>,
    State(seen): State<Seen>,
    State(gate): State<Gate>,
) -> Result<(), String> {
    batch.iter().for_each(|(meta, Value(text))| seen.add(format!("{} {text}", meta.partition)));
    gate.pass().await;
    Ok(())
}

fn gating() -> Listener {
    let listener =
        Listener::on("t").group("g").batch(100, Duration::from_millis(500)).batch_across_partitions();
    listener.on_failure(policy()).revoke_deadline(Duration::from_secs(5)).handle(gated)
}

/// A second member comes while a batch of both partitions is in work: it waits for the batch, and nothing comes twice.
#[klamm::test]
async fn a_rebalance_waits_for_the_batch(kit: TestKit) {
    fill(&kit, 2, &[(0, "a"), (1, "b")]).await;
    let (seen, gate) = (Seen::default(), Gate::default());
    let start = || kit.app().state(seen.clone()).state(gate.clone()).listener(gating()).start();
    let first = start().await;
    until(|| seen.all().len() == 2).await;
    let (second, ()) = tokio::join!(start(), async {
        sleep(Duration::from_secs(2)).await;
        gate.let_through(100);
    });
    for (partition, text) in [(0, "c"), (1, "d")] {
        kit.send_to("t", partition, "k", text).await;
    }
    until(|| seen.all().len() == 4).await;
    assert!(second.stop().await.is_clean() && first.stop().await.is_clean());
    let mut all = seen.all();
    all.sort_unstable();
    assert_eq!(all, ["0 a", "0 c", "1 b", "1 d"]);
    assert_eq!(committed(&kit, 2).await, [Some(2), Some(2)]);
}

/// The batch takes longer than the others wait: the partition that went counts for nothing, and the one that stayed is
/// committed all the same.
#[klamm::test]
async fn a_partition_that_went_does_not_take_the_others_along(kit: TestKit) {
    fill(&kit, 2, &[(0, "a"), (1, "b")]).await;
    let (seen, gate) = (Seen::default(), Gate::default());
    let start = |gate: &Gate| kit.app().state(seen.clone()).state(gate.clone()).listener(gating()).start();
    let first = start(&gate).await;
    until(|| seen.all().len() == 2).await;
    let open = Gate::default();
    open.let_through(100);
    let second = start(&open).await;
    // The second one has a partition by now, and handles its record once more.
    until(|| seen.all().len() == 3).await;
    gate.let_through(100);
    until(|| first.listener("gated").unwrap().lag() == Some(0)).await;
    assert!(second.stop().await.is_clean() && first.stop().await.is_clean());
    assert_eq!(committed(&kit, 2).await, [Some(1), Some(1)]);
    assert_eq!(seen.all().len(), 3, "only what went came again: {:?}", seen.all());
}

async fn by_hand(batch: Batch<(RecordMeta, Value<String>)>, ack: Ack, State(seen): State<Seen>) {
    seen.add(batch.len().to_string());
    let attempt = batch[0].0.attempt;
    match seen.all().len() {
        // Two are done, and the others wait for a minute; that is no failure.
        1 => {
            ack.up_to(1).unwrap();
            ack.nack(Duration::from_secs(60));
        }
        2 => {
            assert_eq!(attempt, 1);
            ack.now().await.unwrap();
        }
        _ => ack.mark(),
    }
}

#[klamm::test]
async fn acknowledging_by_hand_is_about_all_partitions(kit: TestKit) {
    fill(&kit, 2, &[(0, "a"), (0, "b"), (1, "c"), (1, "d")]).await;
    let seen = Seen::default();
    let listener =
        Listener::on("t").group("g").batch(4, LONG).batch_across_partitions().ack(AckPolicy::Manual);
    let app = kit.app().state(seen.clone()).listener(listener.handle(by_hand)).start().await;
    app.handled("by_hand", 4).await;
    assert_eq!(seen.all(), ["4", "2"]);
    assert_eq!(committed(&kit, 2).await, [Some(2), Some(2)]);
    assert_eq!(kit.topic("t-dlt").values::<String>().await, Vec::<String>::new());
}

#[allow(clippy::disallowed_methods)] // A user's own task.
async fn kept(batch: Batch<Value<String>>, ack: Ack, State(seen): State<Seen>) {
    tokio::spawn(async move {
        sleep(Duration::from_secs(3)).await;
        seen.add(format!("{} acknowledged", batch.len()));
        drop(ack.now().await);
    });
}

#[klamm::test]
async fn an_acknowledgement_that_is_kept_holds_up_the_drain_of_all_partitions(kit: TestKit) {
    fill(&kit, 2, &[(0, "a"), (1, "b")]).await;
    let seen = Seen::default();
    let listener =
        Listener::on("t").group("g").batch(2, LONG).batch_across_partitions().ack(AckPolicy::Manual);
    let app = kit.app().state(seen.clone()).listener(listener.handle(kept)).start().await;
    sleep(Duration::from_secs(1)).await;
    assert!(app.stop().await.is_clean());
    assert_eq!(seen.all(), ["2 acknowledged"]);
    assert_eq!(committed(&kit, 2).await, [Some(1), Some(1)]);
}

/// Connections are cut, commits fail and are repeated: nothing is passed over and nothing of a clean run comes twice.
#[klamm::test(needs_paused_clock)]
async fn cut_connections_and_refused_commits_lose_nothing(kit: TestKit) {
    kit.create_topic("t", 5).await;
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(each_across).start().await;
    for round in 0..10 {
        for partition in 0..5 {
            kit.send_to("t", partition, "k", if round == partition { "once" } else { "x" }).await;
        }
        match round % 3 {
            0 => drop(kit.faults().disconnect()),
            1 => drop(kit.faults().next(ApiKey::OffsetCommit, 1, Answer::Error(ErrorCode::NotCoordinator))),
            _ => drop(kit.faults().next(ApiKey::Fetch, 2, Answer::DisconnectBefore)),
        }
        sleep(Duration::from_millis(700)).await;
    }
    app.handled("each_across", 50).await;
    assert!(app.stop().await.is_clean());
    assert_eq!(committed(&kit, 5).await, vec![Some(10); 5]);
    let handled: usize = seen.all().iter().map(|batch| batch.split(' ').count()).sum();
    assert_eq!(handled, 55, "each once, and five of them twice");
}

#[tokio::test]
async fn what_cannot_go_across_is_refused_at_the_start() {
    let said = async |listener: Listener| {
        App::new("127.0.0.1:1").listener(listener).start().await.unwrap_err().to_string()
    };
    async fn of_records(_: Value<String>) {}
    async fn of_batches(_: Batch<Value<String>>) {}
    let across = || Listener::on("t").group("g").batch_across_partitions();
    assert!(said(across().handle(of_records)).await.contains("one record at a time"));
    assert!(said(across().transactional().handle(of_batches)).await.contains("of one partition"));
    assert!(said(across().dispatch(Dispatch::by_key()).handle(of_batches)).await.contains("dispatch"));
}
