//! A streams application, for tests that kill it: `counting ADDRESS DIRECTORY at-least-once|exactly-once STANDBYS`
//! copies the topic `input` to `echo` and counts its keys into `totals`, until it ends.

use std::time::Duration;

use klamm::streams::{StreamsBuilder, StreamsConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [address, directory, guarantee, standbys] =
        std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|given: Vec<String>| {
            format!("an address, a directory, a guarantee and standbys are wanted, not {given:?}")
        })?;
    let mut streams = StreamsBuilder::new();
    let input = streams.stream::<String, String>("input");
    input.to("echo");
    input.group_by_key().count("counts").to_stream().to("totals");
    let config = StreamsConfig::new("counting", address)
        .state_dir(directory)
        .commit_interval(Duration::from_millis(200))
        .linger(Duration::from_millis(2))
        .threads(2)
        .standby_replicas(standbys.parse()?)
        // Little enough that tasks wait for their new instance.
        .acceptable_lag(20)
        // The others shall hear soon that it was killed.
        .session_timeout(Duration::from_secs(2));
    let config = if guarantee == "exactly-once" { config.exactly_once() } else { config };
    let app = streams.build()?.start(config).await?;
    Ok(app.ended().await?)
}
