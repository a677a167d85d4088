//! A processor with a store and a clock: the three most read articles, told every minute of the records' time.
//!
//! Run it with `cargo run -p klamm-examples --bin top_n`; `cargo test -p klamm-examples --bin top_n` tests it without a
//! broker.

#![allow(clippy::print_stdout)] // What it shows, it prints.

use std::cmp::Reverse;
use std::time::Duration;

use klamm::broker::Broker;
use klamm::client::{Client, NewTopic, Record};
use klamm::listener::BoxError;
use klamm::streams::{
    InRecord, Processor, ProcessorContext, Punctuation, PunctuationType, StoreName, StoreRef, StreamsBuilder,
    StreamsConfig, Topology,
};

const TOP: usize = 3;
const MINUTE: Duration = Duration::from_secs(60);

/// Counts reads of articles, and forwards the most frequent ones in one record.
struct TopArticles {
    reads: StoreRef<String, i64>,
}

type Context<'a> = ProcessorContext<'a, String, String>;

impl Processor<String, String> for TopArticles {
    type Key = String;
    type Value = String;

    fn stores(&self) -> Vec<StoreName> {
        vec![self.reads.name()]
    }

    fn init(&mut self, context: &mut Context<'_>) -> Result<(), BoxError> {
        context.schedule(MINUTE, PunctuationType::StreamTime);
        Ok(())
    }

    fn process(
        &mut self,
        context: &mut Context<'_>,
        read: InRecord<'_, String, String>,
    ) -> Result<(), BoxError> {
        let mut reads = context.store(&self.reads)?;
        let so_far = reads.get(read.value)?.unwrap_or(0);
        reads.put(read.value, &(so_far + 1))?;
        Ok(())
    }

    fn punctuate(&mut self, context: &mut Context<'_>, now: Punctuation) -> Result<(), BoxError> {
        let mut top: Vec<(String, i64)> = context.store(&self.reads)?.all().collect::<Result<_, _>>()?;
        top.sort_by_key(|(article, reads)| (Reverse(*reads), article.clone()));
        let top: Vec<String> =
            top.iter().take(TOP).map(|(article, reads)| format!("{article} ({reads})")).collect();
        if !top.is_empty() {
            context.forward_at(&"top".to_owned(), &top.join(", "), now.timestamp_ms)?;
        }
        Ok(())
    }
}

fn topology() -> klamm::Result<Topology> {
    let mut streams = StreamsBuilder::new();
    let reads = streams.key_value_store("reads");
    streams
        .stream::<String, String>("reads")
        .process(move || TopArticles { reads: reads.clone() })
        .peek(|_, top| println!("{top}"))
        .to("top-articles");
    Ok(streams.build()?)
}

#[tokio::main]
async fn main() -> klamm::Result<()> {
    let broker = Broker::builder().ephemeral().start().await?;
    let client = Client::connect(broker.bootstrap()).await?;
    client.admin().create_topics(&["reads", "top-articles"].map(NewTopic::new)).await?;
    let state_dir = std::env::temp_dir().join(format!("klamm-top-n-{}", std::process::id()));
    let app =
        topology()?.start(StreamsConfig::new("top-n", broker.bootstrap()).state_dir(&state_dir)).await?;

    let producer = client.producer().build()?;
    let start_ms = 1_700_000_000_000;
    for (number, article) in
        ["castle", "village", "castle", "inn", "road", "inn", "castle", "well"].iter().enumerate()
    {
        let seconds = if *article == "well" { 90 } else { 10 + i64::try_from(number)? };
        let record = Record::to("reads").key("reader").value(*article);
        producer.send(record.timestamp_ms(start_ms + seconds * 1_000)).await?;
    }
    app.caught_up().await?;
    app.close().await?;
    broker.shutdown().await?;
    #[allow(clippy::disallowed_methods)] // what is banned inside Klamm itself
    tokio::fs::remove_dir_all(&state_dir).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use klamm::streams::TopologyTestDriver;

    use super::*;

    #[test]
    fn the_most_read_come_first_once_a_minute() {
        let driver = TopologyTestDriver::new(topology().unwrap());
        let reads = driver.input::<String, String>("reads");
        for (article, at_ms) in [("a", 1), ("b", 2), ("b", 3), ("c", 60_000), ("c", 61_000), ("c", 120_500)] {
            reads.pipe("reader", article).at(at_ms);
        }
        let top = driver.output::<String, String>("top-articles").read_all();
        let top: Vec<&str> = top.iter().map(|record| &*record.value).collect();
        assert_eq!(top, ["a (1)", "b (2), a (1), c (1)", "c (3), b (2), a (1)"]);
    }
}
