//! What an operator reads: spans, which are few, and warnings, each fault once.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};

use klamm_client::Record;
use klamm_protocol::ApiKey;
use tokio::time::timeout;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Level, Metadata, Subscriber};

use crate::fake::{FakeBroker, Fault, TOPIC};
use crate::observing::{DEADLINE, SECOND, builder, everything};

/// Notes spans, and events at a level or above.
#[derive(Default)]
struct Log {
    next: AtomicU64,
    spans: Mutex<Vec<String>>,
    events: Mutex<Vec<String>>,
}

struct Notes(Arc<Log>);

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }
}

impl Subscriber for Notes {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("klamm_client")
            && (metadata.is_span() || *metadata.level() <= Level::WARN)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut text = Text(span.metadata().name().to_owned());
        span.record(&mut text);
        assert_eq!(*span.metadata().level(), Level::DEBUG, "{}", text.0);
        self.0.spans.lock().unwrap().push(text.0);
        Id::from_u64(self.0.next.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn record(&self, _: &Id, values: &tracing::span::Record<'_>) {
        let mut text = Text("later:".to_owned());
        values.record(&mut text);
        self.0.spans.lock().unwrap().push(text.0);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = Text(event.metadata().level().to_string());
        event.record(&mut text);
        self.0.events.lock().unwrap().push(text.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Wants all that there is and notes none of it.
struct Deaf;

impl Subscriber for Deaf {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &tracing::Event<'_>) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Log {
    /// Notes what happens on this thread while the guard lives.
    ///
    /// Where something is said for the first time it is asked once, of all threads, whether anybody wants to hear it.
    /// Asked by a test that notes nothing, while another begins to, it may stay silent for good; so there is always
    /// somebody who does.
    fn start() -> (Arc<Self>, tracing::subscriber::DefaultGuard) {
        static EAGER: Once = Once::new();
        EAGER.call_once(|| tracing::subscriber::set_global_default(Deaf).expect("no other test sets one"));
        let log = Arc::new(Self::default());
        let guard = tracing::subscriber::set_default(Notes(Arc::clone(&log)));
        (log, guard)
    }

    fn spans(&self, name: &str) -> Vec<String> {
        let spans = self.spans.lock().unwrap();
        spans.iter().filter(|span| span.split(' ').next() == Some(name)).cloned().collect()
    }
}

#[tokio::test(start_paused = true)]
async fn spans_are_few_and_none_is_a_records() {
    let (log, _guard) = Log::start();
    let broker = FakeBroker::start(2).await;
    broker.state().has_transactions = true;
    let client = builder(&broker).build().await.unwrap();
    timeout(DEADLINE, everything(&broker, &client)).await.unwrap();
    assert!(
        log.spans("produce").contains(&"produce node=1 partitions=1".to_owned()),
        "{:?}",
        log.spans("produce")
    );
    assert!(log.spans("fetch").iter().any(|span| span == "fetch node=1 held=true partitions=2"));
    assert!(log.spans("commit").contains(&"commit group=g partitions=1".to_owned()));
    let rebalances = log.spans("rebalance");
    for step in ["assigned", "lost", "revoked"] {
        let of_step = format!("step=\"{step}\"");
        assert!(rebalances.iter().any(|span| span.contains(&of_step)) || step != "revoked", "{rebalances:?}");
    }
    assert_eq!(log.spans("transaction"), ["transaction transactional_id=\"id\""]);
    assert!(log.spans("later:").contains(&"later: outcome=\"committed\"".to_owned()));

    let producer = client.producer().linger(SECOND).build().unwrap();
    let before = log.spans.lock().unwrap().len();
    for _ in 0..1_000 {
        drop(producer.enqueue(Record::to(TOPIC).partition(0).value("v")).await.unwrap());
    }
    producer.flush().await.unwrap();
    let made = log.spans.lock().unwrap().len() - before;
    assert!(made < 10, "{made} spans for 1000 records of one batch");
}

/// A producer, a consumer, its group and the metadata each warned of the same broker.
#[tokio::test(start_paused = true)]
async fn one_fault_is_warned_about_once() {
    let (log, _guard) = Log::start();
    let broker = FakeBroker::start(2).await;
    let client = builder(&broker).build().await.unwrap();
    let producer = client.producer().build().unwrap();
    producer.send(Record::to(TOPIC).partition(0).value("v")).await.unwrap();
    let mut consumer = client.consumer().group("g").topics([TOPIC]).from_beginning().start().await.unwrap();
    timeout(DEADLINE, consumer.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(*log.events.lock().unwrap(), [""; 0]);

    drop(broker);
    let sent = producer.enqueue(Record::to(TOPIC).partition(1).value("w")).await.unwrap();
    assert!(timeout(20 * SECOND, sent).await.is_err());
    let mut events = log.events.lock().unwrap().clone();
    // The fake broker's metadata names another one, where nobody ever listens.
    events.retain(|event| !event.contains("nobody:"));
    assert_eq!(events.len(), 1, "{events:#?}");
    assert!(events[0].starts_with("WARN message=a broker cannot be reached"), "{events:?}");
}

/// One that can be connected to and says nothing of use is the producer's to tell of.
#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_answer_the_producer_is_warned_about_once() {
    let (log, _guard) = Log::start();
    let broker = FakeBroker::start(1).await;
    let client = builder(&broker).build().await.unwrap();
    let producer = client.producer().build().unwrap();
    broker.script(ApiKey::Produce, vec![Fault::ServeThenSilence; 3]);
    producer.send(Record::to(TOPIC).partition(0).value("v")).await.unwrap();
    let events = log.events.lock().unwrap().clone();
    assert_eq!(events.len(), 1, "{events:#?}");
    assert!(events[0].contains("a broker answers the producer nothing of use"), "{events:?}");
}
