//! A service with a transactional listener, for tests that kill it: `transacting ADDRESS` copies the topic `input` to
//! two others until it ends. Of ten records one fails for good, and handlers have bad luck now and then.

#![allow(clippy::panic)] // Panics of handlers are what is tried.

use std::time::Duration;

use klamm::client::Client;
use klamm::client::runtime::{Rng, SeededRng};
use klamm::listener::BoxError;
use klamm::prelude::*;
use std::sync::Arc;

#[derive(Clone)]
struct Luck(Arc<SeededRng>);

async fn copy(Value(text): Value<String>, tx: Tx, State(luck): State<Luck>) -> Result<(), BoxError> {
    tx.send("first", &*text, &*text).await?;
    match luck.0.below(60) {
        0 => return Err("bad luck".into()),
        1 => panic!("very bad luck"),
        2 => tokio::time::sleep(Duration::from_millis(luck.0.below(300))).await,
        _ => {}
    }
    tx.send("second", &*text, &*text).await?;
    if text.ends_with('3') { Err("it has a three".into()) } else { Ok(()) }
}

#[tokio::main]
async fn main() -> klamm::Result<()> {
    let address = std::env::args().nth(1).ok_or_else(|| Error::msg("the address of a broker is missing"))?;
    // Its fellows shall hear soon that it was killed.
    let settings = [("session.timeout.ms", "2000"), ("heartbeat.interval.ms", "200")];
    let client = Client::builder().bootstrap(address).properties(settings)?.build().await?;
    let policy = FailurePolicy::new()
        .fatal_if(|failure| failure.to_string().contains("three"))
        .retry_in_place(Backoff::fixed(Duration::from_millis(20)).forever());
    let listener = Listener::on("input").group("copiers").transactional().on_failure(policy).handle(copy);
    App::with_client(client).state(Luck(Arc::new(SeededRng::from_os()))).listener(listener).run().await
}
