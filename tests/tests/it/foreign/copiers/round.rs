//! One round: a plan from a seed, the copiers and the broker that it happens to, and the judgement.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm_client::admin::TransactionFilter;
use klamm_client::{Client, IsolationLevel, NewTopic, Record, TopicPartition};
use klamm_runtime::{Rng, SeededRng};
use klamm_tests::Signal;
use tokio::time::{Instant, sleep, timeout};

use super::copier::{Copier, Make};
use super::side::Side;
use super::{exact, in_soak};

const INPUT: &str = "input";
const OUTPUT: &str = "output";
const GROUP: &str = "copiers";
const INPUT_PARTITIONS: i32 = 3;
const OUTPUT_PARTITIONS: i32 = 2;
/// Written before each fault, and behind the last one.
const RECORDS_A_STAGE: u64 = 600;
const RECORDS_A_STAGE_OF_A_SLICE: u64 = 200;
/// Longer than the session of a copier, which is 2 s.
const LONGER_THAN_A_SESSION: Duration = Duration::from_millis(2_500);
/// Longer than a transaction of a copier may be open, which is 3 s.
const LONGER_THAN_A_TRANSACTION: Duration = Duration::from_millis(3_500);
const STEP: Duration = Duration::from_secs(30);
/// A killed copier is missed after its session, its transaction after its timeout; the machine may be busy.
const STUCK: Duration = Duration::from_secs(90);

/// What happens in the midst of copying. A copier is one of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillBroker,
    KillCopier(usize),
    KillBoth(usize),
    HoldCopier(usize, Duration),
    HoldBroker(Duration),
    /// It is killed, and started so much later.
    MissBroker(Duration),
}

/// Copies with one copier of each of these makes, through what the seed says; panics where the copies are not exact.
pub(super) async fn round(makes: [Make; 2], side: impl AsyncFn() -> Side, rng: &SeededRng) {
    let began = Instant::now();
    let mut programs = Vec::new();
    for make in makes {
        let Some(program) = make.program().await else { return };
        programs.push(program);
    }
    let (plan, stage) = plan(rng, in_soak());
    let mut side = side().await;
    let client = Client::connect(&side.bootstrap()).await.unwrap();
    let topics = [(INPUT, INPUT_PARTITIONS), (OUTPUT, OUTPUT_PARTITIONS)];
    let topics = topics.map(|(name, partitions)| NewTopic::new(name).partitions(partitions));
    client.admin().create_topics(&topics).await.unwrap();
    let start = |(number, program)| {
        let (id, seed) = (format!("copier-{number}"), rng.below(1 << 31).to_string());
        let arguments = [side.bootstrap(), GROUP.into(), id, INPUT.into(), OUTPUT.into(), seed];
        Copier::start(program, arguments)
    };
    let mut copiers: Vec<Copier> = programs.into_iter().enumerate().map(start).collect();

    let mut written = 0;
    for fault in &plan {
        let wanted = copied(&copiers) + 1 + rng.below(stage / 2);
        write(&client, written..written + stage).await;
        written += stage;
        until_said(&client, wanted, &mut copiers, &side).await;
        sleep(Duration::from_millis(rng.below(30))).await;
        happen(*fault, &mut side, &mut copiers).await;
    }
    write(&client, written..written + stage).await;
    written += stage;
    until_committed(&client, written, &mut copiers, &side).await;
    judge(&client, &side, written, &copiers).await;

    let said: Vec<_> = copiers.iter().map(Copier::said).collect();
    let sum = |count: fn(&super::copier::Said) -> u64| said.iter().map(count).sum::<u64>();
    let (commits, aborts, anew) = (sum(|said| said.commits), sum(|said| said.aborts), sum(|said| said.anew));
    println!(
        "{makes:?}: {plan:?}, {written} records: {commits} commits, {aborts} aborts, {anew} anew, {:?}",
        began.elapsed()
    );
    assert!(aborts > 0 || !in_soak(), "nothing was aborted: the round proves less");
    drop(copiers);
    side.end().await;
}

