//! How a stream is tested: a driver runs the topology without broker and files, record by record, on a clock that the
//! test moves.
//!
//! `cargo test -p klamm-examples --bin test_a_stream` runs the tests below; `cargo run -p klamm-examples --bin
//! test_a_stream` shows what they look at.

#![allow(clippy::print_stdout)] // What it shows, it prints.

use std::time::Duration;

use klamm::streams::{ErrorPolicy, StreamsBuilder, Topology, TopologyTestDriver, TumblingWindows};

/// Degrees to the warmest of each hour; what is no number is a dead letter.
fn topology() -> klamm::Result<Topology> {
    let mut streams = StreamsBuilder::new();
    streams
        .stream::<String, String>("readings")
        .try_map_values(|text| text.parse::<i64>())
        .on_error(ErrorPolicy::dead_letter("readings-dlt"))
        .group_by_key()
        .windowed_by(TumblingWindows::of(Duration::from_secs(3_600)))
        .reduce("warmest", |warmest, degrees| warmest.max(*degrees))
        .to_stream_with(|hour, _| format!("{} at {}", hour.key, hour.window.start_ms / 3_600_000))
        .non_null()
        .to("warmest-told");
    Ok(streams.build()?)
}

fn main() -> klamm::Result<()> {
    let driver = TopologyTestDriver::new(topology()?);
    let readings = driver.input::<String, String>("readings");
    readings.pipe("roof", "21").at(1_000);
    readings.pipe("roof", "24").at(2_000);
    for told in driver.output::<String, i64>("warmest-told").read_all() {
        println!("{}: {} degrees", told.key, told.value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hour_has_its_warmest() {
        let driver = TopologyTestDriver::new(topology().unwrap());
        let readings = driver.input::<String, String>("readings");
        for (degrees, minute) in [("20", 0), ("19", 30), ("22", 59), ("5", 60)] {
            readings.pipe("roof", degrees).at(minute * 60_000);
        }
        let told = driver.output::<String, i64>("warmest-told").read_all();
        assert_eq!(told, [("roof at 0", 20), ("roof at 0", 20), ("roof at 0", 22), ("roof at 1", 5)]);
        // An hour that is over leaves the store, unless it is told of a longer `retention`.
        let kept =
            driver.store::<klamm::streams::Windowed<String>, i64>("warmest").fetch("roof", 0, 3_600_000);
        assert_eq!(kept.iter().map(|(_, degrees)| *degrees).collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn what_is_no_number_is_a_dead_letter() {
        let driver = TopologyTestDriver::new(topology().unwrap());
        driver.input::<String, String>("readings").pipe("roof", "warm").at(0);
        assert_eq!(driver.output::<String, String>("readings-dlt").read_all(), [("roof", "warm")]);
        assert!(driver.output::<String, i64>("warmest-told").read_all().is_empty());
    }

    /// An application tells of each key once a commit, the last of what it was; a driver with a cache does the same.
    #[test]
    fn with_a_cache_only_the_last_is_told() {
        let mut driver = TopologyTestDriver::cached(topology().unwrap(), 1 << 20);
        let readings = driver.input::<String, String>("readings");
        ["20", "23", "21"].iter().for_each(|degrees| readings.pipe("roof", *degrees).at(0));
        driver.commit();
        assert_eq!(driver.output::<String, i64>("warmest-told").read_all(), [("roof at 0", 23)]);
    }
}
