//! Getting ready: a store of nothing but its changelog, and one that was there when its process was killed.
//!
//! The changelog has every key once, in no order, so that nothing is smaller in the store than in the log. What is
//! measured is the time from the start of an application to where it processes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use klamm::streams::{AppState, StreamsApp, StreamsBuilder, StreamsConfig};
use klamm_client::{Client, NewTopic, Producer, Record};
use klamm_runtime::{Rng, SeededRng};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command as AsyncCommand};

use crate::Result;
use crate::fill::PARTITIONS;
use crate::meter;
use crate::work::Guarantee;

/// As Kafka Streams names them, too: both restore from the same topic.
const APPLICATION: &str = "restore";
const STORE: &str = "rows";
const INPUT: &str = "restore-input";
const CHANGELOG: &str = "restore-rows-changelog";

const ROWS: u64 = 8_000_000;
/// With its key of 16 bytes a record has 100.
const VALUE_BYTES: usize = 84;
const BATCH_BYTES: usize = 256 * 1024;
const THREADS: usize = 2;
/// Updates between the restore and the kill.
const UPDATES: u64 = 1_500_000;
const LIMIT: Duration = Duration::from_secs(300);

fn rows() -> Result<u64> {
    Ok(std::env::var("ROWS").ok().map(|rows| rows.parse()).transpose()?.unwrap_or(ROWS))
}

fn row(rng: &SeededRng, key: u64) -> (String, String) {
    let mut value: String = (0..6).map(|_| format!("{:016x}", rng.next_u64())).collect();
    value.truncate(VALUE_BYTES);
    (format!("key-{key:012}"), value)
}

/// Every row once, in no order: 7,919 is a prime, and divides none of the usual counts.
async fn fill(client: &Client) -> Result<()> {
    let there = client.admin().list_topics().await?;
    if there.iter().any(|known| *known.name == *CHANGELOG) {
        return Ok(());
    }
    let rows = rows()?;
    let changelog = NewTopic::new(CHANGELOG).partitions(PARTITIONS).config("cleanup.policy", "compact");
    client.admin().create_topics(&[NewTopic::new(INPUT).partitions(PARTITIONS), changelog]).await?;
    let producer = producer(client)?;
    let rng = SeededRng::new(1);
    for number in 0..rows {
        let (key, value) = row(&rng, number * 7_919 % rows);
        let partition = i32::try_from(number % PARTITIONS as u64)?;
        let record = Record::to(CHANGELOG).key(key).value(value).partition(partition);
        drop(producer.enqueue(record.timestamp_ms(1_700_000_000_000)).await?);
    }
    producer.close().await?;
    Ok(())
}

fn producer(client: &Client) -> Result<Producer> {
    Ok(client.producer().batch_bytes(BATCH_BYTES).linger(Duration::from_millis(5)).build()?)
}

/// Starts the application on what it finds in `directory`, and says how long that took. Goes on until its input ends.
pub(crate) async fn serve(bootstrap: &str, directory: &str, guarantee: Guarantee) -> Result<()> {
    let mut streams = StreamsBuilder::new();
    let table = streams.table_with::<String, String>(
        INPUT,
        klamm::streams::Consumed::default(),
        klamm::streams::Materialized::named(STORE),
    );
    table.to_stream().peek(|_, _| meter::add());
    let config = StreamsConfig::new(APPLICATION, bootstrap).state_dir(directory).threads(THREADS);
    let config = match guarantee {
        Guarantee::AtLeastOnce => config,
        Guarantee::ExactlyOnce => config.exactly_once(),
    };
    let (began, cpu_before) = (Instant::now(), meter::cpu_seconds());
    let app = streams.build()?.start(config).await?;
    tokio::time::timeout(LIMIT, app.wait_for(AppState::Running)).await??;
    let (took, restored) = (began.elapsed().as_secs_f64(), app.metrics().restored);
    let cpu = (meter::cpu_seconds() - cpu_before) / restored.max(1) as f64 * 1e6;
    let rate = restored as f64 / took;
    println!("rate={rate:.0} cpu={cpu:.3} rss={} ready={took:.3} restored={restored}", meter::peak_mib());
    tokio::select! {
        told = tell(&app) => told?,
        ended = app.ended() => return Err(format!("the application ended: {ended:?}").into()),
    }
    Ok(app.close().await?)
}

/// Says when all is processed, whenever a line asks; ends with the lines.
async fn tell(app: &StreamsApp) -> Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        if line == "processed" {
            println!("processed={}", app.metrics().processed);
            continue;
        }
        let began = Instant::now();
        tokio::time::timeout(LIMIT, app.caught_up()).await??;
        println!("caught-up={:.3}", began.elapsed().as_secs_f64());
    }
    Ok(())
}

