//! One run: producers that send unique values, a group of members that come and go, somebody who watches the group's
//! offsets; trouble for a while, then peace, and a look at everything.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm_broker::Broker;
use klamm_client::runtime::{Net, Rng, SeededRng, Tasks};
use klamm_client::{
    Client, Consumer, ConsumerRecord, NewTopic, Producer, RebalanceListener, Record, TopicPartition,
    async_trait,
};
use tokio::time::{sleep, timeout};

use super::history::{Handed, History, Outcome};
use super::net::Faulty;

const TOPIC: &str = "t";
const GROUP: &str = "g";
const PARTITIONS: i32 = 3;
const PRODUCERS: usize = 2;
const MEMBERS: usize = 2;
/// How long anything may take once the network has healed.
const PEACE: Duration = Duration::from_secs(30);

/// How long things take.
#[derive(Debug)]
pub(super) struct Pace {
    pub(super) trouble: Duration,
    pub(super) request_timeout: Duration,
    pub(super) session_timeout: Duration,
    pub(super) heartbeat_interval: Duration,
    pub(super) send_every: Duration,
    pub(super) look_every: Duration,
}

struct World {
    seed: u64,
    net: Faulty,
    bootstrap: String,
    history: Mutex<History>,
    /// Trouble is over: nothing more is sent, and members stay.
    over: AtomicBool,
}

pub(super) async fn run(net: Arc<dyn Net>, address: &str, seed: u64, pace: &'static Pace) {
    let broker = Broker::builder().ephemeral().net(Arc::clone(&net)).listen(address);
    let broker = broker.set("group.min.session.timeout.ms", 100).start().await.unwrap();
    let faulty = Faulty::new(Arc::clone(&net), seed, pace.request_timeout);
    let world = Arc::new(World {
        seed,
        net: faulty,
        bootstrap: broker.bootstrap().to_owned(),
        history: Mutex::default(),
        over: AtomicBool::new(false),
    });
    // Whoever looks after things is not troubled.
    let observer = Client::builder().bootstrap(broker.bootstrap()).net(net).build().await.unwrap();
    let made = observer.admin().create_topics(&[NewTopic::new(TOPIC).partitions(PARTITIONS)]).await.unwrap();
    assert!(made[TOPIC].is_ok(), "{made:?}");

    let (tasks, producers) = (Tasks::new(), Tasks::new());
    for number in 0..PRODUCERS {
        producers.spawn("producer", produce(Arc::clone(&world), number, pace));
    }
    for number in 0..MEMBERS {
        tasks.spawn("member", consume(Arc::clone(&world), number, pace));
    }
    tasks.spawn("observer", observe(Arc::clone(&world), observer.clone(), pace));
    sleep(pace.trouble).await;
    // A run without data or trouble proves nothing: on a busy machine it takes longer.
    let enough = async {
        while world.history.lock().unwrap().acknowledged() < 100 || world.net.happened().len() < 3 {
            sleep(pace.look_every).await;
        }
    };
    timeout(PEACE, enough).await.unwrap_or_else(|_| panic!("seed {seed}: hardly a record or a fault"));
    world.over.store(true, Ordering::SeqCst);
    world.net.heal();

    let settled = timeout(PEACE, producers.join()).await;
    assert!(settled.is_ok(), "seed {seed}: B7: sends have no end {PEACE:?} after the network healed");
    let logs = read_all(&observer).await;
    let all_read = async {
        let at_the_end = |history: &History| {
            logs.iter().all(|(partition, log)| history.committed(*partition) == log.len() as i64)
        };
        while !at_the_end(&world.history.lock().unwrap()) {
            sleep(pace.look_every).await;
        }
    };
    if timeout(PEACE, all_read).await.is_err() {
        let history = world.history.lock().unwrap();
        let at: Vec<_> = logs.iter().map(|(at, log)| (history.committed(*at), log.len())).collect();
        panic!("seed {seed}: B7: the group is stuck at {at:?}; {:?}", history.anomalies(&logs));
    }
    tasks.shutdown().await;
    {
        let history = world.history.lock().unwrap();
        let anomalies = history.anomalies(&logs);
        assert!(anomalies.is_empty(), "seed {seed}: {anomalies:#?}\nafter {:?}", world.net.happened());
        println!(
            "seed {seed}: {} sent, {} acknowledged, {} handed out, {} commits, {} faults",
            history.sends.len(),
            history.acknowledged(),
            history.handed.len(),
            history.commits,
            world.net.happened().len(),
        );
    }
    broker.shutdown().await.unwrap();
}

