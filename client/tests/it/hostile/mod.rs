//! Brokers that lie: whatever they answer, the client gives an error in time or carries on, takes bounded memory,
//! storms nobody, and works again when the broker comes to its senses.
//!
//! Each case is a line in a table. A driver has a client do its usual work while the lie stands, then has the broker
//! behave, and expects the same client to work.

mod cluster;
mod fetching;
mod frames;
mod groups;
mod logins;
mod producing;
mod transactions;

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::Once;
use std::time::Duration;

use futures::FutureExt;
use klamm_client::testing::{Answer, FakeBroker};
use klamm_client::{Client, Consumer, Producer, Record};
use klamm_protocol::{ApiKey, Request};
use tokio::time::{Instant, timeout};

use crate::alloc::Peak;
use crate::scripted::{self, TOPIC};

/// How many records are in the topic, or are sent.
const RECORDS: usize = 20;
/// How long the lie stands, in the clock's time.
const LIE: Duration = Duration::from_secs(20);
/// How long the client may take to work again.
const RECOVERY: Duration = Duration::from_secs(120);
/// What client and broker may take together while the lie stands, beyond what they had before.
const MOST_BYTES: usize = 48 * 1024 * 1024;
/// Requests and connections that a lie may cause: more is a storm. Backoffs allow about ten a second, of each kind.
const MOST_REQUESTS: usize = 2_000;
const MOST_CONNECTIONS: usize = 600;

/// One lie.
struct Case {
    name: String,
    lie: Box<dyn Fn(&FakeBroker)>,
    /// A lie that nobody can see through, such as about where a log begins, or that stands until something else is
    /// agreed on.
    believed: bool,
}

impl Case {
    fn new(name: impl Into<String>, lie: impl Fn(&FakeBroker) + 'static) -> Self {
        Self { name: name.into(), lie: Box::new(lie), believed: false }
    }

    fn believed(self) -> Self {
        Self { believed: true, ..self }
    }

    /// For as long as the lie stands, each answer to `R` goes out as `edit` leaves it.
    fn edited<R: Request>(
        name: impl Into<String>,
        edit: impl Fn(&mut R::Response) + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::new(name, move |broker| {
            broker.always(R::KEY, Answer::edited::<R>(edit.clone()));
        })
    }

    /// Each answer of an API is this one.
    fn answered(api: ApiKey, answer: Answer) -> Self {
        let name = format!("{api:?}: {answer:?}");
        Self::new(name, move |broker| {
            broker.always(api, answer.clone());
        })
    }
}

thread_local! {
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

/// Counts the panics of this thread, those that a task swallows too.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.with(|panics| panics.set(panics.get() + 1));
            usual(info);
        }));
    });
    PANICS.set(0);
}

/// What is seen while a case runs.
struct Watch<'a> {
    case: &'a Case,
    broker: &'a FakeBroker,
    peak: Peak,
    connections: usize,
    requests: usize,
    began: Instant,
}

impl<'a> Watch<'a> {
    fn begin(case: &'a Case, broker: &'a FakeBroker) -> Self {
        watch_panics();
        (case.lie)(broker);
        let (connections, requests) = (broker.connections(), requests(broker));
        Self { case, broker, peak: Peak::begin(), connections, requests, began: Instant::now() }
    }

    /// Time stands still while something is busy without a pause: no deadline would end that.
    async fn unless_it_storms<T>(&self, driven: impl Future<Output = T>) -> T {
        let most = self.requests + MOST_REQUESTS;
        tokio::select! {
            driven = driven => driven,
            () = self.broker.until(|broker| requests(broker) > most) => {
                panic!("{}: a storm of requests after {:?}", self.case.name, self.began.elapsed())
            }
        }
    }

