//! Exactly once: money moves between accounts, and none is made or lost, though the application is cut off in the
//! middle and starts again.
//!
//! Run it with `cargo run -p klamm-examples --bin money_transfers`. It brings a broker of its own; with KLAMM_BOOTSTRAP
//! it takes yours.

#![allow(clippy::print_stdout)] // What it shows, it prints.

use klamm::broker::Broker;
use klamm::client::{Client, NewTopic, Record};
use klamm::streams::{StreamsApp, StreamsBuilder, StreamsConfig};

const ACCOUNTS: u64 = 10;
const TRANSFERS: u64 = 2_000;

/// Each transfer is taken from one account and given to another: two changes in two partitions, in one transaction.
async fn start(bootstrap: &str, state_dir: &std::path::Path) -> klamm::Result<StreamsApp> {
    let mut streams = StreamsBuilder::new();
    streams
        .stream::<String, String>("transfers")
        .try_flat_map(|_, transfer| {
            let mut words = transfer.split(' ');
            match (words.next(), words.next(), words.next().map(str::parse::<i64>)) {
                (Some(from), Some(to), Some(Ok(cents))) => {
                    Ok(vec![(from.to_owned(), -cents), (to.to_owned(), cents)])
                }
                _ => Err(klamm::Error::msg(format!("`{transfer}` is not `FROM TO CENTS`"))),
            }
        })
        .group_by_key()
        .reduce("balances", |balance, change| balance + change)
        .to_stream()
        .to("balances-told");
    let config = StreamsConfig::new("bank", bootstrap).state_dir(state_dir).exactly_once();
    Ok(streams.build()?.start(config).await?)
}

#[tokio::main]
async fn main() -> klamm::Result<()> {
    let broker = Broker::builder().ephemeral().start().await?;
    let bootstrap = std::env::var("KLAMM_BOOTSTRAP").unwrap_or_else(|_| broker.bootstrap().to_string());
    let client = Client::connect(&bootstrap).await?;
    let topics = ["transfers", "balances-told"].map(|name| NewTopic::new(name).partitions(3));
    client.admin().create_topics(&topics).await?;
    let state_dir = std::env::temp_dir().join(format!("klamm-transfers-{}", std::process::id()));

    let producer = client.producer().build()?;
    let mut expected = vec![0_i64; ACCOUNTS as usize];
    for number in 0..TRANSFERS {
        let (from, to, cents) = (number % ACCOUNTS, number * 7 % ACCOUNTS, number % 97);
        expected[from as usize] -= cents as i64;
        expected[to as usize] += cents as i64;
        let transfer = format!("account-{from} account-{to} {cents}");
        drop(producer.enqueue(Record::to("transfers").key(number.to_string()).value(transfer)).await?);
    }
    producer.flush().await?;

    // Cut off in the middle: what was under way is aborted, by the next one with the same id at the latest.
    let app = start(&bootstrap, &state_dir).await?;
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    drop(app);

    let app = start(&bootstrap, &state_dir).await?;
    app.caught_up().await?;
    let mut balances = app.store::<String, i64>("balances")?.all().await?;
    balances.sort();
    let right = balances.iter().map(|(_, cents)| *cents).eq(expected.iter().copied());
    let sum: i64 = balances.iter().map(|(_, cents)| cents).sum();
    println!("{} accounts, {sum} cents in all, every balance is right: {right}", balances.len());
    app.close().await?;
    broker.shutdown().await?;
    #[allow(clippy::disallowed_methods)] // what is banned inside Klamm itself
    tokio::fs::remove_dir_all(&state_dir).await?;
    Ok(())
}
