//! The broker of a test, with the network, disk and clock that outlive it when it is restarted.

use std::sync::Arc;
use std::time::Duration;

use klamm_broker::Broker;
use klamm_broker::disk::{MemoryDisk, Tear};
use klamm_client::testing::FaultyNet;
use klamm_client::{Client, ClientError};
use klamm_runtime::{MemoryNet, SeededRng, TokioClock};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::sleep;

/// Where the wall clock of a paused test begins: a number that no real log has (2001-09-09).
const TEST_EPOCH_MS: i64 = 1_000_000_000_000;
/// The seed of everything random in tests.
pub(super) const SEED: u64 = 7;
/// How long the tasks of a crashed broker may take to notice, before another takes its address.
const SETTLE: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(super) struct InProcess {
    net: Arc<MemoryNet>,
    /// Where clients are.
    faults: FaultyNet,
    disk: MemoryDisk,
    clock: Arc<TokioClock>,
    bootstrap: String,
    running: Mutex<Running>,
}

#[derive(Debug)]
struct Running {
    broker: Option<Broker>,
    starts: u64,
}

impl InProcess {
    pub(super) async fn start() -> Self {
        let net = Arc::new(MemoryNet::new());
        let clock = Arc::new(TokioClock::starting_at(TEST_EPOCH_MS));
        let disk = MemoryDisk::new();
        let running = Mutex::new(Running { broker: None, starts: 0 });
        let faults = FaultyNet::over(Arc::clone(&net) as _);
        let mut this = Self { net, faults, disk, clock, bootstrap: "127.0.0.1:0".to_owned(), running };
        this.start_broker(&mut *this.running.lock().await).await;
        let bootstrap = this.running.get_mut().broker.as_ref().map(|broker| broker.bootstrap().to_owned());
        this.bootstrap = bootstrap.unwrap_or_default();
        this
    }

    async fn start_broker(&self, running: &mut Running) {
        running.starts += 1;
        let broker = Broker::builder()
            .disk(Arc::new(self.disk.clone()))
            .listen(self.bootstrap.clone())
            .net(Arc::clone(&self.net) as _)
            .clock(Arc::clone(&self.clock) as _)
            // Another seed for every start: ids of the last one must not come again.
            .rng(Arc::new(SeededRng::new(SEED + running.starts)))
            .set("group.initial.rebalance.delay.ms", 0)
            // One partition is enough for the offsets of a test, and 50 take a while to make.
            .set("offsets.topic.num.partitions", 1)
            .start()
            .await;
        running.broker =
            Some(broker.unwrap_or_else(|error| panic!("the in-process broker does not start: {error}")));
    }

    pub(super) fn faults(&self) -> &FaultyNet {
        &self.faults
    }

    /// Room for nothing more, or for anything.
    pub(super) fn limit_disk(&self, total_bytes: u64) {
        self.disk.limit("/", total_bytes);
    }

    pub(super) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    #[cfg(feature = "schema-registry")]
    pub(super) fn net(&self) -> Arc<dyn klamm_runtime::Net> {
        Arc::clone(&self.net) as _
    }

    pub(super) async fn client(&self) -> Result<Client, ClientError> {
        Client::builder()
            .bootstrap(self.bootstrap.clone())
            .net(Arc::new(self.faults.clone()))
            .clock(Arc::clone(&self.clock) as _)
            .rng(Arc::new(SeededRng::new(SEED)))
            .build()
            .await
    }

    pub(super) async fn restart(&self) {
        let mut running = self.running.lock().await;
        stop(&mut running).await;
        self.start_broker(&mut running).await;
    }

    pub(super) async fn crash(&self) {
        let mut running = self.running.lock().await;
        self.disk.crash(Tear::Prefix(running.starts));
        running.broker = None;
        sleep(SETTLE).await;
        self.start_broker(&mut running).await;
    }

    pub(super) async fn shutdown(&self) {
        stop(&mut self.running.lock().await).await;
    }
}

async fn stop(running: &mut MutexGuard<'_, Running>) {
    if let Some(broker) = running.broker.take()
        && let Err(error) = broker.shutdown().await
    {
        panic!("the in-process broker does not stop in good order: {error}");
    }
    sleep(SETTLE).await;
}
