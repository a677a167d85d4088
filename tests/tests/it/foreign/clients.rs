//! The table of clients: which versions run, how a program on them is started, how they say that the broker refuses;
//! a test for each.

use tokio::process::Command;

use super::installed::{go_build, java_jars, node_modules, python};
use super::kcat;
use super::scenario::passes;

/// A client in one version.
pub(super) struct Client {
    /// As the page and the program call it.
    pub(super) name: &'static str,
    /// The version that is pinned in tests/foreign.
    pub(super) version: &'static str,
    pub(super) kind: Kind,
    /// A failed step carries one of these when the broker was asked and said no, or does not offer the API.
    pub(super) refusals: &'static [&'static str],
}

/// What its program is written in.
pub(super) enum Kind {
    Java,
    /// A script of tests/foreign/python, and the pins that are installed for it.
    Python(&'static str, &'static str),
    Node,
    /// A package of tests/foreign/go.
    Go(&'static str),
    Kcat,
}

/// What librdkafka says. It aborts where it misses DeleteGroups, and looks for ever for a coordinator that has the
/// next generation of groups; both with every broker that lacks these.
const LIBRDKAFKA: &[&str] =
    &["_UNSUPPORTED_FEATURE", "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", "aborted", "goes on trying"];

/// In the order of the page.
pub(super) const CLIENTS: &[Client] = &[
    Client {
        name: "kafka-clients",
        version: "4.3.0",
        kind: Kind::Java,
        refusals: &["UnsupportedVersionException", "TransactionalIdAuthorizationException"],
    },
    librdkafka("2.1.1", "confluent-kafka-2.1.1"),
    librdkafka("2.3.0", "confluent-kafka-2.3.0"),
    librdkafka("2.11.1", "confluent-kafka-2.11.1"),
    librdkafka("2.16.0", "confluent-kafka-2.16.1"),
    Client { name: "kcat", version: "1.7.1", kind: Kind::Kcat, refusals: LIBRDKAFKA },
    Client {
        name: "franz-go",
        version: "1.22.2",
        kind: Kind::Go("franz-go"),
        refusals: &["broker is too old", "TRANSACTIONAL_ID_AUTHORIZATION_FAILED"],
    },
    Client {
        name: "sarama",
        version: "1.61.1",
        kind: Kind::Go("sarama"),
        refusals: &["The version of API is not supported", "Transactional ID authorization failed"],
    },
    Client {
        name: "KafkaJS",
        version: "2.2.4",
        kind: Kind::Node,
        refusals: &["does not support the requested API version", "Failed to find group coordinator"],
    },
    Client {
        name: "kafka-python",
        version: "3.0.12",
        kind: Kind::Python("kafka_python.py", "kafka-python"),
        refusals: &["IncompatibleBrokerVersion", "TransactionalIdAuthorizationFailed"],
    },
    Client {
        name: "aiokafka",
        version: "0.14.0",
        kind: Kind::Python("aio.py", "aiokafka"),
        refusals: &["IncompatibleBrokerVersion", "TransactionalIdAuthorizationFailed"],
    },
];

const fn librdkafka(version: &'static str, wheel: &'static str) -> Client {
    Client { name: "librdkafka", version, kind: Kind::Python("confluent.py", wheel), refusals: LIBRDKAFKA }
}

impl Client {
    /// The client that `name version` says.
    pub(super) fn find(label: &str) -> &'static Self {
        let found = CLIENTS.iter().find(|client| client.label() == label);
        found.unwrap_or_else(|| panic!("{label} is not in the table of clients"))
    }

    pub(super) fn label(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    /// Its program, to be called with the broker's address and a prefix; nothing where this machine does not have it,
    /// which was said.
    pub(super) async fn program(&self) -> Option<Command> {
        match self.kind {
            Kind::Java => {
                let mut java = Command::new("java");
                java.args([
                    "-XX:TieredStopAtLevel=1",
                    "-XX:+UseSerialGC",
                    "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
                ]);
                java.args(["-cp", &java_jars(&self.label())?, "tests/foreign/java/Scenario.java"]);
                Some(java)
            }
            Kind::Python(script, pins) => {
                let mut python = Command::new(python(&self.label(), pins)?);
                python.arg(format!("tests/foreign/python/{script}")).env("PYTHONDONTWRITEBYTECODE", "1");
                Some(python)
            }
            Kind::Node => {
                let mut node = Command::new("node");
                node.arg("tests/foreign/node/kafkajs.js").env("NODE_PATH", node_modules(&self.label())?);
                Some(node)
            }
            Kind::Go(package) => Some(Command::new(go_build(&self.label(), package).await?)),
            Kind::Kcat => panic!("kcat has no program: see kcat.rs"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_clients() {
    passes("kafka-clients 4.3.0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn librdkafka_2_1() {
    passes("librdkafka 2.1.1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn librdkafka_2_3() {
    passes("librdkafka 2.3.0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn librdkafka_2_11() {
    passes("librdkafka 2.11.1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn librdkafka_newest() {
    passes("librdkafka 2.16.0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kcat_with_an_older_librdkafka() {
    kcat::passes().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn franz_go() {
    passes("franz-go 1.22.2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sarama() {
    passes("sarama 1.61.1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafkajs() {
    passes("KafkaJS 2.2.4").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_python() {
    passes("kafka-python 3.0.12").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aiokafka() {
    passes("aiokafka 0.14.0").await;
}
