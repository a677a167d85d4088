//! How often a listener allocates for a record, over what a bare consumer loop does: counted, not timed, so that it
//! only shrinks. Broker, client and listener run on the test's own thread.

#![cfg_attr(not(feature = "testing"), allow(unused))]
#![expect(unsafe_code, reason = "a global allocator cannot be written without")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use klamm::client::testing::FakeBroker;
use klamm::client::{Client, Record};
use klamm::prelude::*;
use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key as MetricKey, KeyName, Metadata, Recorder,
    SharedString, Unit,
};

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // After the thread-locals are gone nobody measures any more.
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: everything is passed on to the system allocator unchanged; the counter allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` came from `alloc` above, hence from the system allocator, with this layout.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, new_size) }
    }
}

const RECORDS: u64 = 40_000;
const PARTITIONS: i32 = 4;

async fn filled() -> (FakeBroker, Client) {
    let broker = FakeBroker::start_in_memory().await.unwrap();
    broker.topic("t", PARTITIONS as usize);
    let client = broker.client().await.unwrap();
    let producer = client.producer().build().unwrap();
    for n in 0..RECORDS {
        let record =
            Record::to("t").partition(n as i32 % PARTITIONS).key(format!("{}", n % 1_000)).value("value");
        drop(producer.enqueue(record).await.unwrap());
    }
    producer.close().await.unwrap();
    (broker, client)
}

/// What a program without a framework allocates.
async fn bare_loop() -> u64 {
    let (_broker, client) = filled().await;
    let before = ALLOCATIONS.get();
    let consumer = client.consumer().group("g").topics(["t"]).from_beginning().auto_commit(None);
    let mut consumer = consumer.start().await.unwrap();
    let mut read = 0;
    while read < RECORDS {
        read += consumer.next_batch().await.unwrap().unwrap().records.len() as u64;
    }
    ALLOCATIONS.get() - before
}

type Handled = Arc<AtomicU64>;

async fn single(record: ConsumerRecord, State(handled): State<Handled>) {
    handled.fetch_add(u64::from(record.value.is_some()), Ordering::Relaxed);
}

async fn manual(record: ConsumerRecord, ack: Ack, State(handled): State<Handled>) {
    handled.fetch_add(u64::from(record.value.is_some()), Ordering::Relaxed);
    ack.mark();
}

async fn batch(batch: Batch<ConsumerRecord>, State(handled): State<Handled>) {
    handled.fetch_add(batch.len() as u64, Ordering::Relaxed);
}

async fn listening(listener: Listener) -> u64 {
    let (_broker, client) = filled().await;
    let handled = Handled::default();
    let app = App::with_client(client).state(handled.clone()).listener(listener);
    let before = ALLOCATIONS.get();
    let app = app.start().await.unwrap();
    let handle = app.listeners().next().unwrap();
    handle.wait_handled(RECORDS).await.unwrap();
    let allocations = ALLOCATIONS.get() - before;
    assert_eq!(handled.load(Ordering::Relaxed), RECORDS);
    allocations
}

/// What records allocate between a source of a stream and its end, with so many steps between. The driver's own
/// allocations are the same for any number of them.
#[cfg(feature = "streams-core")]
fn streamed(steps: usize) -> u64 {
    use klamm::streams::{StreamsBuilder, TopologyTestDriver};
    let mut streams = StreamsBuilder::new();
    let mut stream = streams.stream::<i64, i64>("in");
    for _ in 0..steps {
        stream = stream.map(|key, value| (*key, value + 1)).filter(|_, value| *value >= 0).peek(|_, _| {});
    }
    stream.for_each(|_, _| {});
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let input = driver.input::<i64, i64>("in");
    let before = ALLOCATIONS.get();
    (0..1_000).for_each(|number| input.pipe(number, number).at(number));
    ALLOCATIONS.get() - before
}

/// Not one in a thousand records.
#[cfg(feature = "streams-core")]
#[test]
fn a_step_of_a_stream_that_remembers_nothing_allocates_nothing() {
    assert_eq!(streamed(30), streamed(0));
}

#[derive(Default)]
struct Counted(AtomicU64);

impl CounterFn for Counted {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }
    fn absolute(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

impl HistogramFn for Counted {
    fn record(&self, _value: f64) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A recorder that counts, as cheaply as it goes.
struct Recorded {
    deliveries: Arc<Counted>,
    calls: Arc<Counted>,
}

impl Recorder for Recorded {
    fn describe_counter(&self, _key: KeyName, _unit: Option<Unit>, _description: SharedString) {}
    fn describe_gauge(&self, _key: KeyName, _unit: Option<Unit>, _description: SharedString) {}
    fn describe_histogram(&self, _key: KeyName, _unit: Option<Unit>, _description: SharedString) {}
    fn register_counter(&self, key: &MetricKey, _metadata: &Metadata<'_>) -> Counter {
        let wanted = key.name() == "klamm_listener_deliveries_total";
        Counter::from_arc(if wanted { Arc::clone(&self.deliveries) } else { Arc::default() })
    }
    fn register_gauge(&self, _key: &MetricKey, _metadata: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, key: &MetricKey, _metadata: &Metadata<'_>) -> Histogram {
        let wanted = key.name() == "klamm_listener_handler_seconds";
        Histogram::from_arc(if wanted { Arc::clone(&self.calls) } else { Arc::default() })
    }
}

/// What is measured costs no allocation: handles are made once.
#[tokio::test(start_paused = true)]
async fn metrics_cost_no_allocation_a_record() {
    let (deliveries, calls) = (Arc::<Counted>::default(), Arc::<Counted>::default());
    let recorder = Recorded { deliveries: Arc::clone(&deliveries), calls: Arc::clone(&calls) };
    let _recorded = metrics::set_default_local_recorder(&recorder);
    let bare = bare_loop().await;
    let on = || Listener::on("t").group("g");
    for (name, listener) in [
        ("by partition", on().handle(single)),
        ("unordered", on().dispatch(Dispatch::unordered()).handle(single)),
    ] {
        let each = listening(listener).await.saturating_sub(bare) as f64 / RECORDS as f64;
        println!("{name}, recorded: {each:.3} allocations a record");
        assert!(each <= 1.15, "{name}: {each:.3}");
    }
    let counted = (deliveries.0.load(Ordering::Relaxed), calls.0.load(Ordering::Relaxed));
    assert_eq!(counted, (2 * RECORDS, 2 * RECORDS));
}

/// The one allocation of a record is the handler's future; an acknowledgement by hand is another.
#[tokio::test(start_paused = true)]
async fn a_record_costs_one_allocation_at_most() {
    let on = || Listener::on("t").group("g");
    let bare = bare_loop().await;
    let cases = [
        ("by partition", on().handle(single), 1.0),
        ("by key", on().dispatch(Dispatch::by_key()).handle(single), 1.0),
        ("unordered", on().dispatch(Dispatch::unordered()).handle(single), 1.0),
        ("one worker", on().concurrency(1).handle(single), 1.0),
        ("batches", on().batch(500, Duration::ZERO).handle(batch), 0.0),
        ("manual", on().ack(AckPolicy::Manual).handle(manual), 2.0),
    ];
    let mut over = Vec::new();
    for (name, listener, most) in cases {
        let each = listening(listener).await.saturating_sub(bare) as f64 / RECORDS as f64;
        println!(
            "{name}: {each:.3} allocations a record over {:.3} of a bare loop",
            bare as f64 / RECORDS as f64
        );
        // Something for what comes once for many records, as the queues of new keys.
        if each > most + 0.15 {
            over.push(format!("{name}: {each:.3}, not {most}"));
        }
    }
    assert!(over.is_empty(), "{over:?}");
}
