//! The broker that copiers work on, ours or Apache Kafka's: killed, started again, held still.

use std::time::Duration;

use klamm_tests::{BrokerProcess, Signal, signal};

use crate::company::Kafka;

/// Of its log so much is shown when something fails.
const SHOWN_BYTES: usize = 4_000;
/// Segments of every kind roll all the time; a member that a kill kept from leaving is soon missed.
const SETTINGS: &[&str] = &[
    "log.segment.bytes=20000",
    "offsets.topic.num.partitions=2",
    "offsets.topic.segment.bytes=4000",
    "transaction.state.log.num.partitions=2",
    "transaction.state.log.segment.bytes=4000",
    "producer.snapshot.interval.bytes=2000",
    "group.min.session.timeout.ms=1000",
];

/// A broker with its data.
#[derive(Debug)]
pub(super) enum Side {
    Klamm(Box<Klamm>),
    Kafka(Kafka),
}

/// Ours. There is always a broker but while it is started anew.
#[derive(Debug)]
pub(super) struct Klamm {
    broker: Option<BrokerProcess>,
    data: tempfile::TempDir,
    address: String,
}

impl Side {
    pub(super) async fn klamm() -> Self {
        let data = tempfile::tempdir().unwrap();
        let broker = BrokerProcess::start_with(data.path(), "127.0.0.1:0", SETTINGS).await;
        let address = broker.bootstrap().to_owned();
        Self::Klamm(Box::new(Klamm { broker: Some(broker), data, address }))
    }

    /// Apache Kafka as it is.
    pub(super) async fn kafka(jars: String) -> Self {
        let soon = ["transaction.abort.timed.out.transaction.cleanup.interval.ms=200"];
        Self::Kafka(Kafka::start(jars, 1, &soon).await)
    }

    pub(super) fn bootstrap(&self) -> String {
        match self {
            Self::Klamm(klamm) => klamm.address.clone(),
            Self::Kafka(kafka) => kafka.bootstrap(),
        }
    }

    /// `kill -9`, and started again so much later, at the same address.
    pub(super) async fn kill(&mut self, missed: Duration) {
        match self {
            Self::Klamm(klamm) => {
                let mut running = klamm.broker.take().expect("it was started");
                assert!(running.is_running(), "the broker ended by itself:\n{}", running.log());
                running.kill().await;
                tokio::time::sleep(missed).await;
                let (data, address) = (klamm.data.path(), &klamm.address);
                klamm.broker = Some(BrokerProcess::start_with(data, address, SETTINGS).await);
            }
            Self::Kafka(kafka) => {
                kafka.kill(1).await;
                tokio::time::sleep(missed).await;
                kafka.restart(1).await;
            }
        }
    }

    /// It stands still for so long. Apache Kafka is killed for as long.
    pub(super) async fn hold(&mut self, time: Duration) {
        let Some(broker) = self.ours() else { return self.kill(time).await };
        signal(broker.id(), Signal::STOP);
        tokio::time::sleep(time).await;
        signal(broker.id(), Signal::CONT);
    }

    /// The end of what it has logged.
    pub(super) fn log(&self) -> String {
        let Some(broker) = self.ours() else { return String::new() };
        let log = broker.log();
        let start = log.ceil_char_boundary(log.len().saturating_sub(SHOWN_BYTES));
        log[start..].to_owned()
    }

    pub(super) async fn end(self) {
        if let Self::Klamm(mut klamm) = self
            && let Some(broker) = klamm.broker.take()
        {
            broker.stop(Duration::from_secs(10)).await;
        }
    }

    fn ours(&self) -> Option<&BrokerProcess> {
        match self {
            Self::Klamm(klamm) => klamm.broker.as_ref(),
            Self::Kafka(_) => None,
        }
    }
}
