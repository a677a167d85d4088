//! The producer's task: runs the commands of [`Dispatch`] and tells it how they ended.
//!
//! It never waits for one thing while another could go on: connecting, metadata, producer ids and
//! answers are events of one loop.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use klamm_protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use klamm_protocol::messages::{InitProducerIdRequest, ProduceRequest, ProduceResponse};
use klamm_protocol::{ApiKey, ErrorCode, Records, Request, Uuid};
use tokio::time::Instant;
use tracing::{Instrument, debug_span};

use super::batch::Batch;
use super::dispatch::{Cluster, Command, Dispatch, Rules, Slot};
use super::lane::Identity;
use super::settings::Acks;
use super::shared::Shared;
use crate::cluster::{ClusterView, Core};
use crate::connection::{Brokers, Connection, Links};
use crate::error::RequestError;
use crate::observe::ClientEvent;
use crate::types::TopicPartition;

/// The highest version without ids of topics.
const PRODUCE_BY_NAME: i16 = 12;
/// From here on topics go by id: what was meant for a topic that is gone does not get into one of the same name.
const PRODUCE_BY_ID: i16 = 13;
/// From version 12 on a produced partition joins the transaction by itself (KIP-890).
const PRODUCE_VERSION_CAP_OF_ENLISTED: i16 = 11;

/// What the loop waits for.
enum Event {
    Answered {
        node: i32,
        request: u64,
        result: Result<ProduceResponse, RequestError>,
    },
    /// With `acks` 0.
    Written {
        request: u64,
        result: Result<(), RequestError>,
    },
    Connected {
        node: i32,
        result: Result<(), RequestError>,
    },
    Refreshed(Result<(), RequestError>),
    Identified(Result<Identity, RequestError>),
}

/// The task's state.
pub(super) struct Sender {
    shared: Arc<Shared>,
    links: Arc<Links>,
    dispatch: Dispatch<Batch>,
    events: FuturesUnordered<BoxFuture<'static, Event>>,
    /// The version of the metadata that was looked at last.
    seen: u64,
    _ending: Ending,
}

/// Says that nothing will be sent any more, however the task ends.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The brokers as they are during a pass.
struct Now<'a> {
    core: &'a Core,
    view: &'a ClusterView,
    links: &'a Links,
}

