//! The handlers as a user of RustStream writes them, with librdkafka's pause on a full queue as short as it can be: by
//! default the service would be idle most of the time.

use std::hint::black_box;

use ruststream_rdkafka::prelude::*;

use crate::Result;
use crate::meter;
use crate::mode::Mode;

#[derive(Deserialized)]
struct Frame<'a>(&'a [u8]);

impl Frame<'_> {
    fn text(&self) -> String {
        String::from_utf8_lossy(self.0).into_owned()
    }
}

#[derive(serde::Deserialize)]
struct Order {
    id: u64,
    user: String,
    amount: f64,
    city: String,
    note: String,
}

fn mode() -> Mode {
    std::env::args().nth(4).and_then(|mode| Mode::parse(&mode).ok()).unwrap_or(Mode::Text)
}

fn topic() -> String {
    std::env::var("TOPIC").unwrap_or_else(|_| mode().topic().to_owned())
}

fn group() -> String {
    format!("ruststream-{}", std::process::id())
}

fn lane() -> LaneKey {
    if mode() == Mode::Key { LaneKey::RecordKey } else { LaneKey::Partition }
}

#[subscriber(
    KafkaTopic::new(topic()).group(group()).start(StartOffset::Earliest).commit(Commit::Tracked)
        .config("fetch.queue.backoff.ms", "2").lane_key(lane())
)]
async fn text(frame: &Frame<'_>) -> HandlerOutcome {
    black_box(frame.text());
    meter::add(1);
    HandlerOutcome::ack()
}

#[subscriber(
    KafkaTopic::new(topic()).group(group()).start(StartOffset::Earliest).commit(Commit::Tracked)
        .config("fetch.queue.backoff.ms", "2").lane_key(lane())
)]
async fn paced(frame: &Frame<'_>) -> HandlerOutcome {
    meter::came(&frame.text());
    HandlerOutcome::ack()
}

#[subscriber(
    KafkaTopic::new(topic()).group(group()).start(StartOffset::Earliest).commit(Commit::Tracked)
        .config("fetch.queue.backoff.ms", "2").lane_key(lane())
)]
async fn json(order: &Order) -> HandlerOutcome {
    black_box((order.id, &order.user, order.amount, &order.city, &order.note));
    meter::add(1);
    HandlerOutcome::ack()
}

#[subscriber(
    KafkaTopic::new(topic()).group(group()).start(StartOffset::Earliest).commit(Commit::Tracked)
        .config("fetch.queue.backoff.ms", "2").lane_key(lane()),
    workers(4)
)]
async fn unordered(frame: &Frame<'_>) -> HandlerOutcome {
    black_box(frame.text());
    meter::add(1);
    HandlerOutcome::ack()
}

#[subscriber(
    KafkaTopic::new(topic()).group(group()).start(StartOffset::Earliest).commit(Commit::Tracked)
        .config("fetch.queue.backoff.ms", "2").lane_key(lane()),
    workers(4, by_key)
)]
async fn in_lanes(frame: &Frame<'_>) -> HandlerOutcome {
    black_box(frame.text());
    meter::add(1);
    HandlerOutcome::ack()
}

#[subscriber(
    KafkaTopic::new(topic()).group(group()).start(StartOffset::Earliest).commit(Commit::Tracked)
        .config("fetch.queue.backoff.ms", "2").lane_key(lane())
)]
async fn batch(frames: &[Frame<'_>]) -> HandlerOutcome {
    let texts: Vec<String> = frames.iter().map(Frame::text).collect();
    meter::add(texts.len() as u64);
    black_box(texts);
    HandlerOutcome::ack()
}

pub async fn run(bootstrap: &str, mode: Mode, records: u64) -> Result<()> {
    let app = RustStream::new(AppInfo::new("bench", "0.1.0"));
    let app = app.with_broker(KafkaBroker::new([bootstrap.to_owned()]), |broker| match mode {
        Mode::Json => {
            broker.include(json);
        }
        Mode::Batch => {
            broker.include(batch.batch(nonzero!(500usize)));
        }
        Mode::Unordered => {
            broker.include(unordered);
        }
        Mode::Key | Mode::Text4 => {
            broker.include(in_lanes);
        }
        Mode::Latency => {
            broker.include(paced);
        }
        Mode::Text | Mode::AckRecord | Mode::AckNow => {
            broker.include(text);
        }
    });
    let running = app.start().await?;
    meter::watch(records).await?;
    running.shutdown().await?;
    Ok(())
}