    /// The lie ends here.
    fn end(self) {
        let Self { case: Case { name, .. }, broker, .. } = self;
        let bytes = self.peak.bytes();
        assert!(bytes <= MOST_BYTES, "{name}: {bytes} bytes");
        let connections = broker.connections() - self.connections;
        assert!(connections <= MOST_CONNECTIONS, "{name}: {connections} connections");
        let requests = requests(broker) - self.requests;
        assert!(requests <= MOST_REQUESTS, "{name}: {requests} requests in {:?}", self.began.elapsed());
        assert_eq!(PANICS.get(), 0, "{name}: something panicked");
        broker.behave();
        if self.case.believed {
            // What was agreed on has to be agreed on anew.
            broker.disconnect().expel("g");
        }
    }
}

fn requests(broker: &FakeBroker) -> usize {
    ApiKey::ALL.iter().map(|&api| broker.requests(api)).sum()
}

async fn client(broker: &FakeBroker) -> Client {
    let builder = broker.client_builder().request_timeout(Duration::from_secs(5));
    builder.connect_timeout(Duration::from_secs(5)).build().await.unwrap()
}

fn producer(client: &Client) -> Producer {
    let builder = client.producer().request_timeout(Duration::from_secs(5)).max_block(Duration::from_secs(5));
    builder.delivery_timeout(Duration::from_secs(10)).build().unwrap()
}

async fn filled() -> (FakeBroker, Client) {
    let broker = scripted::start(2).await;
    let client = client(&broker).await;
    let producer = producer(&client);
    for number in 0..RECORDS {
        producer.send(Record::to(TOPIC).partition(0).value(number.to_string())).await.unwrap();
    }
    producer.close().await.unwrap();
    (broker, client)
}

/// Drives every case, whatever became of those before it.
async fn each(cases: Vec<Case>, drive: impl AsyncFn(&Case)) {
    let mut failed = Vec::new();
    for case in &cases {
        // Shown with a failure: a case may also hang.
        println!("{}", case.name);
        if let Err(panic) = AssertUnwindSafe(drive(case)).catch_unwind().await {
            let text = panic.downcast::<String>().map_or_else(|_| case.name.clone(), |text| *text);
            failed.push(text);
        }
    }
    assert!(failed.is_empty(), "{} of {} failed: {failed:#?}", failed.len(), cases.len());
}

