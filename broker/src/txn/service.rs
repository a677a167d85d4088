//! What requests ask of the transactions: which command each is, and what its caller is told when there is no answer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use klamm_protocol::ErrorCode;
use klamm_runtime::{Clock, Tasks};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::calls::{AddPartitions, Command, Description, EndTransaction, InitProducer, Reply};
use super::coordinator::Coordinator;
use super::markers::{COORDINATOR_EPOCH, MarkerWriter, write_all_markers};
use super::transaction::{Partitions, ProducerIdAndEpoch, TransactionVersion};
use crate::config::{BrokerConfig, TransactionConfig};
use crate::controller::Controller;
use crate::coordinator::{PartitionLog, Runtime, Shard, StateTopic};
use crate::disk::Disk;
use crate::group::GroupService;
use crate::partition::Marker;

/// The topic that transactional ids are kept in.
pub(crate) const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// How long a caller waits for the transaction before to be marked. Then it is told `CONCURRENT_TRANSACTIONS`, and
/// comes again: a client may be gone, and a connection does nothing else meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);

/// An answer to come, or why there is none.
type Waiting = Result<oneshot::Receiver<Result<Reply, ErrorCode>>, ErrorCode>;

/// Of each partition that was refused, why.
pub(crate) type RefusedPartitions = Vec<(String, i32, ErrorCode)>;

/// All transactional ids of the broker.
#[derive(Debug)]
pub(crate) struct TransactionService {
    config: TransactionConfig,
    controller: Arc<Controller>,
    disk: Arc<dyn Disk>,
    topic: StateTopic,
    runtime: Runtime<Coordinator, PartitionLog>,
    writer: Arc<MarkerWriter>,
    /// The partitions whose decisions are marked.
    marking: Mutex<BTreeSet<usize>>,
    tasks: Tasks,
}

impl TransactionService {
    /// Begins to load the transactional ids, to keep their time, and to end what was decided.
    pub(crate) fn start(
        config: &BrokerConfig,
        controller: Arc<Controller>,
        groups: Arc<GroupService>,
        clock: Arc<dyn Clock>,
        disk: Arc<dyn Disk>,
    ) -> Arc<Self> {
        let (partitions, segment_bytes) =
            (config.transaction_topic_partitions, config.transaction_topic_segment_bytes);
        let service = Self {
            config: config.transaction,
            topic: StateTopic::new(TRANSACTIONS_TOPIC, partitions, segment_bytes, controller.clone()),
            writer: Arc::new(MarkerWriter::new(controller.clone(), groups, clock.clone())),
            controller,
            disk,
            runtime: Runtime::new(clock),
            marking: Mutex::default(),
            tasks: Tasks::new(),
        };
        service.open();
        Arc::new(service)
    }

    /// Ends every wait, now and from now on: those who wait for a transaction to end are told to find their coordinator
    /// again. What is written is still answered.
    pub(crate) fn stop(&self) {
        self.runtime.stop();
    }

    /// Ends what runs in the background. After this nothing is written and transactions no longer time out; what is
    /// decided is marked after the next start.
    pub(crate) async fn close(&self) {
        self.tasks.shutdown().await;
        self.runtime.close().await;
    }

    /// Makes sure that there is a place for transactional ids, creating `__transaction_state` if need be.
    ///
    /// # Errors
    /// `COORDINATOR_NOT_AVAILABLE` when it cannot be created.
    pub(crate) async fn prepare(&self) -> Result<(), ErrorCode> {
        if self.runtime.is_open() {
            return Ok(());
        }
        self.topic.create().await?;
        self.open();
        // Where some logs could not be made, the other partitions serve.
        if self.runtime.is_empty() { Err(ErrorCode::CoordinatorNotAvailable) } else { Ok(()) }
    }

    /// InitProducerId of a transactional id, once an open transaction is aborted.
    ///
    /// # Errors
    /// What a response says.
    pub(crate) async fn init(&self, call: InitProducer) -> Result<ProducerIdAndEpoch, ErrorCode> {
        self.prepare().await?;
        let again = |fresh| Command::Init(InitProducer { fresh_producer_id: Some(fresh), ..call.clone() });
        let first = patiently(self.ask(&call.id, Command::Init(call.clone()))).await?;
        self.with_producer_id(&call.id, first, again).await
    }

