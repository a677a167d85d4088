//! What a partition costs the requests of a broker: produce and fetch of small batches over loopback, acks while
//! segments roll, many partitions flushed at once, many long polls that look at one partition, many producers.
//!
//! `cargo bench -p klamm-bench --bench partition [CASE]` prints medians and 99th percentiles in microseconds. The data
//! lies in the working directory, not in `/tmp`, which is often memory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use klamm_broker::Broker;
use klamm_protocol::frame::encode_request;
use klamm_protocol::messages::create_topics::{CreatableTopic, CreatableTopicConfig};
use klamm_protocol::messages::fetch::{FetchPartition, FetchTopic};
use klamm_protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use klamm_protocol::messages::{CreateTopicsRequest, FetchRequest, ProduceRequest};
use klamm_protocol::records::{BatchBuilder, BatchOptions};
use klamm_protocol::{Records, Request};

/// A broker on files, in a directory that is removed at the end.
struct Server {
    dir: PathBuf,
    runtime: tokio::runtime::Runtime,
    broker: Option<Broker>,
}

impl Server {
    fn start(settings: &[(&str, &str)]) -> Self {
        let dir = PathBuf::from(format!("target/bench-partition-{}", std::process::id()));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("runtime");
        let mut builder = Broker::builder().data_dir(&dir).set("log.segment.bytes", 64 << 20);
        for (key, value) in settings {
            builder = builder.set(*key, value);
        }
        let broker = runtime.block_on(builder.start()).expect("a broker");
        Self { dir, runtime, broker: Some(broker) }
    }

    fn connect(&self) -> Wire {
        let address = self.broker.as_ref().expect("running").bootstrap();
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        Wire(stream)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.take() {
            let _ = self.runtime.block_on(broker.shutdown());
        }
        use klamm_broker::disk::{Disk, FileDisk};
        let _ = FileDisk::new().remove_dir_all(&self.dir);
    }
}

struct Wire(TcpStream);

impl Wire {
    fn send<R: Request>(&mut self, request: &R, version: i16) {
        let frame = encode_request(request, version, 1, Some("bench")).expect("a request");
        self.0.write_all(&frame).expect("sent");
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut len = [0; 4];
        self.0.read_exact(&mut len).expect("an answer");
        let mut frame = vec![0; u32::from_be_bytes(len) as usize];
        self.0.read_exact(&mut frame).expect("an answer");
        frame
    }

    fn create(&mut self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let configs = settings.iter().map(|(name, value)| CreatableTopicConfig {
            name: (*name).into(),
            value: Some((*value).into()),
            ..CreatableTopicConfig::default()
        });
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs.collect(),
            ..CreatableTopic::default()
        };
        self.send(&CreateTopicsRequest { topics: vec![topic], timeout_ms: 60_000, ..Default::default() }, 5);
        self.receive();
    }
}

fn batch(bytes: usize, options: BatchOptions) -> bytes::Bytes {
    let mut batch = BatchBuilder::new(options);
    batch.append(1_700_000_000_000, Some(b"k"), Some(&vec![b'x'; bytes]), []).expect("a small record");
    batch.build().expect("a batch")
}

fn produce(partitions: impl IntoIterator<Item = i32>, batch: &bytes::Bytes) -> ProduceRequest {
    let partitions = partitions.into_iter().map(|index| PartitionProduceData {
        index,
        records: Some(Records::Bytes(batch.clone())),
        ..PartitionProduceData::default()
    });
    let topic = TopicProduceData {
        name: "t".into(),
        partition_data: partitions.collect(),
        ..TopicProduceData::default()
    };
    ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..ProduceRequest::default() }
}

fn fetch(partitions: i32, offset: i64, max_bytes: i32, max_wait_ms: i32, min_bytes: i32) -> FetchRequest {
    let partitions = (0..partitions).map(|partition| FetchPartition {
        partition,
        fetch_offset: offset,
        partition_max_bytes: max_bytes,
        ..FetchPartition::default()
    });
    let topic = FetchTopic { topic: "t".into(), partitions: partitions.collect(), ..FetchTopic::default() };
    FetchRequest { max_wait_ms, min_bytes, topics: vec![topic], ..FetchRequest::default() }
}

/// Prints what `count` runs took.
#[allow(clippy::print_stdout)] // What it is for.
fn report(case: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    println!("{case:<55} p50 {:>10.1} us   p99 {:>10.1} us   max {:>10.1} us", at(0.5), at(0.99), at(1.0));
}

fn timed(count: usize, mut run: impl FnMut(usize)) -> Vec<Duration> {
    (0..count)
        .map(|number| {
            let start = now();
            run(number);
            start.elapsed()
        })
        .collect()
}

#[allow(clippy::disallowed_methods)] // A bench measures the machine's time.
fn now() -> Instant {
    Instant::now()
}

