//! Klamm's listeners beside RustStream's and spring-kafka's: the same trivial handlers on the same records of the same
//! broker, in turns, medians.
//!
//! `bench/listener/run` builds everything, starts a broker and calls this. Each measurement is a process of its own, so
//! that none finds what another left behind.
//!
//! ```text
//! compare.rs          the rounds: which measurement comes when, medians, ratios
//! mode.rs             what is measured, and what each system can do of it
//! meter.rs            from the first record handled to the last: time, processor time, memory
//! fill.rs             the records
//! klamm_service.rs, ruststream_service.rs, ../java/SpringListener.java   the handlers as each one's users write them
//! ```

mod compare;
mod fill;
mod klamm_service;
mod meter;
mod mode;
mod ruststream_service;

use mode::Mode;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match words[..] {
        ["one", "klamm", bootstrap, mode, records] => {
            runtime.block_on(klamm_service::run(bootstrap, Mode::parse(mode)?, records.parse()?))
        }
        ["one", "ruststream", bootstrap, mode, records] => {
            runtime.block_on(ruststream_service::run(bootstrap, Mode::parse(mode)?, records.parse()?))
        }
        ["fill", bootstrap] => runtime.block_on(fill::all(bootstrap)),
        ["pace", bootstrap, topic] => runtime.block_on(fill::at_a_pace(bootstrap, topic)),
        ["compare", bootstrap, rounds, ref spring @ ..] => {
            let only = std::env::var("ONLY").unwrap_or_default();
            compare::run(bootstrap, rounds.parse()?, &only, spring)
        }
        _ => Err("usage: fill HOST:PORT | compare HOST:PORT ROUNDS [SPRING-COMMAND...] | one SYSTEM HOST:PORT MODE \
                  RECORDS | pace HOST:PORT TOPIC"
            .into()),
    }
}
