//! One run: a broker that is started, hurt and started again under its clients, one step after another on a clock that
//! stands still between them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use klamm_broker::{Broker, BrokerError};
use klamm_runtime::{Rng, SeededRng, TokioClock};
use tokio::task::yield_now;
use tokio::time::sleep;

use super::DATA_DIR;
use super::admin::Admin;
use super::check::Checker;
use super::client::{Actor, Client, Shared};
use super::committer::Committer;
use super::disk::SimDisk;
use super::follower::Follower;
use super::known::{Known, stands};
use super::member::Member;
use super::model::Model;
use super::net::SimNet;
use super::plan::Plan;
use super::planted::Planted;
use super::producer::{Idempotent, Plain};
use super::reader::Reader;
use super::transactional::Transactional;

const NOW_MS: i64 = 1_700_000_000_000;

/// What a run did.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) struct Outcome {
    pub(super) acknowledged: u64,
    pub(super) read: u64,
    pub(super) lives: u64,
    pub(super) faults: u64,
    /// Members that were told that another has their place.
    pub(super) fenced: u64,
    /// Transactions of which it is known how they ended, and requests of clients that others had fenced.
    pub(super) committed: u64,
    pub(super) aborted: u64,
    pub(super) stale: u64,
    pub(super) trace: Vec<String>,
}

impl Outcome {
    pub(super) fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.read += other.read;
        self.lives += other.lives;
        self.faults += other.faults;
        self.fenced += other.fenced;
        self.committed += other.committed;
        self.aborted += other.aborted;
        self.stale += other.stale;
    }

    /// Whether enough was written, read and broken for a run of any length to say something.
    pub(super) fn is_worth_something(&self) -> bool {
        self.acknowledged > 20 && self.read > 20 && self.lives > 1
    }
}

/// A promise that was not kept.
#[derive(Debug)]
pub(super) struct Broken {
    seed: u64,
    pub(super) what: String,
    story: String,
    plan: Plan,
}

impl Broken {
    pub(super) fn last_line(&self) -> String {
        format!("KLAMM_SEED={} KLAMM_SEEDS=1: {}", self.seed, self.what)
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { story, plan, .. } = self;
        write!(f, "{story}{plan:?}\n{}", self.last_line())
    }
}

/// How a life of the broker ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Stop,
    Kill,
    PowerCut,
}

struct World {
    plan: Plan,
    rng: SeededRng,
    shared: Shared,
    actors: Vec<Box<dyn Actor>>,
    broker: Option<Broker>,
}

/// Runs a seed.
pub(super) fn run(seed: u64, planted: Option<Planted>) -> Result<Outcome, Box<Broken>> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(seed, planted);
        world.live().await;
        let (acknowledged, read) = (world.shared.model.acknowledged, world.shared.model.read);
        match world.shared.model.broken() {
            None => Ok(Outcome {
                acknowledged,
                read,
                lives: world.shared.life,
                faults: world.shared.disk.fired_in_all(),
                fenced: world.shared.fenced,
                committed: world.shared.model.ledger.committed,
                aborted: world.shared.model.ledger.aborted,
                stale: world.shared.model.ledger.stale,
                trace: world.shared.trace(),
            }),
            Some(what) => Err(Box::new(Broken {
                seed,
                what: what.clone(),
                story: world.shared.story(),
                plan: world.plan.clone(),
            })),
        }
    })
}

/// The clients of a run.
fn actors(plan: &Plan) -> Vec<Box<dyn Actor>> {
    let mut actors: Vec<Box<dyn Actor>> = Vec::new();
    let admin = Admin { names: plan.names.clone(), deletes_percent: plan.deletes_percent };
    actors.push(Box::new(Client::new("admin".into(), admin)));
    actors.push(Box::new(Client::new("committer".into(), Committer { group: "lone".into() })));
    for at in 0..plan.idempotent {
        actors.push(Box::new(Client::new(format!("idempotent {at}"), Idempotent::default())));
    }
    for at in 0..plan.plain {
        actors.push(Box::new(Client::new(format!("plain {at}"), Plain)));
    }
    for at in 0..plan.members {
        actors.push(Box::new(Client::new(format!("member {at}"), Member::of("group", None))));
    }
    for at in 0..plan.static_members {
        let member = Member::of("group", Some(format!("static-{}", at % 2)));
        actors.push(Box::new(Client::new(format!("static {at}"), member)));
    }
    for at in 0..plan.readers {
        actors.push(Box::new(Client::new(format!("reader {at}"), Reader)));
    }
    for at in 0..plan.transactional {
        let id = format!("tx-{}", at % plan.transactional_ids);
        let role = Transactional::of(&id, plan.transaction_timeout_ms);
        actors.push(Box::new(Client::new(format!("transactional {at}"), role)));
    }
    if plan.transactional > 0 {
        actors.push(Box::new(Client::new("follower".into(), Follower)));
    }
    actors
}

