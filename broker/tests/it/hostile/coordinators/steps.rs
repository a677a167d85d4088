//! What may be asked for next.

use std::time::Duration;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::add_partitions_to_txn::AddPartitionsToTxnTopic;
use klamm_protocol::messages::*;
use klamm_protocol::records::BatchOptions;
use klamm_runtime::{Rng, SeededRng};

use super::super::wire::{batch, produce_request};
use super::super::{requests, target};
use super::{Fate, GROUPS, IDS, Producer, TOPICS, World};

impl World {
    pub(super) async fn step(&mut self, rng: &SeededRng) {
        let topic = TOPICS[rng.below(3) as usize];
        let group = GROUPS[rng.below(2) as usize];
        let at = rng.below(2) as usize;
        match rng.below(16) {
            0 | 1 => self.join(group, rng).await,
            2 | 3 => {
                let (member, generation) = self.member(group, rng);
                let beat = requests::heartbeat(group, &member, generation);
                self.ask(&beat, 4, rng).await;
                let commit = requests::commit(group, &member, generation, topic, rng.below(50) as i64);
                self.ask(&commit, 8, rng).await;
            }
            4 => {
                let commit = requests::commit(group, "", -1, topic, rng.below(50) as i64);
                self.ask(&commit, 8, rng).await;
            }
            5 if rng.below(2) == 0 => drop(self.ask(&requests::delete_group(group), 2, rng).await),
            5 => drop(self.ask(&requests::delete_offset(group, topic), 0, rng).await),
            6 => self.begin(at, rng).await,
            7..=9 => self.write(at, topic, rng).await,
            10 => self.commit_in_transaction(at, group, topic, rng).await,
            11 | 12 => self.end(at, rng).await,
            13 => self.change_topic(topic, rng).await,
            14 => {
                let retention = 1_000_000_000 + rng.below(9) as i64;
                self.ask(&requests::alter_topic(topic, "retention.ms", retention), 1, rng).await;
                self.ask(&requests::alter_quota(&format!("client-{at}"), retention as f64), 1, rng).await;
            }
            _ => tokio::time::sleep(Duration::from_millis(rng.below(8_000))).await,
        }
    }

    /// Who one is in a group, or says to be.
    fn member(&self, group: &str, rng: &SeededRng) -> (String, i32) {
        let (member, generation) = self.members.get(group).cloned().unwrap_or(("nobody".into(), 1));
        (member.to_string(), generation + [0, 0, 0, 1, -1][rng.below(5) as usize])
    }

    async fn join(&mut self, group: &'static str, rng: &SeededRng) {
        let mut request = target::join(group);
        request.member_id = self.member(group, rng).0.as_str().into();
        if rng.below(2) == 0 {
            request.member_id = "".into();
        }
        let Some(mut joined) = self.ask(&request, 9, rng).await else { return };
        if joined.error_code == ErrorCode::MemberIdRequired.code() {
            request.member_id = joined.member_id;
            match self.ask(&request, 9, rng).await {
                Some(again) => joined = again,
                None => return,
            }
        }
        if joined.error_code != 0 {
            return;
        }
        self.members.insert(group, (joined.member_id.clone(), joined.generation_id));
        self.ask(&requests::sync(group, &joined), 5, rng).await;
    }

    async fn begin(&mut self, at: usize, rng: &SeededRng) {
        let begin = InitProducerIdRequest {
            transactional_id: Some(IDS[at].into()),
            transaction_timeout_ms: 60_000,
            ..InitProducerIdRequest::default()
        };
        // It ends what is open.
        self.forget(at);
        self.producers[at] = Producer { id: -1, epoch: -1, ..Producer::default() };
        if let Some(given) = self.ask(&begin, 4, rng).await.filter(|given| given.error_code == 0) {
            let (id, epoch) = (given.producer_id, given.producer_epoch);
            self.producers[at] = Producer { id, epoch, ..Producer::default() };
        }
    }

