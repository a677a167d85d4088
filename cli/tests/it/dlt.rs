//! `klamm dlt` from outside: what a person at night does with a dead-letter topic, and what a script relies on.

use klamm_client::{Client, Record};
use serde_json::{Value, json};

use crate::broker::Broker;
use crate::verbs::runtime;
use crate::{fails_at, klamm_at, succeeds};

/// Letters as spring-kafka and klamm write them: of `orders`, in partitions 0 and 1, a third with another error.
fn write_letters(address: &str, letters: i64) {
    succeeds(address, &["topic", "create", "orders", "--partitions", "2"], b"");
    succeeds(address, &["topic", "create", "orders-dlt", "--partitions", "2"], b"");
    runtime().block_on(async {
        let client = Client::connect(address).await.expect("a broker");
        let producer = client.producer().build().expect("settings");
        for number in 0..letters {
            let partition = (number % 2) as i32;
            let error = if number % 3 == 0 { "java.net.SocketTimeoutException" } else { "my::Refused" };
            let letter = Record::to("orders-dlt")
                .partition(partition)
                .key(format!("k{number}"))
                .value(format!("{{\"number\":{number}}}"))
                .timestamp_ms(1_000 + number)
                .header("kafka_dlt-original-topic", "orders")
                .header("kafka_dlt-original-partition", partition.to_be_bytes().to_vec())
                .header("kafka_dlt-original-offset", (number + 100).to_be_bytes().to_vec())
                .header("kafka_dlt-original-consumer-group", "billing")
                .header("kafka_dlt-exception-fqcn", error)
                .header("kafka_dlt-exception-message", "no answer");
            producer.send(letter).await.expect("a letter");
        }
    });
}

#[track_caller]
fn json_of(address: &str, arguments: &[&str]) -> Value {
    let text = succeeds(address, &[arguments, &["--output", "json"]].concat(), b"");
    serde_json::from_str(&text).expect("JSON")
}

fn lines_of(address: &str, topic: &str) -> usize {
    succeeds(address, &["consume", topic, "--from", "beginning", "--until-end"], b"").lines().count()
}

#[test]
fn letters_are_listed_and_shown() {
    let broker = Broker::start(&[]);
    let address = &broker.address;
    let nothing = klamm_at(address, &["dlt", "list"], b"");
    assert!(
        String::from_utf8_lossy(&nothing.stderr).contains("no topic ends in -dlt or .DLT"),
        "{nothing:?}"
    );
    write_letters(address, 6);

    let table = succeeds(address, &["dlt", "list"], b"");
    let mut lines = table.lines();
    let heading: Vec<&str> = lines.next().expect("a heading").split_whitespace().collect();
    assert_eq!(
        heading,
        ["TOPIC", "ORIGIN", "GROUP", "ERROR", "LETTERS", "OPEN", "CAME_BACK", "OLDEST", "NEWEST"]
    );
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        rows[0][..6],
        ["orders-dlt", "orders", "billing", "java.net.SocketTimeoutException", "2", "2"]
    );
    assert_eq!(rows[1][7..], ["1970-01-01T00:00:01.001Z", "1970-01-01T00:00:01.005Z"]);
    let summary = json_of(address, &["dlt", "list", "orders-dlt", "--error", "TIMEOUT"]);
    let count = json!({ "letters": 2, "open": 2, "came_back": 0, "oldest_ms": 1_000, "newest_ms": 1_003 });
    assert_eq!((&summary[0]["topic"], &summary[0]["count"]), (&"orders-dlt".into(), &count));

    let table = succeeds(address, &["dlt", "list", "orders-dlt", "--letters", "--partition", "1"], b"");
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(
        table.contains("1:0") && table.contains("orders 1:101") && table.contains("no answer"),
        "{table}"
    );
    let some = klamm_at(address, &["dlt", "list", "--letters", "--max", "2"], b"");
    assert!(String::from_utf8_lossy(&some.stderr).contains("there are more than these 2; --max"), "{some:?}");

    let shown = succeeds(address, &["dlt", "show", "orders-dlt", "0:0"], b"");
    for part in [
        "letter   orders-dlt 0:0",
        "origin   orders 0:100",
        "group    billing",
        "\"number\": 0",
        "key, 2 bytes\nk0",
    ] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    let shown = &json_of(address, &["dlt", "show", "orders-dlt", "1:0"])[0];
    assert_eq!((&shown["origin"]["offset"], &shown["cause"]["error"]), (&101.into(), &"my::Refused".into()));
    assert_eq!(shown["value"], "{\"number\":1}");
    assert!(
        fails_at(address, &["dlt", "show", "orders-dlt", "0:99"], b"")
            .contains("orders-dlt has no letter at 0:99")
    );
    assert!(fails_at(address, &["dlt", "show", "no-such-dlt", "0:0"], b"").contains("no-such-dlt"));
}

