//! What comes after a dead letter: a listener fails, its letters are counted, and when the cause is mended they go back
//! to work.
//!
//! Run it with `cargo run -p klamm-examples --bin replay_dead_letters`. It brings a broker of its own. The same from a
//! shell: `klamm dlt list`, `klamm dlt replay orders-dlt`.

#![allow(clippy::print_stdout)] // What it shows, it prints.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use klamm::broker::Broker;
use klamm::client::NewTopic;
use klamm::dead_letters::{DeadLetters, LetterFilter};
use klamm::prelude::*;
use tokio::sync::mpsc;

/// The bank, which is closed at first.
#[derive(Clone)]
struct Bank {
    open: Arc<AtomicBool>,
    charged: mpsc::Sender<String>,
}

#[kafka_listener(topics = "orders", group = "billing", on_failure = at_once)]
async fn bill(Value(order): Value<String>, State(bank): State<Bank>) -> klamm::Result<()> {
    if !bank.open.load(Ordering::SeqCst) {
        return Err(Error::msg(format!("the bank is closed, {order} is not charged")));
    }
    bank.charged.send(order).await?;
    Ok(())
}

fn at_once() -> FailurePolicy {
    FailurePolicy::new().dead_letter()
}

#[tokio::main]
async fn main() -> klamm::Result<()> {
    let broker = Broker::builder().ephemeral().start().await?;
    let (charged, mut hear) = mpsc::channel(16);
    let bank = Bank { open: Arc::default(), charged };
    let topics = ["orders", "orders-dlt"].map(|name| NewTopic::new(name).partitions(1));
    let app = topics.into_iter().fold(App::new(broker.bootstrap()), App::topic);
    let app = app.state(bank.clone()).discover().start().await?;

    let orders = app.template::<String, String>("orders");
    for order in ["order-1", "order-2", "order-3"] {
        orders.send(order, order.to_owned()).await?;
    }
    let letters = DeadLetters::new(app.client(), "orders-dlt");
    let all = LetterFilter::new();
    while letters.summary(&all).await?.letters.open < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for (cause, count) in letters.summary(&all).await?.causes {
        println!("{} letters of {}", count.letters, cause.origin.as_deref().unwrap_or("nowhere"));
    }

    bank.open.store(true, Ordering::SeqCst);
    let report = letters.replay().only(all.error("the bank is closed")).run().await?;
    println!("{} went back to work", report.sent);
    for _ in 0..3 {
        let Some(order) = hear.recv().await else { break };
        println!("charged {order}");
    }
    app.shutdown(Duration::from_secs(5)).await;
    broker.shutdown().await?;
    Ok(())
}