/// What happens, and how many records are written before each of it.
fn plan(rng: &SeededRng, whole: bool) -> (Vec<Fault>, u64) {
    let copier = || rng.below(2) as usize;
    let mut plan = vec![Fault::KillBroker, Fault::KillCopier(copier())];
    if whole {
        let time = [LONGER_THAN_A_SESSION, LONGER_THAN_A_TRANSACTION][copier()];
        plan.push(Fault::HoldCopier(copier(), time));
        plan.push(match rng.below(5) {
            0 => Fault::KillBroker,
            1 => Fault::KillCopier(copier()),
            2 => Fault::KillBoth(copier()),
            3 => Fault::MissBroker(time),
            _ => Fault::HoldBroker(time),
        });
    }
    for last in (1..plan.len()).rev() {
        plan.swap(last, rng.below(last as u64 + 1) as usize);
    }
    (plan, if whole { RECORDS_A_STAGE } else { RECORDS_A_STAGE_OF_A_SLICE })
}

async fn happen(fault: Fault, side: &mut Side, copiers: &mut [Copier]) {
    match fault {
        Fault::KillBroker => side.kill(Duration::ZERO).await,
        Fault::MissBroker(time) => side.kill(time).await,
        Fault::KillCopier(one) => copiers[one].kill().await,
        Fault::KillBoth(one) => {
            tokio::join!(side.kill(Duration::ZERO), copiers[one].kill());
        }
        Fault::HoldCopier(one, time) => {
            copiers[one].signal(Signal::STOP);
            sleep(time).await;
            copiers[one].signal(Signal::CONT);
        }
        Fault::HoldBroker(time) => side.hold(time).await,
    }
}

async fn write(client: &Client, numbers: std::ops::Range<u64>) {
    let producer = client.producer().linger(Duration::from_millis(5)).build().unwrap();
    let mut deliveries = Vec::new();
    for number in numbers {
        let (key, value) = exact::record(number);
        let partition = i32::try_from(number).unwrap() % INPUT_PARTITIONS;
        let record = Record::to(INPUT).partition(partition).key(key).value(value);
        deliveries.push(producer.enqueue(record).await.unwrap());
    }
    for delivery in deliveries {
        timeout(STEP, delivery).await.unwrap().unwrap();
    }
    producer.close().await.unwrap();
}

