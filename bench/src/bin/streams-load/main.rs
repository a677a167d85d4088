//! Klamm's streams beside Kafka Streams: the same pipelines over the same records of the same broker, in turns,
//! medians.
//!
//! `bench/streams/run` builds everything, starts a broker and calls this. Each measurement is a process of its own, so
//! that none finds what another left behind.
//!
//! ```text
//! compare.rs     the rounds: which measurement comes when, medians, ratios
//! work.rs        what is measured, of which topics, with which guarantee
//! meter.rs       the second half of the records: time, processor time; the largest memory of all
//! fill.rs        the records
//! restore.rs     restores: from nothing, beside Kafka Streams, and after a kill
//! pipelines.rs   the pipelines as Klamm's users write them; bench/streams/java has Kafka Streams'
//! ```

#![allow(clippy::print_stdout)] // What it is for.
#![allow(clippy::disallowed_methods)] // It measures its own process, and nothing here is to outlive a crash.

mod compare;
mod fill;
mod meter;
mod pipelines;
mod restore;
mod work;

use work::{Guarantee, Work};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match words[..] {
        ["one", bootstrap, work, guarantee, cache_bytes] => {
            let (work, guarantee) = (Work::parse(work)?, Guarantee::parse(guarantee)?);
            runtime.block_on(pipelines::run(bootstrap, work, guarantee, cache_bytes.parse()?))
        }
        ["fill", bootstrap] => runtime.block_on(fill::all(bootstrap)),
        ["compare", bootstrap, rounds, ref java @ ..] => {
            let only = std::env::var("ONLY").unwrap_or_default();
            compare::run(bootstrap, rounds.parse()?, &only, java)
        }
        ["restore", bootstrap, rounds, ref java @ ..] => {
            runtime.block_on(restore::compare(bootstrap, rounds.parse()?, java))
        }
        ["crash", bootstrap, rounds] => runtime.block_on(restore::crash(bootstrap, rounds.parse()?)),
        ["restore-one", bootstrap, directory, guarantee] => {
            runtime.block_on(restore::serve(bootstrap, directory, Guarantee::parse(guarantee)?))
        }
        _ => Err("usage: fill HOST:PORT | compare HOST:PORT ROUNDS [JAVA-COMMAND...] | one HOST:PORT WORK \
                  at-least-once|exactly-once CACHE-BYTES | restore HOST:PORT ROUNDS [JAVA-COMMAND...] | \
                  crash HOST:PORT ROUNDS | restore-one HOST:PORT DIRECTORY at-least-once|exactly-once"
            .into()),
    }
}
