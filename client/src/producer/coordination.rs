//! The task that talks to the coordinator of a producer's transactions: one step after another, so that a step that
//! nobody waits for any more is finished before the next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::messages::add_partitions_to_txn::AddPartitionsToTxnTopic;
use klamm_protocol::messages::txn_offset_commit::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use klamm_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, EndTxnRequest,
    InitProducerIdRequest, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};
use klamm_protocol::{ApiKey, ErrorCode, Request};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{Instrument, Span, debug_span, field};

use super::lane::Identity;
use super::shared::Shared;
use super::transaction::{Beginning, Ending, Meaning, Transactions, meaning};
use crate::connection::Connection;
use crate::error::{ProduceError, RequestError, TransactionError};
use crate::group::{CoordinatorLink, GroupMetadata};
use crate::observe::ClientEvent;
use crate::types::{OffsetAndMetadata, TopicPartition};

type Outcome = Result<(), TransactionError>;
type Reply = oneshot::Sender<Outcome>;

/// The feature that says which flow the cluster has.
const FEATURE: &str = "transaction.version";
/// Versions up to these belong to the older flow.
const OLDER_OFFSET_COMMIT: i16 = 4;
const OLDER_END: i16 = 4;
/// Later ones are for brokers among themselves.
const PRODUCERS_ADD_PARTITIONS: i16 = 3;
/// Later ones are for two-phase commit, which has no use here.
const INIT_VERSION_CAP: i16 = 5;

enum Step {
    Begin(Reply),
    Enlist(TopicPartition, Reply),
    Offsets(Vec<(TopicPartition, OffsetAndMetadata)>, GroupMetadata, Reply),
    End { commit: bool, reply: Option<Reply> },
}

/// Asks the task. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Coordination {
    steps: mpsc::UnboundedSender<Step>,
}

impl Coordination {
    pub(super) async fn begin(&self) -> Outcome {
        self.ask(Step::Begin).await
    }

    /// Makes a partition part of the transaction, where that has to be said.
    pub(super) async fn enlist(&self, partition: TopicPartition) -> Outcome {
        self.ask(|reply| Step::Enlist(partition, reply)).await
    }

    pub(super) async fn send_offsets(
        &self,
        offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
        group: GroupMetadata,
    ) -> Outcome {
        self.ask(|reply| Step::Offsets(offsets, group, reply)).await
    }

    pub(super) async fn end(&self, commit: bool) -> Outcome {
        self.ask(|reply| Step::End { commit, reply: Some(reply) }).await
    }

    /// Aborts without anybody waiting for it.
    pub(super) fn abort(&self) {
        // When the task has ended, there is nothing to abort with.
        let _ = self.steps.send(Step::End { commit: false, reply: None });
    }

    async fn ask(&self, step: impl FnOnce(Reply) -> Step) -> Outcome {
        let (reply, answer) = oneshot::channel();
        self.steps.send(step(reply)).map_err(|_| TransactionError::Closed)?;
        answer.await.unwrap_or(Err(TransactionError::Closed))
    }
}

/// The task's state.
pub(super) struct Coordinator {
    shared: Arc<Shared>,
    transactional_id: Arc<str>,
    link: CoordinatorLink,
    transactions: Transactions,
    /// When the open transaction began.
    begun: Instant,
    /// Of the transaction that is open.
    span: Span,
    steps: mpsc::UnboundedReceiver<Step>,
}

impl Coordinator {
    pub(super) fn new(shared: Arc<Shared>, transactional_id: Arc<str>) -> (Self, Coordination) {
        let (sender, steps) = mpsc::unbounded_channel();
        let link = CoordinatorLink::of_transactions(Arc::clone(&transactional_id));
        let transactions = Transactions::default();
        let begun = Instant::now();
        let span = Span::none();
        (
            Self { shared, transactional_id, link, transactions, begun, span, steps },
            Coordination { steps: sender },
        )
    }