impl World {
    /// A client over the network that misbehaves; made until it is.
    async fn client(&self, pace: &Pace) -> Client {
        loop {
            let builder = Client::builder().bootstrap(&*self.bootstrap).net(Arc::new(self.net.clone()));
            let builder = builder.request_timeout(pace.request_timeout).connect_timeout(pace.request_timeout);
            let builder = builder.retry_backoff(pace.look_every, 4 * pace.look_every);
            if let Ok(client) = builder.build().await {
                return client;
            }
            sleep(pace.look_every).await;
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

async fn produce(world: Arc<World>, number: usize, pace: &'static Pace) {
    let rng = SeededRng::new(world.seed ^ (0xbeef + number as u64));
    let client = world.client(pace).await;
    let builder = client.producer().request_timeout(pace.request_timeout).delivery_timeout(10 * PEACE);
    let producer: Producer = builder.batch_bytes(400).max_block(PEACE).build().unwrap();
    for count in 0.. {
        if world.is_over() {
            break;
        }
        let partition = rng.below(PARTITIONS as u64) as i32;
        let value = format!("{number}-{count}-{:>1$}", "", rng.below(60) as usize);
        let send = world.history.lock().unwrap().begin(number, partition, value.clone());
        let told = Arc::clone(&world);
        let sent = producer.send_with(Record::to(TOPIC).partition(partition).value(value), move |result| {
            let outcome = match result {
                Ok(at) => Outcome::At(at.offset),
                Err(error) if error.may_have_been_written() => Outcome::Unknown,
                Err(_) => Outcome::Not,
            };
            told.history.lock().unwrap().end(send, outcome);
        });
        if sent.await.is_err() {
            world.history.lock().unwrap().end(send, Outcome::Not);
        }
        sleep(Duration::from_micros(rng.below(2 * pace.send_every.as_micros() as u64))).await;
    }
    producer.close().await.unwrap();
}

/// Counts how often a partition was assigned.
#[derive(Default)]
struct Assignments(Mutex<BTreeMap<i32, usize>>);

impl Assignments {
    fn of(&self, partition: i32) -> usize {
        self.0.lock().unwrap().get(&partition).copied().unwrap_or(0)
    }
}

#[async_trait]
impl RebalanceListener for Assignments {
    async fn assigned(&self, partitions: &[TopicPartition]) {
        let mut counts = self.0.lock().unwrap();
        partitions.iter().for_each(|partition| *counts.entry(partition.partition).or_default() += 1);
    }
}

/// A member that comes and goes while there is trouble, and then stays.
async fn consume(world: Arc<World>, number: usize, pace: &'static Pace) {
    let rng = SeededRng::new(world.seed ^ (0xcafe + number as u64));
    let client = world.client(pace).await;
    for incarnation in 0.. {
        let assignments = Arc::new(Assignments::default());
        let builder = client.consumer().group(GROUP).topics([TOPIC]).from_beginning();
        let builder =
            builder.session_timeout(pace.session_timeout).heartbeat_interval(pace.heartbeat_interval);
        let builder = builder.rebalance_timeout(pace.session_timeout).request_timeout(pace.request_timeout);
        let builder = builder.fetch_max_wait(pace.request_timeout / 4);
        let listener = Arc::clone(&assignments) as Arc<dyn RebalanceListener>;
        let Ok(mut consumer) = builder.rebalance_listener(listener).start().await else {
            sleep(pace.look_every).await;
            continue;
        };
        // Every other one stays for the whole of it.
        let stay = match rng.below(2) {
            0 => Duration::from_micros(rng.below(pace.trouble.as_micros() as u64)),
            _ => 100 * PEACE,
        };
        let member = number + MEMBERS * incarnation;
        let reads = read(&world, &mut consumer, member, &assignments, &rng, pace);
        let left = timeout(stay, reads).await.is_err() && !world.is_over();
        if !left {
            let _ = timeout(100 * PEACE, read(&world, &mut consumer, member, &assignments, &rng, pace)).await;
        }
        match rng.below(3) {
            0 => drop(consumer),
            1 => drop(consumer.leave_within(pace.request_timeout).await),
            _ => drop(consumer.close_within(pace.request_timeout).await),
        }
    }
}

/// Reads for ever; a record is processed before it is committed.
async fn read(
    world: &World,
    consumer: &mut Consumer,
    member: usize,
    assignments: &Assignments,
    rng: &SeededRng,
    pace: &Pace,
) {
    // With the assignment that it was read in: what was read before another member had the partition is not to be
    // committed over that.
    let mut last: BTreeMap<i32, (usize, i64)> = BTreeMap::new();
    loop {
        let Ok(next) = timeout(10 * pace.look_every, consumer.next()).await else {
            // Nothing came: what was refused or lost on its way is committed again, each for itself.
            for (&partition, &(_, offset)) in last.iter().filter(|(at, (of, _))| assignments.of(**at) == *of)
            {
                let _ = consumer.handle().commit([(TopicPartition::new(TOPIC, partition), offset + 1)]).await;
            }
            continue;
        };
        match next {
            None => return,
            // What goes wrong on the network is told or not, and gone when it heals.
            Some(Err(_)) => {}
            Some(Ok(ConsumerRecord { partition, offset, value, topic, .. })) => {
                let value = String::from_utf8(value.unwrap_or_default().to_vec()).unwrap();
                {
                    let mut history = world.history.lock().unwrap();
                    let assignment = assignments.of(partition);
                    history.hand_out(Handed { member, assignment, partition, offset, value });
                    history.process(partition, offset);
                }
                last.insert(partition, (assignments.of(partition), offset));
                if rng.below(4) == 0 || world.is_over() {
                    // A commit that is refused or lost is followed by another.
                    let _ =
                        consumer.handle().commit([(TopicPartition::new(topic, partition), offset + 1)]).await;
                }
            }
        }
    }
}

/// Looks at what the group has committed, all the time.
async fn observe(world: Arc<World>, observer: Client, pace: &'static Pace) {
    loop {
        if let Ok(committed) = observer.admin().committed_offsets(GROUP).await {
            let mut history = world.history.lock().unwrap();
            for partition in 0..PARTITIONS {
                if let Some(&offset) = committed.get(&TopicPartition::new(TOPIC, partition)) {
                    history.see_committed(partition, offset);
                }
            }
        }
        sleep(pace.look_every).await;
    }
}

/// The partitions as they are, read by somebody who is not troubled.
async fn read_all(observer: &Client) -> BTreeMap<i32, Vec<(i64, String)>> {
    let mut logs = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let builder = observer.consumer().assign([(TOPIC, partition)]).from_beginning();
        let mut consumer = builder.start().await.unwrap();
        let of = [TopicPartition::new(TOPIC, partition)];
        let end = consumer.handle().end_offsets(&of).await.unwrap()[&of[0]];
        let mut log = Vec::new();
        while (log.len() as i64) < end {
            let record = timeout(PEACE, consumer.next()).await.unwrap().unwrap().unwrap();
            log.push((record.offset, String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
        }
        logs.insert(partition, log);
    }
    logs
}
