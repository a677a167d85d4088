//! Three brokers of Apache Kafka with three replicas of everything: leaders are moved, a topic is made anew, a broker
//! is killed, and all are restarted one after another, under writers and groups.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use klamm_client::admin::NewTopic;
use klamm_client::{Admin, Client, TopicPartition};
use tokio::time::{Instant, timeout};

use super::load::{Load, Topic};
use super::{Kafka, in_soak, now_us};
use crate::foreign::java_jars;

const KEPT: &str = "kept";
const ANEW: &str = "anew";
const PARTITIONS: i32 = 6;
const ANEW_PARTITIONS: i32 = 3;
/// One call of the administration, with its retries.
const CALL: Duration = Duration::from_secs(30);
/// Replicas that were away come back.
const CATCH_UP: Duration = Duration::from_secs(90);
/// An acknowledgement of the deleted topic is younger than the new topic by this at most.
const LATE_US: i64 = 2_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_brokers_that_move_die_and_restart_break_no_promise() {
    if !in_soak() {
        return;
    }
    let Some(jars) = java_jars("three brokers of Apache Kafka under load") else { return };
    let began = Instant::now();
    let told = |what: &str| println!("{:>5.1} s: {what}", began.elapsed().as_secs_f32());
    // A record on its way would make the deleted topic again, and with one partition.
    let mut kafka = Kafka::start(jars, 3, &["auto.create.topics.enable=false"]).await;
    told("three brokers run");
    let client = Client::connect(kafka.bootstrap()).await.unwrap();
    let admin = client.admin().timeout(CALL);
    let kept = Load::start_with_group(&kafka.bootstrap(), KEPT, PARTITIONS).await;
    let anew = Load::start_with_group(&kafka.bootstrap(), ANEW, ANEW_PARTITIONS).await;
    told("under load");

    move_leaders(&admin).await;
    kept.progress().await;
    told("leaders are moved");

    let certain_from_us = make_anew(&admin).await;
    anew.progress().await;
    told("a topic is made anew");

    kafka.kill(2).await;
    kept.progress().await;
    anew.progress().await;
    told("a broker is dead");
    kafka.restart(2).await;
    in_sync(&admin).await;
    told("and back");

    for node in 1..=3 {
        kafka.stop(node).await;
        kept.progress().await;
        kafka.restart(node).await;
        in_sync(&admin).await;
        told(&format!("broker {node} is restarted"));
    }
    kept.progress().await;
    kept.finish(Topic::Kept).await;
    anew.finish(Topic::MadeAnew(certain_from_us)).await;
    told("judged");
}

/// Takes a replica away from each partition, and gives it back in another order with another leader, twice.
async fn move_leaders(admin: &Admin) {
    for shift in 1..=2 {
        let before = leaders(admin).await;
        let place = |partition: i32, count: usize| {
            let first = (partition + shift) % 3;
            let order = (0..3).map(move |next| (first + next) % 3 + 1);
            (TopicPartition::new(KEPT, partition), Some(order.take(count).collect::<Vec<i32>>()))
        };
        for count in [2, 3] {
            let wanted: HashMap<_, _> = (0..PARTITIONS).map(|partition| place(partition, count)).collect();
            let moved = admin.reassign_partitions(&wanted).await.unwrap();
            assert!(moved.values().all(Result::is_ok), "{moved:?}");
            let done = async {
                while !admin.list_reassignments().await.unwrap().is_empty() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            timeout(CATCH_UP, done).await.expect("partitions move");
        }
        in_sync(admin).await;
        let all: Vec<_> = (0..PARTITIONS).map(|partition| TopicPartition::new(KEPT, partition)).collect();
        // Some lead already.
        admin.elect_preferred_leaders(&all).await.unwrap();
        let moved = async {
            let preferred = |partition: i32| Some((partition + shift) % 3 + 1);
            while leaders(admin).await.iter().any(|(at, leader)| *leader != preferred(*at)) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(CATCH_UP, moved).await.expect("leaders move");
        let after = leaders(admin).await;
        assert!(before.iter().any(|(at, leader)| after[at] != *leader), "{before:?} {after:?}");
    }
}

async fn leaders(admin: &Admin) -> BTreeMap<i32, Option<i32>> {
    let described = admin.describe_topics(&[KEPT]).await.unwrap().remove(KEPT).unwrap().unwrap();
    described.partitions.iter().map(|partition| (partition.partition, partition.leader)).collect()
}

/// Deletes a topic and makes it again; gives the time from which on all that is acknowledged is of the new one.
async fn make_anew(admin: &Admin) -> i64 {
    let deleted = admin.delete_topics(&[ANEW]).await.unwrap();
    assert!(deleted[ANEW].is_ok(), "{deleted:?}");
    let made = async {
        loop {
            let wanted = [NewTopic::new(ANEW).partitions(ANEW_PARTITIONS)];
            if admin.create_topics(&wanted).await.unwrap()[ANEW].is_ok() {
                return now_us() + LATE_US;
            }
            // A broker that has not heard of the deletion still tells of the old one.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(CALL, made).await.expect("the topic is made again")
}

/// Waits until every replica of everything is in sync: the next broker may go.
async fn in_sync(admin: &Admin) {
    let topics = [KEPT, ANEW, "__consumer_offsets"];
    let all = async {
        loop {
            let described = admin.describe_topics(&topics).await.unwrap();
            let whole = topics.iter().all(|topic| {
                described[*topic]
                    .as_ref()
                    .is_ok_and(|topic| topic.partitions.iter().all(|partition| partition.in_sync.len() == 3))
            });
            if whole {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(CATCH_UP, all).await.expect("replicas catch up");
}
