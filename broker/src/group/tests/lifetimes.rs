//! How long offsets live, in random histories against a simple model: one member that subscribes to this and that and
//! comes and goes, transactions, deletions, time that passes, and starts of the broker.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use klamm_protocol::ErrorCode;
use klamm_runtime::{Rng, SeededRng};

use super::sim::*;
use super::transactions::producer;
use super::*;

const RETENTION_MS: i64 = 1_000;
const TOPICS: [&str; 4] = ["t", "u", "v", "w"];

fn config() -> GroupConfig {
    GroupConfig {
        initial_rebalance_delay_ms: 0,
        max_session_timeout_ms: i32::MAX,
        offsets_retention_ms: RETENTION_MS,
        ..GroupConfig::default()
    }
}

/// An offset that was written when, and as which write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    at_ms: i64,
    write: i64,
}

/// What there should be.
#[derive(Debug, Default)]
struct Model {
    visible: BTreeMap<&'static str, Kept>,
    /// By topic and producer.
    pending: BTreeMap<(&'static str, i64), Kept>,
    /// What the member subscribes to, if there is one.
    member: Option<BTreeSet<&'static str>>,
    /// The group had members, and since when it has none.
    empty_since_ms: Option<i64>,
    expired: usize,
    unsubscribed: usize,
    deleted: usize,
    refused: usize,
}

impl Model {
    fn exists(&self) -> bool {
        let is_known = self.member.is_some() || self.empty_since_ms.is_some();
        is_known || !self.visible.is_empty() || !self.pending.is_empty()
    }

    fn is_pending(&self, topic: &str) -> bool {
        self.pending.keys().any(|(pending, _)| *pending == topic)
    }

    fn remove(&mut self, topic: &str) {
        self.visible.remove(topic);
        self.pending.retain(|(pending, _), _| *pending != topic);
    }

    fn end(&mut self, id: i64, commit: bool) {
        for topic in TOPICS {
            let Some(kept) = self.pending.remove(&(topic, id)) else { continue };
            if commit && self.visible.get(topic).is_none_or(|visible| visible.write < kept.write) {
                self.visible.insert(topic, kept);
            }
        }
    }

    fn expire(&mut self, now_ms: i64) {
        let horizon_ms = now_ms - RETENTION_MS;
        if self.member.is_none() && self.empty_since_ms.is_some_and(|since_ms| since_ms > horizon_ms) {
            // Its members may come back.
        } else {
            for topic in TOPICS {
                let is_old = self.visible.get(topic).is_some_and(|kept| kept.at_ms <= horizon_ms);
                let is_used = self.member.as_ref().is_some_and(|topics| topics.contains(topic));
                if is_old && !is_used && !self.is_pending(topic) {
                    self.visible.remove(topic);
                    self.expired += 1;
                    self.unsubscribed += usize::from(self.member.is_some());
                }
            }
        }
        if self.member.is_none() && self.visible.is_empty() && self.pending.is_empty() {
            self.empty_since_ms = None;
        }
    }
}

struct History {
    sim: Sim,
    rng: SeededRng,
    model: Model,
    /// Id and generation.
    member: Option<(String, i32)>,
    writes: i64,
}

impl History {
    fn topic(&self) -> &'static str {
        TOPICS[usize::try_from(self.rng.below(4)).unwrap()]
    }

    fn kept(&mut self) -> Kept {
        self.writes += 1;
        Kept { at_ms: self.sim.now().wall_ms, write: self.writes }
    }

    /// The member subscribes to something else, or somebody becomes the member.
    fn join(&mut self) {
        let topics: BTreeSet<&'static str> = TOPICS.into_iter().filter(|_| self.rng.below(2) == 0).collect();
        let mut said = vec![0, 1, 0, 0, 0, u8::try_from(topics.len()).unwrap()];
        for topic in &topics {
            said.extend([0, 1, topic.as_bytes()[0]]);
        }
        let id = self.member.as_ref().map_or("", |(id, _)| id);
        self.writes += 1;
        let ticket = self.sim.ask_join(JoinGroup {
            session_timeout_ms: i32::MAX,
            fresh_id: self.writes.to_string(),
            knows_member_id_required: false,
            protocols: vec![Protocol { name: "range".into(), metadata: Bytes::from(said) }],
            ..join("c", id)
        });
        let joined = self.sim.joined(ticket).unwrap();
        assert_eq!(joined.error, ErrorCode::None);
        self.sim.ask_sync(&joined.member_id, joined.generation, &[(&joined.member_id, "p")]);
        self.member = Some((joined.member_id, joined.generation));
        (self.model.member, self.model.empty_since_ms) = (Some(topics), None);
    }

    fn leave(&mut self) {
        let Some((id, _)) = self.member.take() else { return };
        assert_eq!(self.sim.leave(&[caller(&id, -1)]), [ErrorCode::None]);
        (self.model.member, self.model.empty_since_ms) = (None, Some(self.sim.now().wall_ms));
    }

    fn commit(&mut self) {
        let (topic, kept) = (self.topic(), self.kept());
        let by_member = self.rng.below(3) > 0;
        let caller = match &self.member {
            Some((id, generation)) if by_member => caller(id, *generation),
            _ => caller("", -1),
        };
        let is_allowed = self.member.is_none() || by_member;
        let expected = if is_allowed { ErrorCode::None } else { ErrorCode::UnknownMemberId };
        assert_eq!(self.sim.commit(&caller, topic, kept.write), expected);
        if is_allowed {
            self.model.visible.insert(topic, kept);
        }
    }

