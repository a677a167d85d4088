//! How a listener is tested: `#[klamm::test]` brings a broker in the test's own process, a paused clock and a deadline.
//!
//! `cargo test -p klamm-examples --bin test_a_listener` runs the tests below;
//! `cargo run -p klamm-examples --bin test_a_listener` runs the listener itself on one order.

#![allow(clippy::print_stdout)] // What it shows, it prints.

use std::sync::{Arc, Mutex};

use klamm::broker::Broker;
use klamm::prelude::*;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Order {
    id: u64,
    cents: i64,
}

/// Where the money goes: what a test looks at afterwards.
#[derive(Debug, Clone, Default)]
struct Ledger(Arc<Mutex<Vec<(u64, i64)>>>);

impl Ledger {
    fn charge(&self, order: &Order) -> Result<(), String> {
        if order.cents < 0 {
            return Err(format!("order {} costs less than nothing", order.id));
        }
        self.0.lock().map_err(|_| "the ledger is broken".to_owned())?.push((order.id, order.cents));
        Ok(())
    }

    fn charged(&self) -> Vec<(u64, i64)> {
        self.0.lock().map(|ledger| ledger.clone()).unwrap_or_default()
    }
}

#[kafka_listener(topics = "orders", group = "billing")]
async fn bill(Json(order): Json<Order>, State(ledger): State<Ledger>) -> Result<(), String> {
    ledger.charge(&order)
}

#[tokio::main]
async fn main() -> klamm::Result<()> {
    let broker = Broker::builder().ephemeral().start().await?;
    let ledger = Ledger::default();
    let app = App::new(broker.bootstrap()).state(ledger.clone()).listener(bill).start().await?;
    let orders = app.template::<String, Json<Order>>("orders");
    orders.send("k1", Json(Order { id: 1, cents: 250 })).await?;
    if let Some(listener) = app.listener("bill") {
        listener.wait_handled(1).await?;
    }
    println!("charged {:?}; `cargo test -p klamm-examples --bin test_a_listener` tests it", ledger.charged());
    app.shutdown(std::time::Duration::from_secs(5)).await;
    broker.shutdown().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use klamm::testing::TestKit;

    use super::*;

    #[klamm::test]
    async fn charges_every_order_once(kit: TestKit) {
        let ledger = Ledger::default();
        let app = kit.app().state(ledger.clone()).listener(bill).start().await;
        kit.send("orders", "k1", Json(Order { id: 1, cents: 250 })).await;
        app.handled("bill", 1).await;
        assert_eq!(ledger.charged(), [(1, 250)]);
        assert_eq!(kit.committed("billing", "orders", 0).await, Some(1));
        kit.topic("orders-dlt").stays_empty().await;
    }

    /// The retries of the default policy take seconds; on the paused clock they take none.
    #[klamm::test]
    async fn an_order_that_cannot_be_charged_becomes_a_dead_letter(kit: TestKit) {
        let app = kit.app().state(Ledger::default()).listener(bill).start().await;
        kit.send("orders", "k1", Json(Order { id: 2, cents: -1 })).await;
        let letter: Json<Order> = kit.topic("orders-dlt").next_value().await;
        assert_eq!(letter.id, 2);
        app.handled("bill", 1).await;
        assert_eq!(kit.committed("billing", "orders", 0).await, Some(1));
    }
}