impl Cluster for Now<'_> {
    fn version(&self) -> u64 {
        self.view.version
    }

    fn leader(&self, partition: &TopicPartition) -> Option<i32> {
        self.view.leader(&partition.topic, partition.partition)
    }

    fn topic_id(&self, partition: &TopicPartition) -> Option<Uuid> {
        self.view.topics.get(&partition.topic).map(|topic| topic.id).filter(|id| *id != Uuid::ZERO)
    }

    fn goes_by_id(&self, node: i32) -> bool {
        let connection = self.links.existing(self.core, node);
        let version = connection.map(|connection| connection.version_up_to::<ProduceRequest>(PRODUCE_BY_ID));
        matches!(version, Some(Ok(PRODUCE_BY_ID)))
    }

    fn connected(&self, node: i32) -> bool {
        self.links.existing(self.core, node).is_some()
    }
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (config, client) = (&shared.config, &shared.core.config);
        let dispatch = Dispatch::new(Rules {
            idempotent: config.idempotent,
            transactional: config.transactional_id.is_some(),
            max_in_flight: config.max_in_flight,
            max_request_bytes: config.max_request_bytes,
            delivery_timeout: config.delivery_timeout,
            retry_backoff: client.retry_backoff,
            retry_backoff_max: client.retry_backoff_max,
            idle_after: config.metadata_max_idle,
            rng: Arc::clone(&client.rng),
        });
        let _ending = Ending(Arc::clone(&shared));
        Self { shared, links: Arc::default(), dispatch, events: FuturesUnordered::new(), seen: 0, _ending }
    }

    /// Runs until it is aborted. Batches that are dropped then tell their records.
    pub(super) async fn run(mut self) {
        loop {
            self.work(Instant::now());
            let wake_at = self.dispatch.wake_at();
            let due = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.shared.wake.notified() => {}
                Some(event) = self.events.next(), if !self.events.is_empty() => self.handle(event),
                () = due => {}
            }
        }
    }

    /// Does what is to be done, until nothing is.
    fn work(&mut self, now: Instant) {
        loop {
            {
                let view = self.shared.core.metadata.view();
                let cluster = Now { core: &self.shared.core, view: &view, links: &self.links };
                let mut gathering = self.shared.gathering();
                if std::mem::replace(&mut self.seen, view.version) != view.version {
                    // What is not written to any more need not be kept fresh.
                    self.shared.followed.set(gathering.accumulator.topics().cloned());
                }
                if let Some(transaction) = &mut gathering.transaction {
                    transaction.hand_over(&mut self.dispatch);
                }
                self.dispatch.pass(now, &mut gathering.accumulator, &cluster);
                if let Some(transaction) = &mut gathering.transaction {
                    transaction.broken = self.dispatch.broken().cloned();
                }
            }
            let commands = self.dispatch.commands();
            if commands.is_empty() {
                return self.shared.metrics.buffered(self.shared.buffered());
            }
            let mut released = Vec::new();
            for command in commands {
                self.run_command(command, now, &mut released);
            }
            self.release(released);
        }
    }

    fn run_command(&mut self, command: Command<Batch>, now: Instant, released: &mut Vec<Batch>) {
        let core = Arc::clone(&self.shared.core);
        let links = Arc::clone(&self.links);
        match command {
            Command::Decide { promise, outcome } => promise.decide(outcome),
            Command::Release { batch } => {
                self.shared.metrics.finished(&batch, now);
                released.push(batch);
            }
            Command::Send { node, request } => self.send(node, request, now),
            Command::Shrink { slot, bytes } => self.shared.gathering().accumulator.shrink(slot, bytes),
            Command::Learn(hint) => core.metadata.learn_leader(&hint),
            Command::Report { node, error, first: true } => {
                tracing::warn!(node, %error, "a broker answers the producer nothing of use, which goes on trying");
            }
            Command::Report { node, error, first: false } => {
                tracing::debug!(node, %error, "a request of the producer failed");
            }
            Command::Connect { node } => self.events.push(Box::pin(async move {
                Event::Connected { node, result: links.connection(&*core, node).await.map(drop) }
            })),
            Command::Refresh => {
                let seen = core.metadata.view().version;
                self.events.push(Box::pin(async move {
                    Event::Refreshed(core.refresh_metadata(seen).await.map(drop))
                }));
            }
            Command::Identify => self
                .events
                .push(Box::pin(async move { Event::Identified(new_identity(&links, &core).await) })),
        }
    }

    /// Gives the room of batches back.
    fn release(&self, released: Vec<Batch>) {
        if released.is_empty() {
            return;
        }
        let mut gathering = self.shared.gathering();
        let mut reserved = 0;
        for batch in &released {
            gathering.accumulator.finish(batch.id);
            reserved += batch.reserved;
        }
        drop(gathering);
        self.shared.room.add_permits(reserved);
    }

    /// Sends one request.
    fn send(&mut self, node: i32, request: u64, now: Instant) {
        let mut topics: BTreeMap<Arc<str>, (Option<Uuid>, Vec<PartitionProduceData>)> = BTreeMap::new();
        let mut unwritable: Vec<(Slot, String)> = Vec::new();
        for flying in self.dispatch.flight(request) {
            let stamp = flying.batch.stamp.filter(|_| flying.fresh);
            let (topic_id, attempts) = (flying.topic_id, flying.batch.attempts);
            let batch = &mut flying.batch.batch;
            match batch.write(stamp) {
                Ok(bytes) => {
                    self.shared.metrics.sent(batch, bytes.len(), attempts, now);
                    let partition = batch.decider.partition();
                    let records = Some(Records::Bytes(bytes));
                    let data =
                        PartitionProduceData { index: partition.partition, records, ..Default::default() };
                    let topic = topics.entry(Arc::clone(&partition.topic)).or_default();
                    topic.0 = topic_id;
                    topic.1.push(data);
                }
                Err(error) => unwritable.push((flying.slot, error.to_string())),
            }
        }
        for (slot, reason) in unwritable {
            if self.dispatch.unwritable(request, slot, &reason, now) == 0 {
                return;
            }
        }
        let config = &self.shared.config;
        let by_id = config.transactional_id.is_none() && topics.values().all(|(id, _)| id.is_some());
        let cap = if by_id { PRODUCE_BY_ID } else { PRODUCE_BY_NAME };
        let message = ProduceRequest {
            transactional_id: config.transactional_id.as_deref().map(Into::into),
            acks: config.acks.wire(),
            timeout_ms: i32::try_from(config.request_timeout.as_millis()).unwrap_or(i32::MAX),
            topic_data: topics
                .into_iter()
                .map(|(name, (topic_id, partition_data))| TopicProduceData {
                    name: (&*name).into(),
                    topic_id: topic_id.unwrap_or(Uuid::ZERO),
                    partition_data,
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        };
        match self.start(node, request, &message, cap) {
            Ok(event) => self.events.push(event),
            Err(error) => self.dispatch.answered(request, Err(error), now),
        }
    }

    fn start(
        &self,
        node: i32,
        request: u64,
        message: &ProduceRequest,
        cap: i16,
    ) -> Result<BoxFuture<'static, Event>, RequestError> {
        let connection = self.connection(node)?;
        let enlisted =
            self.shared.gathering().transaction.as_ref().is_some_and(|transaction| transaction.enlists);
        let cap = if enlisted { PRODUCE_VERSION_CAP_OF_ENLISTED } else { cap };
        let version = connection.version_up_to::<ProduceRequest>(cap)?;
        let timeout = self.shared.config.request_timeout;
        let partitions: usize = message.topic_data.iter().map(|topic| topic.partition_data.len()).sum();
        let span = debug_span!("produce", node, partitions);
        if self.shared.config.acks == Acks::None {
            let written = connection.send_only(message, version)?.within(timeout).instrument(span);
            return Ok(Box::pin(async move { Event::Written { request, result: written.await } }));
        }
        let answer = connection.start(message, version)?.within(timeout).instrument(span);
        Ok(Box::pin(async move { Event::Answered { node, request, result: answer.await } }))
    }

    fn note_throttle(&self, node: i32, pause_ms: i32) {
        let pause = Duration::from_millis(u64::try_from(pause_ms).unwrap_or(0));
        if pause.is_zero() {
            return;
        }
        self.shared.metrics.throttled(pause);
        let api = ApiKey::Produce;
        self.shared.core.config.observers.tell(|| ClientEvent::Throttled { node, api, pause });
    }

    fn connection(&self, node: i32) -> Result<Connection, RequestError> {
        let core = &*self.shared.core;
        self.links.existing(core, node).ok_or_else(|| match core.address(node) {
            Some(address) => {
                RequestError::Connect { address, source: Arc::new(io::ErrorKind::NotConnected.into()) }
            }
            None => RequestError::UnknownNode { node },
        })
    }

    fn handle(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Answered { node, request, result } => {
                if let Ok(answer) = &result {
                    self.note_throttle(node, answer.throttle_time_ms);
                }
                self.dispatch.answered(request, result, now);
            }
            Event::Written { request, result } => self.dispatch.written(request, result, now),
            Event::Connected { node, result } => self.dispatch.connected(node, result),
            Event::Identified(result) => self.dispatch.identified(result),
            Event::Refreshed(result) => {
                if let Err(error) = result {
                    tracing::debug!(%error, "metadata refresh failed");
                }
                self.dispatch.refreshed();
            }
        }
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
        ErrorCode::None => Identity::told(answer.producer_id, answer.producer_epoch, connection.address()),
        code => Err(RequestError::Broker {
            address: Arc::clone(connection.address()),
            api: InitProducerIdRequest::KEY,
            code,
        }),
    }
}
