//! A listener on a broker that does what it is told, which fails on what begins with "bad".

use klamm::client::testing::FakeBroker;
use klamm::listener::ListenerHandle;
use klamm::prelude::*;

use crate::seen::Seen;

/// Notes what it gets.
pub async fn picky(Value(text): Value<String>, State(seen): State<Seen>) -> Result<(), String> {
    seen.add(&text);
    if text.starts_with("bad") { Err(text) } else { Ok(()) }
}

/// It listens on "t" in the group "g", and gives up what fails at once.
pub async fn listening(broker: &FakeBroker, seen: &Seen) -> (AppHandle, ListenerHandle) {
    let listener = Listener::on("t").group("g").on_failure(FailurePolicy::new()).handle(picky);
    let app = App::with_client(broker.client().await.unwrap()).state(seen.clone()).listener(listener);
    let app = app.start().await.unwrap();
    let handle = app.listener("picky").unwrap();
    (app, handle)
}

/// To the first partition of "t".
pub async fn send(broker: &FakeBroker, values: &[impl AsRef<str>]) {
    let producer = broker.client().await.unwrap().producer().build().unwrap();
    for value in values {
        let record = klamm::client::Record::to("t").partition(0).key("k").value(value.as_ref().to_owned());
        producer.send(record).await.unwrap();
    }
}
