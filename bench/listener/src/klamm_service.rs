//! The handlers as a user of Klamm writes them.

use std::hint::black_box;
use std::time::Duration;

use klamm::prelude::*;

use crate::Result;
use crate::meter;
use crate::mode::Mode;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
    user: String,
    amount: f64,
    city: String,
    note: String,
}

async fn text(Value(text): Value<String>) {
    black_box(text);
    meter::add(1);
}

async fn json(Json(order): Json<Order>) {
    black_box((order.id, &order.user, order.amount, &order.city, &order.note));
    meter::add(1);
}

async fn batch(batch: Batch<Value<String>>) {
    let records = batch.len() as u64;
    black_box(batch);
    meter::add(records);
}

async fn acknowledging(Value(text): Value<String>, ack: Ack) {
    black_box(text);
    if ack.now().await.is_ok() {
        meter::add(1);
    }
}

async fn paced(Value(text): Value<String>) {
    meter::came(&text);
}

pub async fn run(bootstrap: &str, mode: Mode, records: u64) -> Result<()> {
    let topic = std::env::var("TOPIC").unwrap_or_else(|_| mode.topic().to_owned());
    let listener = Listener::on(topic.as_str()).group(format!("klamm-{}", std::process::id()));
    let listener = match mode {
        Mode::Text => listener.concurrency(1).handle(text),
        Mode::Text4 => listener.concurrency(4).handle(text),
        Mode::Json => listener.concurrency(1).handle(json),
        Mode::Batch => listener.concurrency(1).batch(500, Duration::ZERO).handle(batch),
        Mode::Key => listener.concurrency(4).dispatch(Dispatch::by_key()).handle(text),
        Mode::Unordered => listener.concurrency(4).dispatch(Dispatch::unordered()).handle(text),
        Mode::AckRecord => listener.concurrency(1).ack(AckPolicy::Record).handle(text),
        Mode::AckNow => listener.concurrency(1).ack(AckPolicy::Manual).handle(acknowledging),
        Mode::Latency => listener.concurrency(1).handle(paced),
    };
    let app = App::new(bootstrap).listener(listener).start().await?;
    meter::watch(records).await?;
    app.shutdown(Duration::from_secs(10)).await;
    Ok(())
}
