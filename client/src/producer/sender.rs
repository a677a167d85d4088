//! The producer's task: takes ready batches, sends them to their leaders, and settles their fates by the answers.
//!
//! It never waits for one thing while another could go on: connecting, metadata, producer ids and
//! answers are events of one loop.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use klamm_protocol::messages::produce::{PartitionProduceData, PartitionProduceResponse, TopicProduceData};
use klamm_protocol::messages::{InitProducerIdRequest, ProduceRequest, ProduceResponse};
use klamm_protocol::records::{BatchBuilder, RecordError, patch};
use klamm_protocol::{ErrorCode, Records, Request};
use tokio::time::Instant;

use super::accumulator::Gathered;
use super::answer::{Verdict, judge, judge_failure};
use super::builder::Acks;
use super::delivery::{Acknowledged, Decider};
use super::handle::Shared;
use super::lane::{Blocked, Identity, Lane, Sequenced, Stamp};
use crate::cluster::Core;
use crate::connection::{Connection, Links, pause_after};
use crate::error::{ProduceError, RequestError};

/// From version 13 on topics go by id; a name is enough, and works with every broker.
const PRODUCE_VERSION_CAP: i16 = 12;

/// A batch on its way.
#[derive(Debug)]
struct Outgoing {
    content: Content,
    decider: Decider,
    created: Instant,
    reserved: usize,
    id: u64,
    /// The last failure, for the error that tells of the deadline.
    last: Option<Arc<str>>,
}

#[derive(Debug)]
enum Content {
    Open(BatchBuilder),
    Built(Bytes),
    /// While one form turns into the other.
    Nothing,
}

impl Outgoing {
    fn new(gathered: Gathered) -> Self {
        let Gathered { builder, decider, created, reserved, id } = gathered;
        Self { content: Content::Open(builder), decider, created, reserved, id, last: None }
    }

    /// The bytes to send, under this stamp if it is new.
    fn bytes(&mut self, fresh_stamp: Option<Stamp>) -> Result<Bytes, RecordError> {
        let built = match std::mem::replace(&mut self.content, Content::Nothing) {
            Content::Open(mut builder) => {
                if let Some(Stamp { identity, sequence }) = fresh_stamp {
                    builder.set_producer(identity.producer_id, identity.epoch, sequence);
                }
                builder.build()?
            }
            Content::Built(bytes) => match fresh_stamp {
                None => bytes,
                Some(Stamp { identity, sequence }) => {
                    let mut bytes: Vec<u8> = bytes.into();
                    patch::set_producer(&mut bytes, identity.producer_id, identity.epoch, sequence)?;
                    Bytes::from(bytes)
                }
            },
            Content::Nothing => return Err(RecordError::Empty),
        };
        self.content = Content::Built(built.clone());
        Ok(built)
    }
}

type Sent = (usize, Sequenced<Outgoing>);

/// What the loop waits for.
enum Event {
    Answered {
        request: u64,
        node: i32,
        result: Result<ProduceResponse, RequestError>,
    },
    /// With `acks` 0.
    Written {
        request: u64,
        node: i32,
        result: Result<(), RequestError>,
    },
    Connected {
        node: i32,
        result: Result<(), RequestError>,
    },
    Refreshed(Result<(), RequestError>),
    Identified(Result<Identity, RequestError>),
}

#[derive(Debug, Default)]
struct Node {
    requests_in_flight: usize,
    connecting: bool,
}

/// The task's state.
pub(super) struct Sender {
    shared: Arc<Shared>,
    links: Arc<Links>,
    /// By the accumulator's places.
    lanes: Vec<Lane<Outgoing>>,
    nodes: HashMap<i32, Node>,
    /// The batches of unanswered requests.
    flying: HashMap<u64, Vec<Sent>>,
    next_request: u64,
    events: FuturesUnordered<BoxFuture<'static, Event>>,
    identity: Option<Identity>,
    identifying: bool,
    refreshing: bool,
    /// No batch reaches its delivery deadline before.
    next_expiry: Instant,
    /// Where the next pass over the partitions begins, so that none is preferred.
    next_start: usize,
}