#[test]
fn letters_are_replayed_parked_and_purged() {
    let broker = Broker::start(&[]);
    let address = &broker.address;
    write_letters(address, 12);
    let dry = klamm_at(address, &["dlt", "replay", "orders-dlt", "--error", "timeout", "--dry-run"], b"");
    let said = String::from_utf8_lossy(&dry.stderr).into_owned();
    assert!(said.contains("4 letters would be sent to orders\n8 letters left out, still open"), "{said}");
    assert_eq!(lines_of(address, "orders"), 0);

    let report = json_of(address, &["dlt", "replay", "orders-dlt", "--error", "timeout", "--exactly-once"]);
    assert_eq!((&report["sent"], &report["left_out"]), (&4.into(), &8.into()));
    assert_eq!(lines_of(address, "orders"), 4);
    let open = json_of(address, &["dlt", "list"])[0]["count"]["open"].clone();
    assert_eq!(open, 8);

    let missing = fails_at(address, &["dlt", "park", "orders-dlt", "--to", "orders-parked"], b"");
    assert!(missing.contains("8 letters could not go: topic orders-parked does not exist"), "{missing}");
    succeeds(address, &["topic", "create", "orders-parked", "--partitions", "2"], b"");
    let report =
        json_of(address, &["dlt", "park", "orders-dlt", "--to", "orders-parked", "--offsets", "..3"]);
    assert_eq!(
        (&report["sent_to"][0]["topic"], &report["done_before"]),
        (&"orders-parked".into(), &3.into())
    );
    let parked = json_of(address, &["dlt", "list", "orders-parked", "--letters"]);
    assert_eq!(parked[0]["origin"]["topic"], "orders", "as it was");

    let asked = klamm_at(address, &["dlt", "purge", "orders-dlt"], b"");
    assert_eq!(asked.status.code(), Some(2), "{asked:?}");
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(said.contains("of orders-dlt, all of them replayed or parked? --yes says so"), "{said}");
    let purged = json_of(address, &["dlt", "purge", "orders-dlt", "--yes"]);
    assert_eq!(purged[0]["from_offset"], 0, "{purged}");
    let left = lines_of(address, "orders-dlt") as u64;
    assert_eq!(json_of(address, &["dlt", "list", "orders-dlt"])[0]["count"]["letters"], left);
    succeeds(address, &["dlt", "purge", "orders-dlt", "--all", "--yes"], b"");
    assert_eq!(lines_of(address, "orders-dlt"), 0);
    let nothing = klamm_at(address, &["dlt", "purge", "orders-dlt"], b"");
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("there is nothing to delete"), "{nothing:?}");
}

#[test]
fn wrong_wishes_are_told_apart_from_failures() {
    let broker = Broker::start(&[]);
    let address = &broker.address;
    write_letters(address, 2);
    for wrong in [&["--rate", "0"][..], &["--to", "orders-dlt"]] {
        let output = klamm_at(address, &[&["dlt", "replay", "orders-dlt"], wrong].concat(), b"");
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {output:?}");
    }
    let failed = fails_at(address, &["dlt", "purge", "orders-dlt", "--partition", "7", "--yes"], b"");
    assert!(failed.contains("topic orders-dlt has 2 partitions and no partition 7"), "{failed}");
}
