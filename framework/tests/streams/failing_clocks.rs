//! Tasks that fail where a clock calls them: others lose nothing by it, waits grow, and who is well is told no more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm::client::Record;
use klamm::listener::BoxError;
use klamm::streams::{
    AfterFailure, InRecord, Processor, ProcessorContext, Punctuation, PunctuationType, StoreName, StoreRef,
    StreamsApp, StreamsBuilder, StreamsConfig, Topology,
};
use klamm::testing::TestKit;

use crate::pipeline::{APPLICATION, Pipeline, caught_up, until};

const NEVER: Duration = Duration::from_secs(100_000);
const WAIT: Duration = Duration::from_millis(40);

type Context<'a, 'b> = &'a mut ProcessorContext<'b, String, String>;

/// What fails, once its task has had the record `sore`.
#[derive(Clone)]
struct Sore {
    store: StoreRef<String, String>,
    is_sick: Arc<AtomicBool>,
    /// From its beginning on; otherwise when it ticks.
    at_once: bool,
}

impl Sore {
    fn hurts(&self, context: Context<'_, '_>) -> Result<(), BoxError> {
        let is_sore = context.store(&self.store)?.get(&"sore".to_owned())?.is_some();
        if is_sore && self.is_sick.load(Ordering::Acquire) { Err("it is sore".into()) } else { Ok(()) }
    }
}

impl Processor<String, String> for Sore {
    type Key = String;
    type Value = String;

    fn stores(&self) -> Vec<StoreName> {
        vec![self.store.name()]
    }

    fn init(&mut self, context: Context<'_, '_>) -> Result<(), BoxError> {
        context.schedule(Duration::from_millis(20), PunctuationType::WallClock);
        if self.at_once { self.hurts(context) } else { Ok(()) }
    }

    fn process(
        &mut self,
        context: Context<'_, '_>,
        record: InRecord<'_, String, String>,
    ) -> Result<(), BoxError> {
        if record.key == "sore" {
            context.store(&self.store)?.put(record.key, record.value)?;
        }
        Ok(context.forward(record.key, record.value)?)
    }

    fn punctuate(&mut self, context: Context<'_, '_>, _: Punctuation) -> Result<(), BoxError> {
        self.hurts(context)
    }
}

fn topology(is_sick: &Arc<AtomicBool>, at_once: bool) -> Topology {
    let mut streams = StreamsBuilder::new();
    let store: StoreRef<String, String> = streams.key_value_store("rows");
    let sore = Sore { store, is_sick: Arc::clone(is_sick), at_once };
    streams.stream::<String, String>("in").process(move || sore.clone()).to("echo");
    streams.build().unwrap()
}

async fn send(kit: &TestKit, key: &str, partition: i32) {
    let producer = kit.client().producer().build().unwrap();
    producer.send(Record::to("in").key(key.to_owned()).value("v").partition(partition)).await.unwrap();
}

/// How often each failing task has failed.
fn attempts(app: &StreamsApp) -> Vec<u32> {
    app.failing_tasks().iter().map(|failing| failing.attempts).collect()
}

/// With the task of partition 0 sore, and all committed.
async fn start(config: StreamsConfig, kit: &TestKit, sick: &Arc<AtomicBool>, at_once: bool) -> StreamsApp {
    let app = topology(sick, at_once).start(config).await.unwrap();
    send(kit, "sore", 0).await;
    caught_up(&app).await;
    sick.store(true, Ordering::Release);
    until(|| !attempts(&app).is_empty()).await;
    app
}

/// What they did since the last commit was lost with each of its failures, so that they never came to one.
async fn others_come_to_commits(kit: TestKit, exactly_once: bool) {
    let pipeline = Pipeline::new(&kit).await;
    let sick = Arc::default();
    let config = pipeline.config(1).commit_interval(NEVER);
    let config = config.on_task_failure(|_| AfterFailure::RestartTask(WAIT));
    let config = if exactly_once { config.exactly_once() } else { config };
    let app = start(config, &kit, &sick, true).await;
    for partition in 1..4 {
        for _ in 0..10 {
            send(&kit, "well", partition).await;
        }
    }
    let commits = async {
        for partition in 1..4 {
            while kit.committed(APPLICATION, "in", partition).await < Some(10) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), commits).await.unwrap();
    assert!(attempts(&app)[0] > 1);
    let echoes = pipeline.read("echo").await.len();
    assert!(echoes >= 31, "{echoes}");
    sick.store(false, Ordering::Release);
    caught_up(&app).await;
    app.close().await.unwrap();
}

#[klamm::test]
async fn a_task_that_fails_when_it_begins_costs_others_nothing(kit: TestKit) {
    others_come_to_commits(kit, false).await;
}

#[klamm::test]
async fn a_task_that_fails_when_it_begins_costs_others_nothing_exactly_once(kit: TestKit) {
    others_come_to_commits(kit, true).await;
}

/// Without a record it was told as failing for ever.
#[klamm::test]
async fn a_task_that_is_well_again_is_told_no_more_though_no_record_comes(kit: TestKit) {
    let pipeline = Pipeline::new(&kit).await;
    let sick = Arc::default();
    let config = pipeline.config(1).on_task_failure(|_| AfterFailure::RestartTask(WAIT));
    let app = start(config, &kit, &sick, false).await;
    sick.store(false, Ordering::Release);
    let well = async {
        while !app.failing_tasks().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), well).await.unwrap();
    app.close().await.unwrap();
}

/// Records that it committed meanwhile made each failure of the clock the first.
#[klamm::test]
async fn a_clock_that_fails_again_and_again_is_counted_though_records_pass(kit: TestKit) {
    let pipeline = Pipeline::new(&kit).await;
    let (sick, counted) = (Arc::default(), Arc::new(Mutex::new(Vec::new())));
    let count = Arc::clone(&counted);
    let config = pipeline.config(1).on_task_failure(move |failure| {
        count.lock().unwrap().push(failure.attempts);
        AfterFailure::RestartTask(WAIT)
    });
    let app = start(config, &kit, &sick, false).await;
    while counted.lock().unwrap().len() < 6 {
        send(&kit, "well", 0).await;
    }
    assert_eq!(counted.lock().unwrap()[..6], [1, 2, 3, 4, 5, 6]);
    sick.store(false, Ordering::Release);
    caught_up(&app).await;
    until(|| app.failing_tasks().is_empty()).await;
    app.close().await.unwrap();
}
