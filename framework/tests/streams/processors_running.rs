//! Processors in applications: what they do without a record is committed too, and their end is no trouble for others.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm::listener::BoxError;
use klamm::streams::{
    InRecord, Processor, ProcessorContext, Punctuation, PunctuationType, StoreName, StoreRef, StreamsBuilder,
    Topology,
};
use klamm::testing::TestKit;

use crate::pipeline::{Pipeline, caught_up, until};

type Context<'a, 'b> = &'a mut ProcessorContext<'b, String, String>;

/// Says so when it begins, and every 200 ms; or panics at its end.
struct Herald {
    store: StoreRef<String, String>,
    ticks: bool,
    panics_at_close: bool,
}

impl Processor<String, String> for Herald {
    type Key = String;
    type Value = String;

    fn stores(&self) -> Vec<StoreName> {
        vec![self.store.name()]
    }

    fn init(&mut self, context: Context<'_, '_>) -> Result<(), BoxError> {
        if self.ticks {
            context.schedule(Duration::from_millis(200), PunctuationType::WallClock);
            return Ok(());
        }
        context.store(&self.store)?.put(&"began".to_owned(), &"yes".to_owned())?;
        context.forward(&"began".to_owned(), &"0".to_owned())?;
        Ok(())
    }

    fn process(
        &mut self,
        context: Context<'_, '_>,
        record: InRecord<'_, String, String>,
    ) -> Result<(), BoxError> {
        context.forward(record.key, record.value)?;
        Ok(())
    }

    fn punctuate(&mut self, context: Context<'_, '_>, _: Punctuation) -> Result<(), BoxError> {
        context.store(&self.store)?.put(&"ticked".to_owned(), &"yes".to_owned())?;
        context.request_commit();
        Ok(())
    }

    fn close(&mut self) {
        assert!(!self.panics_at_close, "I panic at the end");
    }
}

fn heralds(ticks: bool, panics_at_close: bool) -> Topology {
    let mut streams = StreamsBuilder::new();
    let store: StoreRef<String, String> = streams.key_value_store("rows");
    let make = move || Herald { store: store.clone(), ticks, panics_at_close };
    streams.stream::<String, String>("in").process(make).to("echo");
    streams.build().unwrap()
}

async fn init_is_committed(kit: &TestKit, exactly_once: bool) {
    let pipeline = Pipeline::new(kit).await;
    let config = pipeline.config(1);
    let config = if exactly_once { config.exactly_once() } else { config };
    let app = heralds(false, false).start(config).await.unwrap();
    caught_up(&app).await;
    let store = app.store::<String, String>("rows").unwrap();
    let seen = async {
        // A row of each task: they begin, and are committed, one after the other.
        while store.all().await.map_or(0, |rows| rows.len()) < 4 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), seen).await.expect("the rows are never committed");
    assert_eq!(pipeline.read("echo").await.len(), 4, "one of each task");
    app.close().await.unwrap();
}

/// Only records and punctuations made a commit: what a processor did when it began waited for the first of them, and
/// its transaction with it until it was aborted.
#[klamm::test]
async fn what_a_processor_does_in_init_is_committed(kit: TestKit) {
    init_is_committed(&kit, false).await;
}

#[klamm::test]
async fn what_a_processor_does_in_init_is_committed_exactly_once(kit: TestKit) {
    init_is_committed(&kit, true).await;
}

/// A commit that a punctuation asked for was made when the next record came.
#[klamm::test]
async fn a_punctuation_can_ask_for_a_commit(kit: TestKit) {
    let pipeline = Pipeline::new(&kit).await;
    let config = pipeline.config(1).commit_interval(Duration::from_secs(100_000));
    let app = heralds(true, false).start(config).await.unwrap();
    until(|| app.metrics().commits > 0).await;
    app.close().await.unwrap();
}

/// The work is done: it is committed, the partitions are given up, and the others go on.
#[klamm::test]
async fn a_processor_that_panics_when_it_is_closed_harms_nobody(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let first = heralds(true, true).start(pipeline.config(1)).await.unwrap();
    pipeline.feed(50).await;
    caught_up(&first).await;
    let second = heralds(true, true).start(pipeline.config(2)).await.unwrap();
    pipeline.feed(50).await;
    until(|| second.metrics().tasks == 2).await;
    caught_up(&first).await;
    caught_up(&second).await;
    first.close().await.unwrap();
    pipeline.feed(50).await;
    until(|| second.metrics().tasks == 4).await;
    caught_up(&second).await;
    assert_eq!(pipeline.read("echo").await.len(), 150);
    second.close().await.unwrap();
}

/// How often the rows of a table have changed.
struct Changes(StoreRef<String, i64>);

impl Processor<String, Option<String>> for Changes {
    type Key = String;
    type Value = Option<i64>;

    fn stores(&self) -> Vec<StoreName> {
        vec![self.0.name()]
    }

    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, Option<i64>>,
        record: InRecord<'_, String, Option<String>>,
    ) -> Result<(), BoxError> {
        let mut counts = context.store(&self.0)?;
        let changes = counts.get(record.key)?.unwrap_or(0) + 1;
        counts.put(record.key, &changes)?;
        Ok(context.forward(record.key, &Some(changes))?)
    }
}

/// Its table and its own store are committed together, and go with the task to an instance that has nothing.
#[klamm::test]
async fn a_processor_of_a_table_goes_on_elsewhere(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    for instance in 1..=2 {
        let mut streams = StreamsBuilder::new();
        let counts = streams.key_value_store::<String, i64>("counts");
        let changes =
            streams.table::<String, String>("in").process_values("changes", move || Changes(counts.clone()));
        changes.to_stream().to("totals");
        let config = pipeline.config(instance).exactly_once().cache_bytes(0);
        let app = streams.build().unwrap().start(config).await.unwrap();
        pipeline.feed(100).await;
        caught_up(&app).await;
        for store in ["changes", "counts"] {
            let rows = app.store::<String, i64>(store).unwrap().all().await.unwrap();
            assert_eq!(rows.into_iter().collect::<BTreeMap<_, _>>(), pipeline.counts(), "{store}");
        }
        app.close().await.unwrap();
    }
    assert_eq!(pipeline.read("totals").await.len(), 200);
}
