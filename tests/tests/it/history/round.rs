//! One run: clients, faults, a time in which all is well, the end, and what the checks say.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::NewTopic;
use klamm_tests::seed;
use tokio::time::{Instant, sleep};

use super::check;
use super::clients::Clients;
use super::disk::Disk;
use super::ending::{caught_up, look, scan};
use super::nemesis::{Victim, plan};
use super::operation::{History, Isolation, Micros, Outcome, What};
use super::planted::Planted;
use super::world::{Stop, TOPICS, World, places};

/// In this time after the faults everybody has to get on; before them as well.
const PROGRESS: Duration = Duration::from_secs(30);
/// Where a bug is planted, nobody is waited for so long.
const PLANTED_PROGRESS: Duration = Duration::from_secs(8);
/// In so many it is found.
const PLANTED_ROUNDS: u64 = 4;
/// Fewer records that were acknowledged prove nothing.
const ACKNOWLEDGED: usize = 150;

/// Segments of every kind roll all the time; nobody is waited for long.
const SETTINGS: &[&str] = &[
    "auto.create.topics.enable=false",
    "log.segment.bytes=30000",
    "offsets.topic.num.partitions=2",
    "offsets.topic.segment.bytes=4000",
    "transaction.state.log.num.partitions=2",
    "transaction.state.log.segment.bytes=4000",
    "producer.snapshot.interval.bytes=3000",
    "group.min.session.timeout.ms=300",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_histories_keep_every_promise() {
    let seed = seed(20_261_122);
    if let Err(wrong) = run(seed, None).await {
        panic!("seed {seed}: {wrong}");
    }
}

/// One kind of bug, by the seed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_faults_are_found_in_histories() {
    let seed = seed(20_261_123);
    let planted = Planted::ALL[usize::try_from(seed).unwrap() % Planted::ALL.len()];
    for round in 0..PLANTED_ROUNDS {
        if let Err(wrong) = run(seed.wrapping_add(round), Some(planted)).await {
            println!("{planted:?} is found in round {round}: {wrong}");
            return;
        }
    }
    panic!("{planted:?} is not found in {PLANTED_ROUNDS} rounds");
}

/// Gives what is wrong.
async fn run(seed: u64, planted: Option<Planted>) -> Result<(), String> {
    let began = Instant::now();
    let mut settings = SETTINGS.to_vec();
    // Half of them are refused in time, and the others are not.
    settings.extend(seed.is_multiple_of(2).then_some("log.dir.reserve.bytes=0"));
    let disk = Disk::new(!seed.is_multiple_of(3) && planted.is_none());
    let faults = plan(seed, disk.can_be_full(), planted);
    println!("{faults:?}, a disk that can be full: {}", disk.can_be_full());
    let mut victim = Victim::start(seed, disk, settings, planted).await;
    let world = World::new(victim.address().to_owned(), seed);
    create_topics(&world).await;
    let mut clients = Clients::start(&world);
    let alive: BTreeSet<String> = clients.names().map(str::to_owned).collect();
    let patience = if planted.is_some() { PLANTED_PROGRESS } else { PROGRESS };
    let mut failure = gets_on(&world, &alive, 0, patience).await;
    for fault in &faults {
        if failure.is_none() {
            victim.suffer(*fault, &world.net, &mut clients).await;
        }
    }
    clients.end_twins().await;
    world.net.settled().await;
    let healed = world.recorder.now();
    if failure.is_none() {
        failure = gets_on(&world, &alive, healed, patience).await;
    }
    let mut history = History { healed: Some(healed), alive, ..History::default() };
    if failure.is_none() {
        failure = end(&world, &mut clients, &mut victim, &mut history, patience).await;
    }
    history.operations = world.recorder.operations();
    let mut wrong: Vec<String> = check(&history).iter().map(|one| format!("{one:?}")).collect();
    wrong.extend(failure.into_iter().chain(world.recorder.all_hung()));
    wrong.extend(victim.log().contains("panicked").then(|| "E1: the broker panicked".to_owned()));
    println!("{} after {:?}", told(&history, &world), began.elapsed());
    if wrong.is_empty() {
        assert_worth(&history);
        return Ok(());
    }
    let all = wrong.join("\n");
    if planted.is_some() {
        return Err(all);
    }
    let file = write_down(seed, &history, &world, &victim.log());
    Err(format!("{faults:?}: see {}\n{all}", file.display()))
}

