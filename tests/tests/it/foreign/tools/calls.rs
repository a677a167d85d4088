//! The table of calls, in the order in which they are made: each leaves the cluster as the next expects it.

/// How a call is judged.
pub(super) enum Expected {
    /// It prints the same of both.
    Same,
    /// It ends with the same code, but in words of our own, or about what is ours: these are in its lines.
    Lines(&'static [&'static str]),
}

/// A call of a tool.
pub(super) struct Call {
    tool: &'static str,
    arguments: &'static str,
    pub(super) expected: Expected,
}

impl Call {
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.tool, self.arguments)
    }

    /// The call as Tools.java takes it.
    pub(super) fn line(&self, bootstrap: &str, records: &str) -> String {
        let arguments = self.arguments.replace("RECORDS", records).replace(' ', "\t");
        // It is the only one whose verb comes first.
        match self.tool == CLUSTER {
            true => format!("{CLUSTER}\t{arguments}\t--bootstrap-server\t{bootstrap}"),
            false => format!("{}\t--bootstrap-server\t{bootstrap}\t{arguments}", self.tool),
        }
    }
}

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const CONFIGS: &str = "kafka.admin.ConfigCommand";
const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
const ALL_GROUPS: &str = "org.apache.kafka.tools.GroupsCommand";
const OFFSETS: &str = "org.apache.kafka.tools.GetOffsetShell";
const DELETE_RECORDS: &str = "org.apache.kafka.tools.DeleteRecordsCommand";
const LOG_DIRS: &str = "org.apache.kafka.tools.LogDirsCommand";
const FEATURES: &str = "org.apache.kafka.tools.FeatureCommand";
const TRANSACTIONS: &str = "org.apache.kafka.tools.TransactionsCommand";
const QUORUM: &str = "org.apache.kafka.tools.MetadataQuorumCommand";
const ELECTION: &str = "org.apache.kafka.tools.LeaderElectionCommand";
const REASSIGN: &str = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand";
const ACLS: &str = "org.apache.kafka.tools.AclCommand";
const METRICS: &str = "org.apache.kafka.tools.ClientMetricsCommand";
const CLUSTER: &str = "org.apache.kafka.tools.ClusterTool";
const API_VERSIONS: &str = "org.apache.kafka.tools.BrokerApiVersionsCommand";
const PERFORMANCE: &str = "org.apache.kafka.tools.ProducerPerformance";

const fn same(tool: &'static str, arguments: &'static str) -> Call {
    Call { tool, arguments, expected: Expected::Same }
}

const fn lines(tool: &'static str, arguments: &'static str, lines: &'static [&'static str]) -> Call {
    Call { tool, arguments, expected: Expected::Lines(lines) }
}

