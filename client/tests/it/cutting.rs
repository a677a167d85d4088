//! Connections that are cut where it hurts, between the client and a real broker: before a request arrives, and after
//! it was carried out. Runs as `apache_kafka` does.

use std::collections::VecDeque;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm_client::runtime::{Listener, Net, Rng, SeededRng, Stream, Tasks, TcpNet};
use klamm_client::{Client, IsolationLevel, Record, TopicPartition};
use klamm_protocol::ApiKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::time::timeout;

use crate::apache_kafka::{STEP, address, fresh, read, read_partition, topic};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// The request does not arrive.
    Before,
    /// It is carried out, and its answer does not arrive.
    After,
}

/// TCP through a proxy that cuts.
#[derive(Debug, Clone)]
struct Cutting {
    script: Arc<Mutex<VecDeque<(ApiKey, Cut)>>>,
    /// Cuts one Produce request in so many; 0 for none.
    one_in: Arc<AtomicU64>,
    /// How often it has cut.
    cuts: Arc<AtomicU64>,
    rng: Arc<SeededRng>,
    pumps: Tasks,
}

impl Cutting {
    fn new(seed: u64) -> Self {
        let rng = Arc::new(SeededRng::new(seed));
        let (script, one_in, cuts) = Default::default();
        Self { script, one_in, cuts, rng, pumps: Tasks::new() }
    }

    async fn client(&self, bootstrap: String) -> Client {
        let client = Client::builder().bootstrap(bootstrap).net(Arc::new(self.clone())).build();
        timeout(STEP, client).await.unwrap().unwrap()
    }

    fn next(&self, key: i16) -> Option<Cut> {
        let mut script = self.script.lock().unwrap();
        let at = script.iter().position(|(api, _)| api.code() == key);
        if let Some(at) = at {
            return script.remove(at).map(|(_, cut)| cut);
        }
        let one_in = self.one_in.load(Ordering::Relaxed);
        if key != ApiKey::Produce.code() || one_in == 0 || self.rng.below(one_in) > 0 {
            return None;
        }
        Some(if self.rng.below(2) == 0 { Cut::Before } else { Cut::After })
    }

    async fn requests(
        self,
        mut from: ReadHalf<Box<dyn Stream>>,
        mut to: WriteHalf<Box<dyn Stream>>,
        cut_at: Arc<AtomicU64>,
    ) -> std::io::Result<()> {
        for number in 0.. {
            let frame = frame(&mut from).await?;
            let cut = self.next(i16::from_be_bytes([frame[4], frame[5]]));
            self.cuts.fetch_add(u64::from(cut.is_some()), Ordering::Relaxed);
            match cut {
                Some(Cut::Before) => return Ok(()),
                Some(Cut::After) => drop(cut_at.fetch_min(number, Ordering::Relaxed)),
                None => {}
            }
            to.write_all(&frame).await?;
        }
        Ok(())
    }
}

async fn answers(
    mut from: ReadHalf<Box<dyn Stream>>,
    mut to: WriteHalf<Box<dyn Stream>>,
    cut_at: Arc<AtomicU64>,
) -> std::io::Result<()> {
    for number in 0.. {
        let frame = frame(&mut from).await?;
        if number >= cut_at.load(Ordering::Relaxed) {
            break;
        }
        to.write_all(&frame).await?;
    }
    Ok(())
}

async fn frame(from: &mut ReadHalf<Box<dyn Stream>>) -> std::io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    let mut frame = vec![0; 4 + length as usize];
    frame[..4].copy_from_slice(&length.to_be_bytes());
    from.read_exact(&mut frame[4..]).await?;
    Ok(frame)
}