/// What one pass over the partitions found.
#[derive(Default)]
struct Pass {
    requests: BTreeMap<i32, (Connection, usize, Vec<Sent>)>,
    doubtful: Vec<Sequenced<Outgoing>>,
    connect: Vec<i32>,
    refresh: bool,
    identify: bool,
    wake_at: Option<Instant>,
}

impl Pass {
    fn wake_at(&mut self, at: Instant) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            links: Arc::default(),
            lanes: Vec::new(),
            nodes: HashMap::new(),
            flying: HashMap::new(),
            next_request: 0,
            events: FuturesUnordered::new(),
            identity: None,
            identifying: false,
            refreshing: false,
            next_expiry: Instant::now(),
            next_start: 0,
        }
    }

    /// Runs until it is aborted. Batches that are dropped then tell their records.
    pub(super) async fn run(mut self) {
        loop {
            let now = Instant::now();
            self.expire(now);
            let wake_at = self.dispatch(now).map_or(self.next_expiry, |at| at.min(self.next_expiry));
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                () = shared.wake.notified() => {}
                Some(event) = self.events.next(), if !self.events.is_empty() => self.handle(event),
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }

    /// Sends all that can be sent. Gives the instant at which time alone makes more ready.
    fn dispatch(&mut self, now: Instant) -> Option<Instant> {
        loop {
            let mut pass = self.collect(now);
            for batch in std::mem::take(&mut pass.doubtful) {
                let partition = batch.batch.decider.partition().clone();
                let code = ErrorCode::OutOfOrderSequenceNumber;
                let error = ProduceError::Broker { partition, code, message: None, possibly_written: true };
                self.finish(batch.batch, Err(error));
            }
            for node in std::mem::take(&mut pass.connect) {
                self.connect(node);
            }
            if pass.refresh {
                self.refresh_metadata();
            }
            if pass.identify {
                self.identify();
            }
            if pass.requests.is_empty() {
                return pass.wake_at;
            }
            for (node, (connection, _, sent)) in pass.requests {
                self.send(node, &connection, sent);
            }
        }
    }

    /// Takes at most one batch of each partition, where one is ready and may go.
    fn collect(&mut self, now: Instant) -> Pass {
        let mut pass = Pass::default();
        let shared = Arc::clone(&self.shared);
        let view = shared.core.metadata.view();
        let mut gathering = shared.gathering();
        let accumulator = &mut gathering.accumulator;
        let places = accumulator.places();
        self.lanes.resize_with(places, || Lane::new(shared.config.idempotent));
        self.next_start = if places == 0 { 0 } else { (self.next_start + 1) % places };

        for place in (0..places).map(|step| (self.next_start + step) % places) {
            let lane = &mut self.lanes[place];
            if !lane.has_again() {
                match accumulator.ready_at(place, now) {
                    None => continue,
                    Some(ready_at) if ready_at > now => {
                        pass.wake_at(ready_at);
                        continue;
                    }
                    Some(_) => {}
                }
            }
            let partition = accumulator.partition(place);
            let Some(leader) = view.leader(&partition.topic, partition.partition) else {
                pass.refresh = true;
                continue;
            };
            let node = self.nodes.entry(leader).or_default();
            if node.requests_in_flight >= shared.config.max_in_flight {
                continue;
            }
            match lane.check(leader, now) {
                Ok(()) => {}
                Err(Blocked::InFlight) => continue,
                Err(Blocked::Until(at)) => {
                    pass.wake_at(at);
                    continue;
                }
                Err(Blocked::Identity) => match self.identity {
                    Some(identity) if lane.rejected_identity() != Some(identity) => {
                        pass.doubtful.extend(lane.identify(identity));
                        if !lane.has_again() && accumulator.ready_at(place, now).is_none_or(|at| at > now) {
                            continue;
                        }
                    }
                    _ => {
                        pass.identify = true;
                        continue;
                    }
                },
            }
            let request = match pass.requests.get_mut(&leader) {
                Some(request) => request,
                None => match self.links.existing(&shared.core, leader) {
                    Some(connection) => pass.requests.entry(leader).or_insert((connection, 0, Vec::new())),
                    None => {
                        if !node.connecting {
                            pass.connect.push(leader);
                            node.connecting = true;
                        }
                        continue;
                    }
                },
            };
            let (_, size, sent) = request;
            if *size > 0 && *size + accumulator.next_bytes(place) > shared.config.max_request_bytes {
                continue;
            }
            let batch = lane.next_again().or_else(|| {
                let gathered = accumulator.take(place)?;
                let records = i32::try_from(gathered.builder.record_count()).unwrap_or(i32::MAX);
                Some(lane.admit(Outgoing::new(gathered), records))
            });
            if let Some(batch) = batch {
                *size += match &batch.batch.content {
                    Content::Open(builder) => builder.len_bytes(),
                    Content::Built(bytes) => bytes.len(),
                    Content::Nothing => 0,
                };
                sent.push((place, batch));
            }
        }
        pass.requests.retain(|_, (_, _, sent)| !sent.is_empty());
        pass
    }

    /// Sends one request.
    fn send(&mut self, node: i32, connection: &Connection, batches: Vec<Sent>) {
        let mut sent = Vec::with_capacity(batches.len());
        let mut topics: BTreeMap<Arc<str>, Vec<PartitionProduceData>> = BTreeMap::new();
        for (place, mut batch) in batches {
            let fresh = self.lanes[place].send(&mut batch, node);
            let stamp = batch.stamp.filter(|_| fresh);
            match batch.batch.bytes(stamp) {
                Ok(bytes) => {
                    let partition = batch.batch.decider.partition();
                    let data = PartitionProduceData {
                        index: partition.partition,
                        records: Some(Records::Bytes(bytes)),
                        ..Default::default()
                    };
                    topics.entry(Arc::clone(&partition.topic)).or_default().push(data);
                    sent.push((place, batch));
                }
                Err(error) => {
                    self.lanes[place].give_up(&batch);
                    let error = ProduceError::InvalidRecord { reason: Arc::from(error.to_string()) };
                    self.finish(batch.batch, Err(error));
                }
            }
        }
        if sent.is_empty() {
            return;
        }
        let config = &self.shared.config;
        let request = ProduceRequest {
            acks: config.acks.wire(),
            timeout_ms: i32::try_from(config.request_timeout.as_millis()).unwrap_or(i32::MAX),
            topic_data: topics
                .into_iter()
                .map(|(name, partition_data)| TopicProduceData {
                    name: (&*name).into(),
                    partition_data,
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        };
        let id = self.next_request;
        let timeout = config.request_timeout;
        let started = connection.version_up_to::<ProduceRequest>(PRODUCE_VERSION_CAP).and_then(|version| {
            let event: BoxFuture<'static, Event> = if config.acks == Acks::None {
                let written = connection.send_only(&request, version)?;
                Box::pin(async move {
                    Event::Written { request: id, node, result: written.within(timeout).await }
                })
            } else {
                let answer = connection.start(&request, version)?;
                Box::pin(async move {
                    Event::Answered { request: id, node, result: answer.within(timeout).await }
                })
            };
            Ok(event)
        });
        match started {
            Ok(event) => {
                for (_, batch) in &mut sent {
                    // Until an answer tells otherwise; also for those whose producer is dropped now.
                    batch.batch.decider.possibly_written = true;
                }
                self.next_request += 1;
                self.flying.insert(id, sent);
                self.nodes.entry(node).or_default().requests_in_flight += 1;
                self.events.push(event);
            }
            Err(error) => self.settle_failed(sent, &error),
        }
    }

    /// The batches of a request that was not answered.
    fn settle_failed(&mut self, sent: Vec<Sent>, error: &RequestError) {
        for (place, batch) in sent {
            let verdict = judge_failure(batch.batch.decider.partition(), error, batch.possibly_written);
            self.settle(place, batch, verdict);
        }
    }

    /// The batches of a request that is over.
    fn landed(&mut self, node: i32, request: u64) -> Vec<Sent> {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.requests_in_flight = node.requests_in_flight.saturating_sub(1);
        }
        self.flying.remove(&request).unwrap_or_default()
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Answered { request, node, result } => {
                let sent = self.landed(node, request);
                match result {
                    Ok(answer) => self.answered(sent, answer),
                    Err(error) => self.settle_failed(sent, &error),
                }
            }
            Event::Written { request, node, result } => {
                let sent = self.landed(node, request);
                match result {
                    // Nobody tells more than that the bytes were taken.
                    Ok(()) => sent.into_iter().for_each(|(place, batch)| {
                        let taken = Acknowledged { base_offset: -1, log_append_time_ms: None };
                        self.settle(place, batch, Verdict::Acknowledged(taken));
                    }),
                    Err(error) => self.settle_failed(sent, &error),
                }
            }
            Event::Connected { node, result } => {
                self.nodes.entry(node).or_default().connecting = false;
                if let Err(error) = result {
                    tracing::debug!(node, %error, "cannot connect");
                    self.refresh_metadata();
                }
            }
            Event::Refreshed(result) => {
                self.refreshing = false;
                if let Err(error) = result {
                    tracing::debug!(%error, "metadata refresh failed");
                }
            }
            Event::Identified(result) => {
                self.identifying = false;
                match result {
                    Ok(identity) => self.identity = Some(identity),
                    Err(error) => self.fail_unsent(&error),
                }
            }
        }
    }

    fn answered(&mut self, sent: Vec<Sent>, answer: ProduceResponse) {
        let mut answers: HashMap<(&str, i32), &PartitionProduceResponse> = HashMap::new();
        for topic in &answer.responses {
            answers.extend(topic.partition_responses.iter().map(|part| ((&*topic.name, part.index), part)));
        }
        for (place, batch) in sent {
            let partition = batch.batch.decider.partition();
            let verdict = match answers.get(&(&*partition.topic, partition.partition)) {
                Some(part) => {
                    judge(partition, part, self.lanes[place].is_first(&batch), batch.possibly_written)
                }
                None => Verdict::Retry {
                    possibly_written: true,
                    refresh: false,
                    why: Arc::from("the broker's answer leaves this partition out"),
                },
            };
            self.settle(place, batch, verdict);
        }
    }

    /// Ends a batch's flight.
    fn settle(&mut self, place: usize, mut batch: Sequenced<Outgoing>, verdict: Verdict) {
        let config = &self.shared.core.config;
        let lane = &mut self.lanes[place];
        match verdict {
            Verdict::Acknowledged(acknowledged) => {
                lane.done(&batch);
                self.finish(batch.batch, Ok(acknowledged));
            }
            Verdict::Retry { possibly_written, refresh, why } => {
                batch.possibly_written |= possibly_written;
                batch.batch.decider.possibly_written = batch.possibly_written;
                batch.batch.last = Some(why);
                if batch.batch.decider.is_decided() {
                    // Its deadline passed in flight.
                    lane.give_up(&batch);
                    self.release(&batch.batch);
                } else {
                    let failures = batch.attempts.saturating_sub(1);
                    let pause =
                        pause_after(failures, config.retry_backoff, config.retry_backoff_max, &*config.rng);
                    lane.retry(batch, Instant::now() + pause);
                }
                if refresh {
                    self.refresh_metadata();
                }
            }
            Verdict::IdentityLost { code } => {
                lane.reject_identity();
                if batch.possibly_written {
                    // It is or is not in the log under the old identity; under a new one it might be there twice.
                    lane.give_up(&batch);
                    let partition = batch.batch.decider.partition().clone();
                    let error =
                        ProduceError::Broker { partition, code, message: None, possibly_written: true };
                    self.finish(batch.batch, Err(error));
                } else {
                    batch.batch.decider.possibly_written = false;
                    lane.retry(batch, Instant::now());
                }
            }
            Verdict::Failed(error) => {
                lane.give_up(&batch);
                self.finish(batch.batch, Err(error));
            }
        }
    }

    fn finish(&self, mut batch: Outgoing, outcome: Result<Acknowledged, ProduceError>) {
        self.release(&batch);
        batch.decider.decide(outcome);
    }

    /// Gives a batch's room back.
    fn release(&self, batch: &Outgoing) {
        self.shared.gathering().accumulator.finish(batch.id);
        self.shared.room.add_permits(batch.reserved);
    }

    /// Fails what is past its delivery deadline.
    fn expire(&mut self, now: Instant) {
        if now < self.next_expiry {
            return;
        }
        let timeout = self.shared.config.delivery_timeout;
        let expired = |created: Instant| created + timeout <= now;
        let mut oldest = now;
        let mut failed = Vec::new();
        {
            let mut gathering = self.shared.gathering();
            for place in 0..gathering.accumulator.places() {
                while let Some(created) = gathering.accumulator.oldest(place) {
                    if !expired(created) {
                        oldest = oldest.min(created);
                        break;
                    }
                    failed.extend(gathering.accumulator.take(place).map(Outgoing::new));
                }
            }
        }
        for lane in &mut self.lanes {
            failed.extend(
                lane.expire(|batch| expired(batch.batch.created)).into_iter().map(|batch| batch.batch),
            );
            oldest = lane.waiting().map(|batch| batch.batch.created).fold(oldest, Instant::min);
        }
        for batch in failed {
            let error = timed_out(&batch, timeout, batch.decider.possibly_written);
            self.finish(batch, Err(error));
        }
        // Those in flight keep their place until they are answered, but nobody waits for them any longer.
        for (_, batch) in self.flying.values_mut().flatten() {
            if expired(batch.batch.created) {
                let error = timed_out(&batch.batch, timeout, true);
                batch.batch.decider.decide(Err(error));
            } else {
                oldest = oldest.min(batch.batch.created);
            }
        }
        self.next_expiry = oldest + timeout;
    }

    /// Without a producer id nothing can be sent.
    fn fail_unsent(&self, source: &RequestError) {
        let mut failed = Vec::new();
        {
            let mut gathering = self.shared.gathering();
            for place in 0..gathering.accumulator.places() {
                failed.extend(std::iter::from_fn(|| gathering.accumulator.take(place)));
            }
        }
        for gathered in failed {
            let partition = gathered.decider.partition().clone();
            let source = source.clone();
            let error = ProduceError::Request { partition, source, possibly_written: false };
            self.finish(Outgoing::new(gathered), Err(error));
        }
    }

    fn connect(&self, node: i32) {
        let (links, core) = (Arc::clone(&self.links), Arc::clone(&self.shared.core));
        self.events.push(Box::pin(async move {
            Event::Connected { node, result: links.connection(&core, node).await.map(drop) }
        }));
    }

    fn refresh_metadata(&mut self) {
        if self.refreshing {
            return;
        }
        self.refreshing = true;
        let core = Arc::clone(&self.shared.core);
        let seen = core.metadata.view().version;
        self.events
            .push(Box::pin(async move { Event::Refreshed(core.refresh_metadata(seen).await.map(drop)) }));
    }

    fn identify(&mut self) {
        if self.identifying {
            return;
        }
        self.identifying = true;
        let (links, core) = (Arc::clone(&self.links), Arc::clone(&self.shared.core));
        self.events.push(Box::pin(async move { Event::Identified(new_identity(&links, &core).await) }));
    }
}

