//! `klamm streams`: a streams application is described, and begins again.

use crate::broker::Broker;
use crate::verbs::{apache_kafka, fresh};
use crate::{fails, fails_at, klamm, klamm_at, succeeds};

/// What an application leaves behind: two partitions read to their ends, and topics of its own. Another application's
/// name begins with the same word.
fn application(address: &str) -> (String, String) {
    let (topic, application) = (fresh("t"), fresh("app"));
    succeeds(address, &["topic", "create", &topic, "--partitions", "2"], b"");
    for internal in ["counts-changelog", "counts-repartition", "eu-sums-changelog"] {
        let name = format!("{application}-{internal}");
        succeeds(address, &["topic", "create", &name], b"");
        succeeds(address, &["produce", &name], b"1\n2\n3\n");
    }
    succeeds(address, &["produce", &topic, "--partition", "0", "--timestamp", "1000"], b"1\n2\n");
    succeeds(address, &["produce", &topic, "--partition", "0", "--timestamp", "5000"], b"3\n");
    succeeds(address, &["produce", &topic, "--partition", "1", "--timestamp", "1000"], b"4\n");
    let repartition = format!("{application}-counts-repartition");
    for (topic, group) in [
        (&topic, application.clone()),
        (&repartition, application.clone()),
        (&topic, format!("{application}-eu")),
    ] {
        succeeds(address, &["consume", topic, "--group", &group, "--from", "beginning", "--until-end"], b"");
    }
    (topic, application)
}

fn fails_saying(address: &str, arguments: &[&str], said: &str) {
    let stderr = fails_at(address, arguments, b"");
    assert!(stderr.contains(said), "{arguments:?}: {stderr}");
}

fn words(text: &str) -> Vec<Vec<&str>> {
    text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect()
}

fn describes_and_resets(address: &str) {
    let (topic, app) = application(address);
    let (changelog, repartition) = (format!("{app}-counts-changelog"), format!("{app}-counts-repartition"));
    succeeds(address, &["produce", &topic, "--partition", "1", "--timestamp", "9000"], b"5\n");
    let shown = succeeds(address, &["streams", "describe", &app], b"");
    let mut expected = [
        [&topic[..], "input", "2", "1"],
        [&repartition, "repartition", "1", "0"],
        [&changelog, "changelog", "1", "-"],
    ];
    let mut rows = words(&shown);
    rows.sort();
    expected.sort();
    assert_eq!(rows, expected);

    let reset = ["streams", "reset", &app, "--input-topic", &topic];
    let dry = klamm_at(address, &[&reset[..], &["--to-datetime", "5000", "--dry-run"]].concat(), b"");
    assert!(String::from_utf8_lossy(&dry.stderr).contains("nothing is done"), "{dry:?}");
    let expected = [
        [&topic[..], "0", "3", "2"],
        [&topic, "1", "1", "1"],
        [&changelog, "all", "-", "deleted"],
        [&repartition, "all", "-", "deleted"],
    ];
    assert_eq!(words(&String::from_utf8_lossy(&dry.stdout)), expected);
    assert!(succeeds(address, &["topic", "list"], b"").contains(&changelog), "a dry run deletes nothing");

    let planned = |to: &[&str]| {
        let shown = succeeds(address, &[&reset[..], to, &["--dry-run"]].concat(), b"");
        words(&shown)[..2].iter().map(|row| row[3].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(planned(&[]), ["0", "0"], "to the beginning unless said");
    assert_eq!(planned(&["--to-latest"]), ["3", "2"]);
    assert_eq!(planned(&["--to-offset", "1"]), ["1", "1"]);
    assert_eq!(planned(&["--shift-by", "-1"]), ["2", "0"]);
    fails_saying(address, &["streams", "reset", &app, "--internal-topic", &topic], "is none of application");

    let done = klamm_at(address, &[&reset[..], &["--output", "json"]].concat(), b"");
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert!(String::from_utf8_lossy(&done.stderr).contains("stores on the instances' disks"), "{done:?}");
    let document: serde_json::Value = serde_json::from_slice(&done.stdout).expect("a document");
    assert_eq!(document["deleted_topics"], serde_json::json!([changelog, repartition]));
    let topics = succeeds(address, &["topic", "list"], b"");
    assert!(!topics.contains(&changelog) && !topics.contains(&repartition), "{topics}");
    assert!(topics.contains(&format!("{app}-eu-sums-changelog")), "it belongs to another application");
    let rows = succeeds(address, &["streams", "describe", &app], b"");
    assert_eq!(words(&rows), [[&topic[..], "input", "2", "5"]], "it begins again, and nothing else is left");
    fails_saying(address, &["streams", "reset", &app], "there is nothing to reset");
    fails_saying(address, &["streams", "describe", &fresh("nobody")], "the cluster shows nothing");
}

#[test]
fn a_streams_application_is_described_and_begins_again() {
    describes_and_resets(&Broker::start(&["group.initial.rebalance.delay.ms=0"]).address);
}

#[test]
fn a_streams_application_on_apache_kafka_is_described_and_begins_again() {
    apache_kafka().into_iter().for_each(|address| describes_and_resets(&address));
}

#[test]
fn a_topology_is_described_from_its_document() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("topology.json");
    let document = serde_json::json!({ "sub_topologies": [{ "id": 0, "nodes": [
        { "kind": "source", "name": "in", "topics": ["in"], "predecessors": [], "successors": ["in.to(out)"] },
        { "kind": "sink", "name": "in.to(out)", "topic": "out", "predecessors": ["in"], "successors": [] },
    ]}]});
    std::fs::write(&path, document.to_string()).unwrap();
    let path = path.to_str().unwrap();
    let describe = ["streams", "describe", "--file", path];
    let said = |more: &[&str]| {
        let output = klamm(&[&describe[..], more].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = "Topologies:\n   Sub-topology: 0\n    Source: in (topics: [in])\n      --> in.to(out)\n    \
                Sink: in.to(out) (topic: out)\n      <-- in\n";
    assert_eq!(said(&[]), text);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&said(&["--output", "json"])).unwrap(), document);
    assert!(said(&["--svg"]).starts_with("<svg xmlns="));
    std::fs::write(path, "{}").unwrap();
    fails(&describe, 1, "this is no description of a topology");
    fails(&["streams", "describe", "--file", "/nowhere/topology.json"], 1, "/nowhere/topology.json");
}
