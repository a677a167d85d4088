//! Creating and deleting a topic when there are 10, 1,000, 14,000 and 20,000 already, in memory and on files, alone and
//! 64 at a time; and Metadata for 2,000 names that are not to be had, at 6,000 topics.
//!
//! The targets: what is there costs no more than twice as much at 20,000 as at 10, and Metadata takes less than 20 ms.
//! A topic has one partition. The data directory lies in the working directory, not in `/tmp`, which is often memory; a
//! size for which there are not enough descriptors is left out, with a word.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use futures::future::join_all;
use klamm_broker::Broker;
use klamm_broker::config::{BrokerConfig, Values};
use klamm_broker::disk::{Disk, FileDisk, MemoryDisk};
use klamm_broker::internals::{Controller, CreateTopic, METADATA_TOPIC};
use klamm_broker::log::LogConfig;
use klamm_broker::partition::{LogManager, LogManagerOptions};
use klamm_protocol::frame::{decode_response, encode_request};
use klamm_protocol::messages::create_topics::CreatableTopic;
use klamm_protocol::messages::metadata::MetadataRequestTopic;
use klamm_protocol::messages::{CreateTopicsRequest, MetadataRequest};
use klamm_protocol::{Message, Request};
use klamm_runtime::{MemoryNet, Net, SeededRng, Stream, SystemClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::time::Instant;

const SIZES: [usize; 4] = [10, 1_000, 14_000, 20_000];
const TOGETHER: usize = 64;
const METADATA_TOPICS: usize = 6_000;
const UNKNOWN_NAMES: usize = 2_000;

/// A controller with its logs; the data directory is removed at the end.
struct Site {
    runtime: Runtime,
    controller: Option<Controller>,
    logs: Option<Arc<LogManager>>,
    dir: Option<PathBuf>,
    topics: usize,
}

impl Site {
    fn new(on_files: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let dir = PathBuf::from(format!("target/bench-controller-{}", std::process::id()));
        let disk: Arc<dyn Disk> =
            if on_files { Arc::new(FileDisk::new()) } else { Arc::new(MemoryDisk::new()) };
        let mut values = Values::new();
        values.set("max.partitions", "100000").expect("a setting");
        // The smallest index: only its address space is taken, but twenty thousand times.
        let log = LogConfig { segment_index_bytes: 4_096, ..LogConfig::default() };
        let config = BrokerConfig { log, ..BrokerConfig::from_values(&values).expect("settings") };
        let mut options = LogManagerOptions::new(vec![dir.clone()]);
        options.topic_configs.insert(METADATA_TOPIC.to_owned(), Controller::metadata_log_config());
        let (clock, rng) = (Arc::new(SystemClock), Arc::new(SeededRng::new(1)));
        let (controller, logs) = runtime.block_on(async {
            let logs = LogManager::open(disk.clone(), clock.clone(), rng.clone(), options).await;
            let logs = Arc::new(logs.expect("an empty data directory"));
            let controller = Controller::open(disk, logs.clone(), clock, rng, &config).await;
            (controller.expect("a new controller"), logs)
        });
        let dir = on_files.then_some(dir);
        Self { runtime, controller: Some(controller), logs: Some(logs), dir, topics: 0 }
    }

    fn controller(&self) -> &Controller {
        self.controller.as_ref().expect("the controller")
    }

    /// Makes topics until there are so many; `false` when the machine has no room for them.
    fn grow_to(&mut self, topics: usize) -> bool {
        while self.topics < topics {
            let until = topics.min(self.topics + 500);
            let names: Vec<_> = (self.topics..until).map(|number| topic(format!("topic-{number}"))).collect();
            let made = names.iter().map(|topic| self.controller().create_topic(topic, false));
            if self.runtime.block_on(join_all(made)).iter().any(Result::is_err) {
                return false;
            }
            self.topics = until;
        }
        true
    }

    /// How long it takes to create so many topics together, and to delete them again, in all rounds.
    fn measure(&self, rounds: u64, together: usize) -> (Duration, Duration) {
        let names: Vec<_> = (0..together).map(|number| topic(format!("fresh-{number}"))).collect();
        let (mut creating, mut deleting) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..rounds {
            let started = Instant::now();
            let made = names.iter().map(|topic| self.controller().create_topic(topic, false));
            let made = self.runtime.block_on(join_all(made));
            creating += started.elapsed();
            let ids: Vec<_> = made.into_iter().map(|topic| topic.expect("a topic").id).collect();
            let started = Instant::now();
            let gone = ids.iter().map(|id| self.controller().delete_topic(*id));
            let gone = self.runtime.block_on(join_all(gone));
            deleting += started.elapsed();
            assert!(gone.iter().all(Result::is_ok));
        }
        (creating, deleting)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(controller) = self.controller.take() {
            self.runtime.block_on(controller.close());
        }
        self.logs = None;
        if let Some(dir) = &self.dir {
            let _ = FileDisk::new().remove_dir_all(dir);
        }
    }
}

fn topic(name: String) -> CreateTopic {
    CreateTopic { name, partitions: 1, replication_factor: 1, ..CreateTopic::default() }
}

fn topics(c: &mut Criterion) {
    for (disk, on_files) in [("memory", false), ("files", true)] {
        let mut group = c.benchmark_group(format!("controller/{disk}"));
        group.measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1)).sample_size(10);
        let mut site = Site::new(on_files);
        for size in SIZES {
            if !site.grow_to(size) {
                eprintln_note(disk, size);
                break;
            }
            for together in [1, TOGETHER] {
                let label = |what: &str| format!("{what} {together} at {size} topics");
                group.bench_function(label("create"), |b| {
                    b.iter_custom(|rounds| site.measure(rounds, together).0);
                });
                group.bench_function(label("delete"), |b| {
                    b.iter_custom(|rounds| site.measure(rounds, together).1);
                });
            }
        }
        group.finish();
    }
}

