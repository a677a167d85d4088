//! What goes wrong in a run, by its seed, and when.

use std::time::Duration;

use klamm_runtime::{Rng, SeededRng};
use klamm_tests::{BrokerProcess, Signal, signal};
use tokio::time::sleep;

use super::clients::Clients;
use super::disk::{Disk, fail_syncs};
use super::net::BadNet;
use super::planted::Planted;

/// Faults of one run.
const FAULTS: u64 = 4;
/// A clean stop waits for requests under way.
const STOP: Duration = Duration::from_secs(12);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// kill -9 of the broker.
    Kill,
    /// The same, and once more while it starts.
    KillTwice,
    /// SIGTERM.
    Stop,
    /// SIGSTOP for so many milliseconds, then SIGCONT.
    Pause(u64),
    /// Connections are cut at requests, some of which come late.
    Cut,
    /// A client ends without a word.
    KillClient,
    /// A second producer with a transactional id.
    Twin,
    /// The disk is full for a while.
    Full,
    /// Syncs fail with EIO, and the broker is started again.
    FailSyncs,
}

/// What a seed means. `full` is whether the disk can be.
pub(super) fn plan(seed: u64, full: bool, planted: Option<Planted>) -> Vec<Fault> {
    if planted.is_some() {
        return vec![Fault::Kill; 3];
    }
    let rng = SeededRng::new(seed ^ 0xFA01);
    // Beyond sessions, requests and transactions, and within all of them.
    let pause = [150, 500, 1_000, 1_600][usize::try_from(rng.below(4)).unwrap()];
    let mut all = vec![
        Fault::Kill,
        Fault::KillTwice,
        Fault::Stop,
        Fault::Pause(pause),
        Fault::Cut,
        Fault::Cut,
        Fault::KillClient,
        Fault::KillClient,
        Fault::Twin,
        Fault::Twin,
        Fault::FailSyncs,
    ];
    if full {
        all.extend([Fault::Full, Fault::Full]);
    }
    let mut faults: Vec<Fault> =
        (0..FAULTS).map(|_| all.swap_remove(usize::try_from(rng.below(all.len() as u64)).unwrap())).collect();
    if !faults.iter().any(|fault| matches!(fault, Fault::Kill | Fault::KillTwice | Fault::FailSyncs)) {
        faults.push(Fault::Kill);
    }
    faults
}

/// The broker and its disk.
#[derive(Debug)]
pub(super) struct Victim {
    pub(super) disk: Disk,
    settings: Vec<&'static str>,
    address: String,
    /// Nothing while it is down.
    broker: Option<BrokerProcess>,
    rng: SeededRng,
    planted: Option<Planted>,
    /// What ended brokers had to say.
    pub(super) said: String,
}

impl Victim {
    pub(super) async fn start(
        seed: u64,
        disk: Disk,
        settings: Vec<&'static str>,
        planted: Option<Planted>,
    ) -> Self {
        let broker = BrokerProcess::start_with(&disk.data(), "127.0.0.1:0", &settings).await;
        let (address, rng) = (broker.bootstrap().to_owned(), SeededRng::new(seed ^ 0xB40C));
        Self { disk, settings, address, broker: Some(broker), rng, planted, said: String::new() }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    fn broker(&mut self) -> &mut BrokerProcess {
        self.broker.as_mut().expect("between two faults a broker runs")
    }

    /// What it says now.
    pub(super) fn log(&self) -> String {
        let now = self.broker.as_ref().map(BrokerProcess::log).unwrap_or_default();
        format!("{}{now}", self.said)
    }

    async fn begin_anew(&mut self) {
        self.broker = Some(BrokerProcess::start_with(&self.disk.data(), &self.address, &self.settings).await);
    }

    /// A broker that is down by itself was not to be.
    async fn kill(&mut self) {
        let mut broker = self.broker.take().expect("between two faults a broker runs");
        self.said += &broker.log();
        assert!(broker.is_running(), "the broker ended by itself:\n{}", self.said);
        broker.kill().await;
        self.planted.iter().for_each(|planted| planted.between_lives(&self.disk.data()));
    }

    /// In good order.
    pub(super) async fn stop(&mut self) {
        let mut broker = self.broker.take().expect("between two faults a broker runs");
        self.said += &broker.log();
        assert!(broker.is_running(), "the broker ended by itself:\n{}", self.said);
        broker.stop(STOP).await;
    }

    /// One thing goes wrong and is over.
    pub(super) async fn suffer(&mut self, fault: Fault, net: &BadNet, clients: &mut Clients) {
        let a_while = |rng: &SeededRng| Duration::from_millis(150 + rng.below(350));
        match fault {
            Fault::Kill => {
                self.kill().await;
                self.begin_anew().await;
            }
            Fault::KillTwice => {
                self.kill().await;
                let lifetime = Duration::from_millis(self.rng.below(60));
                let (data, settings) = (self.disk.data(), self.settings.clone());
                let said = BrokerProcess::start_and_kill(&data, &self.address, &settings, lifetime).await;
                self.said += &said;
                self.begin_anew().await;
            }
            Fault::Stop => {
                self.stop().await;
                self.begin_anew().await;
            }
            Fault::Pause(pause_ms) => {
                let id = self.broker().id();
                signal(id, Signal::STOP);
                sleep(Duration::from_millis(pause_ms)).await;
                signal(id, Signal::CONT);
            }
            Fault::Cut => {
                net.cut_one_in(4 + self.rng.below(20));
                sleep(a_while(&self.rng)).await;
                net.cut_one_in(0);
            }
            Fault::KillClient => clients.kill_one().await,
            Fault::Twin => clients.start_twin(),
            Fault::Full => {
                self.disk.fill();
                sleep(a_while(&self.rng)).await;
                self.disk.free();
            }
            Fault::FailSyncs => {
                let (from, so_long) = (1 + self.rng.below(20), a_while(&self.rng));
                let id = self.broker().id();
                fail_syncs(id, from, so_long).await;
                // Where all its disks have failed, it has ended.
                let mut broker = self.broker.take().expect("between two faults a broker runs");
                self.said += &broker.log();
                if broker.is_running() {
                    broker.kill().await;
                }
                self.begin_anew().await;
            }
        }
        sleep(Duration::from_millis(50 + self.rng.below(250))).await;
    }
}
