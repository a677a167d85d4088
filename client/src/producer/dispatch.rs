//! Decides what to send to whom, whom to connect to, when to refresh metadata and to identify, what to give up, and
//! when to wake. Pure: it is told what happened and the time, and says what to do.
//!
//! A lane (one partition's batches) stands in one place at a time: nowhere, when it has nothing to send or waits for an
//! answer; at an instant, when it lingers or pauses; in the queue of its leader, when it may send; or among those
//! without a leader. A pass looks only at lanes that something happened to and at the heads of queues, so its cost is
//! linear in what is ready, not in how many partitions there are.

mod command;
mod identity;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::messages::ProduceResponse;
use klamm_protocol::messages::produce::PartitionProduceResponse;
use klamm_protocol::{ErrorCode, Uuid};
use tokio::time::Instant;

pub(super) use self::command::{Cluster, Command, Parcel, Slot, Waiting};
use self::identity::Identities;
use super::answer::{Loss, Verdict, judge, judge_failure};
use super::delivery::Acknowledged;
use super::lane::{Blocked, Identity, Lane, Parked, Sequenced};
use crate::cluster::LeaderHint;
use crate::connection::pause_after;
use crate::error::{ProduceError, RequestError};
use crate::runtime::Rng;
use crate::types::TopicPartition;

/// How many partitions' sequences are remembered beyond those in use. With more, the next epoch makes them all void.
const MAX_PARKED: usize = 10_000;
/// The finest that a runtime's timers tell apart.
const MOMENT: Duration = Duration::from_millis(1);

/// What the decisions go by.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) idempotent: bool,
    /// Whether all batches are part of a transaction: one that fails fails the others of it.
    pub(super) transactional: bool,
    pub(super) max_in_flight: usize,
    pub(super) max_request_bytes: usize,
    pub(super) delivery_timeout: Duration,
    pub(super) retry_backoff: Duration,
    pub(super) retry_backoff_max: Duration,
    /// After this long without a record a partition is forgotten.
    pub(super) idle_after: Duration,
    pub(super) rng: Arc<dyn Rng>,
}

/// Where a lane stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    Nowhere,
    At(Instant),
    Queued { node: i32, ticket: u64 },
    Leaderless,
}

#[derive(Debug)]
struct Entry<B> {
    partition: TopicPartition,
    lane: Lane<B>,
    stand: Stand,
    /// When its deadlines, or its being idle, are looked at.
    care_at: Instant,
    used: Instant,
    /// The topic that batches were last sent to, of those that had its name.
    topic_id: Option<Uuid>,
    /// The newest leader epoch that a broker told when it refused a batch.
    hinted_epoch: i32,
    /// What the broker said when it last did not accept the sequences.
    lost_by: ErrorCode,
}

#[derive(Debug, Default)]
struct Node {
    requests_in_flight: usize,
    connecting: bool,
    /// It failed, and was said to.
    failing: bool,
    /// Lanes that may send, by when they came.
    queue: BTreeSet<(u64, Slot)>,
}

/// A batch in flight.
#[derive(Debug)]
pub(super) struct Flying<B> {
    pub(super) slot: Slot,
    pub(super) batch: Sequenced<B>,
    /// Whether the stamp was given for this flight.
    pub(super) fresh: bool,
    /// The topic that it is for, where brokers tell.
    pub(super) topic_id: Option<Uuid>,
    /// Its deadline passed in flight: its records know, but its place is kept until the answer.
    overdue: bool,
}

#[derive(Debug)]
struct Flight<B> {
    node: i32,
    batches: Vec<Flying<B>>,
}

