//! kill -9 at random moments of a broker that has everything to do: small segments that roll, retention by size and by
//! time, groups that commit into an offsets topic of small segments, topics that are deleted and created anew. Starts
//! are killed, too. `ledger.rs` says what must hold then.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::{Client, TopicPartition};
use klamm_runtime::{Rng, SeededRng};
use klamm_tests::{BrokerProcess, seed};
use tokio::time::{Instant, timeout};

use super::clients::{
    BY_SIZE, BY_TIME, COMMITTERS, FLEETING, GENERATION, GHOSTS, KEPT, READERS, World, come_and_go, commit,
    create_topics, number_of, read_as_group, write,
};
use super::ledger::{Found, only_of_generation};
use super::wait_until;

/// Kills in one run, beside those of starts; `make soak SUITE=crash` makes many runs.
const ROUNDS: u64 = 3;
const SETTINGS: &[&str] = &[
    "auto.create.topics.enable=false",
    "log.retention.check.interval.ms=20",
    // For whoever has no settings of its own, which must not be the offsets.
    "log.retention.bytes=4096",
    "offsets.topic.segment.bytes=1024",
    "offsets.topic.num.partitions=2",
];

/// Folders of partitions whose segments roll.
const ROLLING: [&str; 3] = ["kept-0", "__consumer_offsets-0", "__consumer_offsets-1"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolls_retention_groups_and_topics_survive_kills() {
    let rng = SeededRng::new(seed(20_261_122));
    let data = tempfile::tempdir().unwrap();
    let mut broker = BrokerProcess::start_with(data.path(), "127.0.0.1:0", SETTINGS).await;
    let address = broker.bootstrap().to_owned();
    let client = Client::connect(&address).await.unwrap();
    let world = Arc::new(World::new(address.clone()));
    create_topics(&client.admin()).await;
    let busy = [
        tokio::spawn(write(world.clone(), client.producer().batch_bytes(600).build().unwrap())),
        tokio::spawn(commit(world.clone(), client.admin(), COMMITTERS[0])),
        tokio::spawn(commit(world.clone(), client.admin(), COMMITTERS[1])),
        tokio::spawn(read_as_group(world.clone(), client.clone())),
        tokio::spawn(come_and_go(world.clone(), client.clone())),
    ];
    for round in 0..ROUNDS {
        let before = world.progress();
        let enough = |world: &World| world.progress().iter().zip(&before).all(|(now, then)| *now > then + 20);
        wait_until(Duration::from_secs(180), || enough(&world)).await;
        tokio::time::sleep(Duration::from_millis(rng.below(60))).await;
        assert!(broker.is_running(), "{}", broker.log());
        broker.kill().await;
        let starts = rng.below(3);
        for _ in 0..starts {
            let lifetime = Duration::from_millis(rng.below(60));
            BrokerProcess::start_and_kill(data.path(), &address, SETTINGS, lifetime).await;
        }
        let began = Instant::now();
        broker = BrokerProcess::start_with(data.path(), &address, SETTINGS).await;
        let started_after = began.elapsed();
        look(&world).await.unwrap_or_else(|wrong| panic!("round {round}: {wrong}\n{}", broker.log()));
        println!(
            "round {round}: {starts} starts killed, started in {started_after:?}, {:?}, looked at after {:?}",
            world.progress(),
            began.elapsed()
        );
    }
    // A run in which nothing rolled proves nothing; a busy machine needs longer.
    wait_until(Duration::from_secs(180), || ROLLING.iter().all(|dir| segments(data.path(), dir) > 3)).await;
    // Not in the middle of a step: nobody would know how it went.
    let between_steps = world.fleeting.lock().await;
    for task in busy {
        // One that has ended before has panicked.
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled(), "a client gave up");
    }
    drop(between_steps);
    look(&world).await.unwrap_or_else(|wrong| panic!("in the end: {wrong}\n{}", broker.log()));
    assert_telling(&world).await;
    broker.stop(Duration::from_secs(10)).await;
    let broker = BrokerProcess::start_with(data.path(), &address, SETTINGS).await;
    look(&world).await.unwrap_or_else(|wrong| panic!("after a clean stop: {wrong}\n{}", broker.log()));
}

