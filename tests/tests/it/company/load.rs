//! Load on one topic while something is done to its brokers: writers, and a group of members that process and commit.
//! At the end both histories are judged.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm_client::{Client, NewTopic};
use tokio::time::Instant;

use super::group_history::judge;
use super::log_history::{Found, faults, unprocessed};
use super::members::{Group, Member};
use super::writers::{Writers, read_all, slowest};
use super::{STUCK, no_faults};

/// A run with fewer acknowledged records proves nothing.
const WRITES_MIN: usize = 1_000;

pub(super) struct Load {
    client: Client,
    pub(super) group: Group,
    writers: Writers,
    pub(super) members: Vec<Member>,
}

/// What became of the topic meanwhile.
#[derive(Debug, Clone, Copy)]
pub(super) enum Topic {
    Kept,
    /// It was deleted and made again. What was begun before this time may have gone with it, and offsets of the group
    /// begin anew.
    MadeAnew(i64),
}

impl Load {
    /// Makes the topic and begins to write.
    pub(super) async fn start(
        bootstrap: &str,
        topic: &str,
        partitions: i32,
        protocol: &'static str,
        writers: u32,
    ) -> Self {
        let client = Client::connect(bootstrap).await.unwrap();
        let made =
            client.admin().create_topics(&[NewTopic::new(topic).partitions(partitions)]).await.unwrap();
        made.into_values().for_each(|made| made.unwrap());
        let group = Group::new(bootstrap, topic, partitions, protocol);
        let writers = Writers::start(&client, topic, partitions, writers);
        Self { client, group, writers, members: Vec::new() }
    }

    /// Like [`Load::start`], with two writers and two members of this client that have shared the partitions.
    pub(super) async fn start_with_group(bootstrap: &str, topic: &str, partitions: i32) -> Self {
        let mut load = Self::start(bootstrap, topic, partitions, super::members::COOPERATIVE, 2).await;
        load.members = [1, 2].map(|number| Member::join_klamm(&load.group, format!("klamm-{number}"))).into();
        load.group.settled(&load.members).await;
        load.progress().await;
        load
    }

    /// Nothing is stuck: each partition takes a new record, and the group processes something of each.
    pub(super) async fn progress(&self) {
        let before = self.processed();
        self.writers.progress(self.group.partitions).await;
        let began = Instant::now();
        loop {
            let after = self.processed();
            if (0..self.group.partitions).all(|at| after.get(&at) > before.get(&at)) {
                return;
            }
            assert!(began.elapsed() < STUCK, "B7: the group stands still: {before:?} then {after:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn processed(&self) -> BTreeMap<i32, u64> {
        self.group.log.lock().unwrap().processed.clone()
    }

    /// Ends the load; everything that the log holds has been processed, and no promise was broken.
    pub(super) async fn finish(self, became: Topic) {
        let Self { client, group, writers, members } = self;
        writers.decided(WRITES_MIN).await;
        let writes = writers.finish().await;
        let found = read_all(&client, &group.topic, group.partitions).await;
        processed_to_the_end(&group, &members, &found).await;
        for member in members {
            member.leave(&group).await;
        }
        let mut judgement = judge(&group.entries());
        let mut unprocessed = unprocessed(&found, &judgement.processed);
        let certain_from_us = match became {
            Topic::Kept => 0,
            Topic::MadeAnew(certain_from_us) => {
                judgement.faults.retain(|fault| fault.starts_with("B4"));
                unprocessed.retain(|fault| fault.starts_with("B6"));
                certain_from_us
            }
        };
        let records: usize = found.values().map(Vec::len).sum();
        println!(
            "{} ({}): {} writes, the slowest {:?}, {records} records, {} assignments, {} lost",
            group.name,
            group.protocol,
            writes.len(),
            slowest(&writes),
            judgement.assignments,
            judgement.lost
        );
        assert!(writes.len() >= WRITES_MIN, "{} writes prove nothing", writes.len());
        no_faults(&group.topic, &faults(&writes, &found, certain_from_us));
        no_faults(&group.name, &judgement.faults);
        no_faults(&group.name, &unprocessed);
        assert!(slowest(&writes) < STUCK, "B7: a write took {:?}", slowest(&writes));
    }
}

/// Waits until the group has processed the last record of each partition.
async fn processed_to_the_end(group: &Group, members: &[Member], found: &Found) {
    let began = Instant::now();
    loop {
        let (missing, processed): (Vec<_>, _) = {
            let log = group.log.lock().unwrap();
            let ends = found.values().filter_map(|records| records.last());
            (ends.filter(|(_, value)| !log.values.contains(value)).collect(), log.processed.clone())
        };
        if missing.is_empty() {
            return;
        }
        let said = || members.iter().map(Member::said).collect::<Vec<_>>().join("\n");
        assert!(
            began.elapsed() < STUCK,
            "B7: {} does not process its ends: {missing:?}, but by partition {processed:?}\n{}",
            group.name,
            said()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
