//! The pipelines as Klamm's users write them.

use std::time::Duration;

use klamm::streams::{JoinWindows, KStream, StreamsBuilder, StreamsConfig, TumblingWindows};
use klamm_client::admin::OffsetSpec;
use klamm_client::{Client, NewTopic, TopicPartition};

use crate::Result;
use crate::fill::PARTITIONS;
use crate::meter;
use crate::work::{Guarantee, Work};

const TEN_SECONDS: Duration = Duration::from_secs(10);

/// Runs one pipeline to the end of its input, and prints what it took.
pub(crate) async fn run(bootstrap: &str, work: Work, guarantee: Guarantee, cache_bytes: usize) -> Result<()> {
    let application = format!("klamm-{}-{}", work.name(), std::process::id());
    let out = format!("{application}-out");
    let client = Client::connect(bootstrap).await?;
    client.admin().create_topics(&[NewTopic::new(out.as_str()).partitions(PARTITIONS)]).await?;

    let mut streams = StreamsBuilder::new();
    build(&mut streams, work, &out);
    let state_dir = std::env::temp_dir().join(&application);
    let config = StreamsConfig::new(application.as_str(), bootstrap)
        .state_dir(&state_dir)
        .cache_bytes(cache_bytes)
        .commit_interval(Duration::from_millis(guarantee.commit_interval_ms()));
    let config = match guarantee {
        Guarantee::AtLeastOnce => config,
        Guarantee::ExactlyOnce => config.exactly_once(),
    };
    let app = streams.build()?.start(config).await?;
    let figures = tokio::select! {
        figures = meter::watch(work.steps()) => figures?,
        ended = app.ended() => return Err(format!("the application ended: {ended:?}").into()),
    };
    app.close().await?;
    let told = end_of(&client, &out).await?;
    println!("rate={:.0} cpu={:.3} rss={} out={told}", figures.rate, figures.cpu, meter::peak_mib());
    // Without state there is none.
    match tokio::fs::remove_dir_all(&state_dir).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn build(streams: &mut StreamsBuilder, work: Work, out: &str) {
    let counted = |streams: &mut StreamsBuilder, topic: &str| -> KStream<String, String> {
        streams.stream(topic).peek(|_, _| meter::add())
    };
    let source = work.topics()[0];
    match work {
        Work::Stateless => {
            let upper = counted(streams, source).map_values(|value| value.to_uppercase());
            upper.filter(|_, value| !value[..10].ends_with('0')).to(out);
        }
        Work::Count | Work::ManyKeys => {
            counted(streams, source).group_by_key().count("counts").to_stream().to(out);
        }
        Work::Window => {
            let windows =
                counted(streams, source).group_by_key().windowed_by(TumblingWindows::of(TEN_SECONDS));
            let told = windows
                .count("windows")
                .to_stream_with(|windowed, _| format!("{}@{}", windowed.key, windowed.window.start_ms));
            told.to(out);
        }
        Work::Join => {
            let right = counted(streams, work.topics()[1]);
            let windows = JoinWindows::of(TEN_SECONDS);
            let joined = counted(streams, source)
                .join_within(&right, "join", windows, |left, right| format!("{}{right}", &left[..10]));
            joined.to(out);
        }
        Work::ForeignKey => {
            let customers = streams.table::<String, String>(work.topics()[1]);
            let orders = streams.table::<String, String>(source);
            let joined = orders.foreign_key_join(
                &customers,
                "joined",
                |_, order| order[..6].to_owned(),
                |order, customer| format!("{customer} {order}"),
            );
            joined.to_stream().peek(|_, _| meter::add()).to(out);
        }
        Work::Words => {
            let lines = streams.stream::<Option<String>, String>(source);
            let words = lines.flat_map(|_, line| {
                line.split(' ').map(|word| (word.to_owned(), String::new())).collect::<Vec<_>>()
            });
            let words = words.repartition("words").peek(|_, _| meter::add());
            words.group_by_key().count("counts").to_stream().to(out);
        }
    }
}

/// How many records were written to a topic.
async fn end_of(client: &Client, topic: &str) -> Result<i64> {
    let ends = (0..PARTITIONS).map(|partition| (TopicPartition::new(topic, partition), OffsetSpec::Latest));
    let mut written = 0;
    for end in client.admin().offsets(&ends.collect()).await?.into_values() {
        written += end?.offset.unwrap_or(0);
    }
    Ok(written)
}