/// A run in which nothing happened proves nothing.
async fn assert_telling(world: &World) {
    {
        let told = world.told();
        for topic in [BY_SIZE, BY_TIME] {
            assert!(told.partitions[topic].start() > 0, "retention took nothing of {topic}");
        }
        assert!(told.commits[&(READERS, KEPT)].acknowledged > 0, "no member of a group committed anything");
    }
    assert!(world.fleeting.lock().await.generation > 2, "no topic came and went");
}

/// How many segments a partition has; one may go while they are counted.
fn segments(data: &Path, dir: &str) -> usize {
    let names = std::fs::read_dir(data.join(dir)).unwrap().filter_map(|entry| Some(entry.ok()?.file_name()));
    names.filter(|name| name.to_string_lossy().ends_with(".log")).count()
}

/// Holds everything that there is against everything that was told.
async fn look(world: &World) -> Result<(), String> {
    let client = Client::connect(&*world.address).await.unwrap();
    for topic in [KEPT, BY_SIZE, BY_TIME] {
        let told = world.told().partitions[topic].clone();
        let found = read(world, &client, topic).await;
        let mut now = world.told();
        let checked = now.partitions.get_mut(topic).unwrap().check(&told, &found);
        checked.map_err(|wrong| format!("{topic}: {wrong}"))?;
    }
    for group in COMMITTERS.into_iter().chain([READERS]) {
        let before = world.told().commits.clone();
        let found = client.admin().committed_offsets(group).await.unwrap();
        let after = world.told().commits.clone();
        for (topic, before) in
            before.iter().filter(|((of, _), _)| *of == group).map(|((_, topic), at)| (topic, at))
        {
            let at = found.get(&TopicPartition::new(*topic, 0)).copied();
            let checked = after[&(group, *topic)].check(*before, at);
            checked.map_err(|wrong| format!("{group} in {topic}: {wrong}"))?;
        }
    }
    look_at_fleeting(world, &client).await
}

async fn look_at_fleeting(world: &World, client: &Client) -> Result<(), String> {
    let mut fleeting = world.fleeting.lock().await;
    let generation = fleeting.generation;
    let listed = client.admin().list_topics().await.unwrap().iter().any(|topic| &*topic.name == FLEETING);
    if listed != fleeting.is_there {
        return Err(format!("generation {generation}: {FLEETING} is listed: {listed}"));
    }
    let committed = client.admin().committed_offsets(GHOSTS).await.unwrap();
    let committed = committed.get(&TopicPartition::new(FLEETING, 0)).copied();
    if !fleeting.is_there {
        return match committed {
            None => Ok(()),
            Some(offset) => Err(format!("generation {generation} is gone, and its offset {offset} is not")),
        };
    }
    let ghosts = fleeting.commits.check(fleeting.commits, committed);
    ghosts.map_err(|wrong| format!("{GHOSTS} in generation {generation}: {wrong}"))?;
    let found = read(world, client, FLEETING).await;
    only_of_generation(&found, generation, GENERATION)?;
    let told = fleeting.ledger.clone();
    let checked = fleeting.ledger.check(&told, &found);
    checked.map_err(|wrong| format!("{FLEETING} in generation {generation}: {wrong}"))
}

/// All records of a topic's only partition, up to where it ends now.
async fn read(world: &World, client: &Client, topic: &str) -> Found {
    let reading = async {
        let partition = TopicPartition::new(topic, 0);
        let only = std::slice::from_ref(&partition);
        let mut consumer =
            client.consumer().assign([partition.clone()]).from_beginning().start().await.unwrap();
        let handle = consumer.handle();
        let end = handle.end_offsets(only).await.unwrap()[&partition];
        let mut records = Vec::new();
        while handle.position(&partition).is_none_or(|position| position < end) {
            // Where retention takes what would come next, nothing may come.
            if let Ok(next) = timeout(Duration::from_millis(20), consumer.next()).await {
                let record = next.expect("an assigned consumer goes on").unwrap();
                records.push((record.offset, number_of(&record)));
            }
        }
        records.retain(|(offset, _)| *offset < end);
        let start = handle.beginning_offsets(only).await.unwrap()[&partition];
        let end_after = handle.end_offsets(only).await.unwrap()[&partition];
        let seen_ms = world.now_ms();
        consumer.close().await.unwrap();
        Found { records, start, end, end_after, seen_ms }
    };
    timeout(Duration::from_secs(180), reading).await.expect("reading to the end")
}
