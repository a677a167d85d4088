//! What all clients are: a connection that is opened again when it ends, and a role that sends, hears and loses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use klamm_protocol::{ErrorCode, Uuid};
use klamm_runtime::{Clock, MemoryNet, Rng, SeededRng, TokioClock};
use tokio::task::unconstrained;

use super::connection::Connection;
use super::disk::SimDisk;
use super::known::{Known, stands};
use super::model::{Model, Place};
use super::planted::Planted;

/// How many of the last happenings are told with a failure.
const TOLD: usize = 60;

/// A join with a `group.instance.id` that was answered: nobody who joined with it before is a member any more.
#[derive(Debug, Clone)]
pub(super) struct Takeover {
    pub(super) life: u64,
    /// Everything that happened before has a smaller number.
    pub(super) sent: u64,
    pub(super) member_id: String,
}

/// The number of a leader's request and what it gave to a member.
pub(super) type Assignment = (u64, Vec<Place>);

/// What every client and the world have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) model: Model,
    pub(super) rng: SeededRng,
    pub(super) clock: TokioClock,
    pub(super) net: Arc<MemoryNet>,
    pub(super) disk: SimDisk,
    /// Nothing while no broker runs.
    pub(super) address: Option<String>,
    pub(super) planted: Option<Planted>,
    /// The broker has begun anew and nobody has asked it for anything since.
    pub(super) settled: bool,
    /// The disk failed during the start.
    pub(super) doubtful: bool,
    /// How often a broker was started.
    pub(super) life: u64,
    /// `transaction.timeout.ms` of all clients; zero when there are none with transactions.
    pub(super) transaction_timeout: Duration,
    /// Requests of members whose place another had taken.
    pub(super) fenced: u64,
    /// The last for each instance.
    pub(super) takeovers: BTreeMap<String, Takeover>,
    /// Group, generation and member (its instance if it has one): what leaders gave it, each with the number of the
    /// leader's request.
    pub(super) assignments: BTreeMap<(String, i32, String), Vec<Assignment>>,
    /// By life, group and generation: which of the leaders' requests counted.
    pub(super) counted: BTreeMap<(u64, String, i32), u64>,
    last_number: u64,
    told: Vec<String>,
}

impl Shared {
    pub(super) fn new(
        model: Model,
        seed: u64,
        clock: TokioClock,
        disk: SimDisk,
        planted: Option<Planted>,
    ) -> Self {
        Self {
            model,
            rng: SeededRng::new(seed),
            clock,
            net: Arc::new(MemoryNet::new()),
            disk,
            address: None,
            planted,
            settled: false,
            doubtful: false,
            life: 0,
            fenced: 0,
            transaction_timeout: Duration::ZERO,
            takeovers: BTreeMap::new(),
            assignments: BTreeMap::new(),
            counted: BTreeMap::new(),
            last_number: 0,
            told: Vec::new(),
        }
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// A number that nothing else has.
    pub(super) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Whether a bug of this kind is planted.
    pub(super) fn plants(&self, is: impl Fn(Planted) -> bool) -> bool {
        self.planted.is_some_and(is)
    }

    pub(super) fn chance(&self, percent: u64) -> bool {
        self.rng.below(100) < percent
    }

    pub(super) fn pick<T: Clone>(&self, from: &[T]) -> Option<T> {
        from.get(self.rng.below(from.len() as u64) as usize).cloned()
    }

    /// Takes note of what happened, and of what the disk was asked for until then.
    pub(super) fn note(&mut self, what: String) {
        let calls = if stands(Known::SameDiskCalls) { self.disk.history() % 0x10000 } else { 0 };
        self.told.extend(self.disk.take_calls());
        self.told.push(format!("{:>9} {calls:04x} {what}", self.now_ms() % 1_000_000_000));
    }

    /// All that happened.
    pub(super) fn trace(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }

    /// The last that happened.
    pub(super) fn story(&self) -> String {
        let most = std::env::var("KLAMM_TOLD").ok().and_then(|most| most.parse().ok()).unwrap_or(TOLD);
        self.told.iter().skip(self.told.len().saturating_sub(most)).map(|line| format!("{line}\n")).collect()
    }

    /// A storage error is an answer for a disk that failed, or for a topic that is being deleted, and for nothing else.
    pub(super) fn check_refusal(&mut self, code: i16, topic: Option<Uuid>, who: &str) {
        let deleting = topic
            .is_some_and(|id| self.model.topics.get(&id).is_none_or(|topic| topic.gone || topic.deleting));
        if code == ErrorCode::KafkaStorageError.code() && self.disk.fired() == 0 && !deleting {
            self.model.fail(format!("{who} was refused, and the disk has not failed since the start"));
        }
    }
}

/// What a client does.
pub(super) trait Role {
    /// What is remembered of a request until its answer is there.
    type Asked;

    /// Sends something, or not.
    fn act(&mut self, connection: &mut Connection<Self::Asked>, shared: &mut Shared);

    /// An answer is there.
    fn answered(&mut self, asked: Self::Asked, frame: Bytes, shared: &mut Shared);

    /// The connection ended before the answer was there.
    fn lost(&mut self, asked: Self::Asked, shared: &mut Shared);
}

/// A client of any role.
pub(super) trait Actor {
    fn act(&mut self, shared: &mut Shared);
    fn receive(&mut self, shared: &mut Shared);
    fn cut(&mut self, shared: &mut Shared);
}

pub(super) struct Client<R: Role> {
    name: String,
    role: R,
    connection: Option<Connection<R::Asked>>,
}

impl<R: Role> Client<R> {
    pub(super) fn new(name: String, role: R) -> Self {
        Self { name, role, connection: None }
    }
}

impl<R: Role> Actor for Client<R> {
    fn act(&mut self, shared: &mut Shared) {
        if self.connection.is_none() {
            let Some(address) = &shared.address else { return };
            self.connection = unconstrained(Connection::open(&shared.net, address)).now_or_never().flatten();
        }
        if let Some(connection) = &mut self.connection {
            let before = connection.waiting();
            self.role.act(connection, shared);
            if connection.waiting() > before {
                shared.note(format!("{} asks", self.name));
            }
        }
    }

    fn receive(&mut self, shared: &mut Shared) {
        let Some(connection) = &mut self.connection else { return };
        while let Some((asked, frame)) = connection.receive() {
            shared.note(format!("{} hears {} bytes", self.name, frame.len()));
            self.role.answered(asked, frame, shared);
        }
        if connection.is_closed() {
            self.cut(shared);
        }
    }

    fn cut(&mut self, shared: &mut Shared) {
        let Some(connection) = self.connection.take() else { return };
        shared.note(format!("{} is cut off with {} open", self.name, connection.waiting()));
        for asked in connection.cut() {
            self.role.lost(asked, shared);
        }
    }
}
