//! How a query gets its answer: from what is here, from who has it, or from who has a copy; again while things move,
//! until its time is over. Whoever is asked by another instance answers from what it has and asks nobody, so that no
//! query goes round.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use klamm_runtime::Blocking;
use tokio::time::{Instant, sleep, timeout};

use super::answer::AnsweredBy;
use super::error::QueryError;
use super::instance::{Holders, Instance, Peers, Reply, Request, StoreFacts};
use super::merging::{Found, Room, merge};
use super::place::{Place, places};
use super::raw::{self, Page};
use crate::store::StoreError;

/// How many instances are asked at a time for one query.
const CALLS_MAX: usize = 8;
/// The share of a part of an answer that every instance may fill.
const LEAST_BYTES: usize = 64 * 1024;
/// Between rounds while nobody has what is asked for.
const PAUSE: Duration = Duration::from_millis(25);
/// Between looks whether who is asked still has what he is asked for.
const LOOK: Duration = Duration::from_millis(100);
/// The time of an instance that is asked for an answer without any waiting.
pub(super) const PATIENCE_AT_ONCE: Duration = Duration::from_secs(1);
/// An instance gets this part of the time where there are others to be asked.
const SHARE_OF_TIME: u32 = 3;

/// Whoever asks for one query.
pub(super) struct Asker<'a> {
    pub(super) instance: &'a dyn Instance,
    pub(super) peers: Option<&'a dyn Peers>,
    pub(super) request: &'a Request,
    pub(super) facts: &'a StoreFacts,
    pub(super) deadline: Instant,
}