impl World {
    fn new(seed: u64, planted: Option<Planted>) -> Self {
        let plan = Plan::of(seed, planted);
        let rng = SeededRng::new(seed);
        let disk = SimDisk::new(rng.next_u64(), plan.disk, planted);
        let model = Model::new(plan.retention);
        let clock = TokioClock::starting_at(NOW_MS);
        let mut shared = Shared::new(model, rng.next_u64(), clock, disk, planted);
        shared.transaction_timeout = Duration::from_millis(plan.transaction_timeout_ms as u64);
        let actors = actors(&plan);
        Self { plan, rng, shared, actors, broker: None }
    }

    fn is_broken(&self) -> bool {
        self.shared.model.broken().is_some()
    }

    /// Faults, and after them a time in which everything has to serve again.
    async fn live(&mut self) {
        self.start(true).await;
        if self.plan.transactional > 0 && !self.is_broken() {
            self.shared.disk.arm(false);
            Checker::prepare(&mut self.shared).await;
            self.shared.disk.arm(true);
        }
        for _ in 0..self.plan.steps {
            if self.is_broken() {
                return;
            }
            self.step().await;
        }
        self.heal().await;
        if !self.is_broken() {
            self.shared.model.finish();
        }
    }

    async fn step(&mut self) {
        self.hurt().await;
        let at = self.rng.below(self.actors.len() as u64) as usize;
        self.actors[at].act(&mut self.shared);
        self.pause().await;
        if self.rng.below(1_000) < self.plan.cuts {
            let at = self.rng.below(self.actors.len() as u64) as usize;
            self.actors[at].cut(&mut self.shared);
        }
        self.receive();
        if self.shared.disk.is_off() {
            self.restart(End::PowerCut).await;
        } else if self.broker.as_ref().is_some_and(|broker| broker.gave_up().now_or_never().is_some()) {
            // Its disk had an error; whoever runs it starts it again.
            self.restart(End::Stop).await;
        }
    }

    /// Lets the broker run: not at all, for some turns of its tasks, until it has nothing to do, or for seconds.
    async fn pause(&mut self) {
        match self.rng.below(20) {
            0..9 => {}
            9..14 => {
                for _ in 0..self.rng.below(12) {
                    yield_now().await;
                }
            }
            14..19 => sleep(Duration::from_millis(1 + self.rng.below(20))).await,
            _ => sleep(Duration::from_millis(self.rng.below(5_000))).await,
        }
    }

    fn receive(&mut self) {
        for actor in &mut self.actors {
            actor.receive(&mut self.shared);
        }
    }

    async fn hurt(&mut self) {
        let plan = &self.plan;
        let dice = [
            (plan.power_cuts, Some(End::PowerCut)),
            (plan.kills, Some(End::Kill)),
            (plan.restarts, Some(End::Stop)),
        ];
        for (rate, end) in dice {
            if self.rng.below(1_000) < rate
                && let Some(end) = end
            {
                return self.restart(end).await;
            }
        }
        if self.rng.below(1_000) < self.plan.power_cuts_in_calls {
            self.shared.disk.cut_power_after(self.rng.below(40));
        }
        if self.rng.below(1_000) < self.plan.full {
            let full = self.rng.below(2) == 0;
            self.shared.note(format!("the disk is full: {full}"));
            self.shared.disk.set_full(full);
        }
    }

    async fn restart(&mut self, end: End) {
        self.end(end).await;
        if !self.is_broken() {
            let careful = self.rng.below(2) == 0;
            self.start(careful).await;
        }
    }

    async fn end(&mut self, end: End) {
        self.shared.note(format!("the broker ends: {end:?}"));
        self.shared.address = None;
        if let Some(broker) = self.broker.take() {
            if end == End::Stop && !stands(Known::AnswersAtStop) {
                sleep(Duration::from_millis(1)).await;
                self.receive();
            }
            if end == End::Stop
                && let Err(error) = broker.shutdown().await
            {
                // It waits for a disk that hangs, but not for ever.
                let in_vain =
                    error.to_string().contains("did not come back in time") && self.shared.disk.has_hung();
                let excused = in_vain || self.shared.disk.fired() > 0;
                self.shared.model.check(excused, || format!("the broker cannot stop: {error}"));
            }
            if stands(Known::AnswersAtStop) {
                self.receive();
            }
            self.shared.disk.kill();
            drop(broker);
        }
        for actor in &mut self.actors {
            actor.cut(&mut self.shared);
        }
        // Its tasks end a moment later.
        for _ in 0..20 {
            yield_now().await;
        }
        sleep(Duration::from_millis(1)).await;
        if self.shared.disk.is_off() {
            self.shared.disk.power_on();
        } else if end == End::PowerCut {
            self.shared.disk.crash();
        }
        self.shared.disk.power_on();
        self.shared.disk.between_lives();
        for register in self.shared.model.offsets.values_mut() {
            register.restarted();
        }
    }

