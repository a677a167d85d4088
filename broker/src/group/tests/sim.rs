//! A coordinator with a clock that the test moves, and clients that are just calls.

use std::collections::HashMap;

use bytes::Bytes;
use klamm_protocol::{ErrorCode, Uuid};

use super::*;
use crate::coordinator::{StoredBatch, replay_batch};

pub(super) const GROUP: &str = "g";
pub(super) const TOPIC: Uuid = Uuid::from_u128(7);

#[derive(Debug)]
pub(super) struct Sim {
    pub(super) coordinator: Coordinator,
    pub(super) now_ms: i64,
    pub(super) answers: HashMap<Ticket, Reply>,
    pub(super) records: Vec<StoredRecord>,
    log: Vec<StoredBatch>,
    next_ticket: Ticket,
}

impl Sim {
    pub(super) fn new(config: GroupConfig) -> Self {
        let coordinator = Coordinator::new(config);
        let (answers, records, log) = (HashMap::new(), Vec::new(), Vec::new());
        Self { coordinator, now_ms: 0, answers, records, log, next_ticket: 0 }
    }

    /// Without initial delay, so that a first member is a generation at once.
    pub(super) fn eager() -> Self {
        Self::new(GroupConfig { initial_rebalance_delay_ms: 0, ..GroupConfig::default() })
    }

    pub(super) fn now(&self) -> Now {
        Now { ms: self.now_ms, wall_ms: 1_000_000 + self.now_ms }
    }

    /// What comes of a step, which is durable at once.
    pub(super) fn take(&mut self, mut effects: Effects<Reply>) {
        assert_eq!(effects.refused, None);
        if let Some(batch) = effects.take_batch() {
            self.records.extend(batch.records.clone());
            self.log.push(batch);
        }
        for Answer { ticket, reply, .. } in effects.answers {
            assert!(self.answers.insert(ticket, reply).is_none(), "ticket {ticket} answered twice");
        }
        self.coordinator.durable(effects.step);
    }

    pub(super) fn ask_join(&mut self, join: JoinGroup) -> Ticket {
        self.next_ticket += 1;
        let mut effects = Effects::default();
        self.coordinator.join(self.now(), self.next_ticket, join, &mut effects);
        self.take(effects);
        self.next_ticket
    }

    pub(super) fn joined(&self, ticket: Ticket) -> Option<JoinReply> {
        match self.answers.get(&ticket)? {
            Reply::Join(reply) => Some(reply.clone()),
            other => panic!("a JoinGroup got {other:?}"),
        }
    }

    /// The code of a JoinGroup that is answered at once.
    pub(super) fn join_error(&mut self, join: JoinGroup) -> ErrorCode {
        let ticket = self.ask_join(join);
        self.joined(ticket).unwrap().error
    }

    /// Joins with the two-step handshake and returns the member id and the ticket of the second step.
    pub(super) fn join_new(&mut self, name: &str) -> (String, Ticket) {
        let first = self.ask_join(join(name, ""));
        let refused = self.joined(first).unwrap();
        assert_eq!(refused.error, ErrorCode::MemberIdRequired);
        let ticket = self.ask_join(join(name, &refused.member_id));
        (refused.member_id, ticket)
    }

    pub(super) fn ask_sync(&mut self, id: &str, generation: i32, assignments: &[(&str, &str)]) -> Ticket {
        self.ask_sync_with(sync(id, generation, assignments))
    }

    pub(super) fn ask_sync_with(&mut self, sync: SyncGroup) -> Ticket {
        self.next_ticket += 1;
        let mut effects = Effects::default();
        self.coordinator.sync(self.now(), self.next_ticket, sync, &mut effects);
        self.take(effects);
        self.next_ticket
    }

    /// The code of a SyncGroup that is answered at once.
    pub(super) fn sync_error(&mut self, sync: SyncGroup) -> ErrorCode {
        let ticket = self.ask_sync_with(sync);
        self.synced(ticket).unwrap().error
    }

    pub(super) fn synced(&self, ticket: Ticket) -> Option<SyncReply> {
        match self.answers.get(&ticket)? {
            Reply::Sync(reply) => Some(reply.clone()),
            other => panic!("a SyncGroup got {other:?}"),
        }
    }

    pub(super) fn heartbeat(&mut self, id: &str, generation: i32) -> ErrorCode {
        self.coordinator.heartbeat(self.now(), GROUP, &caller(id, generation))
    }

    pub(super) fn leave(&mut self, callers: &[Caller]) -> Vec<ErrorCode> {
        let mut effects = Effects::default();
        let codes = self.coordinator.leave(self.now(), GROUP, callers, &mut effects);
        self.take(effects);
        codes
    }

    pub(super) fn commit(&mut self, caller: &Caller, topic: &str, offset: i64) -> ErrorCode {
        self.commit_with(caller, topic, offset, "")
    }

