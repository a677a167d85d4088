//! The broker under attack, and what has to hold after each attack: it is there, it serves others at once, the attacker
//! is answered or let go in time, the memory is as it was, and little is said about it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_broker::{Broker, BrokerBuilder};
use klamm_protocol::messages::fetch::{FetchPartition, FetchTopic};
use klamm_protocol::messages::join_group::JoinGroupRequestProtocol;
use klamm_protocol::messages::metadata::MetadataRequestTopic;
use klamm_protocol::messages::*;
use klamm_protocol::records::BatchOptions;
use klamm_protocol::{ErrorCode, Utf8Bytes, Uuid};
use klamm_runtime::{MemoryNet, SeededRng, TokioClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::time::{Instant, timeout};
use tracing::subscriber::DefaultGuard;

use super::heard::{Heard, PRIVATE};
use super::wire::{Wire, batch, next_frame};
use crate::alloc;

/// What the broker's clock says when it starts: November 2023.
pub(super) const NOW_MS: i64 = 1_700_000_000_000;
/// The topic that attacks name.
pub(super) const TOPIC: &str = "orders";
/// The topic that they do not.
const QUIET: &str = "quiet";
pub(super) const GROUP: &str = "team";
pub(super) const TRANSACTION: &str = "payments";
/// The largest request, small enough to be tested exactly.
pub(super) const REQUEST_MAX: usize = 1 << 20;
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Within this an offender is answered or let go, on the broker's clock.
pub(super) const SOON: Duration = Duration::from_secs(1);
/// Answers that are under way when a peer has nothing more to say may take as long, and a group may wait.
const PATIENCE: Duration = Duration::from_secs(7);
/// An answer to somebody else takes no longer, on the clock on the wall, however busy the machine is.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Half of what is measured here is what the machine does meanwhile.
const USUALLY: Duration = Duration::from_millis(50);
/// What an attack may leave in memory.
const GROWTH_MAX: isize = 16 << 20;
/// What it may take while it lasts: a batch is decompressed up to 64 times its largest size, into a buffer that is
/// counted with the one before it while it grows.
const PEAK_MAX: isize = 144 << 20;

/// What is known to attackers.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) topic_id: Uuid,
    pub(super) producer: (i64, i16),
    pub(super) member_id: Utf8Bytes,
    pub(super) generation: i32,
    pub(super) session_id: i32,
}

pub(super) struct Target {
    broker: Broker,
    pub(super) net: Arc<MemoryNet>,
    pub(super) known: Known,
    good: Wire,
    heard: Heard,
    held: isize,
    since: Instant,
    waits: Vec<Duration>,
    _listening: DefaultGuard,
}

/// What the broker did with a connection.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    Closed,
    Answered(Bytes),
    /// Neither, for as long as it was waited.
    Silent,
}

impl Target {
    pub(super) async fn start() -> Self {
        Self::with(|builder| builder).await
    }

    pub(super) async fn with(change: impl FnOnce(BrokerBuilder) -> BrokerBuilder) -> Self {
        let (heard, listening) = Heard::listen();
        let net = Arc::new(MemoryNet::new());
        let builder = Broker::builder()
            .ephemeral()
            .net(net.clone())
            .clock(Arc::new(TokioClock::starting_at(NOW_MS)))
            .rng(Arc::new(SeededRng::new(1)))
            .set("socket.request.max.bytes", REQUEST_MAX)
            .set("request.read.timeout.ms", READ_TIMEOUT.as_millis())
            .set("max.partitions", 200)
            .set("offsets.topic.num.partitions", 1)
            .set("transaction.state.log.num.partitions", 1);
        let broker = change(builder).start().await.unwrap();
        let mut good = Wire::connect(&*net, broker.bootstrap()).await;
        let known = furnish(&mut good).await;
        heard.check(SOON, "the start");
        let (held, since) = (alloc::watch(), Instant::now());
        Self { broker, net, known, good, heard, held, since, waits: Vec::new(), _listening: listening }
    }

    pub(super) async fn connect(&self) -> Wire {
        Wire::connect(&*self.net, self.broker.bootstrap()).await
    }

    /// Asks `before` and then sends `bytes`, on a connection of its own that stays open. Says what came of them within
    /// `patience`, and how long that took.
    pub(super) async fn send(
        &mut self,
        before: &[Bytes],
        bytes: &[u8],
        patience: Duration,
    ) -> (Outcome, Duration) {
        let mut wire = self.prepared(before).await;
        let begun = Instant::now();
        // It may be closed before all is written.
        let write = async {
            let _ = wire.stream.write_all(bytes).await;
            let _ = wire.stream.flush().await;
            next_frame(&mut wire.stream).await
        };
        let outcome = match timeout(patience, write).await {
            Ok(Some(frame)) => Outcome::Answered(frame),
            Ok(None) => Outcome::Closed,
            Err(_) => Outcome::Silent,
        };
        let took = begun.elapsed();
        self.serves_others().await;
        (outcome, took)
    }