/// Waits until the copiers have said of so many records that they were copied. One that is killed may keep the last of
/// it to itself.
async fn until_said(client: &Client, wanted: u64, copiers: &mut [Copier], side: &Side) {
    let began = Instant::now();
    while copied(copiers) < wanted {
        all_is_well(client, began, &format!("{wanted} are not copied"), copiers, side).await;
        sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until the group has committed so many records.
async fn until_committed(client: &Client, wanted: u64, copiers: &mut [Copier], side: &Side) {
    let began = Instant::now();
    loop {
        let committed = committed(client).await;
        if committed.values().sum::<i64>() >= i64::try_from(wanted).unwrap() {
            return;
        }
        let what = format!("{committed:?} is committed, and not {wanted}");
        all_is_well(client, began, &what, copiers, side).await;
        sleep(Duration::from_millis(20)).await;
    }
}

async fn all_is_well(client: &Client, began: Instant, what: &str, copiers: &mut [Copier], side: &Side) {
    for copier in &mut *copiers {
        assert!(copier.is_running(), "it ended by itself:\n{}", copier.last_words());
    }
    if began.elapsed() > STUCK {
        let group = timeout(STEP, client.admin().describe_groups(&[GROUP])).await;
        let all = TransactionFilter::new();
        let transactions = timeout(STEP, client.admin().list_transactions(&all)).await;
        panic!("{what}\n{group:?}\n{transactions:?}\n{}\n{}", words(copiers), side.log());
    }
}

fn copied(copiers: &[Copier]) -> u64 {
    copiers.iter().map(|copier| copier.said().copied).sum()
}

fn words(copiers: &[Copier]) -> String {
    copiers.iter().map(Copier::last_words).collect::<Vec<_>>().join("\n")
}

/// Where the group is, as far as that can be asked now.
async fn committed(client: &Client) -> BTreeMap<i32, i64> {
    let admin = client.admin();
    let asked = timeout(Duration::from_secs(3), admin.committed_offsets(GROUP)).await;
    let found = asked.ok().and_then(Result::ok).unwrap_or_default();
    found.into_iter().map(|(at, offset)| (at.partition, offset)).collect()
}

/// Panics where the copies are not exact, or the group is not at the end.
async fn judge(client: &Client, side: &Side, records: u64, copiers: &[Copier]) {
    let deadline = Instant::now() + STUCK;
    loop {
        let copies = timeout(STUCK, read_committed(&side.bootstrap())).await.expect("reading to the end");
        match exact::check(&copies, records) {
            Ok(()) => break,
            // The last stable offset stands behind what is committed as long as a transaction is open.
            Err(wrong)
                if !wrong.contains("doubled")
                    && Instant::now() < deadline
                    && (copies.len() as u64) < records =>
            {
                sleep(Duration::from_millis(200)).await;
            }
            Err(wrong) => panic!("{wrong}\n{}\n{}", words(copiers), side.log()),
        }
    }
    let each = i64::try_from(records).unwrap() / i64::from(INPUT_PARTITIONS);
    let ends = (0..INPUT_PARTITIONS).map(|partition| (partition, each)).collect();
    let offsets = exact::check_offsets(&committed(client).await, &ends);
    offsets.unwrap_or_else(|wrong| panic!("{wrong}\n{}\n{}", words(copiers), side.log()));
}

/// The copies that readers of committed records see.
async fn read_committed(address: &str) -> Vec<(String, String)> {
    let client = Client::connect(address).await.unwrap();
    let all: Vec<_> = (0..OUTPUT_PARTITIONS).map(|index| TopicPartition::new(OUTPUT, index)).collect();
    let consumer = client.consumer().assign(all.clone()).isolation(IsolationLevel::ReadCommitted);
    let mut consumer = consumer.from_beginning().start().await.unwrap();
    let ends = consumer.handle().end_offsets(&all).await.unwrap();
    let text = |bytes: Option<bytes::Bytes>| String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
    let mut copies = Vec::new();
    while !all.iter().all(|one| consumer.handle().position(one).unwrap_or(0) >= ends[one]) {
        if let Ok(record) = timeout(Duration::from_millis(50), consumer.next()).await {
            let record = record.expect("an assigned consumer goes on").unwrap();
            copies.push((text(record.key), text(record.value)));
        }
    }
    consumer.close().await.unwrap();
    copies
}

#[test]
fn plans_come_from_their_seeds() {
    let of = |seed, whole| plan(&SeededRng::new(seed), whole).0;
    assert_eq!(of(7, true), of(7, true));
    let all: Vec<_> = (0..50).map(|seed| of(seed, true)).collect();
    assert!(all.iter().all(|plan| plan.len() == 4 && plan.contains(&Fault::KillBroker)));
    assert!(
        all.iter().any(|plan| plan[0] == Fault::KillBroker)
            && all.iter().any(|plan| plan[0] != Fault::KillBroker)
    );
    assert!(all.iter().flatten().any(|fault| matches!(fault, Fault::KillBoth(1))));
    assert!(all.iter().flatten().any(|fault| matches!(fault, Fault::HoldBroker(_))));
    assert!(all.iter().flatten().any(|fault| matches!(fault, Fault::MissBroker(_))));
    assert!((0..50).map(|seed| of(seed, false)).all(|plan| plan.len() == 2));
}