    pub(super) fn commit_with(
        &mut self,
        caller: &Caller,
        topic: &str,
        offset: i64,
        metadata: &str,
    ) -> ErrorCode {
        let metadata = metadata.into();
        let commit =
            Commit { topic: topic.into(), topic_id: TOPIC, partition: 0, offset, leader_epoch: -1, metadata };
        let mut effects = Effects::default();
        let codes = self.coordinator.commit(self.now(), GROUP, caller, vec![commit], &mut effects);
        self.take(effects);
        codes[0]
    }

    pub(super) fn pass(&mut self, ms: i64) {
        let end = self.now_ms + ms;
        let mut looks = 0;
        while let Some(due) = self.coordinator.next_deadline().filter(|due| *due <= end) {
            looks += 1;
            assert!(looks < 10_000, "the coordinator wants to be looked at again and again");
            self.now_ms = self.now_ms.max(due);
            let mut effects = Effects::default();
            self.coordinator.on_time(self.now(), &mut effects);
            self.take(effects);
        }
        self.now_ms = end;
    }

    pub(super) fn state(&self) -> &'static str {
        self.coordinator.describe(GROUP).map_or("Dead", |group| group.state)
    }

    /// A new coordinator that has read what this one wrote.
    pub(super) fn restarted(&self, config: GroupConfig) -> Self {
        let mut next = Self::new(config);
        next.now_ms = self.now_ms;
        for batch in &self.log {
            let now = next.now();
            replay_batch(&mut next.coordinator, now, batch, |error| panic!("{error}"));
        }
        next.coordinator.replayed(next.now());
        next.log.clone_from(&self.log);
        next
    }

    /// One stable generation of members with these names; returns their ids, the leader first.
    pub(super) fn stable(&mut self, names: &[&str]) -> (i32, Vec<String>) {
        let mut members: Vec<(String, Ticket)> = Vec::new();
        for name in names {
            let newcomer = self.join_new(name);
            for (id, ticket) in &mut members {
                *ticket = self.ask_join(join("", id));
            }
            members.push(newcomer);
            let replies: Vec<JoinReply> =
                members.iter().map(|(_, ticket)| self.joined(*ticket).unwrap()).collect();
            let leader = replies.iter().find(|reply| reply.leader == reply.member_id).unwrap().clone();
            let ids: Vec<(&str, &str)> = members.iter().map(|(id, _)| (id.as_str(), id.as_str())).collect();
            for reply in &replies {
                let assignments = if reply.member_id == leader.leader { ids.as_slice() } else { &[] };
                self.ask_sync(&reply.member_id, reply.generation, assignments);
            }
            assert_eq!(self.state(), "Stable");
            members.sort_by_key(|(id, _)| *id != leader.leader);
        }
        let generation = self.joined(members[0].1).unwrap().generation;
        (generation, members.into_iter().map(|(id, _)| id).collect())
    }
}

/// All groups, by name: the same however many of them a page has.
pub(super) fn list_all(coordinator: &Coordinator) -> Vec<GroupListing> {
    let by_pages_of = |count: usize| {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let (page, last) = coordinator.list(after.as_deref(), count);
            all.extend(page);
            after = last;
            if after.is_none() {
                break;
            }
        }
        all.sort_by(|a: &GroupListing, b| a.group.cmp(&b.group));
        all
    };
    let all = by_pages_of(usize::MAX);
    assert_eq!((by_pages_of(1), by_pages_of(2)), (all.clone(), all.clone()));
    all
}

pub(super) fn caller(id: &str, generation: i32) -> Caller {
    Caller { member_id: id.into(), instance_id: None, generation }
}

pub(super) fn sync(id: &str, generation: i32, assignments: &[(&str, &str)]) -> SyncGroup {
    let assignment = |(id, text): &(&str, &str)| (id.to_string(), Bytes::copy_from_slice(text.as_bytes()));
    SyncGroup {
        group: GROUP.into(),
        generation,
        member_id: id.into(),
        instance_id: None,
        protocol_type: None,
        protocol: None,
        assignments: assignments.iter().map(assignment).collect(),
    }
}

pub(super) fn join(client: &str, id: &str) -> JoinGroup {
    JoinGroup {
        group: GROUP.into(),
        member_id: id.into(),
        instance_id: None,
        client_id: client.into(),
        client_host: "/127.0.0.1".into(),
        fresh_id: "x".into(),
        knows_member_id_required: true,
        knows_skip_assignment: true,
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![Protocol { name: "range".into(), metadata: Bytes::from_static(b"topics") }],
    }
}

/// A client that takes the id it is given with the answer: it becomes `<client>-x`.
pub(super) fn old_join(client: &str) -> JoinGroup {
    JoinGroup { knows_member_id_required: false, ..join(client, "") }
}

pub(super) fn static_join(instance: &str, id: &str, fresh: &str) -> JoinGroup {
    JoinGroup { instance_id: Some(instance.into()), fresh_id: fresh.into(), ..join("c", id) }
}
