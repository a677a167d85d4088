//! One broker to be killed, whichever it is.

use std::time::Duration;

use klamm_tests::BrokerProcess;

use crate::company::Kafka;

/// One broker that can be killed: ours, or Apache Kafka.
pub(super) enum Cluster {
    Own { broker: Box<BrokerProcess>, data: tempfile::TempDir },
    Apache(Kafka),
}

impl Cluster {
    pub(super) async fn own(settings: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let broker = BrokerProcess::start_with(data.path(), "127.0.0.1:0", settings).await;
        Self::Own { broker: Box::new(broker), data }
    }

    pub(super) fn address(&self) -> String {
        match self {
            Self::Own { broker, .. } => broker.bootstrap().to_owned(),
            Self::Apache(kafka) => kafka.bootstrap(),
        }
    }

    pub(super) async fn killed_and_restarted(self, settings: &[&str]) -> Self {
        let address = self.address();
        match self {
            Self::Own { broker, data } => {
                broker.kill().await;
                let broker = BrokerProcess::start_with(data.path(), &address, settings).await;
                Self::Own { broker: Box::new(broker), data }
            }
            Self::Apache(mut kafka) => {
                kafka.kill(1).await;
                kafka.restart(1).await;
                Self::Apache(kafka)
            }
        }
    }

    pub(super) fn log(&self) -> String {
        match self {
            Self::Own { broker, .. } => broker.log(),
            Self::Apache(_) => String::new(),
        }
    }

    /// A polite end of our broker; Apache Kafka's is killed when it is dropped.
    pub(super) async fn stop(self) {
        if let Self::Own { broker, .. } = self {
            broker.stop(Duration::from_secs(10)).await;
        }
    }
}