    fn forget(&mut self, at: usize) {
        self.fates_of(at).for_each(|fate| *fate = Fate::Unknown);
    }

    fn fates_of(&mut self, at: usize) -> impl Iterator<Item = &mut Fate> {
        self.values.values_mut().filter(move |fate| **fate == Fate::Open(at))
    }

    async fn write(&mut self, at: usize, topic: &'static str, rng: &SeededRng) {
        let Producer { id, epoch, ref sequences } = self.producers[at];
        let base_sequence = sequences.get(topic).copied().unwrap_or(0);
        let add = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: IDS[at].into(),
            v3_and_below_producer_id: id,
            v3_and_below_producer_epoch: epoch,
            v3_and_below_topics: vec![AddPartitionsToTxnTopic {
                name: topic.into(),
                partitions: vec![0],
                ..AddPartitionsToTxnTopic::default()
            }],
            ..AddPartitionsToTxnRequest::default()
        };
        self.ask(&add, 3, rng).await;
        self.written += 1;
        let value = format!("value {}", self.written);
        let options = BatchOptions {
            producer_id: id,
            producer_epoch: epoch,
            base_sequence,
            transactional: true,
            ..BatchOptions::default()
        };
        let mut request = produce_request(topic, batch(options, &[&value]));
        request.transactional_id = Some(IDS[at].into());
        // Bent, it may have been taken with its sequence, and another of that sequence would count as the same.
        let Some(answer) = self.ask(&request, 9, rng).await else { return self.begin(at, rng).await };
        let answer = &answer.responses[0].partition_responses[0];
        if answer.error_code == 0 {
            self.values.insert((topic, answer.base_offset, value), Fate::Open(at));
            self.producers[at].sequences.insert(topic, base_sequence + 1);
        }
    }

    async fn commit_in_transaction(&mut self, at: usize, group: &str, topic: &str, rng: &SeededRng) {
        let Producer { id, epoch, .. } = self.producers[at];
        let add = AddOffsetsToTxnRequest {
            transactional_id: IDS[at].into(),
            producer_id: id,
            producer_epoch: epoch,
            group_id: group.into(),
            ..AddOffsetsToTxnRequest::default()
        };
        self.ask(&add, 3, rng).await;
        let commit =
            requests::commit_in_transaction(IDS[at], (id, epoch), group, topic, rng.below(99) as i64);
        self.ask(&commit, 3, rng).await;
    }

    async fn end(&mut self, at: usize, rng: &SeededRng) {
        let (Producer { id, epoch, .. }, committed) = (&self.producers[at], rng.below(2) == 0);
        let (id, epoch) = (*id, *epoch);
        let end = EndTxnRequest {
            transactional_id: IDS[at].into(),
            producer_id: id,
            producer_epoch: epoch,
            committed,
            ..EndTxnRequest::default()
        };
        let Some(ended) = self.ask(&end, 3, rng).await else { return };
        let fate = match (ended.error_code, committed) {
            (0, true) => Fate::Committed,
            (0, false) => Fate::Aborted,
            // Somebody else goes on under the name, perhaps.
            _ => return self.begin(at, rng).await,
        };
        self.fates_of(at).for_each(|open| *open = fate);
    }

    async fn change_topic(&mut self, topic: &'static str, rng: &SeededRng) {
        match rng.below(6) {
            0 => {
                self.values.retain(|(of, ..), _| *of != topic);
                let delete = DeleteTopicsRequest { topic_names: vec![topic.into()], ..Default::default() };
                self.ask(&delete, 5, rng).await;
            }
            1 => drop(self.ask(&requests::grow(topic, 1 + rng.below(4) as i32), 3, rng).await),
            2 => {
                self.values.retain(|(of, ..), _| *of != topic);
                self.ask(&requests::delete_records(topic, rng.below(9) as i64), 2, rng).await;
            }
            _ => {
                self.ask(&requests::create(topic, 1 + rng.below(3) as i32), 5, rng).await;
            }
        }
    }
}