#[allow(clippy::print_stderr)] // It belongs beside criterion's own lines.
fn eprintln_note(disk: &str, size: usize) {
    eprintln!("{disk}: not enough descriptors or maps for {size} topics; raise `ulimit -n`");
}

/// A broker in memory that is full, and a connection to it.
struct Full {
    runtime: Runtime,
    _broker: Broker,
    stream: Box<dyn Stream>,
}

impl Full {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let net = Arc::new(MemoryNet::new());
        let (broker, stream) = runtime.block_on(async {
            let broker =
                Broker::builder().ephemeral().net(net.clone()).set("max.partitions", METADATA_TOPICS);
            let broker = broker.start().await.expect("a broker");
            let stream = net.connect(broker.bootstrap()).await.expect("a connection");
            (broker, stream)
        });
        let mut full = Self { runtime, _broker: broker, stream };
        let names: Vec<usize> = (0..METADATA_TOPICS).collect();
        for names in names.chunks(500) {
            let topics = names.iter().map(|number| CreatableTopic {
                name: format!("topic-{number}").into(),
                num_partitions: 1,
                replication_factor: 1,
                ..CreatableTopic::default()
            });
            let request = CreateTopicsRequest { topics: topics.collect(), ..CreateTopicsRequest::default() };
            let made = full.ask(&request);
            assert!(made.topics.iter().all(|topic| topic.error_code == 0));
        }
        full
    }

    fn ask<R: Request>(&mut self, request: &R) -> R::Response {
        let version = *<R as Message>::VERSIONS.end();
        let frame = encode_request(request, version, 1, Some("bench")).expect("a request");
        self.runtime.block_on(async {
            self.stream.write_all(&frame).await.expect("the request is sent");
            let len = self.stream.read_i32().await.expect("an answer");
            let mut answer = vec![0; usize::try_from(len).expect("a length")];
            self.stream.read_exact(&mut answer).await.expect("an answer");
            decode_response::<R>(answer.into(), version).expect("an answer").1
        })
    }
}

fn metadata(c: &mut Criterion) {
    let mut full = Full::new();
    let mut group = c.benchmark_group("metadata");
    group.measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1)).sample_size(10);
    for (name, allow_auto_topic_creation) in [("2,000 names refused", true), ("2,000 names unknown", false)] {
        let topics = (0..UNKNOWN_NAMES).map(|number| MetadataRequestTopic {
            name: Some(format!("unknown.{number}").into()),
            ..MetadataRequestTopic::default()
        });
        let request = MetadataRequest {
            topics: Some(topics.collect()),
            allow_auto_topic_creation,
            ..MetadataRequest::default()
        };
        group.bench_function(format!("{name}, at 6,000 topics"), |b| {
            b.iter(|| {
                let answer = full.ask(&request);
                assert!(
                    answer.topics.len() == UNKNOWN_NAMES && answer.topics.iter().all(|t| t.error_code != 0)
                );
            });
        });
    }
    let all = MetadataRequest { topics: None, ..MetadataRequest::default() };
    group.bench_function("all 6,000 topics", |b| {
        b.iter(|| assert_eq!(full.ask(&all).topics.len(), METADATA_TOPICS));
    });
    group.finish();
}

criterion_group!(benches, topics, metadata);
criterion_main!(benches);