    pub(super) async fn run(mut self) {
        while let Some(step) = self.steps.recv().await {
            match step {
                Step::Begin(reply) => {
                    let id = &*self.transactional_id;
                    self.span = debug_span!("transaction", transactional_id = id, outcome = field::Empty);
                    let span = self.span.clone();
                    let outcome = self.begin().instrument(span).await;
                    self.tell_fenced(&outcome);
                    // Whoever asked has gone: nothing was sent, so nothing is left open.
                    if reply.send(outcome).is_err() && self.transactions.is_open() {
                        self.transactions.end();
                    }
                }
                Step::Enlist(partition, reply) => {
                    let span = self.span.clone();
                    let outcome = self.enlist(partition).instrument(span).await;
                    let _ = reply.send(self.noted(outcome));
                }
                Step::Offsets(offsets, group, reply) => {
                    let span = self.span.clone();
                    let outcome = self.send_offsets(offsets, group).instrument(span).await;
                    let _ = reply.send(self.noted(outcome));
                }
                Step::End { commit, reply } => {
                    let open = self.transactions.is_open();
                    let span = std::mem::replace(&mut self.span, Span::none());
                    let outcome = self.end(commit).instrument(span.clone()).await;
                    if open {
                        span.record("outcome", self.shared.metrics.transaction_ended(commit, &outcome));
                        self.tell_fenced(&outcome);
                    }
                    match (reply, outcome) {
                        (Some(reply), outcome) => drop(reply.send(outcome)),
                        (None, Ok(())) => {}
                        (None, Err(error)) => tracing::warn!(%error, "a dropped transaction was not aborted"),
                    }
                }
            }
        }
    }

    /// A step that failed breaks the transaction: it must not be committed without it.
    fn noted(&mut self, outcome: Outcome) -> Outcome {
        self.tell_fenced(&outcome);
        if let Err(error) = &outcome {
            self.break_off(ProduceError::from(error.clone()));
        }
        outcome
    }

    fn tell_fenced(&self, outcome: &Outcome) {
        if let Err(TransactionError::Fenced { transactional_id, code }) = outcome {
            let (transactional_id, code) = (Arc::clone(transactional_id), *code);
            self.shared.core.config.observers.tell(|| ClientEvent::ProducerFenced { transactional_id, code });
        }
    }

    async fn begin(&mut self) -> Outcome {
        let identity = match self.transactions.begin() {
            Err(code) => return Err(self.error(InitProducerIdRequest::KEY, code)),
            Ok(Beginning::Open(identity)) => identity,
            Ok(Beginning::Initialize(previous)) => {
                let (identity, version) = self.initialize(previous).await?;
                self.transactions.initialized(identity, version);
                identity
            }
        };
        self.begun = Instant::now();
        let enlists = self.transactions.enlists();
        if let Some(exchange) = &mut self.shared.gathering().transaction {
            exchange.assign(identity, enlists);
        }
        self.shared.wake.notify_one();
        Ok(())
    }

    async fn initialize(
        &mut self,
        previous: Option<Identity>,
    ) -> Result<(Identity, Option<i16>), TransactionError> {
        let timeout = self.shared.config.transaction_timeout;
        let request = InitProducerIdRequest {
            transactional_id: Some((&*self.transactional_id).into()),
            transaction_timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
            ..Default::default()
        };
        let mut patience = self.patience("beginning a transaction");
        loop {
            let asked = async {
                let connection = self.link.connection(&self.shared.core).await?;
                let version = connection.version_up_to::<InitProducerIdRequest>(INIT_VERSION_CAP)?;
                let mut request = request.clone();
                if let Some(Identity { producer_id, epoch }) = previous.filter(|_| version >= 3) {
                    (request.producer_id, request.producer_epoch) = (producer_id, epoch);
                }
                let answer = self.call(&connection, &request, version).await?;
                Ok((connection.feature(FEATURE), answer))
            };
            let (version, answer) = match asked.await {
                Ok(told) => told,
                Err(error) => {
                    patience.pause(self, error).await?;
                    continue;
                }
            };
            let code = ErrorCode::from_code(answer.error_code);
            match meaning(code) {
                Meaning::Done => {
                    let coordinator = Arc::from("the coordinator");
                    let identity = Identity::told(answer.producer_id, answer.producer_epoch, &coordinator)?;
                    return Ok((identity, version));
                }
                _ => patience.judge(self, ApiKey::InitProducerId, code).await?,
            }
        }
    }