/// The decisions of one producer.
#[derive(Debug)]
pub(super) struct Dispatch<B: Parcel> {
    rules: Rules,
    entries: BTreeMap<Slot, Entry<B>>,
    parked: BTreeMap<TopicPartition, Parked>,
    nodes: BTreeMap<i32, Node>,
    flights: BTreeMap<u64, Flight<B>>,
    identities: Identities,
    at: BTreeSet<(Instant, Slot)>,
    care: BTreeSet<(Instant, Slot)>,
    leaderless: BTreeSet<Slot>,
    /// Lanes that something happened to since the last pass.
    touched: BTreeSet<Slot>,
    next_request: u64,
    next_ticket: u64,
    /// The version of the metadata that queues go by.
    seen: Option<u64>,
    refreshing: bool,
    refresh_wanted: bool,
    /// Why there will be no identity: what waits fails.
    refusal: Option<RequestError>,
    /// Why the transaction cannot be committed: what waits fails, until there is another identity.
    broken: Option<ProduceError>,
    commands: Vec<Command<B>>,
}

impl<B: Parcel> Dispatch<B> {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            identities: Identities::new(rules.idempotent && !rules.transactional),
            rules,
            entries: BTreeMap::new(),
            parked: BTreeMap::new(),
            nodes: BTreeMap::new(),
            flights: BTreeMap::new(),
            at: BTreeSet::new(),
            care: BTreeSet::new(),
            leaderless: BTreeSet::new(),
            touched: BTreeSet::new(),
            next_request: 0,
            next_ticket: 0,
            seen: None,
            refreshing: false,
            refresh_wanted: false,
            refusal: None,
            broken: None,
            commands: Vec::new(),
        }
    }

    /// Looks at everything that happened since the last pass, or is due, and decides.
    pub(super) fn pass(&mut self, now: Instant, waiting: &mut impl Waiting<B>, cluster: &impl Cluster) {
        self.touched.extend(waiting.changed());
        if self.seen.replace(cluster.version()) != Some(cluster.version()) {
            self.touched.append(&mut self.leaderless);
            let queued = self.nodes.values().flat_map(|node| node.queue.iter().map(|&(_, slot)| slot));
            self.touched.extend(queued);
        }
        while let Some(&(at, slot)) = self.at.first().filter(|(at, _)| *at <= now) {
            self.at.remove(&(at, slot));
            self.touched.insert(slot);
        }
        if let Some(error) = self.refusal.take() {
            self.refuse(&error, waiting);
        }
        self.look_after(now, waiting);
        if let Some(broken) = self.broken.clone() {
            for slot in std::mem::take(&mut self.touched) {
                self.fail_waiting(slot, waiting, |_, _| broken.clone());
            }
        }
        while let Some(slot) = self.touched.pop_first() {
            self.place(slot, now, waiting, cluster);
        }
        let busy: Vec<i32> =
            self.nodes.iter().filter(|(_, node)| !node.queue.is_empty()).map(|(&id, _)| id).collect();
        for node in busy {
            self.serve(node, now, waiting, cluster);
        }
        if (self.refresh_wanted || !self.leaderless.is_empty()) && !self.refreshing {
            self.refresh_wanted = false;
            self.refreshing = true;
            self.commands.push(Command::Refresh);
        }
    }

    /// What is to be done, in order.
    pub(super) fn commands(&mut self) -> Vec<Command<B>> {
        std::mem::take(&mut self.commands)
    }

    /// When time alone makes something due.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let first = |times: &BTreeSet<(Instant, Slot)>| times.first().map(|&(at, _)| at);
        first(&self.at).into_iter().chain(first(&self.care)).min()
    }

    /// The batches of a request, to be written.
    pub(super) fn flight(&mut self, request: u64) -> &mut [Flying<B>] {
        self.flights.get_mut(&request).map_or(&mut [], |flight| &mut flight.batches)
    }

    /// Finds the place of a lane anew.
    fn place(&mut self, slot: Slot, now: Instant, waiting: &impl Waiting<B>, cluster: &impl Cluster) {
        if !self.entries.contains_key(&slot) && !self.begin(slot, now, waiting) {
            return;
        }
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        let ready_at = match entry.lane.first_again() {
            Some(_) => Some(now),
            None => waiting.ready_at(slot, now),
        };
        let wanted = match ready_at {
            None => Stand::Nowhere,
            Some(at) if at > now => Stand::At(at),
            Some(_) => match cluster.leader(&entry.partition) {
                None => Stand::Leaderless,
                Some(leader) => match entry.lane.check(leader, self.identities.present(), now) {
                    Err(Blocked::InFlight) => Stand::Nowhere,
                    Err(Blocked::Until(at)) => Stand::At(at),
                    Ok(()) | Err(Blocked::Identity) => {
                        Stand::Queued { node: leader, ticket: self.next_ticket }
                    }
                },
            },
        };
        if let Some(oldest) = waiting.oldest(slot) {
            // One that is past it is being closed elsewhere, or it would not be here any more.
            let deadline = (oldest + self.rules.delivery_timeout).max(now + MOMENT);
            if deadline < entry.care_at {
                self.care.remove(&(entry.care_at, slot));
                entry.care_at = deadline;
                self.care.insert((deadline, slot));
            }
        }
        self.stand(slot, wanted);
    }

    /// A lane for a slot that has records; `false` when it has none.
    fn begin(&mut self, slot: Slot, now: Instant, waiting: &impl Waiting<B>) -> bool {
        let (Some(partition), Some(oldest)) = (waiting.partition(slot), waiting.oldest(slot)) else {
            return false;
        };
        let care_at = oldest + self.rules.delivery_timeout;
        let lane = Lane::new(self.rules.idempotent, self.parked.remove(partition));
        let partition = partition.clone();
        let stand = Stand::Nowhere;
        let (hinted_epoch, lost_by) = (-1, ErrorCode::None);
        self.entries.insert(
            slot,
            Entry { partition, lane, stand, care_at, used: now, topic_id: None, hinted_epoch, lost_by },
        );
        self.care.insert((care_at, slot));
        true
    }

    fn stand(&mut self, slot: Slot, wanted: Stand) {
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        match (entry.stand, wanted) {
            // It keeps its turn.
            (Stand::Queued { node, .. }, Stand::Queued { node: same, .. }) if node == same => return,
            (Stand::Queued { node, ticket }, _) => {
                if let Some(node) = self.nodes.get_mut(&node) {
                    node.queue.remove(&(ticket, slot));
                }
            }
            (Stand::At(at), _) => drop(self.at.remove(&(at, slot))),
            (Stand::Leaderless, _) => drop(self.leaderless.remove(&slot)),
            (Stand::Nowhere, _) => {}
        }
        entry.stand = wanted;
        match wanted {
            Stand::Nowhere => {}
            Stand::At(at) => drop(self.at.insert((at, slot))),
            Stand::Leaderless => drop(self.leaderless.insert(slot)),
            Stand::Queued { node, ticket } => {
                self.next_ticket = ticket + 1;
                self.nodes.entry(node).or_default().queue.insert((ticket, slot));
            }
        }
    }

    /// Makes requests to a broker while it may have more of them and there is something to send.
    fn serve(&mut self, id: i32, now: Instant, waiting: &mut impl Waiting<B>, cluster: &impl Cluster) {
        loop {
            let node = self.nodes.entry(id).or_default();
            if node.queue.is_empty() || node.requests_in_flight >= self.rules.max_in_flight {
                return;
            }
            if !cluster.connected(id) {
                if !node.connecting {
                    node.connecting = true;
                    self.commands.push(Command::Connect { node: id });
                }
                return;
            }
            let batches = self.collect(id, now, waiting, cluster);
            if batches.is_empty() {
                return;
            }
            let request = self.next_request;
            self.next_request += 1;
            self.nodes.entry(id).or_default().requests_in_flight += 1;
            self.flights.insert(request, Flight { node: id, batches });
            self.commands.push(Command::Send { node: id, request });
        }
    }

    /// Takes at most one batch of each lane in a broker's queue, as many as fit into a request.
    fn collect(
        &mut self,
        id: i32,
        now: Instant,
        waiting: &mut impl Waiting<B>,
        cluster: &impl Cluster,
    ) -> Vec<Flying<B>> {
        let (mut batches, mut size) = (Vec::new(), 0_usize);
        // What is queued from here on had its turn.
        let end = self.next_ticket;
        while let Some(&(ticket, slot)) = self.nodes.get(&id).and_then(|node| node.queue.first()) {
            if ticket >= end || !self.may_go(id, slot, now, cluster) {
                break;
            }
            let Some(entry) = self.entries.get_mut(&slot) else { break };
            let bytes = match entry.lane.first_again() {
                Some(batch) => batch.batch.bytes(),
                None => waiting.next_bytes(slot),
            };
            if size > 0 && size.saturating_add(bytes) > self.rules.max_request_bytes {
                break;
            }
            // Asked again: an identity may have taken batches out.
            if entry.lane.check(id, self.identities.present(), now).is_ok() {
                let batch = entry.lane.next_again().or_else(|| {
                    let batch = waiting.take(slot)?;
                    let (records, created) = (batch.records(), batch.created());
                    Some(entry.lane.admit(batch, records, created))
                });
                if let Some(mut batch) = batch {
                    entry.used = now;
                    let fresh = entry.lane.send(&mut batch, id);
                    // Until an answer tells otherwise; also for those whose producer is dropped now.
                    batch.batch.doubt(true);
                    size = size.saturating_add(bytes);
                    batches.push(Flying { slot, batch, fresh, topic_id: entry.topic_id, overdue: false });
                }
            }
            self.stand(slot, Stand::Nowhere);
            self.place(slot, now, waiting, cluster);
        }
        batches
    }

    /// Sees to the identity of the lane whose turn it is. `false` when nobody can go on before there is one.
    fn may_go(&mut self, node: i32, slot: Slot, now: Instant, cluster: &impl Cluster) -> bool {
        let Some(entry) = self.entries.get_mut(&slot) else { return false };
        if let Some(told) = cluster.topic_id(&entry.partition) {
            let before = entry.topic_id.replace(told);
            let own = self.rules.idempotent && !self.rules.transactional;
            if own && before.is_some_and(|before| before != told) && cluster.goes_by_id(node) {
                // The topic was made anew: nothing that was sent to the old one is in it, and nothing will get there.
                entry.lane.restart(true, false);
            }
        }
        if entry.lane.check(node, self.identities.present(), now) != Err(Blocked::Identity) {
            return true;
        }
        let rejected = entry.lane.rejected_identity();
        if let Some((rejected, new_id)) = rejected {
            self.identities.reject(rejected, new_id);
        }
        let better = |identity: &Identity| rejected.is_none_or(|(rejected, _)| rejected != *identity);
        let Some(identity) = self.identities.present().filter(better) else {
            if self.identities.ask() {
                self.commands.push(Command::Identify);
            }
            return false;
        };
        let (partition, code) = (entry.partition.clone(), entry.lost_by);
        for doubtful in entry.lane.identify(identity) {
            let partition = partition.clone();
            let error = ProduceError::Broker { partition, code, message: None, possibly_written: true };
            self.finish(doubtful.batch, Err(error));
        }
        true
    }

    /// Gives up what is past its delivery deadline, and forgets what was not used for long.
    fn look_after(&mut self, now: Instant, waiting: &mut impl Waiting<B>) {
        let mut flying = false;
        while let Some(&(at, slot)) = self.care.first().filter(|(at, _)| *at <= now) {
            self.care.remove(&(at, slot));
            self.touched.insert(slot);
            flying |= self.entries.get(&slot).is_some_and(|entry| entry.lane.has_in_flight());
            let next = self.expire(slot, now, waiting);
            let idle_after = self.rules.idle_after;
            let Some(entry) = self.entries.get_mut(&slot) else { continue };
            let idle_until = entry.used + idle_after;
            if next.is_none() && idle_until <= now && entry.lane.is_idle() && waiting.forget(slot) {
                self.forget(slot);
                continue;
            }
            entry.care_at = match next {
                Some(deadline) => deadline,
                None if idle_until > now => idle_until,
                // Something past its deadline has not come back yet.
                None => now + idle_after.max(MOMENT),
            };
            self.care.insert((entry.care_at, slot));
        }
        if flying {
            self.expire_in_flight(now);
        }
    }

    /// Gives up what waits in one lane past its deadline. Gives the next deadline of the lane.
    fn expire(&mut self, slot: Slot, now: Instant, waiting: &mut impl Waiting<B>) -> Option<Instant> {
        let timeout = self.rules.delivery_timeout;
        let mut failed = Vec::new();
        let entry = self.entries.get_mut(&slot)?;
        let expired = entry.lane.expire(|batch| batch.created + timeout <= now);
        failed.extend(expired.into_iter().map(|batch| (batch.possibly_written, batch.batch)));
        while waiting.oldest(slot).is_some_and(|created| created + timeout <= now) {
            // One that is being closed comes back later.
            let Some(batch) = waiting.take(slot) else { break };
            failed.push((false, batch));
        }
        let in_lane = entry.lane.oldest_after(now.checked_sub(timeout).unwrap_or(now));
        let next = in_lane.into_iter().chain(waiting.oldest(slot)).min().map(|created| {
            // A batch that is being closed is past its deadline for a moment.
            (created + timeout).max(now + MOMENT)
        });
        let partition = entry.partition.clone();
        for (possibly_written, batch) in failed {
            let error = timed_out(&partition, &batch, timeout, possibly_written);
            self.finish(batch, Err(error));
        }
        next
    }

    /// Those in flight keep their place until they are answered, but nobody waits for them any longer.
    fn expire_in_flight(&mut self, now: Instant) {
        let timeout = self.rules.delivery_timeout;
        let batches = self.flights.values_mut().flat_map(|flight| &mut flight.batches);
        for flying in batches.filter(|flying| !flying.overdue && flying.batch.created + timeout <= now) {
            flying.overdue = true;
            let Some(entry) = self.entries.get(&flying.slot) else { continue };
            let error = timed_out(&entry.partition, &flying.batch.batch, timeout, true);
            if self.rules.transactional && self.broken.is_none() {
                self.broken = Some(ProduceError::TransactionBroken { reason: Arc::from(error.to_string()) });
                self.touched.extend(self.entries.keys());
            }
            self.commands
                .push(Command::Decide { promise: flying.batch.batch.promise(), outcome: Err(error) });
        }
    }

    fn forget(&mut self, slot: Slot) {
        self.stand(slot, Stand::Nowhere);
        self.touched.remove(&slot);
        let Some(entry) = self.entries.remove(&slot) else { return };
        // Sequences under an identity of the past mean nothing.
        if let Some(parked) =
            entry.lane.park().filter(|parked| Some(parked.identity) == self.identities.present())
        {
            self.parked.insert(entry.partition, parked);
        }
        if self.parked.len() > MAX_PARKED
            && let Some(present) = self.identities.present()
        {
            self.identities.reject(present, false);
            self.parked.clear();
        }
    }

    /// Without a producer id nothing can be sent.
    fn refuse(&mut self, error: &RequestError, waiting: &mut impl Waiting<B>) {
        let slots: Vec<Slot> = self.entries.keys().copied().collect();
        for slot in slots {
            self.fail_waiting(slot, waiting, |partition, possibly_written| ProduceError::Request {
                partition: partition.clone(),
                source: error.clone(),
                possibly_written,
            });
            self.touched.insert(slot);
        }
    }

    /// Fails all that is not in flight in one lane.
    fn fail_waiting(
        &mut self,
        slot: Slot,
        waiting: &mut impl Waiting<B>,
        error: impl Fn(&TopicPartition, bool) -> ProduceError,
    ) {
        let Some(partition) = waiting.partition(slot).cloned() else { return };
        let mut failed = Vec::new();
        if let Some(entry) = self.entries.get_mut(&slot) {
            failed.extend(
                entry.lane.expire(|_| true).into_iter().map(|batch| (batch.possibly_written, batch.batch)),
            );
        }
        failed.extend(std::iter::from_fn(|| waiting.take(slot)).map(|batch| (false, batch)));
        for (possibly_written, batch) in failed {
            self.finish(batch, Err(error(&partition, possibly_written)));
        }
        self.stand(slot, Stand::Nowhere);
    }

    /// Goes on under an identity that was given to the producer, with a new transaction.
    pub(super) fn assign(&mut self, identity: Identity) {
        self.identities.take(Some(identity));
        self.broken = None;
        for entry in self.entries.values_mut() {
            entry.lane.leave_for(identity);
        }
        self.touched.extend(self.entries.keys());
    }

    /// The transaction cannot be committed any more, because of this: nothing more of it is sent.
    pub(super) fn break_off(&mut self, error: ProduceError) {
        if self.broken.is_none() {
            self.broken = Some(error);
            self.touched.extend(self.entries.keys());
        }
    }

    /// Why the transaction cannot be committed.
    pub(super) fn broken(&self) -> Option<&ProduceError> {
        self.broken.as_ref()
    }

    /// A request was answered.
    pub(super) fn answered(
        &mut self,
        request: u64,
        result: Result<ProduceResponse, RequestError>,
        now: Instant,
    ) {
        let Some((node, flying)) = self.landed(request) else { return };
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => return self.failed(node, flying, &error, now),
        };
        self.nodes.entry(node).or_default().failing = false;
        // Topics are named or have an id, by the version of the request.
        let parts: BTreeMap<(&str, Uuid, i32), &PartitionProduceResponse> = answer
            .responses
            .iter()
            .flat_map(|topic| {
                let of = move |part: &PartitionProduceResponse| (&*topic.name, topic.topic_id, part.index);
                topic.partition_responses.iter().map(move |part| (of(part), part))
            })
            .collect();
        for flying in flying {
            let Some(entry) = self.entries.get_mut(&flying.slot) else { continue };
            let partition = &entry.partition;
            let named = parts.get(&(&*partition.topic, Uuid::ZERO, partition.partition));
            let by_id = flying.topic_id.and_then(|id| parts.get(&("", id, partition.partition)));
            let Some(part) = named.or(by_id) else {
                let why = Arc::from("the broker's answer leaves this partition out");
                let verdict = Verdict::Retry { possibly_written: true, refresh: false, why };
                self.settle(flying, verdict, false, now);
                continue;
            };
            let first = entry.lane.is_first(&flying.batch);
            let verdict = judge(partition, part, first, flying.batch.possibly_written);
            // Only a leader that is newer than the last one told: two may point at each other, or one at itself.
            let leader = &part.current_leader;
            let hinted = matches!(verdict, Verdict::Retry { .. })
                && leader.leader_id >= 0
                && leader.leader_id != node
                && leader.leader_epoch > entry.hinted_epoch;
            if hinted {
                entry.hinted_epoch = leader.leader_epoch;
                let endpoint = answer.node_endpoints.iter().find(|node| node.node_id == leader.leader_id);
                self.commands.push(Command::Learn(LeaderHint {
                    partition: partition.clone(),
                    leader: leader.leader_id,
                    leader_epoch: leader.leader_epoch,
                    endpoint: endpoint.map(|node| (Arc::from(&*node.host), node.port)),
                }));
            }
            self.settle(flying, verdict, hinted, now);
        }
    }

    /// A request that is not answered (`acks` 0) was written, or could not be.
    pub(super) fn written(&mut self, request: u64, result: Result<(), RequestError>, now: Instant) {
        let Some((node, flying)) = self.landed(request) else { return };
        match result {
            Err(error) => self.failed(node, flying, &error, now),
            // Nobody tells more than that the bytes were taken.
            Ok(()) => flying.into_iter().for_each(|flying| {
                let taken = Acknowledged { base_offset: -1, log_append_time_ms: None };
                self.settle(flying, Verdict::Acknowledged(taken), false, now);
            }),
        }
    }

    /// A batch of a request cannot be written at all; the request goes without it. Gives what is left of the request.
    pub(super) fn unwritable(&mut self, request: u64, slot: Slot, reason: &str, now: Instant) -> usize {
        let Some(flight) = self.flights.get_mut(&request) else { return 0 };
        let at = flight.batches.iter().position(|flying| flying.slot == slot);
        let Some(flying) = at.map(|at| flight.batches.remove(at)) else { return flight.batches.len() };
        let left = flight.batches.len();
        if left == 0 {
            drop(self.landed(request));
        }
        let error = ProduceError::InvalidRecord { reason: Arc::from(reason) };
        self.settle(flying, Verdict::Failed(error), false, now);
        left
    }

    /// The end of an attempt to connect.
    pub(super) fn connected(&mut self, id: i32, result: Result<(), RequestError>) {
        let node = self.nodes.entry(id).or_default();
        node.connecting = false;
        match result {
            Ok(()) => {}
            // Whoever connects has told of it.
            Err(_) => self.refresh_wanted = true,
        }
    }

    /// The end of a refresh of the metadata.
    pub(super) fn refreshed(&mut self) {
        self.refreshing = false;
    }

    /// The end of asking for an identity: an error is for good.
    pub(super) fn identified(&mut self, result: Result<Identity, RequestError>) {
        match result {
            Ok(identity) => self.identities.take(Some(identity)),
            Err(error) => {
                self.identities.take(None);
                self.refusal = Some(error);
            }
        }
    }

    /// The batches of a request that is over.
    fn landed(&mut self, request: u64) -> Option<(i32, Vec<Flying<B>>)> {
        let flight = self.flights.remove(&request)?;
        let node = self.nodes.entry(flight.node).or_default();
        node.requests_in_flight = node.requests_in_flight.saturating_sub(1);
        Some((flight.node, flight.batches))
    }

    /// The batches of a request without a usable answer.
    fn failed(&mut self, node: i32, flying: Vec<Flying<B>>, error: &RequestError, now: Instant) {
        self.report(node, error);
        for flying in flying {
            let Some(entry) = self.entries.get(&flying.slot) else { continue };
            let verdict = judge_failure(&entry.partition, error, flying.batch.possibly_written);
            self.settle(flying, verdict, false, now);
        }
    }

    /// Ends a batch's flight. `hinted` says that it can go to another broker at once.
    fn settle(&mut self, flying: Flying<B>, verdict: Verdict, hinted: bool, now: Instant) {
        let Flying { slot, mut batch, overdue, .. } = flying;
        self.touched.insert(slot);
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        let rules = &self.rules;
        let attempts = batch.attempts.saturating_sub(1);
        let pause = pause_after(attempts, rules.retry_backoff, rules.retry_backoff_max, &*rules.rng);
        let later = if hinted { now } else { now + pause };
        if overdue && !matches!(verdict, Verdict::Acknowledged(_)) {
            // Its records have been told, and its transaction is over.
            match verdict {
                Verdict::IdentityLost { code, loss } => {
                    entry.lost_by = code;
                    entry.lane.restart(loss == Loss::OutOfOrder, loss == Loss::Fenced);
                }
                Verdict::Retry { refresh, .. } => self.refresh_wanted |= refresh,
                _ => {}
            }
            entry.lane.give_up(&batch);
            self.commands.push(Command::Release { batch: batch.batch });
            return;
        }
        match verdict {
            Verdict::Acknowledged(acknowledged) => {
                entry.lane.done(&batch);
                entry.used = now;
                self.finish(batch.batch, Ok(acknowledged));
            }
            Verdict::Retry { possibly_written, refresh, why } => {
                batch.possibly_written |= possibly_written;
                batch.batch.doubt(batch.possibly_written);
                batch.batch.note(why);
                self.refresh_wanted |= refresh && !hinted;
                if let Some(broken) = self.broken.clone() {
                    entry.lane.give_up(&batch);
                    self.finish(batch.batch, Err(broken));
                } else {
                    entry.lane.retry(batch, later);
                }
            }
            Verdict::TooLarge(error) => self.divide(slot, batch, error, now),
            Verdict::IdentityLost { code, loss } => self.lose_identity(slot, batch, code, loss, later),
            Verdict::Failed(error) => {
                entry.lane.give_up(&batch);
                self.finish(batch.batch, Err(error));
            }
        }
    }

    /// A batch is too large for the broker: it goes on in two parts, if it has them.
    fn divide(&mut self, slot: Slot, batch: Sequenced<B>, error: ProduceError, now: Instant) {
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        let (whole, apart) = batch.apart();
        self.commands.push(Command::Shrink { slot, bytes: whole.bytes() / 2 });
        match whole.halve() {
            Ok(parts) => {
                let parts = parts.map(|part| {
                    let records = part.records();
                    (part, records)
                });
                entry.lane.split(apart, parts, now);
            }
            Err(whole) => {
                entry.lane.give_up(&apart);
                self.finish(whole, Err(error));
            }
        }
    }

    /// The broker did not accept a batch's sequences.
    fn lose_identity(
        &mut self,
        slot: Slot,
        mut batch: Sequenced<B>,
        code: ErrorCode,
        loss: Loss,
        later: Instant,
    ) {
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        entry.lost_by = code;
        entry.lane.restart(loss == Loss::OutOfOrder, loss == Loss::Fenced);
        let unsure = loss != Loss::OutOfOrder && batch.possibly_written;
        if unsure || self.rules.transactional {
            // It is or is not in the log under the old identity; under a new one it might be there twice.
            entry.lane.give_up(&batch);
            let partition = entry.partition.clone();
            let error = ProduceError::Broker { partition, code, message: None, possibly_written: unsure };
            self.finish(batch.batch, Err(error));
        } else {
            batch.possibly_written = false;
            batch.batch.doubt(false);
            batch.batch.note(Arc::from(format!("the broker answered {code}")));
            entry.lane.retry(batch, later);
        }
    }

    fn finish(&mut self, batch: B, outcome: Result<Acknowledged, ProduceError>) {
        if self.rules.transactional
            && let Err(error) = &outcome
        {
            self.break_off(ProduceError::TransactionBroken { reason: Arc::from(error.to_string()) });
        }
        self.commands.push(Command::Decide { promise: batch.promise(), outcome });
        self.commands.push(Command::Release { batch });
    }

    fn report(&mut self, id: i32, error: &RequestError) {
        // A connection that ended is made anew; it is told when that fails.
        let lost = matches!(error, RequestError::Connect { .. } | RequestError::Disconnected { .. });
        let first = !lost && !std::mem::replace(&mut self.nodes.entry(id).or_default().failing, true);
        self.commands.push(Command::Report { node: id, error: error.clone(), first });
    }
}

fn timed_out<B: Parcel>(
    partition: &TopicPartition,
    batch: &B,
    after: Duration,
    possibly_written: bool,
) -> ProduceError {
    ProduceError::DeliveryTimeout {
        partition: partition.clone(),
        after,
        last: batch.noted().unwrap_or_else(|| Arc::from("none")),
        possibly_written,
    }
}