#[klamm_client::async_trait]
impl Net for Cutting {
    async fn connect(&self, address: &str) -> std::io::Result<Box<dyn Stream>> {
        let server = TcpNet.connect(address).await?;
        let mut listener = TcpNet.bind("127.0.0.1:0").await?;
        let proxy = listener.local_address();
        let (client, accepted) = tokio::join!(TcpNet.connect(&proxy), listener.accept());
        let (accepted, _) = accepted?;
        let this = Self { pumps: Tasks::new(), ..self.clone() };
        self.pumps.spawn("proxy", async move {
            let (server, client) = (split(server), split(accepted));
            let cut_at = Arc::new(AtomicU64::new(u64::MAX));
            // Whichever ends first ends both.
            tokio::select! {
                _ = this.requests(client.0, server.1, Arc::clone(&cut_at)) => {}
                _ = answers(server.0, client.1, cut_at) => {}
            }
        });
        client
    }

    async fn bind(&self, address: &str) -> std::io::Result<Box<dyn Listener>> {
        TcpNet.bind(address).await
    }
}

/// Each request of a transaction gets lost, or its answer: committed is there once, aborted is not, nobody is fenced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_survives_every_cut() {
    let Some(bootstrap) = address() else { return };
    let net = Cutting::new(0);
    let client = net.client(bootstrap.clone()).await;
    let plain = timeout(STEP, Client::connect(bootstrap)).await.unwrap().unwrap();
    let (input, output) = (topic(&plain, "input", 1).await, topic(&plain, "output", 1).await);
    let group = fresh("group");
    let consumer = plain.consumer().group(&*group).topics([&*input]).start();
    let consumer = timeout(STEP, consumer).await.unwrap().unwrap();
    let joined = async {
        while consumer.handle().group_metadata().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(STEP, joined).await.unwrap();
    let apis = [
        ApiKey::FindCoordinator,
        ApiKey::InitProducerId,
        ApiKey::Produce,
        ApiKey::AddOffsetsToTxn,
        ApiKey::TxnOffsetCommit,
        ApiKey::EndTxn,
        ApiKey::Metadata,
    ];
    let mut expected = Vec::new();
    for cuts in [vec![Cut::Before], vec![Cut::After], vec![Cut::After, Cut::Before, Cut::After]] {
        for api in apis {
            let mut producer = client.producer().transactional_id(fresh("cut")).build().unwrap();
            for commit in [true, true, false, true, false, false, true] {
                net.script.lock().unwrap().extend(cuts.iter().map(|&cut| (api, cut)));
                let what = format!("{api:?} {cuts:?} {commit} {}", expected.len());
                let transaction = timeout(STEP, producer.begin()).await.unwrap();
                let transaction = transaction.unwrap_or_else(|error| panic!("{what}: {error}"));
                for part in 0..2 {
                    let record = Record::to(&*output).value(format!("{what} {part}"));
                    drop(timeout(STEP, transaction.enqueue(record)).await.unwrap().unwrap());
                }
                let offsets = [(TopicPartition::new(&*input, 0), 1)];
                let metadata = consumer.handle().group_metadata().unwrap();
                let sent = timeout(STEP, transaction.send_offsets(offsets, &metadata)).await.unwrap();
                sent.unwrap_or_else(|error| panic!("{what}: {error}"));
                if commit {
                    let ended = timeout(STEP, transaction.commit()).await.unwrap();
                    ended.unwrap_or_else(|error| panic!("{what}: {error}"));
                    expected.extend((0..2).map(|part| format!("{what} {part}")));
                } else {
                    let ended = timeout(STEP, transaction.abort()).await.unwrap();
                    ended.unwrap_or_else(|error| panic!("{what}: {error}"));
                }
            }
            net.script.lock().unwrap().clear();
            timeout(STEP, producer.close()).await.unwrap().unwrap();
        }
    }
    assert!(net.cuts.load(Ordering::Relaxed) >= 50, "hardly a cut");
    assert_eq!(read(&plain, &output, IsolationLevel::ReadCommitted).await, expected);
}

