//! Groups in which members of four makes share the partitions, join, leave and are killed, on Klamm's broker and on
//! Apache Kafka, with what all of them offer: range, cooperative-sticky, and the groups of KIP-848.

use std::time::Duration;

use klamm_runtime::{Rng, SeededRng};
use klamm_tests::{BrokerProcess, seed};
use tokio::time::Instant;

use super::load::{Load, Topic};
use super::members::{CONSUMER, COOPERATIVE, Make, Member, Programs, RANGE};
use super::{Kafka, in_soak};
use crate::foreign::java_jars;

const MAKES: [Make; 4] = [Make::Klamm, Make::Java, Make::Librdkafka, Make::FranzGo];
const PARTITIONS: i32 = 8;
const MEMBERS_MAX: usize = 6;
/// After the first member of each make has joined; and outside of `make soak`.
const CHANGES: usize = 6;
const CHANGES_OF_A_SLICE: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_four_makes_share_a_group_of_klamm() {
    let Some(programs) = Programs::find().await else { return };
    let rng = SeededRng::new(seed(848));
    let data = tempfile::tempdir().unwrap();
    let settings = ["group.min.session.timeout.ms=1000"];
    let broker = BrokerProcess::start_with(data.path(), "127.0.0.1:0", &settings).await;
    let protocols: &[_] = if in_soak() { &[RANGE, COOPERATIVE] } else { &[COOPERATIVE] };
    for &protocol in protocols {
        share(broker.bootstrap(), protocol, &programs, &rng).await;
    }
    broker.stop(Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_four_makes_share_a_group_of_apache_kafka() {
    if !in_soak() {
        return;
    }
    let Some(jars) = java_jars("groups of clients of four makes") else { return };
    let Some(programs) = Programs::find().await else { return };
    let rng = SeededRng::new(seed(848));
    let kafka = Kafka::start(jars, 1, &[]).await;
    for protocol in [RANGE, COOPERATIVE, CONSUMER] {
        share(&kafka.bootstrap(), protocol, &programs, &rng).await;
    }
}

/// One member of each make joins; then somebody joins, leaves or is killed, again and again. After each change all that
/// are left have a share within 30 s.
async fn share(bootstrap: &str, protocol: &'static str, programs: &Programs, rng: &SeededRng) {
    let began = Instant::now();
    let mut load = Load::start(bootstrap, &format!("shared-{protocol}"), PARTITIONS, protocol, 1).await;
    let mut joined = 0;
    let mut join = |load: &mut Load, make: Make| {
        joined += 1;
        let name = format!("{make:?}-{joined}");
        load.members.push(Member::join(programs, make, &load.group, name));
    };
    for make in MAKES {
        join(&mut load, make);
        load.group.settled(&load.members).await;
    }
    let changes = if in_soak() { CHANGES } else { CHANGES_OF_A_SLICE };
    for _ in 0..changes {
        let kind = rng.below(3);
        if load.members.len() < 2 || (kind == 0 && load.members.len() < MEMBERS_MAX) {
            let make = MAKES[usize::try_from(rng.below(MAKES.len() as u64)).unwrap()];
            join(&mut load, make);
        } else {
            let one = usize::try_from(rng.below(load.members.len() as u64)).unwrap();
            let member = load.members.swap_remove(one);
            let how = if kind == 1 { "leaves" } else { "is killed" };
            println!("{protocol}: {} {how}", member.name);
            if kind == 1 { member.leave(&load.group).await } else { member.kill(&load.group).await }
        }
        load.group.settled(&load.members).await;
        load.progress().await;
    }
    println!("{protocol}: {} changes in {:?}", MAKES.len() + changes, began.elapsed());
    load.finish(Topic::Kept).await;
}
