//! A record that fails waits in a retry topic while the others go on, and dies only after its last step.
//!
//! Run it with `cargo run -p klamm-examples --bin retry_topics`. It brings a broker of its own; with KLAMM_BOOTSTRAP it
//! takes yours.

#![allow(clippy::print_stdout)] // What it shows, it prints.

use std::time::Duration;

use klamm::broker::Broker;
use klamm::client::NewTopic;
use klamm::prelude::*;
use tokio::sync::mpsc;

const STEP: Duration = Duration::from_millis(500);

/// The bank answers at the third time of asking; a cheque that is not covered stays so.
#[kafka_listener(topics = "orders", group = "billing", on_failure = in_steps)]
async fn bill(
    Value(order): Value<String>,
    meta: RecordMeta,
    State(told): State<mpsc::Sender<String>>,
) -> klamm::Result<()> {
    match &*order {
        "not covered" => Err(Error::msg("the cheque is not covered")),
        "busy" if meta.attempt < 3 => Err(Error::msg("the bank is busy")),
        _ => Ok(told
            .send(format!("charged `{order}` at attempt {} from {}", meta.attempt, meta.topic))
            .await?),
    }
}

#[kafka_listener(topics = "orders-dlt", group = "repair")]
async fn repair(Value(order): Value<String>, State(told): State<mpsc::Sender<String>>) -> klamm::Result<()> {
    Ok(told.send(format!("gave up `{order}`")).await?)
}

fn in_steps() -> FailurePolicy {
    FailurePolicy::new().retry_topics([STEP, 2 * STEP]).dead_letter()
}

#[tokio::main]
async fn main() -> klamm::Result<()> {
    let broker = Broker::builder().ephemeral().start().await?;
    let bootstrap = std::env::var("KLAMM_BOOTSTRAP").unwrap_or_else(|_| broker.bootstrap().to_string());
    let (tell, mut told) = mpsc::channel::<String>(16);
    let topics = ["orders", "orders-dlt"].map(|name| NewTopic::new(name).partitions(1));
    let app = topics.into_iter().fold(App::new(bootstrap), App::topic);
    let app = app.state(tell).discover().start().await?;

    let orders = app.template::<String, String>("orders");
    for order in ["busy", "not covered", "fine"] {
        orders.send("customer-7", order.to_owned()).await?;
    }
    for _ in 0..3 {
        let Some(line) = told.recv().await else { break };
        println!("{line}");
    }
    app.shutdown(Duration::from_secs(5)).await;
    broker.shutdown().await?;
    Ok(())
}