    /// AddPartitionsToTxn, AddOffsetsToTxn: partitions take part, durably.
    ///
    /// # Errors
    /// What a response says, of all of them.
    pub(crate) async fn add_partitions(&self, call: AddPartitions) -> Result<(), ErrorCode> {
        let id = call.id.clone();
        match patiently(self.ask(&id, Command::Add(call))).await? {
            Reply::Code(ErrorCode::None) => Ok(()),
            Reply::Code(error) => Err(error),
            _ => Err(ErrorCode::UnknownServerError),
        }
    }

    /// Which partitions do not take part, and why.
    ///
    /// # Errors
    /// What a response says, of all of them.
    pub(crate) async fn verify(&self, call: AddPartitions) -> Result<RefusedPartitions, ErrorCode> {
        let id = call.id.clone();
        match self.ask_now(&id, Command::Verify(call)).await? {
            Reply::Codes(codes) => Ok(codes?.into_iter().filter(|(.., code)| !code.is_none()).collect()),
            _ => Err(ErrorCode::UnknownServerError),
        }
    }

    /// Lets a partition take part, or sees whether it does; `None` when it does, durably. See [`Self::take_all_part`].
    pub(crate) async fn take_part(
        &self,
        id: &str,
        producer: ProducerIdAndEpoch,
        topic: &str,
        partition: i32,
        adds: bool,
    ) -> ErrorCode {
        let partitions = Partitions::from([(topic.to_owned(), BTreeSet::from([partition]))]);
        match self.take_all_part(id, producer, partitions, adds).await {
            Ok(refused) => refused.first().map_or(ErrorCode::None, |(.., code)| *code),
            Err(error) => error,
        }
    }

    /// Lets partitions take part by what is written into them, for clients that `adds` them so (KIP-890); otherwise
    /// they must have been added before.
    ///
    /// # Errors
    /// What a response says, of all of them.
    pub(crate) async fn take_all_part(
        &self,
        id: &str,
        producer: ProducerIdAndEpoch,
        partitions: Partitions,
        adds: bool,
    ) -> Result<RefusedPartitions, ErrorCode> {
        let version = if adds { TransactionVersion::V2 } else { TransactionVersion::V1 };
        let call = AddPartitions { id: id.to_owned(), producer, partitions, version };
        if adds { self.add_partitions(call).await.map(|()| Vec::new()) } else { self.verify(call).await }
    }

    /// EndTxn: who the client is from now on, once the decision is durable.
    ///
    /// # Errors
    /// What a response says.
    pub(crate) async fn end(&self, call: EndTransaction) -> Result<ProducerIdAndEpoch, ErrorCode> {
        let again = |fresh| Command::End(EndTransaction { fresh_producer_id: Some(fresh), ..call.clone() });
        let first = self.ask(&call.id, Command::End(call.clone())).await?;
        self.with_producer_id(&call.id, first, again).await
    }

