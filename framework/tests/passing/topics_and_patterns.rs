//! Where a listener's topics may come from.

use klamm::prelude::*;

const TOPIC: &str = "orders";

fn topics() -> Vec<String> {
    vec!["a".to_owned(), "b".to_owned()]
}

#[kafka_listener(topics = "orders", group = "g")]
async fn one() {}

#[kafka_listener(topics = ["a", "b"], group = "g")]
async fn several() {}

#[kafka_listener(topics = TOPIC, group = TOPIC)]
async fn constant() {}

#[kafka_listener(topics = topics(), group = format!("of-{}", topics().len()))]
async fn calls() {}

#[kafka_listener(pattern = r"audit-\d+", group = "g")]
async fn pattern() {}

#[kafka_listener(topics = "${orders.topic:orders}", group = "${group:g}", id = "${id:listener}")]
async fn placeholders() {}

#[test]
fn works() {
    let _ = App::new("b:1").listener(one).listener(several).listener(constant).listener(calls).discover();
}
