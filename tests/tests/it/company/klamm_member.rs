//! The member of our own client: this test program, started once more with a variable that tells which group it is of.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use klamm_client::{
    Assignor, Client, ConsumerHandle, ConsumerRecords, GroupProtocol, RebalanceListener, TopicPartition,
    async_trait,
};
use tokio::process::Command;
use tokio::time::timeout;

use super::now_us;

/// `BOOTSTRAP TOPIC GROUP PROTOCOL` for the process that is a member.
pub(super) const VARIABLE: &str = "KLAMM_TEST_MEMBER";

/// After so many batches it commits, or when nothing comes for so long.
const BATCHES: usize = 50;
const IDLE: Duration = Duration::from_millis(100);

/// The command that starts a member. The words that follow it are filters of tests, which match none.
pub(super) fn command() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "company::klamm_member::member_process", "--nocapture", "--test-threads=2"]);
    command
}

/// The process that other tests start: not a test of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn member_process() {
    let Ok(told) = std::env::var(VARIABLE) else { return };
    let [bootstrap, topic, group, protocol] = told.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{told}")
    };
    let client = Client::connect(bootstrap).await.unwrap();
    let listener = Arc::new(Worker::default());
    let mut builder = client
        .consumer()
        .group(group)
        .topics([topic])
        .from_beginning()
        .session_timeout(Duration::from_secs(5))
        .heartbeat_interval(Duration::from_millis(500))
        .rebalance_listener(Arc::clone(&listener) as Arc<dyn RebalanceListener>);
    builder = match protocol {
        "range" => builder.assignor(Assignor::Range),
        "cooperative-sticky" => builder.assignor(Assignor::CooperativeSticky),
        "consumer" => builder.group_protocol(GroupProtocol::Consumer),
        other => panic!("there is no protocol {other}"),
    };
    let mut consumer = builder.start().await.unwrap();
    listener.handle.set(consumer.handle()).unwrap();
    let mut told_to_leave = told_to_leave();
    loop {
        tokio::select! {
            _ = &mut told_to_leave => break,
            batch = timeout(IDLE, consumer.next_batch()) => match batch {
                Ok(Some(Ok(batch))) => listener.process(batch).await,
                Ok(Some(Err(error))) => eprintln!("{error}"),
                Ok(None) => panic!("the consumer has ended"),
                Err(_) => listener.commit(&mut *listener.owned.lock().await).await,
            },
        }
    }
    consumer.close().await.unwrap();
}

/// The end of standard input, which only a thread of its own can wait for.
fn told_to_leave() -> tokio::sync::oneshot::Receiver<()> {
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = tell.send(());
    });
    told
}

/// Processes what it owns, and commits that before it gives a partition up.
#[derive(Default)]
struct Worker {
    handle: OnceLock<ConsumerHandle>,
    /// By partition that it owns, what is processed and not committed. Held while records are processed, so that giving
    /// up waits.
    owned: tokio::sync::Mutex<BTreeMap<TopicPartition, Option<i64>>>,
    /// How many were processed.
    batches: AtomicUsize,
}

impl Worker {
    async fn process(&self, batch: ConsumerRecords) {
        let at = batch.topic_partition();
        let mut owned = self.owned.lock().await;
        let handle = self.handle.get().expect("set before the first record");
        // It may have been given up since it was handed out, and have come back.
        if !owned.contains_key(&at) || handle.position(&at) != Some(batch.next_offset) {
            return;
        }
        for record in &batch.records {
            let value = record.value.clone().unwrap_or_default();
            say(&format!("record {} {} {}", at.partition, record.offset, String::from_utf8_lossy(&value)));
        }
        owned.insert(at, Some(batch.next_offset));
        if self.batches.fetch_add(1, Ordering::Relaxed) % BATCHES == BATCHES - 1 {
            self.commit(&mut owned).await;
        }
    }

    async fn commit(&self, owned: &mut BTreeMap<TopicPartition, Option<i64>>) {
        let due: Vec<(TopicPartition, i64)> =
            owned.iter().filter_map(|(at, next)| Some((at.clone(), (*next)?))).collect();
        if due.is_empty() {
            return;
        }
        due.iter().for_each(|(at, offset)| say(&format!("commit {} {offset}", at.partition)));
        let handle = self.handle.get().expect("set before the first record");
        match handle.commit(due.clone()).await {
            Ok(()) => {
                for (at, offset) in due {
                    say(&format!("committed {} {offset}", at.partition));
                    owned.insert(at, None);
                }
            }
            Err(error) => eprintln!("{error}"),
        }
    }
}

#[async_trait]
impl RebalanceListener for Worker {
    async fn assigned(&self, partitions: &[TopicPartition]) {
        let mut owned = self.owned.lock().await;
        owned.extend(partitions.iter().map(|at| (at.clone(), None)));
        say_list("assigned", partitions);
    }

    async fn revoked(&self, partitions: &[TopicPartition]) {
        let mut owned = self.owned.lock().await;
        self.commit(&mut owned).await;
        owned.retain(|at, _| !partitions.contains(at));
        say_list("revoked", partitions);
    }

    async fn lost(&self, partitions: &[TopicPartition]) {
        let mut owned = self.owned.lock().await;
        owned.retain(|at, _| !partitions.contains(at));
        say_list("lost", partitions);
    }
}

fn say_list(what: &str, partitions: &[TopicPartition]) {
    let list: Vec<String> = partitions.iter().map(|at| at.partition.to_string()).collect();
    if !list.is_empty() {
        say(&format!("{what} {}", list.join(",")));
    }
}

/// One line at once, begun anew: the harness has begun one.
fn say(what: &str) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap();
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(format!("\n{} {what}", now_us()).as_bytes())
        .and_then(|()| stdout.write_all(b"\n"))
        .unwrap();
    stdout.flush().unwrap();
}
