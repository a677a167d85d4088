//! Enrichment: a stream looks up tables, one that is spread over the instances like the stream itself, and one that
//! every instance has whole.
//!
//! Run it with `cargo run -p klamm-examples --bin enrichment`. It brings a broker of its own; with KLAMM_BOOTSTRAP it
//! takes yours.

#![allow(clippy::print_stdout)] // What it shows, it prints.

use klamm::Record as Typed;
use klamm::broker::Broker;
use klamm::client::{Client, NewTopic, Record};
use klamm::prelude::{Deserialize, Serialize};
use klamm::streams::{StreamsBuilder, StreamsConfig};

#[derive(Debug, Clone, Serialize, Deserialize, Typed)]
#[record(json)]
struct Order {
    cents: i64,
    currency: String,
}

/// What is between two operators needs a form too: a join may have to send it to another partition.
#[derive(Debug, Clone, Serialize, Deserialize, Typed)]
#[record(json)]
struct Named {
    order: Order,
    customer: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, Typed)]
#[record(json)]
struct Priced {
    customer: String,
    euro_cents: i64,
}

#[tokio::main]
async fn main() -> klamm::Result<()> {
    let broker = Broker::builder().ephemeral().start().await?;
    let bootstrap = std::env::var("KLAMM_BOOTSTRAP").unwrap_or_else(|_| broker.bootstrap().to_string());
    let client = Client::connect(&bootstrap).await?;
    client.admin().create_topics(&["orders", "customers", "rates", "priced"].map(NewTopic::new)).await?;

    let mut streams = StreamsBuilder::new();
    let customers = streams.table::<String, String>("customers");
    let rates = streams.global_table::<String, i64>("rates");
    streams
        .stream::<String, Order>("orders")
        // By the key of the record: the customer. Who is not known is a guest.
        .left_join(&customers, |order, name| Named {
            order: order.clone(),
            customer: name.cloned().unwrap_or_else(|| "a guest".to_owned()),
        })
        // By anything in it.
        .join_global(
            &rates,
            |_, named| named.order.currency.clone(),
            |named, rate| Priced {
                customer: named.customer.clone(),
                euro_cents: named.order.cents * rate / 100,
            },
        )
        .peek(|key, priced| println!("{key}: {} pays {} euro cents", priced.customer, priced.euro_cents))
        .to("priced");

    let state_dir = std::env::temp_dir().join(format!("klamm-enrichment-{}", std::process::id()));
    // What an instance has whole is read when it starts.
    let producer = client.producer().build()?;
    for (currency, rate) in [("EUR", 100_i64), ("CHF", 105)] {
        producer.send(Record::to("rates").key(currency).value(rate.to_be_bytes().to_vec())).await?;
    }
    producer.send(Record::to("customers").key("c1").value("Anna")).await?;
    let app = streams.build()?.start(StreamsConfig::new("pricing", &bootstrap).state_dir(&state_dir)).await?;
    app.caught_up().await?;
    for (customer, order) in [
        ("c1", r#"{"cents":1000,"currency":"CHF"}"#),
        ("c2", r#"{"cents":250,"currency":"EUR"}"#),
        ("c1", r#"{"cents":1,"currency":"XXX"}"#), // No rate, no price.
    ] {
        producer.send(Record::to("orders").key(customer).value(order)).await?;
    }
    app.caught_up().await?;
    app.close().await?;
    broker.shutdown().await?;
    #[allow(clippy::disallowed_methods)] // what is banned inside Klamm itself
    tokio::fs::remove_dir_all(&state_dir).await?;
    Ok(())
}