    /// The same, and then says that there is nothing more to come: it has to end soon, whatever was sent. Another
    /// client is served while the broker works on it.
    pub(super) async fn attack(&mut self, before: &[Bytes], bytes: &[u8], what: &str) {
        let wire = self.prepared(before).await;
        let (mut reading, mut writing) = split(wire.stream);
        let write = async {
            let _ = writing.write_all(bytes).await;
            let _ = writing.shutdown().await;
        };
        let mut taken = [0; 8 << 10];
        let read = async { while reading.read(&mut taken).await.is_ok_and(|read| read > 0) {} };
        let attack = timeout(PATIENCE, async { tokio::join!(write, read) });
        let (ended, ()) = tokio::join!(attack, self.serves_others());
        assert!(ended.is_ok(), "{what}: neither answered nor closed within {PATIENCE:?}: {bytes:02x?}");
    }

    async fn prepared(&self, before: &[Bytes]) -> Wire {
        let mut wire = self.connect().await;
        for frame in before {
            wire.send(frame).await;
            if wire.receive().await.is_none() {
                break;
            }
        }
        wire
    }

    /// Somebody else is served, now.
    async fn serves_others(&mut self) {
        let asked = std::time::Instant::now();
        let told = self.good.ask_in(&ApiVersionsRequest::default(), 0).await;
        assert_eq!(told.error_code, 0);
        self.waits.push(asked.elapsed());
    }

    /// What has to hold after a number of attacks. The broker may have been told to be another: then its topics are not
    /// looked at.
    pub(super) async fn unharmed(&mut self, what: &str, same: bool) {
        let everything = MetadataRequest { topics: None, ..MetadataRequest::default() };
        assert_eq!(self.good.ask(&everything).await.error_code, 0, "{what}");
        if same {
            let produced = self.good.produce(QUIET, batch(BatchOptions::default(), &["still"])).await;
            assert_eq!((produced.error_code, &produced.error_message), (0, &None), "{what}");
            let found = self.good.fetch(QUIET, produced.base_offset, 0).await;
            let bytes = found.records.and_then(klamm_protocol::Records::into_bytes).unwrap_or_default();
            assert!(found.error_code == 0 && !bytes.is_empty(), "{what}");
        }
        self.heard.check(self.since.elapsed(), what);
        self.since = Instant::now();
        let peak = alloc::peak() - self.held;
        let grown = alloc::watch() - self.held;
        assert!(grown <= GROWTH_MAX, "{what}: the broker grew by {grown} bytes");
        assert!(peak <= PEAK_MAX, "{what}: the broker took {peak} bytes");
        let mut waits = std::mem::take(&mut self.waits);
        waits.sort();
        assert!(waits.last().is_none_or(|slowest| *slowest < AT_ONCE), "{what}: others waited for {waits:?}");
        let usually = waits.get(waits.len() * 99 / 100).filter(|_| waits.len() >= 500);
        assert!(usually.is_none_or(|wait| *wait < USUALLY), "{what}: others waited for {usually:?}");
    }
}

/// Two topics, a group with a member, a transactional producer and a fetch session.
async fn furnish(wire: &mut Wire) -> Known {
    let named = |name: &&str| MetadataRequestTopic { name: Some((*name).into()), ..Default::default() };
    let topics = Some([TOPIC, QUIET].iter().map(named).collect());
    let topics = wire.ask(&MetadataRequest { topics, ..MetadataRequest::default() }).await.topics;
    for topic in [TOPIC, QUIET] {
        let produced = wire.produce(topic, batch(BatchOptions::default(), &["a", "b", PRIVATE])).await;
        assert_eq!(produced.error_code, 0);
    }
    let begin = InitProducerIdRequest {
        transactional_id: Some(TRANSACTION.into()),
        transaction_timeout_ms: 60_000,
        ..InitProducerIdRequest::default()
    };
    let producer = wire.ask_in(&begin, 4).await;
    assert_eq!(producer.error_code, 0);
    let mut join = join(GROUP);
    let told = wire.ask(&join).await;
    assert_eq!(told.error_code, ErrorCode::MemberIdRequired.code());
    join.member_id = told.member_id;
    let joined = wire.ask(&join).await;
    assert_eq!(joined.error_code, 0);
    let partition = FetchPartition { partition_max_bytes: 1_000, ..FetchPartition::default() };
    let topic = FetchTopic { topic: TOPIC.into(), partitions: vec![partition], ..FetchTopic::default() };
    let fetch = FetchRequest { session_epoch: 0, topics: vec![topic], ..FetchRequest::default() };
    let fetched = wire.ask_in(&fetch, 12).await;
    assert!(fetched.session_id > 0, "{fetched:?}");
    Known {
        topic_id: topics[0].topic_id,
        producer: (producer.producer_id, producer.producer_epoch),
        member_id: joined.member_id,
        generation: joined.generation_id,
        session_id: fetched.session_id,
    }
}

/// Joins a group as somebody new.
pub(super) fn join(group: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol {
        name: "range".into(),
        metadata: Bytes::from_static(PRIVATE.as_bytes()),
        ..JoinGroupRequestProtocol::default()
    };
    JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: 60_000,
        rebalance_timeout_ms: 3_000,
        protocol_type: "consumer".into(),
        protocols: vec![protocol],
        ..JoinGroupRequest::default()
    }
}