fn timed_out(batch: &Outgoing, after: std::time::Duration, possibly_written: bool) -> ProduceError {
    ProduceError::DeliveryTimeout {
        partition: batch.decider.partition().clone(),
        after,
        last: batch.last.clone().unwrap_or_else(|| Arc::from("none")),
        possibly_written,
    }
}

/// Asks for a producer id until there is one or asking is of no use.
async fn new_identity(links: &Links, core: &Core) -> Result<Identity, RequestError> {
    let mut backoff = core.backoff();
    loop {
        let error = match ask_identity(links, core).await {
            Ok(identity) => return Ok(identity),
            Err(error) => error,
        };
        if !error.is_retriable() {
            return Err(error);
        }
        tracing::debug!(%error, "no producer id yet");
        tokio::time::sleep(backoff.next(&*core.config.rng)).await;
    }
}

async fn ask_identity(links: &Links, core: &Core) -> Result<Identity, RequestError> {
    let connection = links.any(core).await?;
    // The timeout means something for transactions only; brokers check it all the same.
    let request = InitProducerIdRequest { transaction_timeout_ms: i32::MAX, ..Default::default() };
    let answer = connection.call(&request, core.config.request_timeout).await?;
    match ErrorCode::from_code(answer.error_code) {
        ErrorCode::None => Ok(Identity { producer_id: answer.producer_id, epoch: answer.producer_epoch }),
        code => Err(RequestError::Broker {
            address: Arc::clone(connection.address()),
            api: InitProducerIdRequest::KEY,
            code,
        }),
    }
}