async fn create_topics(world: &World) {
    let topics: Vec<NewTopic> =
        TOPICS.iter().map(|(name, count)| NewTopic::new(*name).partitions(*count)).collect();
    let client = world.good_client().await.unwrap();
    for (topic, made) in client.admin().create_topics(&topics).await.unwrap().into_iter().collect::<Vec<_>>()
    {
        made.unwrap_or_else(|error| panic!("{topic}: {error}"));
    }
}

/// Waits until everybody has got something done since.
async fn gets_on(
    world: &World,
    alive: &BTreeSet<String>,
    since: Micros,
    patience: Duration,
) -> Option<String> {
    let until = Instant::now() + patience;
    loop {
        let busy: BTreeSet<String> = world.recorder.busy_since(since).into_iter().collect();
        let idle: Vec<&String> = alive.difference(&busy).collect();
        if idle.is_empty() {
            return None;
        }
        if Instant::now() > until {
            return Some(format!("B7: since {since} {idle:?} got nothing done"));
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Everybody comes to an end, and what is there is written down; gives what is wrong with it.
async fn end(
    world: &Arc<World>,
    clients: &mut Clients,
    victim: &mut Victim,
    history: &mut History,
    patience: Duration,
) -> Option<String> {
    world.stop(Stop::Writers);
    clients.ended(false).await;
    if let Err(behind) = caught_up(world, patience).await {
        return Some(format!("B7: {behind}"));
    }
    world.stop(Stop::All);
    clients.ended(true).await;
    if let Err(error) = look(world, history, patience).await {
        return Some(format!("C7: {error}"));
    }
    victim.stop().await;
    let data = victim.disk.data();
    history.logs = places().into_iter().map(|place| (place, scan(&data, place))).collect();
    None
}

/// What happened, in a line.
fn told(history: &History, world: &World) -> String {
    let count = |wanted: &dyn Fn(&What, Outcome) -> bool| {
        history.operations.iter().filter(|one| wanted(&one.what, one.outcome)).count()
    };
    let sent = count(&|what, outcome| matches!((what, outcome), (What::Send(_), Outcome::Ok(_))));
    let failed = count(&|what, outcome| matches!((what, outcome), (What::Send(_), Outcome::Fail)));
    let unknown = count(&|what, outcome| matches!((what, outcome), (What::Send(_), Outcome::Info)));
    let ended = |wanted: bool| {
        count(
            &|what, outcome| matches!((what, outcome), (What::End { commit, .. }, Outcome::Ok(_)) if *commit == wanted),
        )
    };
    let commits = count(&|what, outcome| matches!((what, outcome), (What::Commit { .. }, Outcome::Ok(_))));
    let reads = count(&|what, _| matches!(what, What::Read(_)));
    let (cuts, late) = world.net.counts();
    format!(
        "{} operations: {sent} records acknowledged, {failed} refused, {unknown} unknown; {} transactions \
         committed, {} aborted; {commits} commits; {reads} reads; {cuts} cuts, {late} requests came late",
        history.operations.len(),
        ended(true),
        ended(false),
    )
}

/// A run in which hardly anything happened proves nothing.
fn assert_worth(history: &History) {
    let acknowledged = history
        .operations
        .iter()
        .filter(|one| matches!((&one.what, one.outcome), (What::Send(_), Outcome::Ok(_))));
    let acknowledged = acknowledged.count();
    assert!(acknowledged >= ACKNOWLEDGED, "only {acknowledged} records were acknowledged");
    for place in places() {
        let there = history.finals[&(place, Isolation::Committed)].records.len();
        assert!(there > 0, "nothing is in {place}");
    }
}

/// For whoever looks for the reason.
fn write_down(seed: u64, history: &History, world: &World, log: &str) -> PathBuf {
    use std::fmt::Write as _;
    let file = std::env::temp_dir().join(format!("klamm-history-{seed}.txt"));
    let mut text = String::new();
    for operation in &history.operations {
        let _ = writeln!(text, "{operation:?}");
    }
    for (place, entry) in history.logs.iter().flat_map(|(at, all)| all.iter().map(move |one| (at, one))) {
        let _ = writeln!(text, "{place} {entry:?}");
    }
    let _ = writeln!(text, "healed {:?}\n{:#?}\n{log}", history.healed, world.recorder.troubles());
    std::fs::write(&file, text).unwrap();
    file
}