/// Sends while the lie stands: every send ends in time, with whatever. Then the same client sends.
async fn sends_through(cases: Vec<Case>) {
    each(cases, async |case| {
        let name = &case.name;
        let broker = scripted::start(2).await;
        let client = client(&broker).await;
        let watch = Watch::begin(case, &broker);
        let lied_to = producer(&client);
        let sends = async {
            for number in 0..3 {
                let sent =
                    timeout(LIE, lied_to.send(Record::to(TOPIC).partition(0).value(number.to_string())));
                let _ = sent.await.unwrap_or_else(|_| panic!("{name}: a send does not end"));
            }
        };
        // Three times the delivery timeout.
        let sends = watch.unless_it_storms(timeout(2 * LIE, sends));
        sends.await.unwrap_or_else(|_| panic!("{name}: sends do not end"));
        watch.end();
        let again = async {
            loop {
                // One that was told that it is fenced, or another lie that cannot be cured, is made anew.
                let sent = lied_to.send(Record::to(TOPIC).partition(0).value("after")).await;
                if sent.is_ok() || producer(&client).send(Record::to(TOPIC).value("after")).await.is_ok() {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        timeout(RECOVERY, again).await.unwrap_or_else(|_| panic!("{name}: it never sends again"));
        let known = |value: &String| ["0", "1", "2", "after"].contains(&&**value);
        assert!(broker.values(TOPIC, 0).iter().all(known), "{name}: {:?}", broker.values(TOPIC, 0));
        timeout(LIE, lied_to.close())
            .await
            .map(drop)
            .unwrap_or_else(|_| panic!("{name}: close does not end"));
        assert_eq!(PANICS.get(), 0, "{name}: something panicked");
    })
    .await;
}

/// Reads while the lie stands: what is handed out was sent. Then the same consumer reads on, to the end, and skips
/// nothing; or another one, where it was told that it cannot go on.
async fn reads_through(cases: Vec<Case>, member: bool) {
    each(cases, async |case| {
        let name = &case.name;
        let (broker, client) = filled().await;
        let watch = Watch::begin(case, &broker);
        let builder = client.consumer().group("g").from_beginning().request_timeout(Duration::from_secs(5));
        let builder =
            builder.session_timeout(Duration::from_secs(6)).heartbeat_interval(Duration::from_secs(1));
        // A join may be silent for as long as a rebalance may take.
        let builder = builder.rebalance_timeout(Duration::from_secs(10)).max_batch_bytes(8 * 1024 * 1024);
        let builder = if member { builder.topics([TOPIC]) } else { builder.assign([(TOPIC, 0)]) };
        let start = builder.clone().start();
        let mut consumer = watch.unless_it_storms(timeout(LIE, start)).await.unwrap().unwrap();
        let mut read = Reading { believes: case.believed, ..Reading::default() };
        let _ = watch.unless_it_storms(timeout(LIE, read.on(&mut consumer, name, usize::MAX))).await;
        watch.end();
        if read.is_over {
            consumer = builder.start().await.unwrap();
        }
        read.is_over = false;
        let rest = timeout(RECOVERY, read.until_the_end(&mut consumer, name)).await;
        assert!(rest.is_ok(), "{name}: it does not read to the end: {read:?}");
        let closed = timeout(LIE, consumer.close()).await;
        assert!(closed.is_ok(), "{name}: close does not end");
        assert_eq!(PANICS.get(), 0, "{name}: something panicked");
    })
    .await;
}

/// What a consumer handed out.
#[derive(Debug, Default)]
struct Reading {
    /// The offset after the last record, whose value is the offset.
    next: i64,
    /// Whether what the broker says of offsets has to be believed.
    believes: bool,
    /// The consumer was told that it cannot go on.
    is_over: bool,
    errors: usize,
    last_error: String,
}

impl Reading {
    /// Reads until the record with this number was handed out, whose value is its offset. Never returns while the
    /// broker gives no more.
    async fn on(&mut self, consumer: &mut Consumer, name: &str, last: usize) {
        while self.next <= i64::try_from(last).unwrap_or(i64::MAX) {
            match consumer.next().await {
                Some(Ok(record)) => {
                    let value =
                        String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
                    let sent = value == record.offset.to_string();
                    assert!(self.believes || sent, "{name}: {value:?} at {}", record.offset);
                    assert!(self.believes || record.offset <= self.next, "{name}: {} was skipped", self.next);
                    self.next = record.offset + 1;
                }
                Some(Err(error)) => {
                    self.errors += 1;
                    self.last_error = error.to_string();
                    assert!(self.errors < 1_000, "{name}: endless errors, the last one {error}");
                    if error.is_fatal() {
                        self.is_over = true;
                        return;
                    }
                }
                None => panic!("{name}: the consumer ended; {self:?}"),
            }
        }
    }

    /// A program that hears that a record cannot be read, or that there is no offset, says where to go on.
    async fn until_the_end(&mut self, consumer: &mut Consumer, name: &str) {
        let handle = consumer.handle();
        let mut asked = 0;
        loop {
            // A lie that was believed, such as an offset, is corrected by the program.
            let from = self.next.min(RECORDS as i64 - 1);
            if handle.seek(&(TOPIC, 0).into(), from).is_ok() {
                self.next = from;
                let patience = Duration::from_secs(20);
                let read = timeout(patience, self.on(consumer, name, RECORDS - 1)).await;
                assert!(!self.is_over, "{name}: {}", self.last_error);
                if read.is_ok() {
                    return;
                }
            }
            asked += 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(asked < 1_000, "{name}: it cannot be sought");
        }
    }
}
