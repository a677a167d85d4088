//! Nodes of Apache Kafka, each broker and controller in one, in processes of their own: started on free ports, killed,
//! stopped and started again at will, and killed when dropped.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use klamm_client::Client;
use klamm_tests::{Signal, run, signal};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// A JVM on a busy machine takes its time.
const START: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(60);
const FORMAT: Duration = Duration::from_secs(60);

/// A cluster. Nodes are counted from 1, as Kafka does.
#[derive(Debug)]
pub(crate) struct Kafka {
    jars: String,
    nodes: Vec<Node>,
    folder: tempfile::TempDir,
}

#[derive(Debug)]
struct Node {
    address: String,
    properties: PathBuf,
    child: Option<Child>,
}

impl Kafka {
    /// Starts so many nodes, with `key=value` settings beyond those that make tests quick.
    pub(crate) async fn start(jars: String, count: usize, settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports = free_ports(2 * count);
        let (brokers, controllers) = ports.split_at(count);
        let voters: Vec<String> =
            (1..).zip(controllers).map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect();
        let mut nodes = Vec::new();
        for (id, (port, controller)) in (1..).zip(brokers.iter().zip(controllers)) {
            let properties = folder.path().join(format!("{id}.properties"));
            let data = folder.path().join(format!("data-{id}"));
            let mut text = format!(
                "node.id={id}\ncontroller.quorum.voters={}\nlog.dirs={}\n\
                 listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
                 advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n",
                voters.join(","),
                data.display()
            );
            text.push_str(&common(count));
            text.push_str(&settings.join("\n"));
            std::fs::write(&properties, text).unwrap();
            nodes.push(Node { address: format!("127.0.0.1:{port}"), properties, child: None });
        }
        let mut kafka = Self { jars, nodes, folder };
        for node in 1..=count {
            kafka.format(node).await;
        }
        for node in 1..=count {
            kafka.spawn(node);
        }
        kafka.all_answer().await;
        kafka
    }

    /// Where clients begin: all nodes.
    pub(crate) fn bootstrap(&self) -> String {
        let addresses: Vec<&str> = self.nodes.iter().map(|node| node.address.as_str()).collect();
        addresses.join(",")
    }

    /// The data directory of a node.
    pub(crate) fn data(&self, node: usize) -> PathBuf {
        self.folder.path().join(format!("data-{node}"))
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self, node: usize) {
        self.nodes[node - 1].child.take().expect("it runs").kill().await.unwrap();
    }

    /// A polite end, in which its partitions move first.
    pub(crate) async fn stop(&mut self, node: usize) {
        let mut child = self.nodes[node - 1].child.take().expect("it runs");
        signal(child.id().expect("it runs"), Signal::TERM);
        timeout(STOP, child.wait()).await.expect("a node stops in time").unwrap();
    }

    /// Starts a node that was killed or stopped, and waits until all nodes are members of the cluster.
    pub(crate) async fn restart(&mut self, node: usize) {
        self.spawn(node);
        self.all_answer().await;
    }

    fn java(&self) -> [&str; 6] {
        ["-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", SILENT, "-cp", &self.jars]
    }

    async fn format(&self, node: usize) {
        let properties = path(&self.nodes[node - 1].properties);
        let format = ["kafka.tools.StorageTool", "format", "-t", "4L6g3nShT-eMCtK--X86sw", "-c", properties];
        let formatted = run("java", self.java().into_iter().chain(format), FORMAT).await;
        assert!(formatted.success, "{}{}", formatted.stdout, formatted.stderr);
    }

    fn spawn(&mut self, node: usize) {
        let mut java = Command::new("java");
        java.args(self.java()).args(["kafka.Kafka", path(&self.nodes[node - 1].properties)]);
        java.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        self.nodes[node - 1].child = Some(java.spawn().unwrap());
    }

    /// Waits until each running node tells of all that run.
    async fn all_answer(&self) {
        let running: Vec<&Node> = self.nodes.iter().filter(|node| node.child.is_some()).collect();
        let answer = async {
            for node in &running {
                while brokers_known(&node.address).await < running.len() {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        };
        timeout(START, answer).await.expect("Kafka starts");
    }
}

const SILENT: &str = "-Dorg.slf4j.simpleLogger.defaultLogLevel=off";

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary folders have names of ASCII")
}

/// What all nodes of a cluster of this size share. A dead broker is noticed soon, and groups are quick.
fn common(count: usize) -> String {
    let (replicas, in_sync) = (count.min(3), if count > 2 { 2 } else { 1 });
    format!(
        "process.roles=broker,controller\ncontroller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
         default.replication.factor={replicas}\nmin.insync.replicas={in_sync}\n\
         offsets.topic.replication.factor={replicas}\noffsets.topic.num.partitions=3\n\
         transaction.state.log.replication.factor={replicas}\ntransaction.state.log.min.isr={in_sync}\n\
         transaction.state.log.num.partitions=3\n\
         share.coordinator.state.topic.replication.factor={replicas}\n\
         share.coordinator.state.topic.min.isr={in_sync}\nshare.coordinator.state.topic.num.partitions=3\n\
         broker.session.timeout.ms=4000\nbroker.heartbeat.interval.ms=500\n\
         group.initial.rebalance.delay.ms=0\ngroup.min.session.timeout.ms=1000\n\
         group.consumer.min.session.timeout.ms=1000\ngroup.consumer.session.timeout.ms=5000\n\
         group.consumer.min.heartbeat.interval.ms=100\ngroup.consumer.heartbeat.interval.ms=500\n"
    )
}

async fn brokers_known(address: &str) -> usize {
    let Ok(Ok(client)) = timeout(Duration::from_secs(10), Client::connect(address)).await else { return 0 };
    let described = timeout(Duration::from_secs(10), client.admin().describe_cluster()).await;
    described.ok().and_then(Result::ok).map_or(0, |cluster| cluster.brokers.len())
}

fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}
