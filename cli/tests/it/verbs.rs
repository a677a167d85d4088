//! The verbs that manage groups, topics and settings: what they print, against Klamm's broker and, where
//! `KLAMM_APACHE_KAFKA` names its address, against Apache Kafka 4.3, which answers more.

use std::time::{SystemTime, UNIX_EPOCH};

use klamm_client::Client;

use crate::broker::Broker;
use crate::{fails_at, klamm_at, succeeds};

/// Where Apache Kafka is, if it is.
#[allow(clippy::print_stderr)] // Whoever runs it is told.
pub(crate) fn apache_kafka() -> Option<String> {
    let address = std::env::var("KLAMM_APACHE_KAFKA").ok();
    if address.is_none() {
        eprintln!("skipped: KLAMM_APACHE_KAFKA names no broker");
    }
    address
}

/// A name that no earlier run has used.
pub(crate) fn fresh(name: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    format!("{name}-{:x}", now.as_nanos())
}

/// A topic of two partitions with four and two records, all read by a group.
fn group_that_has_read(address: &str) -> (String, String) {
    let (topic, group) = (fresh("t"), fresh("g"));
    succeeds(address, &["topic", "create", &topic, "--partitions", "2"], b"");
    succeeds(address, &["produce", &topic, "--partition", "0", "--timestamp", "1000"], b"1\n2\n");
    succeeds(address, &["produce", &topic, "--partition", "0", "--timestamp", "5000"], b"3\n4\n");
    succeeds(address, &["produce", &topic, "--partition", "1", "--timestamp", "1000"], b"5\n6\n");
    let consume = ["consume", &topic, "--group", &group, "--from", "beginning", "--until-end"];
    assert_eq!(succeeds(address, &consume, b"").lines().count(), 6);
    (topic, group)
}

/// The offsets that a reset would set, by partition.
#[track_caller]
fn planned(address: &str, group: &str, to: &[&str]) -> Vec<String> {
    let exported = [&["group", "reset-offsets", group][..], to, &["--export"]].concat();
    let lines = succeeds(address, &exported, b"");
    lines.lines().map(|line| line.rsplit(',').next().expect("an offset").to_owned()).collect()
}

fn resets_offsets(address: &str) {
    let (topic, group) = group_that_has_read(address);
    let reset = ["group", "reset-offsets", &group, "--all-topics"];
    let shown = klamm_at(address, &[&reset[..], &["--to-earliest"]].concat(), b"");
    assert!(String::from_utf8_lossy(&shown.stderr).contains("nothing is set; --execute"), "{shown:?}");
    let (wide_group, wide_topic) = (group.len(), topic.len());
    let golden = format!(
        "{:wide_group$}  {:wide_topic$}  PARTITION  COMMITTED  NEW\n\
         {group}  {topic}          0          4    0\n\
         {group}  {topic}          1          2    0\n",
        "GROUP", "TOPIC"
    );
    assert_eq!(String::from_utf8_lossy(&shown.stdout), golden);
    let consume = ["consume", &topic, "--group", &group, "--from", "beginning", "--until-end"];
    assert_eq!(succeeds(address, &consume, b""), "", "nothing was set");

    let all = ["--all-topics"];
    let to = |target: &[&str]| planned(address, &group, &[&all[..], target].concat());
    assert_eq!(to(&["--to-latest"]), ["4", "2"]);
    assert_eq!(to(&["--to-current"]), ["4", "2"]);
    assert_eq!(to(&["--to-offset", "1"]), ["1", "1"]);
    assert_eq!(to(&["--shift-by", "-1"]), ["3", "1"]);
    assert_eq!(to(&["--to-datetime", "5000"]), ["2", "2"], "the end where nothing is as late");
    assert_eq!(to(&["--to-datetime", "1970-01-01T00:00:01Z"]), ["0", "0"]);
    assert_eq!(to(&["--by-duration", "PT1H"]), ["4", "2"]);
    let some = format!("{topic}:1");
    assert_eq!(planned(address, &group, &["--topic", &some, "--to-earliest"]), ["0"]);
    let far = klamm_at(address, &[&reset[..], &["--to-offset", "3", "--export"]].concat(), b"");
    assert_eq!(String::from_utf8_lossy(&far.stdout), format!("{topic},0,3\n{topic},1,2\n"));
    let said = String::from_utf8_lossy(&far.stderr).into_owned();
    assert!(said.contains(&format!("{group} {topic}-1: 3 is out of range; it is 2 then")), "{said}");

    succeeds(address, &[&reset[..], &["--shift-by", "-1", "--execute"]].concat(), b"");
    let mut again: Vec<String> = succeeds(address, &consume, b"").lines().map(str::to_owned).collect();
    again.sort_unstable();
    assert_eq!(again, ["4", "6"]);
}