    /// Starts a broker. A careful start meets no faults and everything is looked at after it.
    async fn start(&mut self, careful: bool) {
        let mut careful = careful;
        loop {
            self.shared.disk.new_life();
            self.shared.disk.arm(!careful);
            if careful {
                self.shared.disk.set_full(false);
            }
            self.shared.life += 1;
            match self.try_start().await {
                Ok(broker) if !self.shared.disk.is_off() => {
                    self.shared.note(format!("life {} begins, careful {careful}", self.shared.life));
                    self.shared.doubtful = self.shared.disk.fired() > 0;
                    self.shared.address = Some(broker.bootstrap().to_owned());
                    self.broker = Some(broker);
                    break;
                }
                Ok(broker) => {
                    self.broker = Some(broker);
                    self.end(End::PowerCut).await;
                }
                Err(error) => {
                    self.shared.note(format!("the broker does not start: {error}"));
                    if self.shared.disk.fired() == 0 {
                        return self.shared.model.fail(format!("the broker does not start: {error}"));
                    }
                    self.end(if self.shared.disk.is_off() { End::PowerCut } else { End::Kill }).await;
                    // The second time the disk does what it shall.
                    careful = true;
                }
            }
        }
        if careful {
            Checker::check(&mut self.shared).await;
        }
        self.shared.disk.arm(true);
    }

    async fn try_start(&self) -> Result<Broker, BrokerError> {
        let plan = &self.plan;
        let disk = self.shared.disk.of_next_process();
        let net = SimNet { net: self.shared.net.clone(), disk: disk.clone() };
        let retention_ms = plan.retention.ms.unwrap_or(-1);
        let retention_bytes = plan.retention.bytes.map_or(-1, |bytes| bytes as i64);
        Broker::builder()
            .data_dir(DATA_DIR)
            .set("auto.create.topics.enable", false)
            .set("offsets.topic.num.partitions", 2)
            .set("offsets.topic.segment.bytes", plan.offsets_segment_bytes)
            .set("transaction.state.log.num.partitions", 2)
            .set("transaction.state.log.segment.bytes", plan.state_segment_bytes)
            .set("producer.snapshot.interval.bytes", plan.snapshot_interval_bytes)
            .set("log.segment.bytes", plan.segment_bytes)
            .set("log.index.interval.bytes", 512)
            .set("log.index.size.max.bytes", 1_024)
            .set("log.retention.ms", retention_ms)
            .set("log.retention.bytes", retention_bytes)
            .set("log.retention.check.interval.ms", 700)
            .set("log.cleaner.backoff.ms", 500)
            .set("log.cleaner.min.cleanable.ratio", 0.2)
            .set("log.cleaner.delete.retention.ms", 3_000)
            .disk(Arc::new(disk))
            .net(Arc::new(net))
            .clock(Arc::new(self.shared.clock))
            .rng(Arc::new(SeededRng::new(self.rng.next_u64())))
            .start()
            .await
    }

    /// The faults are over: within a minute everything serves.
    async fn heal(&mut self) {
        self.shared.disk.arm(false);
        self.shared.disk.set_full(false);
        let must_restart = self.shared.disk.fired() > 0 || self.shared.disk.is_off();
        if !must_restart {
            self.shared.disk.power_on();
        }
        let end = match self.rng.below(4) {
            0 if !must_restart => None,
            1 => Some(End::Kill),
            2 => Some(End::PowerCut),
            _ => Some(End::Stop),
        };
        match end {
            Some(end) => {
                self.end(end).await;
                if self.is_broken() {
                    return;
                }
                self.start(true).await;
            }
            None => {
                sleep(Duration::from_millis(10)).await;
                self.receive();
                for actor in &mut self.actors {
                    actor.cut(&mut self.shared);
                }
                // What hangs goes on by then.
                sleep(Duration::from_secs(50)).await;
            }
        }
        self.shared.disk.arm(false);
        if !self.is_broken() {
            Checker::serves(&mut self.shared).await;
        }
    }
}