    async fn enlist(&mut self, partition: TopicPartition) -> Outcome {
        self.transactions.touched();
        let Identity { producer_id, epoch } = self.transactions.identity().ok_or(TransactionError::Closed)?;
        let topic = AddPartitionsToTxnTopic {
            name: (&*partition.topic).into(),
            partitions: vec![partition.partition],
            ..Default::default()
        };
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: (&*self.transactional_id).into(),
            v3_and_below_producer_id: producer_id,
            v3_and_below_producer_epoch: epoch,
            v3_and_below_topics: vec![topic],
            ..Default::default()
        };
        let mut patience = self.patience("adding a partition to a transaction");
        loop {
            match self.ask(&request, PRODUCERS_ADD_PARTITIONS).await {
                Err(error) => patience.pause(self, error).await?,
                Ok(answer) => match enlisted(&answer, &partition) {
                    ErrorCode::None => {
                        if let Some(exchange) = &mut self.shared.gathering().transaction {
                            exchange.announced(partition);
                        }
                        return Ok(());
                    }
                    code => patience.judge(self, ApiKey::AddPartitionsToTxn, code).await?,
                },
            }
        }
    }

    async fn send_offsets(
        &mut self,
        offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
        group: GroupMetadata,
    ) -> Outcome {
        let Identity { producer_id, epoch } = self.transactions.identity().ok_or(TransactionError::Closed)?;
        if self.transactions.must_announce_group(&group.group) {
            let request = AddOffsetsToTxnRequest {
                transactional_id: (&*self.transactional_id).into(),
                producer_id,
                producer_epoch: epoch,
                group_id: (&*group.group).into(),
                ..Default::default()
            };
            let mut patience = self.patience("adding a group to a transaction");
            loop {
                match self.ask(&request, i16::MAX).await {
                    Err(error) => patience.pause(self, error).await?,
                    Ok(answer) => match ErrorCode::from_code(answer.error_code) {
                        ErrorCode::None => break,
                        code => patience.judge(self, ApiKey::AddOffsetsToTxn, code).await?,
                    },
                }
            }
            self.transactions.announced_group(Arc::clone(&group.group));
        }
        self.transactions.touched();
        self.commit_offsets(
            &offset_request(&self.transactional_id, producer_id, epoch, offsets, &group),
            &group,
        )
        .await
    }

    async fn commit_offsets(&mut self, request: &TxnOffsetCommitRequest, group: &GroupMetadata) -> Outcome {
        let link = CoordinatorLink::new(Arc::clone(&group.group));
        let cap = if self.transactions.enlists() { OLDER_OFFSET_COMMIT } else { i16::MAX };
        let mut patience = self.patience("sending offsets to a transaction");
        loop {
            let asked = async {
                let connection = link.connection(&self.shared.core).await?;
                let version = connection.version_up_to::<TxnOffsetCommitRequest>(cap)?;
                self.call(&connection, request, version).await
            };
            match asked.await {
                Err(error) => {
                    link.learn_from(&error);
                    patience.pause(self, error).await?;
                }
                Ok(answer) => match refused_offset(request, &answer) {
                    None => return Ok(()),
                    Some(code) => {
                        if meaning(code) == Meaning::Elsewhere {
                            link.forget();
                        }
                        patience.judge(self, ApiKey::TxnOffsetCommit, code).await?;
                    }
                },
            }
        }
    }

    async fn end(&mut self, commit: bool) -> Outcome {
        if !self.transactions.is_open() {
            return Ok(());
        }
        if !commit {
            let reason = Arc::from("it is being aborted");
            self.break_off(ProduceError::TransactionBroken { reason });
        }
        let flushed = self.shared.flush().await;
        let (started, broken) = match &self.shared.gathering().transaction {
            Some(exchange) => (exchange.started, exchange.broken.clone()),
            None => (false, None),
        };
        if started {
            self.transactions.touched();
        }
        let broken = broken.or(flushed.err());
        if let (true, Some(broken)) = (commit, broken) {
            let reason = Arc::from(broken.to_string());
            // What is not committed must not stay open.
            self.tell_end(false).await?;
            let transactional_id = Arc::clone(&self.transactional_id);
            return Err(TransactionError::Aborted { transactional_id, reason });
        }
        self.tell_end(commit).await
    }

    async fn tell_end(&mut self, commit: bool) -> Outcome {
        let Ending::Tell(Identity { producer_id, epoch }) = self.transactions.end() else { return Ok(()) };
        let request = EndTxnRequest {
            transactional_id: (&*self.transactional_id).into(),
            producer_id,
            producer_epoch: epoch,
            committed: commit,
            ..Default::default()
        };
        let cap = if self.transactions.enlists() { OLDER_END } else { i16::MAX };
        let mut patience = self.patience("ending a transaction");
        let (began, mut asked) = (Instant::now(), false);
        loop {
            let failed = match self.ask(&request, cap).await {
                Err(error) => {
                    asked |= error.may_have_been_executed();
                    patience.pause(self, error).await
                }
                Ok(answer) => match ErrorCode::from_code(answer.error_code) {
                    ErrorCode::None => {
                        let (producer_id, epoch) = (answer.producer_id, answer.producer_epoch);
                        let next = (producer_id >= 0).then_some(Identity { producer_id, epoch });
                        self.transactions.ended(commit, next);
                        return Ok(());
                    }
                    code => patience.judge(self, ApiKey::EndTxn, code).await,
                },
            };
            let Err(error) = failed else { continue };
            if !error.is_fatal() {
                self.transactions.lost();
            }
            return match error {
                TransactionError::Timeout { transactional_id, after, last, .. } if asked && commit => {
                    Err(TransactionError::UnknownOutcome { transactional_id, after, last })
                }
                // It may have come about before whatever it was refused for: another producer has the id, say.
                error if asked && commit => {
                    let (transactional_id, last) =
                        (Arc::clone(&self.transactional_id), error.to_string().into());
                    Err(TransactionError::UnknownOutcome { transactional_id, after: began.elapsed(), last })
                }
                // The next identity aborts it.
                TransactionError::Timeout { .. } | TransactionError::Aborted { .. } if !commit => Ok(()),
                error => Err(error),
            };
        }
    }

    fn break_off(&self, error: ProduceError) {
        if let Some(exchange) = &mut self.shared.gathering().transaction {
            exchange.break_off(error);
        }
        self.shared.wake.notify_one();
    }

    /// Asks the coordinator once.
    async fn ask<R: Request>(&self, request: &R, cap: i16) -> Result<R::Response, RequestError> {
        let connection = self.link.connection(&self.shared.core).await?;
        let version = connection.version_up_to::<R>(cap)?;
        self.call(&connection, request, version).await
    }

    async fn call<R: Request>(
        &self,
        connection: &Connection,
        request: &R,
        version: i16,
    ) -> Result<R::Response, RequestError> {
        connection.start(request, version)?.within(self.shared.config.request_timeout).await
    }

    /// Whether the coordinator may have given the transaction up.
    fn is_overdue(&self) -> bool {
        self.begun.elapsed() >= self.shared.config.transaction_timeout
    }

    fn error(&self, api: ApiKey, code: ErrorCode) -> TransactionError {
        let transactional_id = Arc::clone(&self.transactional_id);
        match meaning(code) {
            Meaning::Fenced => TransactionError::Fenced { transactional_id, code },
            Meaning::Abort => {
                let reason = Arc::from(format!("the broker answered {code} to {api:?}"));
                TransactionError::Aborted { transactional_id, reason }
            }
            _ => TransactionError::Broker { transactional_id, api, code },
        }
    }

    fn patience(&self, what: &'static str) -> Patience {
        let after = self.shared.config.max_block;
        let backoff = self.shared.core.backoff();
        Patience { what, after, until: Instant::now() + after, backoff }
    }
}