/// From a file that `--export` could have written.
fn resets_offsets_from_a_file(address: &str) {
    let (topic, group) = group_that_has_read(address);
    let consume = ["consume", &topic, "--group", &group, "--from", "beginning", "--until-end"];
    let file = std::env::temp_dir().join(format!("{group}.csv"));
    std::fs::write(&file, format!("{topic},0,1\n")).expect("a file");
    let path = file.to_str().expect("a path of text");
    let from_file = ["group", "reset-offsets", &group, "--from-file", path, "--execute", "--output", "json"];
    let told: serde_json::Value = serde_json::from_str(&succeeds(address, &from_file, b"")).expect("JSON");
    let expected = serde_json::json!([
        { "group": group, "topic": topic, "partition": 0, "committed_offset": 4, "new_offset": 1 },
    ]);
    assert_eq!(told, expected);
    assert_eq!(succeeds(address, &consume, b""), "2\n3\n4\n");
    std::fs::write(&file, "nonsense\n").expect("a file");
    let wrong = klamm_at(address, &from_file, b"");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&wrong.stderr).contains("line 1 is not topic,partition,offset"),
        "{wrong:?}"
    );
    std::fs::remove_file(&file).expect("it was there");
}

fn refuses_what_cannot_be_reset(address: &str) {
    let (topic, group) = group_that_has_read(address);
    let missing =
        fails_at(address, &["group", "reset-offsets", &group, "--topic", "no-such", "--to-latest"], b"");
    assert!(missing.contains("topic no-such: UNKNOWN_TOPIC_OR_PARTITION"), "{missing}");
    let beyond = format!("{topic}:7");
    let missing =
        fails_at(address, &["group", "reset-offsets", &group, "--topic", &beyond, "--to-latest"], b"");
    assert!(missing.contains("has no partition 7"), "{missing}");
    let nothing = fresh("nobody");
    let shift = ["group", "reset-offsets", &nothing, "--topic", &topic, "--shift-by", "1", "--execute"];
    let refused = fails_at(address, &shift, b"");
    assert!(refused.contains("nothing is committed that could be counted from"), "{refused}");
    assert!(refused.contains("nothing is set: see above"), "{refused}");
    let neither = klamm_at(address, &["group", "reset-offsets", &group, "--to-latest"], b"");
    assert_eq!(neither.status.code(), Some(2), "{neither:?}");
}

#[test]
fn groups_go_on_where_they_are_told_to() {
    let broker = Broker::start(&["group.initial.rebalance.delay.ms=0"]);
    resets_offsets(&broker.address);
    resets_offsets_from_a_file(&broker.address);
    refuses_what_cannot_be_reset(&broker.address);
}

#[test]
fn a_group_with_members_is_not_reset() {
    let broker = Broker::start(&["group.initial.rebalance.delay.ms=0"]);
    let address = &broker.address;
    let (topic, group) = group_that_has_read(address);
    runtime().block_on(async {
        let client = Client::connect(address.as_str()).await.expect("a broker");
        let consumer = client.consumer().group(&*group).topics([&*topic]).from_beginning();
        let mut consumer = consumer.start().await.expect("a consumer");
        succeeds(address, &["produce", &topic], b"7\n");
        consumer.next().await.expect("open").expect("a record");
        let reset = ["group", "reset-offsets", &group, "--all-topics", "--to-earliest"];
        succeeds(address, &reset, b"");
        let refused = fails_at(address, &[&reset[..], &["--execute"]].concat(), b"");
        assert!(
            refused.contains("is Stable: offsets can be reset only while it has no members"),
            "{refused}"
        );
    });
}

fn deletes_groups(address: &str) {
    let (_, group) = group_that_has_read(address);
    let nobody = fresh("nobody");
    let deleted = klamm_at(address, &["group", "delete", &group, &nobody], b"");
    let said = String::from_utf8_lossy(&deleted.stderr).into_owned();
    assert!(said.contains(&format!("deleted group {group}\n")), "{said}");
    assert!(said.contains(&format!("group {nobody}: GROUP_ID_NOT_FOUND\n")), "{said}");
    assert!(said.ends_with("error: 1 of 2 failed\n"), "{said}");
    let gone = fails_at(address, &["group", "describe", &group], b"");
    assert!(gone.contains(&group), "{gone}");
}

/// They could not be: Klamm's broker did not serve it.
#[test]
fn groups_are_deleted() {
    let broker = Broker::start(&["group.initial.rebalance.delay.ms=0"]);
    deletes_groups(&broker.address);
}

#[test]
fn groups_of_apache_kafka() {
    let Some(address) = apache_kafka() else { return };
    resets_offsets(&address);
    resets_offsets_from_a_file(&address);
    refuses_what_cannot_be_reset(&address);
    deletes_groups(&address);
}

