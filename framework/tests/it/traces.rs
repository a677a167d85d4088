//! The trace that a record belongs to goes with all that comes of it, whether or not somebody exports spans.

use std::time::Duration;

use klamm::client::{ConsumerRecord, Record as OutRecord};
use klamm::prelude::*;
use klamm::template::Template;
use klamm::testing::TestKit;
use klamm::trace::TraceContext;

use crate::seen::Seen;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const STATE: &str = "vendor=a1,other=b2";
const BAGGAGE: &str = "user=7";

fn traced(topic: &str, value: &str) -> OutRecord {
    let record = OutRecord::to(topic.to_owned()).key("k").value(value.to_owned());
    record.header("traceparent", PARENT).header("tracestate", STATE).header("baggage", BAGGAGE)
}

fn said(record: &ConsumerRecord) -> (Option<String>, Option<String>, Option<String>) {
    let context = TraceContext::of(&record.headers);
    (context.traceparent(), context.tracestate().map(str::to_owned), context.baggage().map(str::to_owned))
}

fn all() -> (Option<String>, Option<String>, Option<String>) {
    (Some(PARENT.to_owned()), Some(STATE.to_owned()), Some(BAGGAGE.to_owned()))
}

type Out = Template<String, String>;

/// Sends on what it gets, at once and from a task of its own, and fails on "bad".
async fn forward(
    Value(text): Value<String>,
    context: TraceContext,
    State(out): State<Out>,
) -> Result<(), String> {
    assert_eq!(context.traceparent().as_deref(), Some(PARENT));
    out.send("k", text.clone()).await.unwrap();
    let context = TraceContext::current();
    #[allow(clippy::disallowed_methods)]
    let sent = tokio::spawn(async move { context.scope(out.send("k", "from a task".to_owned())).await });
    sent.await.unwrap().unwrap();
    if text == "bad" { Err(text) } else { Ok(()) }
}

async fn answer(Value(text): Value<String>) -> Reply<String> {
    text.into()
}

/// Nobody exports anything, and nothing is lost: in sends, in place, in a retry topic, in dead letters, in replies.
#[klamm::test]
async fn a_context_goes_with_everything_that_comes_of_a_record(kit: TestKit) {
    let policy = FailurePolicy::new().retry_in_place(Backoff::immediate().attempts(2));
    let policy = policy.retry_topics([Duration::from_secs(5)]);
    let app = kit
        .app()
        .state(kit.template::<String, String>("out"))
        .listener(Listener::on("t").group("g").on_failure(policy).handle(forward))
        .listener(Listener::on("q").group("g").send_to("answers").handle(answer))
        .start()
        .await;
    kit.send_record(traced("t", "bad")).await;
    kit.send_record(traced("q", "what")).await;
    app.handled("forward", 2).await;
    app.handled("answer", 1).await;
    let sent = kit.topic("out").records().await;
    assert_eq!(sent.len(), 8, "four deliveries, two each");
    let copies = kit.topic("t-retry-5s-g").records().await;
    let letters = kit.topic("t-dlt").records().await;
    let answers = kit.topic("answers").records().await;
    assert_eq!((copies.len(), letters.len(), answers.len()), (1, 1, 1));
    for record in sent.iter().chain(&copies).chain(&letters).chain(&answers) {
        assert_eq!(said(record), all(), "{}", record.topic);
        assert_eq!(record.headers.all("traceparent").count(), 1, "{}", record.topic);
    }
}

async fn copy(Value(text): Value<String>, tx: Tx) -> Result<(), klamm::listener::BoxError> {
    tx.send("copied", "k", &*text).await?;
    if text == "bad" { Err("bad".into()) } else { Ok(()) }
}

/// What is sent in a transaction, and letters in one, belong to the trace as well.
#[klamm::test]
async fn a_context_goes_with_transactions(kit: TestKit) {
    let listener = Listener::on("t").group("g").transactional().on_failure(FailurePolicy::new());
    let app = kit.app().listener(listener.handle(copy)).start().await;
    for value in ["good", "bad"] {
        kit.send_record(traced("t", value)).await;
    }
    app.handled("copy", 2).await;
    let (copied, letters) = (kit.topic("copied").records().await, kit.topic("t-dlt").records().await);
    // That of the second one was aborted, and is there for readers of all.
    assert_eq!((copied.len(), letters.len()), (2, 1));
    for record in copied.iter().chain(&letters) {
        assert_eq!(said(record), all(), "{}", record.topic);
    }
}

/// A request that a handler makes belongs to its trace, and so does what is handled there, and the reply.
#[klamm::test]
async fn a_context_goes_with_requests(kit: TestKit) {
    async fn ask(
        Value(text): Value<String>,
        State(lengths): State<klamm::template::Requester<String, String>>,
        State(seen): State<Seen>,
    ) {
        seen.add(lengths.request(text).await.unwrap());
    }
    let seen = Seen::default();
    let answering = kit.app().listener(Listener::on("q").group("g").handle(answer)).start().await;
    let requester = answering.requester::<String, String>("q").start().await.unwrap();
    let listener = Listener::on("t").group("g").handle(ask);
    let app = kit.app().state(requester).state(seen.clone()).listener(listener).start().await;
    kit.send_record(traced("t", "what")).await;
    app.handled("ask", 1).await;
    assert_eq!(seen.all(), ["what"]);
    for topic in ["q", "q-replies"] {
        let records = kit.topic(topic).records().await;
        assert_eq!((records.len(), said(&records[0])), (1, all()), "{topic}");
    }
}