impl Asker<'_> {
    pub(super) async fn run(&self, asked: BTreeSet<i32>) -> Result<Reply, QueryError> {
        let mut open = asked;
        // How often each was tried in vain.
        let mut tries: BTreeMap<i32, usize> = BTreeMap::new();
        let mut reply = Reply::default();
        let mut progress = self.instance.progress();
        loop {
            progress.mark_unchanged();
            let (calls, mut last) = self.calls(&open, &tries);
            let mut waits = last.is_some();
            let room = self.request.room.bytes;
            let share = (room / calls.len().max(1)).max(LEAST_BYTES.min(room));
            let calls = calls.into_iter().map(|(place, partitions)| self.call(place, partitions, share));
            let mut answers = futures::stream::iter(calls).buffer_unordered(CALLS_MAX);
            while let Some((partitions, answer)) = answers.next().await {
                match answer {
                    Ok(part) => {
                        open.retain(|partition| !partitions.contains(partition));
                        // As they come: no more is held than there is room for.
                        reply.found = self.merged([reply.found, part.found]);
                        reply.from.extend(part.from);
                    }
                    Err(error) if error.is_retriable() => {
                        for partition in partitions {
                            let tried = tries.entry(partition).or_default();
                            *tried += 1;
                            waits |= *tried >= self.places(partition).len();
                        }
                        last = Some(error);
                    }
                    Err(error) => return Err(error),
                }
            }
            drop(answers);
            let Some(last) = last.filter(|_| !open.is_empty()) else {
                reply.from.sort_by_key(|by: &AnsweredBy| by.partition);
                return Ok(reply);
            };
            if self.instance.is_over() {
                let (store, state) = (self.facts.name.to_string(), self.instance.state());
                return Err(StoreError::NotHere { store, state }.into());
            }
            if Instant::now() >= self.deadline {
                return Err(self.timed_out(last));
            }
            if waits {
                // News of stores only end waiting for them.
                match last {
                    QueryError::NotUpToBound { .. } => drop(timeout(PAUSE, progress.changed()).await),
                    _ => sleep(PAUSE).await,
                }
            }
        }
    }

    fn timed_out(&self, last: QueryError) -> QueryError {
        let within = self.request.demands.within;
        // Who did not want to wait is told the reason itself.
        if within.is_zero() { last } else { QueryError::TimedOut { within, last: Box::new(last) } }
    }

    fn places(&self, partition: i32) -> Vec<Place> {
        let has = |standby| self.instance.part(self.facts, partition, standby).is_some();
        let holders = match self.request.here_only {
            true => Holders::default(),
            false => self.instance.holders(self.facts, partition),
        };
        let stale = self.request.demands.stale.is_some();
        let mut places =
            places(has(false), stale && has(true), &holders, self.instance.host().as_deref(), stale);
        if self.peers.is_none() && places.contains(&Place::StandbyHere) {
            places.retain(|place| !matches!(place, Place::At(_)));
        }
        places
    }

    /// Who is to be asked for which partitions; and why nobody is for some.
    fn calls(
        &self,
        open: &BTreeSet<i32>,
        tries: &BTreeMap<i32, usize>,
    ) -> (BTreeMap<Place, Vec<i32>>, Option<QueryError>) {
        let mut calls: BTreeMap<Place, Vec<i32>> = BTreeMap::new();
        let mut nobody = None;
        for partition in open {
            let mut places = self.places(*partition);
            match places.len() {
                0 => nobody = Some(self.not_here(*partition)),
                count => {
                    let next = tries.get(partition).copied().unwrap_or(0) % count;
                    calls.entry(places.swap_remove(next)).or_default().push(*partition);
                }
            }
        }
        (calls, nobody)
    }

    fn not_here(&self, partition: i32) -> QueryError {
        let holders = self.instance.holders(self.facts, partition);
        let store = Arc::clone(&self.facts.name);
        match holders.active {
            // It is known, and was not to be asked.
            Some(host) if self.request.here_only && self.instance.host().as_ref() != Some(&host) => {
                let why = format!(
                    "this instance is {} and has not got it, which {host} should have",
                    self.instance.state()
                );
                QueryError::NotHere { store, partition, why: why.into() }
            }
            _ => {
                let why = format!("this instance is {}", self.instance.state());
                QueryError::NotHere { store, partition, why: why.into() }
            }
        }
    }

    async fn call(
        &self,
        place: Place,
        partitions: Vec<i32>,
        share_bytes: usize,
    ) -> (Vec<i32>, Result<Reply, QueryError>) {
        let answer = match &place {
            Place::Here => self.read(&partitions, false).await,
            Place::StandbyHere => self.read(&partitions, true).await,
            Place::At(host) => self.hand_on(host, &partitions, share_bytes).await,
        };
        (partitions, answer)
    }

    async fn hand_on(
        &self,
        host: &Arc<str>,
        partitions: &[i32],
        share_bytes: usize,
    ) -> Result<Reply, QueryError> {
        let Some(peers) = self.peers else {
            let (store, partition) =
                (Arc::clone(&self.facts.name), partitions.first().copied().unwrap_or(-1));
            let why = "this build of klamm has no feature `queries`, which asks other instances".into();
            return Err(QueryError::Elsewhere { store, partition, host: Arc::clone(host), why });
        };
        let at_once = self.request.demands.within.is_zero();
        let left = match at_once {
            true => PATIENCE_AT_ONCE,
            false => self.deadline.saturating_duration_since(Instant::now()),
        };
        let has_others = partitions.iter().any(|partition| self.places(*partition).len() > 1);
        let within = if has_others { left / SHARE_OF_TIME } else { left };
        let mut request = self.request.clone();
        (request.application, request.form) = (self.instance.application(), Some(self.facts.form));
        request.partitions = Some(partitions.to_vec());
        request.query = request.query.of_partitions(partitions);
        request.here_only = true;
        request.room.bytes = share_bytes;
        request.demands.within = match at_once || request.demands.bound.records.is_empty() {
            // It is asked again, or somebody else is.
            true => Duration::ZERO,
            // Before it is given up here, so that its reason is heard.
            false => within * 9 / 10,
        };
        let unreachable = |why: String| QueryError::Unreachable { host: Arc::clone(host), why: why.into() };
        let answer = tokio::select! {
            answer = tokio::time::timeout(within, peers.ask(host, &request)) => answer,
            () = self.moved(host, partitions) => {
                return Err(unreachable("what it was asked for is elsewhere by now".to_owned()));
            }
        };
        let reply = answer.map_err(|_| unreachable(format!("nothing came within {within:.1?}")))??;
        let answered: BTreeSet<i32> = reply.from.iter().map(|by| by.partition).collect();
        // Whoever answers for others than he was asked for would have partitions counted twice, or left out.
        let own = partitions.iter().copied().collect();
        if answered != own || reply.found.rows.iter().any(|(partition, _)| !own.contains(partition)) {
            return Err(unreachable("it answered something else than was asked".to_owned()));
        }
        Ok(reply)
    }

    /// Waits until some of these partitions are not to be asked for there any more: who stands still, or is cut off,
    /// says nothing, while the group has given them to another one.
    async fn moved(&self, host: &Arc<str>, partitions: &[i32]) {
        let at = Place::At(Arc::clone(host));
        while partitions.iter().all(|partition| self.places(*partition).contains(&at)) {
            sleep(LOOK).await;
        }
    }

    /// Reads what is here.
    async fn read(&self, partitions: &[i32], standby: bool) -> Result<Reply, QueryError> {
        let mut parts = Vec::new();
        let globals = match self.facts.is_global {
            true => self.global_parts()?,
            false => Vec::new(),
        };
        for partition in partitions {
            let by = self.part(*partition, standby).await?;
            if !self.facts.is_global {
                self.fulfils(&by)?;
            }
            let after = self.request.after.as_ref().map(|cursor| cursor.of_partition(*partition));
            let Room { rows, bytes } = self.request.room;
            parts.push((by, Page { reverse: self.request.reverse, rows_max: rows, bytes_max: bytes, after }));
        }
        let engine = |by: &AnsweredBy| self.instance.engine(self.facts, by.partition, standby);
        let query = |by: &AnsweredBy| self.request.query.of_partitions(&[by.partition]);
        let parts: Vec<_> = parts.into_iter().map(|(by, page)| (engine(&by), query(&by), by, page)).collect();
        let layout = self.facts.layout;
        let (room, reverse) = (self.request.room, self.request.reverse);
        // Where blocking is allowed: an engine may go to disk, and be closed.
        let read = Blocking::start(move || {
            let mut reply = Reply::default();
            for (engine, query, mut by, page) in parts {
                let Some(engine) = engine else { return Ok(Err(by.partition)) };
                let position = engine.position()?;
                by.changelog_offset = position.changelog_offset;
                by.stream_time_ms = position.stream_time_ms;
                let read = raw::read(&engine, layout, &query, &page)?;
                reply.found = merge([reply.found, Found::of(by.partition, read)], room, reverse);
                reply.from.push(by);
            }
            Ok(Ok(reply))
        });
        let store = self.facts.name.to_string();
        match read.await.map_err(|error| StoreError::Engine { store, source: Box::new(error) })? {
            Ok(Ok(reply)) if self.facts.is_global => Ok(Reply { from: globals, ..reply }),
            Ok(Ok(reply)) => Ok(reply),
            // It went meanwhile.
            Ok(Err(partition)) => Err(self.not_here(partition)),
            Err(error) => Err(QueryError::Store(error)),
        }
    }

    async fn part(&self, partition: i32, standby: bool) -> Result<AnsweredBy, QueryError> {
        let part = || self.instance.part(self.facts, partition, standby);
        let not_here = || self.not_here(partition);
        let by = part().ok_or_else(not_here)?;
        if !standby || self.request.demands.bound.lacks(partition, &by.inputs).is_none() {
            return Ok(by);
        }
        // It may have more than anybody has looked for.
        drop(timeout(PATIENCE_AT_ONCE, self.instance.look(self.facts, partition)).await);
        part().ok_or_else(not_here)
    }

    /// A global table as far as it is in its topic, if that is far enough: in all partitions that the query names.
    fn global_parts(&self) -> Result<Vec<AnsweredBy>, QueryError> {
        let parts = self.instance.global_parts(self.facts);
        let (bound, nothing) = (&self.request.demands.bound, BTreeMap::new());
        for named in bound.records.keys() {
            let part = parts.iter().find(|part| part.partition == named.partition);
            self.has(named.partition, part.map_or(&nothing, |part| &part.inputs))?;
        }
        Ok(parts)
    }

    fn fulfils(&self, by: &AnsweredBy) -> Result<(), QueryError> {
        let partition = by.partition;
        if by.standby
            && let Some(allowed) = self.request.demands.stale
            && by.behind.unwrap_or(u64::MAX) > allowed
        {
            let store = Arc::clone(&self.facts.name);
            return Err(QueryError::TooStale { store, partition, behind: by.behind, allowed });
        }
        self.has(partition, &by.inputs)
    }

    /// Whether these inputs of a partition are what was to be in it.
    fn has(&self, partition: i32, inputs: &BTreeMap<Arc<str>, i64>) -> Result<(), QueryError> {
        let store = Arc::clone(&self.facts.name);
        match self.request.demands.bound.lacks(partition, inputs) {
            None => Ok(()),
            Some((topic, reached, wanted)) => {
                Err(QueryError::NotUpToBound { store, partition, topic, reached, wanted })
            }
        }
    }

    fn merged(&self, parts: [Found; 2]) -> Found {
        merge(parts, self.request.room, self.request.reverse)
    }
}
