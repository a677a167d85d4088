//! One measurement: who does what, and what came of it.

use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::Result;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    Klamm,
    Rdkafka,
    Krafka,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    Produce,
    Consume,
    /// From the time a record was due to its arrival at a consumer, at a fixed rate and without linger.
    Latency,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    pub work: Work,
    pub size: usize,
    pub lz4: bool,
    pub client: Client,
    pub records: usize,
}

/// Records a second where latency is measured.
pub const RATE: u64 = 1_000;
/// Unacknowledged records at a time, where a client gives a future for each.
pub const IN_FLIGHT: usize = 50_000;
pub const LINGER: Duration = Duration::from_millis(5);
pub const BATCH_BYTES: usize = 64 * 1024;

impl Case {
    pub fn parse(words: &[&str]) -> Result<Self> {
        let [client, work, size, codec, records] = words else { return Err("five words make a case".into()) };
        Ok(Self {
            client: match *client {
                "klamm" => Client::Klamm,
                "rdkafka" => Client::Rdkafka,
                "krafka" => Client::Krafka,
                other => return Err(format!("no client {other}").into()),
            },
            work: match *work {
                "produce" => Work::Produce,
                "consume" => Work::Consume,
                "latency" => Work::Latency,
                other => return Err(format!("no work {other}").into()),
            },
            size: size.parse()?,
            lz4: *codec == "lz4",
            records: records.parse()?,
        })
    }

    pub fn words(&self) -> [String; 5] {
        let codec = if self.lz4 { "lz4" } else { "none" };
        let (size, records) = (self.size.to_string(), self.records.to_string());
        [self.client.name().into(), self.work.name().into(), size, codec.into(), records]
    }

    /// A value that compresses to about half, different from its neighbours.
    pub fn values(&self) -> Vec<u8> {
        let mut state = 1_u64;
        let mut bytes = Vec::new();
        while bytes.len() < VARIETY_BYTES + self.size {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes.extend_from_slice(&state.to_be_bytes());
            bytes.extend_from_slice(b"........");
        }
        bytes
    }

    /// Where in [`Case::values`] the value of this record begins.
    pub fn at(number: usize) -> usize {
        number.wrapping_mul(131) % VARIETY_BYTES
    }
}

const VARIETY_BYTES: usize = 1024 * 1024;

impl Client {
    pub const ALL: [Self; 3] = [Self::Klamm, Self::Rdkafka, Self::Krafka];

    pub fn name(self) -> &'static str {
        match self {
            Self::Klamm => "klamm",
            Self::Rdkafka => "rdkafka",
            Self::Krafka => "krafka",
        }
    }
}

impl Work {
    pub fn name(self) -> &'static str {
        match self {
            Self::Produce => "produce",
            Self::Consume => "consume",
            Self::Latency => "latency",
        }
    }
}

/// What a measurement gave: records a second and the client's own processor time, or percentiles.
#[derive(Debug, Clone, Copy)]
pub enum Measured {
    Speed { records_per_s: f64, cpu_us_per_record: f64 },
    Latency { p50_ms: f64, p99_ms: f64 },
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Speed { records_per_s, cpu_us_per_record } => {
                write!(f, "speed {records_per_s:.0} {cpu_us_per_record:.4}")
            }
            Self::Latency { p50_ms, p99_ms } => write!(f, "latency {p50_ms:.3} {p99_ms:.3}"),
        }
    }
}

impl Measured {
    pub fn parse(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["speed", a, b] => Ok(Self::Speed { records_per_s: a.parse()?, cpu_us_per_record: b.parse()? }),
            ["latency", a, b] => Ok(Self::Latency { p50_ms: a.parse()?, p99_ms: b.parse()? }),
            _ => Err(format!("no result: {line}").into()),
        }
    }
}

/// Times a piece of work; begins when it is made.
pub struct Stopwatch(Instant, f64);

impl Stopwatch {
    pub fn start() -> Self {
        Self(Instant::now(), cpu_seconds("self"))
    }

    pub fn stop(&self, records: usize) -> Measured {
        let (seconds, cpu) = (self.0.elapsed().as_secs_f64(), cpu_seconds("self") - self.1);
        Measured::Speed {
            records_per_s: records as f64 / seconds,
            cpu_us_per_record: cpu * 1e6 / records as f64,
        }
    }
}

/// User and system seconds of a process.
pub fn cpu_seconds(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or("").split(' ');
    let fields: Vec<f64> = fields.map(|field| field.parse().unwrap_or(0.0)).collect();
    match fields[..] {
        [_, _, _, _, _, _, _, _, _, _, _, user, system, ..] => (user + system) / 100.0,
        _ => 0.0,
    }
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// Records that carry 0 instead of a time: the caches are cold, the connections new.
const WARM_UP_RECORDS: u64 = 2 * RATE;

/// Sends at [`RATE`]; each record begins with when it was due. Ends when the receiver has all.
pub async fn send_paced(case: Case, mut send: impl AsyncFnMut(Vec<u8>) -> Result<()>) -> Result<()> {
    tokio::time::sleep(Duration::from_secs(2)).await; // the consumer finds its place meanwhile
    let (sender, mut due) = tokio::sync::mpsc::unbounded_channel();
    // A thread of its own: the timer of tokio is a millisecond coarse, which is more than what is measured.
    std::thread::spawn(move || {
        let started = now_us();
        for number in 0..case.records as u64 + WARM_UP_RECORDS {
            let due = started + number * 1_000_000 / RATE;
            std::thread::sleep(Duration::from_micros(due.saturating_sub(now_us())));
            let _ = sender.send(if number < WARM_UP_RECORDS { 0 } else { due });
        }
    });
    while let Some(stamp) = due.recv().await {
        let mut value = vec![b'x'; case.size.max(8)];
        value[..8].copy_from_slice(&u64::to_be_bytes(stamp));
        send(value).await?;
    }
    std::future::pending().await
}

/// Gathers how long records took.
#[derive(Default)]
pub struct Delays(Vec<u64>);

impl Delays {
    pub fn note(&mut self, value: Option<&[u8]>) {
        let stamp =
            value.and_then(|value| value.first_chunk::<8>()).map_or(0, |stamp| u64::from_be_bytes(*stamp));
        if stamp != 0 {
            self.0.push(now_us().saturating_sub(stamp));
        }
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn measured(mut self) -> Measured {
        self.0.sort_unstable();
        let at = |quantile: f64| self.0[((self.0.len() - 1) as f64 * quantile) as usize] as f64 / 1e3;
        Measured::Latency { p50_ms: at(0.5), p99_ms: at(0.99) }
    }
}

/// Sends until everything was received.
pub async fn until_received(
    send: impl Future<Output = Result<()>>,
    receive: impl Future<Output = Result<Delays>>,
) -> Result<Measured> {
    tokio::select! {
        received = receive => Ok(received?.measured()),
        sent = send => Err(sent.err().unwrap_or_else(|| "the sender ended".into())),
    }
}