/// An instance in a process of its own.
struct Instance {
    child: tokio::process::Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Instance {
    fn start(bootstrap: &str, directory: &Path, guarantee: Guarantee) -> Result<Self> {
        let mut child = AsyncCommand::new(std::env::current_exe()?)
            .args(["restore-one", bootstrap])
            .arg(directory)
            .arg(guarantee.name())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let said = child.stdout.take().ok_or("no output")?;
        Ok(Self { child, said: BufReader::new(said).lines() })
    }

    async fn next(&mut self) -> Result<String> {
        let line = tokio::time::timeout(LIMIT, self.said.next_line()).await??;
        line.ok_or_else(|| "the instance ended".into())
    }

    async fn ask(&mut self, question: &str) -> Result<String> {
        let input = self.child.stdin.as_mut().ok_or("no input")?;
        tokio::io::AsyncWriteExt::write_all(input, format!("{question}\n").as_bytes()).await?;
        self.next().await
    }
}

/// Restores from nothing, Klamm and Kafka Streams in turns.
pub(crate) async fn compare(bootstrap: &str, rounds: usize, java: &[&str]) -> Result<()> {
    let client = Client::connect(bootstrap).await?;
    fill(&client).await?;
    let rows = rows()?;
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        let mut systems = [0, 1];
        systems.rotate_left(round % 2);
        for system in systems {
            let directory = fresh("restore")?;
            let said = match (system, java) {
                (0, _) => {
                    let mut instance = Instance::start(bootstrap, &directory, Guarantee::AtLeastOnce)?;
                    let said = instance.next().await?;
                    // It leaves its group, which the next one would wait for.
                    drop(instance.child.stdin.take());
                    tokio::time::timeout(LIMIT, instance.child.wait()).await??;
                    said
                }
                (_, []) => continue,
                (_, [program, arguments @ ..]) => {
                    let mut command = Command::new(program);
                    command.args(arguments).args(["restore", bootstrap, INPUT, STORE]);
                    said_by(command.arg(rows.to_string()).arg(&directory).stdout(Stdio::piped()).spawn()?)?
                }
            };
            std::fs::remove_dir_all(&directory)?;
            println!("restore {} {said}", ["klamm", "kafka-streams"][system]);
            rates[system].push(figure(&said, "rate")?);
            client.admin().delete_groups(&[APPLICATION]).await.ok();
        }
    }
    for (system, rates) in ["klamm", "kafka-streams"].into_iter().zip(rates) {
        if !rates.is_empty() {
            println!(
                "restore of {rows} rows, {system:13} {:>9.0}/s (median of {rounds})",
                crate::compare::median(&rates)
            );
        }
    }
    Ok(())
}

fn said_by(child: Child) -> Result<String> {
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().find(|line| line.starts_with("rate="));
    Ok(line.ok_or("Kafka Streams said nothing")?.to_owned())
}

fn figure(said: &str, name: &str) -> Result<f64> {
    let found = said.split(' ').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    Ok(found.ok_or_else(|| format!("no {name} in {said}"))?.parse()?)
}

fn fresh(name: &str) -> Result<PathBuf> {
    let directory = std::env::temp_dir().join(format!("klamm-{name}-{}", std::process::id()));
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    Ok(directory)
}

/// Kills an instance in the middle of updates of rows that it has, and says how soon it is back.
pub(crate) async fn crash(bootstrap: &str, rounds: usize) -> Result<()> {
    let client = Client::connect(bootstrap).await?;
    fill(&client).await?;
    let rows = rows()?;
    for guarantee in [Guarantee::AtLeastOnce, Guarantee::ExactlyOnce] {
        let directory = fresh("crash")?;
        let mut instance = Instance::start(bootstrap, &directory, guarantee)?;
        println!("{} from nothing: {}", guarantee.name(), instance.next().await?);
        let rng = SeededRng::new(7);
        for _ in 0..rounds {
            let producer = producer(&client)?;
            for _ in 0..UPDATES {
                let (key, value) = row(&rng, rng.below(rows));
                drop(producer.enqueue(Record::to(INPUT).key(key).value(value)).await?);
            }
            producer.close().await?;
            let processed = instance.ask("processed").await?;
            instance.child.kill().await?;
            let began = Instant::now();
            instance = Instance::start(bootstrap, &directory, guarantee)?;
            let said = instance.next().await?;
            let ready = began.elapsed().as_secs_f64();
            println!("{} killed after {processed}, ready again in {ready:.3} s: {said}", guarantee.name());
            println!("  all processed: {}", instance.ask("caught up?").await?);
        }
        drop(instance.child.stdin.take());
        tokio::time::timeout(LIMIT, instance.child.wait()).await??;
        println!("  on disk: {} MiB", size_of(&directory)? / 1024 / 1024);
        std::fs::remove_dir_all(&directory)?;
    }
    Ok(())
}

fn size_of(directory: &Path) -> Result<u64> {
    let mut size = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let found = entry.metadata()?;
        size += if found.is_dir() { size_of(&entry.path())? } else { found.len() };
    }
    Ok(size)
}