fn offset_request(
    transactional_id: &str,
    producer_id: i64,
    producer_epoch: i16,
    offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
    group: &GroupMetadata,
) -> TxnOffsetCommitRequest {
    let mut topics: BTreeMap<Arc<str>, Vec<TxnOffsetCommitRequestPartition>> = BTreeMap::new();
    for (partition, offset) in offsets {
        topics.entry(partition.topic).or_default().push(TxnOffsetCommitRequestPartition {
            partition_index: partition.partition,
            committed_offset: offset.offset,
            committed_leader_epoch: offset.leader_epoch.unwrap_or(-1),
            committed_metadata: Some((&*offset.metadata).into()),
            ..Default::default()
        });
    }
    let topics = topics.into_iter().map(|(name, partitions)| TxnOffsetCommitRequestTopic {
        name: (&*name).into(),
        partitions,
        ..Default::default()
    });
    TxnOffsetCommitRequest {
        transactional_id: transactional_id.into(),
        group_id: (&*group.group).into(),
        producer_id,
        producer_epoch,
        generation_id: group.generation,
        member_id: (&*group.member_id).into(),
        group_instance_id: group.group_instance_id.as_deref().map(Into::into),
        topics: topics.collect(),
        ..Default::default()
    }
}

/// What became of a partition; one that the answer leaves out was not taken.
fn enlisted(answer: &AddPartitionsToTxnResponse, partition: &TopicPartition) -> ErrorCode {
    let topics = answer.results_by_topic_v3_and_below.iter();
    let mut parts =
        topics.filter(|topic| *topic.name == *partition.topic).flat_map(|topic| &topic.results_by_partition);
    let told = parts.find(|part| part.partition_index == partition.partition);
    told.map_or(ErrorCode::UnknownServerError, |part| ErrorCode::from_code(part.partition_error_code))
}