pub(super) const CALLS: &[Call] = &[
    // Topics.
    same(TOPICS, "--create --topic clicks --partitions 2 --config segment.bytes=2000000"),
    lines(TOPICS, "--create --topic clicks --partitions 2", &["topic clicks exists"]),
    same(TOPICS, "--create --topic clicks --partitions 2 --if-not-exists"),
    lines(
        TOPICS,
        "--create --topic wide --replication-factor 2",
        &["replication factor 2: there is 1 broker"],
    ),
    lines(TOPICS, "--create --topic no/name", &["a topic name has only ASCII letters and digits"]),
    same(TOPICS, "--describe --topic clicks"),
    same(TOPICS, "--describe --topic nothing"),
    same(TOPICS, "--alter --topic clicks --partitions 4"),
    lines(
        TOPICS,
        "--alter --topic clicks --partitions 3",
        &["topic clicks has 4 partitions, and a topic cannot lose any"],
    ),
    same(TOPICS, "--describe --topic clicks --under-replicated-partitions"),
    same(TOPICS, "--describe --topic clicks --unavailable-partitions"),
    same(TOPICS, "--list --exclude-internal"),
    // Settings.
    same(CONFIGS, "--describe --entity-type topics --entity-name clicks"),
    same(
        CONFIGS,
        "--alter --entity-type topics --entity-name clicks --add-config cleanup.policy=[compact,delete]",
    ),
    same(CONFIGS, "--describe --entity-type topics --entity-name clicks"),
    lines(
        CONFIGS,
        "--alter --entity-type topics --entity-name clicks --add-config retention.ms=soon",
        &["InvalidConfigurationException: setting retention.ms=soon: must be a whole number"],
    ),
    lines(
        CONFIGS,
        "--alter --entity-type topics --entity-name nothing --add-config retention.ms=1",
        &["UnknownTopicOrPartitionException: there is no topic nothing"],
    ),
    same(CONFIGS, "--alter --entity-type topics --entity-name clicks --delete-config cleanup.policy"),
    same(CONFIGS, "--describe --entity-type topics --entity-name clicks"),
    same(CONFIGS, "--alter --entity-type brokers --entity-default --add-config log.retention.ms=70000"),
    same(CONFIGS, "--alter --entity-type brokers --entity-name 1 --add-config log.retention.ms=80000"),
    same(CONFIGS, "--describe --entity-type brokers --entity-name 1"),
    same(CONFIGS, "--alter --entity-type brokers --entity-name 1 --delete-config log.retention.ms"),
    same(CONFIGS, "--alter --entity-type brokers --entity-default --delete-config log.retention.ms"),
    lines(
        CONFIGS,
        "--alter --entity-type brokers --entity-name 1 --add-config log.dirs=/tmp",
        &["InvalidRequestException: setting log.dirs=/tmp: cannot be altered while the broker runs"],
    ),
    same(CONFIGS, "--describe --entity-type users --entity-name somebody"),
    // Groups.
    same(GROUPS, "--list"),
    same(GROUPS, "--list --state"),
    same(GROUPS, "--describe --group readers"),
    same(GROUPS, "--describe --group readers --state"),
    same(GROUPS, "--describe --group readers --members"),
    lines(GROUPS, "--describe --group nobody", &["GroupIdNotFoundException: there is no such group"]),
    same(GROUPS, "--reset-offsets --group readers --topic views:0 --to-earliest --execute"),
    same(GROUPS, "--reset-offsets --group readers --topic views --shift-by -1 --dry-run"),
    same(GROUPS, "--reset-offsets --group readers --topic views --to-latest --execute"),
    same(GROUPS, "--describe --group readers --offsets"),
    same(GROUPS, "--delete-offsets --group readers --topic views:0"),
    same(GROUPS, "--delete-offsets --group nobody --topic views:0"),
    same(GROUPS, "--describe --group readers --offsets"),
    same(ALL_GROUPS, "--list"),
    same(GROUPS, "--delete --group readers"),
    same(GROUPS, "--delete --group readers"),
    same(GROUPS, "--list"),
    // Offsets and records.
    same(OFFSETS, "--topic views --time earliest"),
    same(OFFSETS, "--topic views --time latest"),
    same(OFFSETS, "--topic views --time max-timestamp"),
    same(OFFSETS, "--topic views --time earliest-local"),
    same(OFFSETS, "--topic views --time latest-tiered"),
    same(OFFSETS, "--topic-partitions views:0,clicks:1"),
    same(OFFSETS, "--topic-partitions views:9"),
    same(DELETE_RECORDS, "--offset-json-file RECORDS"),
    same(OFFSETS, "--topic views --time earliest"),
    lines(
        LOG_DIRS,
        "--describe --topic-list views,clicks",
        &[r#""error":null"#, r#"{"partition":"views-0","size":"#, r#""offsetLag":0,"isFuture":false"#],
    ),
    // Transactions, and load in them.
    lines(
        PERFORMANCE,
        "--topic clicks --num-records 2000 --record-size 100 --throughput -1 --transactional-id perf \
         --transaction-duration-ms 50",
        &["2000 records sent, "],
    ),
    lines(TRANSACTIONS, "list", &["perf 1 "]),
    same(TRANSACTIONS, "describe --transactional-id nobody"),
    same(TRANSACTIONS, "find-hanging --broker-id 1"),
    // The cluster.
    lines(FEATURES, "describe", &["Feature: transaction.version"]),
    same(FEATURES, "upgrade --feature transaction.version=2"),
    lines(
        FEATURES,
        "upgrade --feature no.such.feature=1",
        &["one of them does not exist; there is transaction.version"],
    ),
    lines(QUORUM, "describe --status", &["LeaderId: 1", "CurrentObservers: []"]),
    lines(QUORUM, "describe --replication", &["Leader"]),
    same(ELECTION, "--election-type preferred --all-topic-partitions"),
    lines(
        ELECTION,
        "--election-type preferred --topic views --partition 9",
        &["UnknownTopicOrPartitionException: there is no such partition"],
    ),
    same(REASSIGN, "--list"),
    lines(ACLS, "--list", &["SecurityDisabledException: this broker has no access control"]),
    same(METRICS, "--list"),
    same(CLUSTER, "list-endpoints"),
    lines(API_VERSIONS, "", &["Produce(0): 0 to 13 [usable: 13]", "DeleteGroups(42): 0 to 2 [usable: 2]"]),
    same(TOPICS, "--delete --topic clicks"),
    same(TOPICS, "--delete --topic clicks"),
];