    fn pend(&mut self) {
        let (topic, kept, id) = (self.topic(), self.kept(), self.producer());
        let commit = Commit {
            topic: topic.into(),
            topic_id: TOPIC,
            partition: 0,
            offset: kept.write,
            leader_epoch: -1,
            metadata: String::new(),
        };
        let (mut effects, by) = (Effects::default(), (&caller("", -1), producer(id), u64::MAX));
        let now = self.sim.now();
        let codes = self.sim.coordinator.commit_in_transaction(now, GROUP, by, vec![commit], &mut effects);
        assert_eq!(codes, [ErrorCode::None]);
        self.sim.take(effects);
        self.model.pending.insert((topic, id), kept);
    }

    fn producer(&self) -> i64 {
        i64::try_from(self.rng.below(2)).unwrap()
    }

    fn end(&mut self) {
        let (id, commit, mut effects) = (self.producer(), self.rng.below(2) == 0, Effects::default());
        let now = self.sim.now();
        let code = self.sim.coordinator.end_transaction(now, producer(id), commit, &mut effects);
        assert_eq!(code, ErrorCode::None);
        self.sim.take(effects);
        self.model.end(id, commit);
    }

    fn delete_offset(&mut self) {
        let (topic, mut effects) = (self.topic(), Effects::default());
        let asked = [(topic.to_owned(), vec![0])];
        let deleted = self.sim.coordinator.delete_offsets(GROUP, &asked, &mut effects);
        self.sim.take(effects);
        let is_used = self.model.member.as_ref().is_some_and(|topics| topics.contains(topic));
        let expected = match is_used {
            _ if !self.model.exists() => Err(ErrorCode::GroupIdNotFound),
            true => Ok(vec![ErrorCode::GroupSubscribedToTopic]),
            false => Ok(vec![ErrorCode::None]),
        };
        assert_eq!(deleted, expected);
        if is_used {
            self.model.refused += 1;
        } else {
            self.model.remove(topic);
        }
    }

    fn delete_group(&mut self) {
        let mut effects = Effects::default();
        let code = self.sim.coordinator.delete_group(GROUP, &mut effects);
        self.sim.take(effects);
        let expected = match self.model.member {
            Some(_) => ErrorCode::NonEmptyGroup,
            None if self.model.exists() => ErrorCode::None,
            None => ErrorCode::GroupIdNotFound,
        };
        assert_eq!(code, expected);
        if code == ErrorCode::None {
            TOPICS.iter().for_each(|topic| self.model.remove(topic));
            self.model.empty_since_ms = None;
            self.model.deleted += 1;
        }
    }

    fn act(&mut self) {
        match self.rng.below(20) {
            0 | 1 => self.join(),
            2 => self.leave(),
            3..=7 => self.commit(),
            8 | 9 => self.pend(),
            10 | 11 => self.end(),
            12 => self.delete_offset(),
            13 if self.rng.below(3) == 0 => self.delete_group(),
            14 => self.sim = self.sim.restarted(config()),
            15 | 16 => {
                let mut effects = Effects::default();
                self.sim.coordinator.expire(self.sim.now(), &mut effects);
                self.sim.take(effects);
                self.model.expire(self.sim.now().wall_ms);
            }
            _ => self.sim.pass(i64::try_from(self.rng.below(600)).unwrap()),
        }
    }

    fn check(&self) {
        let found = self.sim.coordinator.all_committed(GROUP).into_iter().map(|(topic, partitions)| {
            let offset = &partitions[&0];
            (topic, Kept { at_ms: offset.committed_at_ms, write: offset.offset })
        });
        let expected = self.model.visible.iter().map(|(topic, kept)| ((*topic).to_owned(), *kept));
        assert_eq!(found.collect::<BTreeMap<_, _>>(), expected.collect::<BTreeMap<_, _>>());
        let pending = self.sim.coordinator.all_pending().into_iter().map(|((_, topic, _, id), offset)| {
            ((topic, id), Kept { at_ms: offset.committed_at_ms, write: offset.offset })
        });
        let expected =
            self.model.pending.iter().map(|((topic, id), kept)| (((*topic).to_owned(), *id), *kept));
        assert_eq!(pending.collect::<BTreeMap<_, _>>(), expected.collect::<BTreeMap<_, _>>());
        let state = match self.model.member {
            Some(_) => "Stable",
            None if self.model.exists() => "Empty",
            None => "Dead",
        };
        assert_eq!(self.sim.state(), state);
    }
}

#[test]
fn offsets_live_as_long_as_they_should() {
    let (mut expired, mut unsubscribed, mut deleted, mut refused) = (0, 0, 0, 0);
    for seed in 0..1_000 {
        let (sim, rng) = (Sim::new(config()), SeededRng::new(seed));
        let mut history = History { sim, rng, model: Model::default(), member: None, writes: 0 };
        for step in 0..100 {
            history.act();
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| history.check()));
            assert!(checked.is_ok(), "seed {seed}, step {step}: {:?}", history.model);
        }
        expired += history.model.expired;
        unsubscribed += history.model.unsubscribed;
        deleted += history.model.deleted;
        refused += history.model.refused;
    }
    assert!(
        expired > 1_000 && unsubscribed > 300 && deleted > 300 && refused > 300,
        "{expired} expired, {unsubscribed} of them of living groups, {deleted} deleted, {refused} refused"
    );
}