fn small_batches(bytes: usize) {
    let server = Server::start(&[("flush", "os")]);
    let mut wire = server.connect();
    wire.create("t", 4, &[]);
    let request = produce([0], &batch(bytes, BatchOptions::default()));
    let one = |wire: &mut Wire| {
        wire.send(&request, 9);
        wire.receive();
    };
    timed(5_000, |_| one(&mut wire));
    report(&format!("produce {bytes} B, one at a time"), &mut timed(20_000, |_| one(&mut wire)));
    let mut rounds = timed(300, |_| {
        (0..5).for_each(|_| wire.send(&request, 9));
        for _ in 0..195 {
            wire.receive();
            wire.send(&request, 9);
        }
        (0..5).for_each(|_| drop(wire.receive()));
    });
    report(&format!("produce {bytes} B, 200 with 5 in flight"), &mut rounds);
    let end = 5_000 + 20_000 + 60_000;
    let mut tail = timed(20_000, |number| {
        wire.send(&fetch(1, end - 1 - (number % 100) as i64, 1, 0, 1), 12);
        wire.receive();
    });
    report(&format!("fetch {bytes} B of the last batches"), &mut tail);
    let mut old = timed(20_000, |number| {
        wire.send(&fetch(1, (number * 4) as i64, 1, 0, 1), 12);
        wire.receive();
    });
    report(&format!("fetch {bytes} B of old batches"), &mut old);
    let mut large = timed(200, |number| {
        wire.send(&fetch(1, (number * 100) as i64, 1 << 20, 0, 1), 12);
        wire.receive();
    });
    report(&format!("fetch 1 MiB of {bytes} B batches"), &mut large);
}

fn rolls() {
    let server = Server::start(&[]);
    let mut wire = server.connect();
    wire.create("t", 4, &[]);
    wire.create("rolling", 1, &[("segment.bytes", "65536")]);
    let small = produce([0], &batch(100, BatchOptions::default()));
    let mut large = produce([0], &batch(20_000, BatchOptions::default()));
    large.topic_data[0].name = "rolling".into();
    let mut roller = server.connect();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (rolling, stopped) = (stop.clone(), stop);
    let thread = std::thread::spawn(move || {
        while !rolling.load(std::sync::atomic::Ordering::Relaxed) {
            roller.send(&large, 9);
            roller.receive();
        }
    });
    let mut acks = timed(2_000, |_| {
        wire.send(&small, 9);
        wire.receive();
    });
    stopped.store(true, std::sync::atomic::Ordering::Relaxed);
    let _ = thread.join();
    report("ack, flush=sync, beside a partition that rolls", &mut acks);
}

fn many_flushes() {
    let server = Server::start(&[]);
    let mut wire = server.connect();
    wire.create("t", 512, &[]);
    let mut wires: Vec<Wire> = (0..512).map(|_| server.connect()).collect();
    let batch = batch(1_000, BatchOptions::default());
    let requests: Vec<_> = (0..512).map(|index| produce([index], &batch)).collect();
    let mut acks = Vec::new();
    for round in 0..12 {
        let start = now();
        wires.iter_mut().zip(&requests).for_each(|(wire, request)| wire.send(request, 9));
        for wire in &mut wires {
            wire.receive();
            if round > 1 {
                acks.push(start.elapsed());
            }
        }
    }
    report("ack, flush=sync, 512 partitions at once", &mut acks);
}

fn long_polls() {
    let server = Server::start(&[("flush", "os")]);
    let mut wire = server.connect();
    wire.create("t", 2_000, &[("segment.index.bytes", "4096")]);
    let request = produce([7], &batch(100, BatchOptions::default()));
    let one = |wire: &mut Wire| {
        wire.send(&request, 9);
        wire.receive();
    };
    timed(500, |_| one(&mut wire));
    report("produce beside no long poll", &mut timed(2_000, |_| one(&mut wire)));
    let mut consumers: Vec<Wire> = (0..10).map(|_| server.connect()).collect();
    consumers.iter_mut().for_each(|wire| wire.send(&fetch(2_000, 0, 1 << 20, 600_000, i32::MAX), 12));
    std::thread::park_timeout(Duration::from_secs(1));
    report("produce beside 10 long polls on 2,000 partitions", &mut timed(2_000, |_| one(&mut wire)));
}

fn many_producers() {
    let limit = [("flush", "os"), ("max.producer.ids.per.partition", "1000000")];
    let server = Server::start(&limit);
    let mut wire = server.connect();
    wire.create("t", 1, &[("segment.bytes", "40000000")]);
    let of = |producer_id: i64, bytes: usize| {
        let options =
            BatchOptions { producer_id, producer_epoch: 0, base_sequence: 0, ..BatchOptions::default() };
        produce([0], &batch(bytes, options))
    };
    for first in (0..400_000).step_by(200) {
        (first..first + 200).for_each(|producer_id| wire.send(&of(producer_id, 10), 9));
        (0..200).for_each(|_| drop(wire.receive()));
    }
    // Four rolls among them.
    let mut times = timed(200, |number| {
        wire.send(&of(1_000_000 + number as i64, 800_000), 9);
        wire.receive();
    });
    report("produce 800 KB, 400,000 producers, every 50th rolls", &mut times);
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let cases: [(&str, fn()); 6] = [
        ("100", || small_batches(100)),
        ("1024", || small_batches(1_024)),
        ("rolls", rolls),
        ("flushes", many_flushes),
        ("polls", long_polls),
        ("producers", many_producers),
    ];
    for (name, run) in cases {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            run();
        }
    }
}