/// The settings that a topic has of its own: name and value.
fn own_settings(address: &str, topic: &str) -> Vec<String> {
    let table = succeeds(address, &["config", "describe", "--topic", topic], b"");
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["OF", "SETTING", "VALUE", "FROM"]);
    for row in &rows[1..] {
        assert_eq!(row[..2], ["topic", topic], "{table}");
    }
    // A new cluster of Kafka 4.3 has one that is set for all brokers.
    let own = rows[1..].iter().filter(|row| row[4] == "topic");
    own.map(|row| format!("{}={}", row[2], row[3])).collect()
}

#[test]
fn settings() {
    changes_settings(&Broker::start(&["num.partitions=1"]).address);
}

#[test]
fn settings_of_apache_kafka() {
    if let Some(address) = apache_kafka() {
        changes_settings(&address);
    }
}

fn changes_settings(address: &str) {
    let topic = fresh("t");
    succeeds(address, &["topic", "create", &topic], b"");
    let of_topic = ["--topic", &topic];
    let describe = [&["config", "describe"][..], &of_topic].concat();
    assert_eq!(own_settings(address, &topic), [""; 0]);
    let alter = [&["config", "alter"][..], &of_topic].concat();
    let dry = [&alter[..], &["--set", "retention.ms=5", "--dry-run"]].concat();
    succeeds(address, &dry, b"");
    assert_eq!(own_settings(address, &topic), [""; 0], "it was only checked");
    let set =
        ["--set", "retention.ms=60000", "--set", "segment.ms=70000", "--append", "cleanup.policy=compact"];
    succeeds(address, &[&alter[..], &set].concat(), b"");
    let expected = ["cleanup.policy=delete,compact", "retention.ms=60000", "segment.ms=70000"];
    assert_eq!(own_settings(address, &topic), expected);
    let undo = ["--delete", "segment.ms", "--subtract", "cleanup.policy=compact"];
    succeeds(address, &[&alter[..], &undo].concat(), b"");
    let json = succeeds(address, &[&describe[..], &["--output", "json", "--all"]].concat(), b"");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json[0]["kind"], &json[0]["name"]), (&"topic".into(), &topic.as_str().into()));
    let configs = json[0]["configs"].as_array().expect("a list");
    let of = |name: &str| configs.iter().find(|one| one["name"] == name).expect("a setting");
    assert_eq!(
        (&of("retention.ms")["value"], &of("retention.ms")["source"]),
        (&"60000".into(), &"topic".into())
    );
    assert_eq!(of("segment.ms")["source"], "default");
    assert_eq!(of("cleanup.policy")["value"], "delete");
    let wrong = fails_at(address, &[&alter[..], &["--set", "retention.ms=soon"]].concat(), b"");
    assert!(wrong.contains(&format!("topic {topic}: INVALID_CONFIG: ")), "{wrong}");
    let broker = succeeds(address, &["config", "describe", "--broker", "1"], b"");
    assert!(broker.contains("broker 1  ") && broker.contains("  file\n"), "{broker}");
    let missing = fails_at(address, &["config", "describe", "--topic", "no-such-topic"], b"");
    assert!(missing.contains("topic no-such-topic: UNKNOWN_TOPIC_OR_PARTITION"), "{missing}");
}

#[test]
fn topics_are_altered() {
    alters_topics(&Broker::start(&[]).address);
}

#[test]
fn topics_of_apache_kafka_are_altered() {
    if let Some(address) = apache_kafka() {
        alters_topics(&address);
    }
}

fn alters_topics(address: &str) {
    let topic = fresh("t");
    succeeds(address, &["topic", "create", &topic, "--partitions", "1"], b"");
    let alter = ["topic", "alter", &topic];
    let both = ["--partitions", "3", "--config", "retention.ms=60000", "--output", "json"];
    let told: serde_json::Value =
        serde_json::from_str(&succeeds(address, &[&alter[..], &both].concat(), b"")).expect("JSON");
    assert_eq!(told, serde_json::json!([{ "topic": topic, "altered": true }]));
    let described = succeeds(address, &["topic", "describe", &topic, "--output", "json"], b"");
    let described: serde_json::Value = serde_json::from_str(&described).expect("JSON");
    assert_eq!(described[0]["partitions"].as_array().map(Vec::len), Some(3));
    assert_eq!(own_settings(address, &topic), ["retention.ms=60000"]);
    succeeds(address, &[&alter[..], &["--delete-config", "retention.ms"]].concat(), b"");
    assert_eq!(own_settings(address, &topic), [""; 0]);
    let half = ["--partitions", "2", "--config", "retention.ms=1"];
    let refused = fails_at(address, &[&alter[..], &half].concat(), b"");
    assert!(
        refused.contains(&format!("the settings of topic {topic} are changed, its partitions are not")),
        "{refused}"
    );
    assert!(refused.contains(&format!("topic {topic}: INVALID_PARTITIONS: ")), "{refused}");
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    // The blocking commands run on it as well.
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads")
}