/// One request in ten gets lost, or its answer, with several on their way: each record is there once and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_neither_lose_nor_repeat_nor_reorder() {
    const PARTITIONS: i32 = 3;
    let Some(bootstrap) = address() else { return };
    let plain = timeout(STEP, Client::connect(bootstrap.clone())).await.unwrap().unwrap();
    for seed in 0..5 {
        let net = Cutting::new(crate::seed() + seed);
        let client = net.client(bootstrap.clone()).await;
        let topic = topic(&plain, "cut", PARTITIONS).await;
        net.one_in.store(10, Ordering::Relaxed);
        let producer = client.producer().batch_bytes(2_000).build().unwrap();
        let mut deliveries = Vec::new();
        for number in 0..300 {
            for partition in 0..PARTITIONS {
                let record = Record::to(&*topic).partition(partition).value(format!("{number:>500}"));
                deliveries.push(timeout(STEP, producer.enqueue(record)).await.unwrap().unwrap());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for delivery in deliveries {
            timeout(STEP, delivery).await.unwrap().unwrap();
        }
        assert!(net.cuts.load(Ordering::Relaxed) >= 5, "hardly a cut");
        for partition in 0..PARTITIONS {
            let found = read_partition(&plain, &topic, partition, IsolationLevel::ReadUncommitted).await;
            let expected: Vec<String> = (0..300).map(|number| format!("{number:>500}")).collect();
            assert!(found == expected, "seed {seed}, partition {partition}");
        }
    }
}

const DOOMED: &str = "KLAMM_TEST_DOOMED";

/// The process that the next test kills: not a test of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "two processes meet at a file")]
async fn doomed_process() {
    let (Some(bootstrap), Ok(doom)) = (address(), std::env::var(DOOMED)) else { return };
    let [topic, id, ready] = doom.split(' ').collect::<Vec<_>>()[..] else { panic!("{doom}") };
    let client = Client::connect(bootstrap).await.unwrap();
    let mut producer = client.producer().transactional_id(id).build().unwrap();
    for number in 0.. {
        let transaction = producer.begin().await.unwrap();
        for part in 0..3 {
            transaction.send(Record::to(topic).value(format!("{id} {number} {part}"))).await.unwrap();
        }
        if number == 5 {
            std::fs::write(ready, b"ready").unwrap();
        }
        transaction.commit().await.unwrap();
    }
}

/// A process is killed in the middle of its transactions, again and again: the next one goes on at once, and no part
/// of a transaction is to be seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "two processes meet at a file")]
async fn a_killed_process_leaves_whole_transactions_alone() {
    let Some(bootstrap) = address() else { return };
    let client = timeout(STEP, Client::connect(bootstrap)).await.unwrap().unwrap();
    let topic = topic(&client, "killed", 1).await;
    let id = fresh("doomed");
    for round in 0..4_u64 {
        let ready = std::env::temp_dir().join(format!("klamm-{id}-{round}"));
        let doom = format!("{topic} {id} {}", ready.display());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "cutting::doomed_process"])
            .env(DOOMED, doom)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = async {
            while !ready.exists() {
                assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(STEP, started).await.unwrap();
        tokio::time::sleep(Duration::from_millis(3 * round)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        std::fs::remove_file(&ready).unwrap();
    }
    let mut successor = client.producer().transactional_id(&*id).build().unwrap();
    let transaction = timeout(STEP, successor.begin()).await.unwrap().unwrap();
    timeout(STEP, transaction.send(Record::to(&*topic).value("last"))).await.unwrap().unwrap();
    timeout(STEP, transaction.commit()).await.unwrap().unwrap();
    let mut values = read(&client, &topic, IsolationLevel::ReadCommitted).await;
    assert_eq!(values.pop().as_deref(), Some("last"));
    assert!(values.len() >= 4 * 5 * 3, "{values:?}");
    for transaction in values.chunks(3) {
        let parts: Vec<_> = transaction.iter().filter_map(|value| value.rsplit_once(' ')).collect();
        let [(a, "0"), (b, "1"), (c, "2")] = parts[..] else { panic!("a part of a transaction: {parts:?}") };
        assert!(a == b && b == c, "{parts:?}");
    }
}