    /// DescribeTransactions; `None` when there is no such id.
    ///
    /// # Errors
    /// When the id is still being loaded, or cannot be.
    pub(crate) async fn describe(&self, id: &str) -> Result<Option<Description>, ErrorCode> {
        match self.ask_now(id, Command::Describe { id: id.to_owned() }).await {
            Ok(Reply::Described(found)) => Ok(found),
            Ok(_) => Err(ErrorCode::UnknownServerError),
            Err(ErrorCode::InvalidProducerIdMapping) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// ListTransactions: every id, by name.
    ///
    /// # Errors
    /// When ids are still being loaded, or cannot be.
    pub(crate) async fn list(&self) -> Result<Vec<Description>, ErrorCode> {
        let mut all = Vec::new();
        for shard in self.runtime.shards().iter() {
            let shard: &Arc<Shard<_, _>> = shard.as_ref().ok_or(ErrorCode::CoordinatorNotAvailable)?;
            match reply(Ok(shard.submit_now(Command::List))).await? {
                Reply::Listed(listed) => all.extend(listed),
                _ => return Err(ErrorCode::UnknownServerError),
            }
        }
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    /// WriteTxnMarkers: ends a transaction in one partition, whatever its coordinator thinks of it. Durable when it is
    /// answered. The coordinator's epoch is ours in any case: with a newer one, our own markers would be refused.
    ///
    /// # Errors
    /// What a response says.
    pub(crate) async fn write_marker(
        &self,
        topic: &str,
        partition: i32,
        marker: Marker,
    ) -> Result<(), ErrorCode> {
        self.writer.write(topic, partition, Marker { coordinator_epoch: COORDINATOR_EPOCH, ..marker }).await
    }

    /// Forgets transactional ids that nobody has used for long (`transactional.id.expiration.ms`).
    pub(crate) fn expire(&self) {
        self.runtime.inform_all(|| Command::Expire);
    }

    /// Does what a caller asks of an id.
    async fn ask(&self, id: &str, command: Command) -> Result<Reply, ErrorCode> {
        let shard = self.runtime.shard(id).ok_or_else(|| self.without_shard())?;
        reply(Ok(shard.submit(command).await)).await
    }

    /// As [`Self::ask`], for what writes nothing.
    async fn ask_now(&self, id: &str, command: Command) -> Result<Reply, ErrorCode> {
        let shard = self.runtime.shard(id).ok_or_else(|| self.without_shard());
        reply(shard.map(|shard| shard.submit_now(command))).await
    }

    /// Why no partition can be asked of an id.
    fn without_shard(&self) -> ErrorCode {
        match self.runtime.is_empty() {
            true => ErrorCode::InvalidProducerIdMapping,
            false => ErrorCode::CoordinatorNotAvailable,
        }
    }

    /// The answer, which may take a producer id that nobody has.
    async fn with_producer_id(
        &self,
        id: &str,
        first: Reply,
        again: impl FnOnce(i64) -> Command,
    ) -> Result<ProducerIdAndEpoch, ErrorCode> {
        let reply = match first {
            Reply::NeedsProducerId => {
                let fresh = self.controller.next_producer_id().await.map_err(|error| {
                    tracing::error!(%error, "no producer ids");
                    ErrorCode::CoordinatorNotAvailable
                })?;
                patiently(self.ask(id, again(fresh))).await?
            }
            told => told,
        };
        match reply {
            Reply::Producer(producer) => producer,
            _ => Err(ErrorCode::UnknownServerError),
        }
    }

    fn open(&self) {
        // One at a time, so that each partition has one that writes its markers.
        let mut marking = self.marking.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(logs) = self.topic.logs() else { return };
        let of = |log: Option<_>| log.map(|log| PartitionLog::new(log, self.disk.clone()));
        let config = self.config;
        self.runtime.open(logs.into_iter().map(of), move || Coordinator::new(config), || None);
        for (index, shard) in self.runtime.shards().iter().enumerate() {
            if let Some(shard) = shard.as_ref().filter(|_| marking.insert(index)) {
                let (shard, writer) = (shard.clone(), self.writer.clone());
                self.tasks.spawn("transaction markers", write_all_markers(shard, writer));
            }
        }
    }
}

/// An answer that may have to wait for the transaction before.
async fn patiently(answer: impl Future<Output = Result<Reply, ErrorCode>>) -> Result<Reply, ErrorCode> {
    timeout(PATIENCE, answer).await.unwrap_or(Err(ErrorCode::ConcurrentTransactions))
}

async fn reply(waiting: Waiting) -> Result<Reply, ErrorCode> {
    match waiting?.await {
        // The state of one transaction fits into no record, for instance because of its many partitions.
        Ok(Err(ErrorCode::MessageTooLarge)) => Err(ErrorCode::UnknownServerError),
        Ok(told) => told,
        // The broker is stopping.
        Err(_) => Err(ErrorCode::CoordinatorNotAvailable),
    }
}
