//! At least once: what a changelog says is done has been acknowledged where it went.

use std::time::Duration;

use klamm::client::testing::Answer;
use klamm::client::{ApiKey, ErrorCode, Record};
use klamm::listener::BoxError;
use klamm::streams::{
    AppState, InRecord, JoinWindows, Processor, ProcessorContext, StoreName, StoreRef, StreamsBuilder,
    Topology, TumblingWindows,
};
use klamm::testing::TestKit;

use crate::pipeline::{Pipeline, caught_up, text, until};

const NEVER: Duration = Duration::from_secs(100_000);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn left_join() -> Topology {
    let mut streams = StreamsBuilder::new();
    let (left, right) = (streams.stream::<String, String>("L"), streams.stream::<String, String>("R"));
    let near = JoinWindows::of(ms(20));
    left.left_join_within(&right, "both", near, |l, r: Option<&String>| format!("{l}+{r:?}")).to("echo");
    streams.build().unwrap()
}

fn finals() -> Topology {
    let mut streams = StreamsBuilder::new();
    let counts = streams.stream::<String, String>("L").group_by_key();
    let counts = counts.windowed_by(TumblingWindows::of(ms(20))).emit_on_window_close().count("counts");
    let told =
        counts.to_stream().map(|key, count| (key.key.clone(), format!("{} {count:?}", key.window.start_ms)));
    told.to("echo");
    streams.build().unwrap()
}

/// Forwards each value once.
struct Once {
    seen: StoreRef<String, i64>,
}

impl Processor<String, String> for Once {
    type Key = String;
    type Value = String;

    fn stores(&self) -> Vec<StoreName> {
        vec![self.seen.name()]
    }

    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, String>,
        record: InRecord<'_, String, String>,
    ) -> Result<(), BoxError> {
        let mut seen = context.store(&self.seen)?;
        if seen.get(record.value)?.is_some() {
            return Ok(());
        }
        seen.put(record.value, &1)?;
        context.forward(record.key, record.value)?;
        Ok(())
    }
}

fn once() -> Topology {
    let mut streams = StreamsBuilder::new();
    let seen: StoreRef<String, i64> = streams.key_value_store("seen");
    streams.stream::<String, String>("L").process(move || Once { seen: seen.clone() }).to("echo");
    streams.build().unwrap()
}

/// The output cannot be written for a while, and the changelog can; the instance is given up then, or begins again.
async fn nothing_is_lost(kit: &TestKit, build: fn() -> Topology, changelog: &str, wanted: &str, crash: bool) {
    let pipeline = Pipeline::new(kit).await;
    for topic in ["L", "R"] {
        kit.create_topic(topic, 1).await;
    }
    let app = build().start(pipeline.config(1).commit_interval(NEVER)).await.unwrap();
    app.wait_for(AppState::Running).await.unwrap();
    let is_first = wanted == "A";
    let refuse = || {
        kit.faults().always_for("echo", ApiKey::Produce, Answer::Error(ErrorCode::NotLeaderOrFollower));
    };
    if is_first {
        refuse();
    }
    kit.send_record(Record::to("L").key("k").value("A").timestamp_ms(0)).await;
    until(|| app.metrics().processed == 1).await;
    if !is_first {
        app.commit().await;
        refuse();
    }
    let before = pipeline.read(changelog).await.len();
    kit.send_record(Record::to("L").key("k").value("B").timestamp_ms(1_000)).await;
    until(|| app.metrics().processed == 2).await;
    let commit = tokio::time::timeout(Duration::from_secs(2), app.commit()).await;
    assert!(commit.is_err(), "it waits for the output");
    assert_eq!(pipeline.read(changelog).await.len(), before, "it waits, too");
    let app = if crash {
        drop(app);
        kit.faults().behave();
        build().start(pipeline.config(2).commit_interval(NEVER)).await.unwrap()
    } else {
        tokio::time::sleep(Duration::from_secs(3)).await;
        kit.faults().behave();
        app
    };
    caught_up(&app).await;
    let found: Vec<String> =
        pipeline.read("echo").await.into_iter().map(|record| text(&record.value.unwrap())).collect();
    assert!(found.iter().any(|line| line == wanted), "{found:?}");
    app.close().await.unwrap();
}

/// The tombstone of a row that found no partner was acknowledged before what was told of it, and nobody told it again.
#[klamm::test]
async fn a_row_without_a_partner_is_told_of_although_its_first_output_was_lost(kit: TestKit) {
    nothing_is_lost(&kit, left_join, "pipeline-both-left-shared-join-store-changelog", "A+None", true).await;
}

#[klamm::test]
async fn a_row_without_a_partner_is_told_of_although_its_task_began_again(kit: TestKit) {
    nothing_is_lost(&kit, left_join, "pipeline-both-left-shared-join-store-changelog", "A+None", false).await;
}

#[klamm::test]
async fn a_closed_window_is_told_of_although_its_first_output_was_lost(kit: TestKit) {
    nothing_is_lost(&kit, finals, "pipeline-counts-changelog", "0 Some(1)", true).await;
}

#[klamm::test]
async fn what_is_forwarded_once_is_forwarded_although_its_first_output_was_lost(kit: TestKit) {
    nothing_is_lost(&kit, once, "pipeline-seen-changelog", "A", true).await;
}
