//! Settings of listeners that come from outside of the program.

use klamm::app::{PlaceholderError, StartError};
use klamm::prelude::*;
use klamm::testing::TestKit;

use crate::seen::{Seen, until};

#[kafka_listener(
    topics = ["${shop.orders:orders}", "${shop.returns:returns}"],
    group = "${shop.group:billing}-${shop.stage:live}",
    id = "from ${shop.orders:orders}",
    on_failure = to_the_graveyard
)]
async fn placed(Value(text): Value<String>, State(seen): State<Seen>) -> Result<(), String> {
    seen.add(&*text);
    if text == "bad" { Err("bad".to_owned()) } else { Ok(()) }
}

fn to_the_graveyard() -> FailurePolicy {
    FailurePolicy::new().dead_letter_to("${shop.graveyard:graveyard}")
}

#[klamm::test]
async fn placeholders_are_replaced_when_the_app_starts(kit: TestKit) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shop.properties");
    #[allow(clippy::disallowed_methods)] // No part of what the disk seam stands for.
    std::fs::write(
        &file,
        "# the shop\nshop.orders=orders-eu, orders-us\nshop.stage=overruled\nshop.graveyard = dead\n",
    )
    .unwrap();
    let seen = Seen::default();
    for topic in ["orders-eu", "orders-us", "returns"] {
        kit.send(topic, "k", topic).await;
    }
    kit.send("orders-eu", "k", "bad").await;
    let app = kit.app().state(seen.clone()).property("shop.stage", "test").properties_file(&file);
    let app = app.listener(placed).start().await;
    until(|| seen.all().len() == 4).await;
    let listener = app.listener("from orders-eu, orders-us").unwrap();
    assert_eq!(listener.id(), "from orders-eu, orders-us");
    assert!(app.shutdown(std::time::Duration::from_secs(10)).await.is_clean());
    for topic in ["orders-us", "returns"] {
        assert_eq!(kit.committed("billing-test", topic, 0).await, Some(1), "{topic}");
    }
    assert_eq!(kit.topic("dead").records().await.len(), 1);
}

#[tokio::test]
async fn what_stands_for_nothing_is_told_before_anything_is_connected() {
    let start = async |app: App| {
        let listener = Listener::on("${shop.orders}").group("${shop.stage}").handle(async || {});
        app.listener(listener).start().await.unwrap_err()
    };
    let error = start(App::new("127.0.0.1:1").property("shop.stage", "test")).await;
    let StartError::Placeholder { source: PlaceholderError::Unknown { name }, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(name, "shop.orders");
    assert!(error.to_string().contains("App::property(\"shop.orders\""), "{error}");
    let error = start(App::new("127.0.0.1:1").properties_file("no/such.properties")).await;
    assert!(error.to_string().contains("no/such.properties"), "{error}");
}
