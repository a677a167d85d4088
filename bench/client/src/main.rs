//! Klamm's client beside `rdkafka` and `krafka`: the same work on the same broker, in turns, medians.
//!
//! `bench/client/run` builds everything, starts a broker and calls this. Each measurement is a process of its own, so
//! that none finds what another left behind; the one that starts them also reads the broker's processor time.
//!
//! ```text
//! compare.rs   the rounds: which measurement comes when, medians, ratios
//! idle.rs      what a consumer costs that has nothing to do
//! case.rs      one measurement's parameters, and its result as a line of text
//! klamm.rs, rdkafka.rs, krafka.rs   the work as each client's users write it
//! ```

mod case;
mod compare;
mod idle;
mod klamm;
mod krafka_client;
mod rdkafka_client;

use std::time::Duration;

use case::{Case, Client, Work};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// No single measurement takes longer.
const LIMIT: Duration = Duration::from_secs(120);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["one", bootstrap, topic, ref case @ ..] => {
            let case = Case::parse(case)?;
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(async {
                let done = tokio::time::timeout(LIMIT, one(bootstrap, topic, case)).await;
                println!("{}", done.map_err(|_| "no result in time")??);
                Ok(())
            })
        }
        ["idle", client, bootstrap, topic] => idle::run(client, bootstrap, topic),
        ["compare", bootstrap, broker_pid, rounds] => {
            compare::run(bootstrap, broker_pid.parse()?, rounds.parse()?, &std::env::var("ONLY").unwrap_or_default())
        }
        _ => Err("usage: compare HOST:PORT BROKER_PID ROUNDS | one HOST:PORT TOPIC CASE | idle CLIENT HOST:PORT TOPIC"
            .into()),
    }
}

async fn one(bootstrap: &str, topic: &str, case: Case) -> Result<case::Measured> {
    match (case.client, case.work) {
        (Client::Klamm, Work::Produce) => klamm::produce(bootstrap, topic, case).await,
        (Client::Klamm, Work::Consume) => klamm::consume(bootstrap, topic, case).await,
        (Client::Klamm, Work::Latency) => klamm::latency(bootstrap, topic, case).await,
        (Client::Rdkafka, Work::Produce) => rdkafka_client::produce(bootstrap, topic, case),
        (Client::Rdkafka, Work::Consume) => rdkafka_client::consume(bootstrap, topic, case),
        (Client::Rdkafka, Work::Latency) => rdkafka_client::latency(bootstrap, topic, case).await,
        (Client::Krafka, Work::Produce) => krafka_client::produce(bootstrap, topic, case).await,
        (Client::Krafka, Work::Consume) => krafka_client::consume(bootstrap, topic, case).await,
        (Client::Krafka, Work::Latency) => krafka_client::latency(bootstrap, topic, case).await,
    }
}