/// Why the first of the offsets was not taken that was not; one that the answer leaves out was not either.
fn refused_offset(request: &TxnOffsetCommitRequest, answer: &TxnOffsetCommitResponse) -> Option<ErrorCode> {
    let told: BTreeMap<(&str, i32), i16> = answer
        .topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|part| (&*topic.name, part)))
        .map(|(topic, part)| ((topic, part.partition_index), part.error_code))
        .collect();
    let asked = request
        .topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|part| (&*topic.name, part.partition_index)));
    let mut codes = asked.map(|partition| {
        told.get(&partition).map_or(ErrorCode::UnknownServerError, |&code| ErrorCode::from_code(code))
    });
    codes.find(|code| *code != ErrorCode::None)
}

/// How long a step is tried, and the pauses in between.
struct Patience {
    what: &'static str,
    after: Duration,
    until: Instant,
    backoff: crate::connection::Backoff,
}

impl Patience {
    /// After an error that another attempt may cure; the error when it may not, or when there is no more time.
    async fn pause(&mut self, coordinator: &Coordinator, error: RequestError) -> Outcome {
        coordinator.link.learn_from(&error);
        match error {
            // A broker that does not coordinate transactions says so while it is looked for.
            RequestError::Broker { code, api, .. }
                if meaning(code) != Meaning::Again && !code.is_retriable() =>
            {
                return Err(coordinator.error(api, code));
            }
            error if !error.is_retriable() => return Err(error.into()),
            _ => {}
        }
        self.wait(coordinator, Arc::from(error.to_string())).await
    }

    /// After an answer that is not the wanted one.
    async fn judge(&mut self, coordinator: &mut Coordinator, api: ApiKey, code: ErrorCode) -> Outcome {
        match meaning(code) {
            Meaning::Elsewhere => coordinator.link.forget(),
            Meaning::Done | Meaning::Again => {}
            // The coordinator fences also whom it has given up; the next identity tells whether that was all.
            Meaning::Fenced | Meaning::Abort if coordinator.is_overdue() && api != ApiKey::InitProducerId => {
                coordinator.transactions.lost();
                let transactional_id = Arc::clone(&coordinator.transactional_id);
                let waits =
                    "it was open for longer than the coordinator waits (setting `transaction_timeout`)";
                let reason = Arc::from(format!("{waits}: the broker answered {code} to {api:?}"));
                return Err(TransactionError::Aborted { transactional_id, reason });
            }
            Meaning::Fenced => {
                coordinator.transactions.fenced(code);
                return Err(coordinator.error(api, code));
            }
            Meaning::Abort | Meaning::Refused => return Err(coordinator.error(api, code)),
        }
        self.wait(coordinator, Arc::from(format!("the broker answered {code} to {api:?}"))).await
    }

    async fn wait(&mut self, coordinator: &Coordinator, last: Arc<str>) -> Outcome {
        let pause = self.backoff.next(&*coordinator.shared.core.config.rng);
        if Instant::now() + pause >= self.until {
            let transactional_id = Arc::clone(&coordinator.transactional_id);
            return Err(TransactionError::Timeout {
                transactional_id,
                what: self.what,
                after: self.after,
                last,
            });
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