/// What headers say that hold to no standard goes nowhere, whatever its size, and its record is handled.
#[klamm::test]
async fn hostile_headers_are_left_out(kit: TestKit) {
    async fn send(Value(text): Value<String>, State(out): State<Out>) {
        out.send("k", text).await.unwrap();
    }
    let listener = Listener::on("t").group("g").handle(send);
    let app = kit.app().state(kit.template::<String, String>("out")).listener(listener).start().await;
    let huge = "x=1,".repeat(50_000);
    let values =
        ["", "00", "\0", "00-\u{e4}", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", &huge];
    for value in values {
        let record = OutRecord::to("t").value("v").header("traceparent", value.to_owned());
        kit.send_record(record.header("tracestate", value.to_owned()).header("baggage", value.to_owned()))
            .await;
    }
    let many = (0..2_000).fold(traced("t", "v"), |record, n| record.header("baggage", format!("k{n}=v")));
    kit.send_record(many).await;
    app.handled("send", values.len() as u64 + 1).await;
    let mut sent = kit.topic("out").records().await;
    let last = sent.pop().unwrap();
    assert_eq!(said(&last).0.as_deref(), Some(PARENT));
    assert_eq!(said(&last).2.unwrap().split(',').count(), 64);
    for record in sent {
        assert_eq!(record.headers.last("traceparent"), None);
        assert!(record.headers.size_bytes() < 9_000, "{}", record.headers.size_bytes());
    }
}

#[cfg(feature = "opentelemetry")]
mod exported {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Once};

    use opentelemetry::trace::{SpanKind, Status, TracerProvider};
    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::trace::{
        InMemorySpanExporter, InMemorySpanExporterBuilder, SdkTracerProvider, SimpleSpanProcessor, SpanData,
        SpanExporter,
    };
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    struct Exported {
        spans: InMemorySpanExporter,
        provider: SdkTracerProvider,
        _subscriber: tracing::subscriber::DefaultGuard,
    }

    /// Where something is said for the first time it is asked once, of all threads, whether anybody wants to hear it.
    /// Asked by a test that exports nothing, while another begins to, it may stay silent for good; so there is always
    /// somebody who might want it, and never does.
    fn ask_each_time() {
        static ASKED: Once = Once::new();
        ASKED.call_once(|| {
            let never = tracing_subscriber::filter::dynamic_filter_fn(|_, _| false);
            let subscriber = tracing_subscriber::registry().with(never);
            tracing::subscriber::set_global_default(subscriber).expect("no other test sets one");
        });
    }

    fn export(provider: &SdkTracerProvider) -> tracing::subscriber::DefaultGuard {
        ask_each_time();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let filter = tracing_subscriber::EnvFilter::new("off,klamm::delivery=info");
        tracing::subscriber::set_default(tracing_subscriber::registry().with(filter).with(layer))
    }

    /// For everything on this thread, which is where the tests' tasks run.
    fn exported() -> Exported {
        let spans = InMemorySpanExporterBuilder::new().build();
        let provider =
            SdkTracerProvider::builder().with_span_processor(SimpleSpanProcessor::new(spans.clone())).build();
        let guard = export(&provider);
        Exported { spans, provider, _subscriber: guard }
    }

    impl Exported {
        fn spans(&self) -> Vec<SpanData> {
            self.provider.force_flush().unwrap();
            self.spans.get_finished_spans().unwrap()
        }
    }

    fn attributes(span: &SpanData) -> BTreeMap<&str, String> {
        span.attributes.iter().map(|pair| (pair.key.as_str(), pair.value.to_string())).collect()
    }

    /// A span for each delivery, below the producer's, with the names that the semantic conventions say; what is sent
    /// meanwhile names it.
    #[klamm::test]
    async fn deliveries_are_spans_of_their_records_traces(kit: TestKit) {
        let exported = exported();
        let policy = FailurePolicy::new().retry_in_place(Backoff::immediate().attempts(2));
        let policy = policy.retry_topics([Duration::from_secs(5)]);
        let listener = Listener::on("t").group("g").on_failure(policy).handle(forward);
        let app = kit.app().state(kit.template::<String, String>("out")).listener(listener).start().await;
        kit.send_record(traced("t", "bad")).await;
        app.handled("forward", 2).await;
        let spans = exported.spans();
        assert_eq!(spans.len(), 4, "{spans:?}");
        for (index, span) in spans.iter().enumerate() {
            assert_eq!(span.span_context.trace_id().to_string(), TRACE);
            assert_eq!(
                (span.parent_span_id.to_string(), span.parent_span_is_remote),
                ("00f067aa0ba902b7".to_owned(), true)
            );
            assert_eq!(span.span_kind, SpanKind::Consumer);
            assert!(matches!(span.status, Status::Error { .. }), "{:?}", span.status);
            let told = attributes(span);
            let topic = if index < 2 { "t" } else { "t-retry-5s-g" };
            assert_eq!(span.name, format!("process {topic}"));
            let wanted = [
                ("messaging.system", "kafka"),
                ("messaging.operation.type", "process"),
                ("messaging.destination.name", topic),
                ("messaging.destination.partition.id", "0"),
                ("messaging.kafka.offset", "0"),
                ("messaging.consumer.group.name", "g"),
                ("klamm.listener", "forward"),
                ("klamm.attempt", ["1", "2", "3", "4"][index]),
                ("error.type", "handler"),
            ];
            for (name, value) in wanted {
                assert_eq!(told.get(name).map(String::as_str), Some(value), "{name}: {told:?}");
            }
        }
        // Two of each delivery, of its own span; baggage and state go along.
        for (index, sent) in kit.topic("out").records().await.iter().enumerate() {
            let span = spans[index / 2].span_context.span_id();
            let (parent, state, baggage) = said(sent);
            assert_eq!(parent, Some(format!("00-{TRACE}-{span}-01")));
            assert_eq!((state.as_deref(), baggage.as_deref()), (Some(STATE), Some(BAGGAGE)));
        }
        let [letter] = &kit.topic("t-dlt").records().await[..] else { panic!("one letter") };
        assert_eq!(said(letter), all(), "as it came");
    }

    /// What came without a trace begins one when it fails: all of its deliveries, and its dead letter, belong to that.
    #[klamm::test]
    async fn a_record_without_a_trace_begins_one_that_its_retries_belong_to(kit: TestKit) {
        let exported = exported();
        let policy = FailurePolicy::new().retry_in_place(Backoff::immediate().attempts(2));
        let policy = policy.retry_topics([Duration::from_secs(5)]);
        let listener = Listener::on("t").group("g").on_failure(policy).handle(crate::picky::picky);
        let app = kit.app().state(Seen::default()).listener(listener).start().await;
        kit.send("t", "k", "bad").await;
        kit.send("t", "k", "good").await;
        app.handled("picky", 3).await;
        let spans = exported.spans();
        let first = &spans[0].span_context;
        let (ours, others): (Vec<_>, Vec<_>) =
            spans.iter().partition(|span| span.span_context.trace_id() == first.trace_id());
        assert_eq!((ours.len(), others.len()), (4, 1), "{spans:?}");
        assert!(ours[1..].iter().all(|span| span.parent_span_id == first.span_id()));
        assert!(matches!(others[0].status, Status::Unset));
        let [letter] = &kit.topic("t-dlt").records().await[..] else { panic!("one letter") };
        let parent = format!("00-{}-{}-01", first.trace_id(), first.span_id());
        assert_eq!((said(letter).0, letter.headers.all("traceparent").count()), (Some(parent), 1));
    }

    /// A batch belongs to none of its records' traces, and is linked with all.
    #[klamm::test]
    async fn a_batch_is_linked_with_its_records(kit: TestKit) {
        async fn batches(batch: Batch<Value<String>>) {
            assert!(!batch.is_empty());
        }
        let exported = exported();
        for n in 0..3 {
            kit.send_record(traced("t", &format!("{n}"))).await;
        }
        let listener = Listener::on("t").group("g").batch(3, Duration::from_secs(1)).handle(batches);
        let app = kit.app().listener(listener).start().await;
        app.handled("batches", 3).await;
        let spans = exported.spans();
        let [span] = &spans[..] else { panic!("{spans:?}") };
        assert_ne!(span.span_context.trace_id().to_string(), TRACE);
        let linked =
            span.links.iter().filter(|link| link.span_context.trace_id().to_string() == TRACE).count();
        assert_eq!((linked, attributes(span)["messaging.batch.message_count"].as_str()), (3, "3"));
    }

    #[derive(Debug, Clone, Default)]
    struct Broken(Arc<AtomicBool>);

    impl SpanExporter for Broken {
        async fn export(&self, _batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.store(true, Ordering::Relaxed);
            panic!("an exporter that breaks");
        }
    }

    /// An exporter that panics, on the thread that ends the span, is no failure of a record.
    #[klamm::test]
    async fn an_exporter_that_panics_harms_nobody(kit: TestKit) {
        let exporter = Broken::default();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(SimpleSpanProcessor::new(exporter.clone()))
            .build();
        let _guard = export(&provider);
        let seen = Seen::default();
        let policy = FailurePolicy::new().retry_in_place(Backoff::immediate().attempts(2));
        let listener = Listener::on("t").group("g").on_failure(policy).handle(crate::picky::picky);
        let app = kit.app().state(seen.clone()).listener(listener).start().await;
        for value in ["a", "bad", "b"] {
            kit.send("t", "k", value).await;
        }
        app.handled("picky", 3).await;
        assert_eq!(seen.all(), ["a", "bad", "bad", "b"]);
        assert!(exporter.0.load(Ordering::Relaxed), "it was asked");
        assert!(app.stop().await.is_clean());
    }
}
