//! `klamm txn` against Apache Kafka 4.3, where `KLAMM_APACHE_KAFKA` names its address.

use klamm_client::{Client, Record};

use crate::verbs::{apache_kafka, fresh, runtime};
use crate::{fails_at, succeeds};

#[test]
fn transactions_of_apache_kafka() {
    let Some(address) = apache_kafka() else { return };
    let (topic, id, hanging) = (fresh("t"), fresh("open"), fresh("hanging"));
    succeeds(&address, &["topic", "create", &topic, "--partitions", "2"], b"");
    runtime().block_on(async {
        let client = Client::connect(address.as_str()).await.expect("a broker");
        let mut producer = client.producer().transactional_id(id.as_str()).build().expect("settings");
        let transaction = producer.begin().await.expect("a transaction");
        transaction.send(Record::to(&*topic).partition(0).value("a")).await.expect("a record");
        let mut forgotten = client.producer().transactional_id(hanging.as_str()).build().expect("settings");
        let forgotten = forgotten.begin().await.expect("a transaction");
        let started =
            forgotten.send(Record::to(&*topic).partition(1).value("b")).await.expect("a record").offset;

        let list =
            ["txn", "list", "--state", "Ongoing", "--id-pattern", &format!("{id}.*"), "--output", "json"];
        let listed: serde_json::Value = serde_json::from_str(&succeeds(&address, &list, b"")).expect("JSON");
        assert_eq!(
            (&listed[0]["transactional_id"], &listed[0]["state"]),
            (&id.as_str().into(), &"Ongoing".into())
        );
        assert_eq!(listed.as_array().map(Vec::len), Some(1));
        let later = succeeds(&address, &["txn", "list", "--open-longer-than", "1d"], b"");
        assert!(later.starts_with("ID") && !later.contains(&id), "{later}");

        let described = succeeds(&address, &["txn", "describe", &id], b"");
        let mut lines = described.lines();
        let heading: Vec<&str> = lines.next().expect("a heading").split_whitespace().collect();
        assert_eq!(heading, ["ID", "STATE", "PRODUCER", "EPOCH", "TIMEOUT_MS", "STARTED_MS", "PARTITIONS"]);
        let row: Vec<&str> = lines.next().expect("a row").split_whitespace().collect();
        assert_eq!(
            (row[0], row[1], row[4], row[6]),
            (id.as_str(), "Ongoing", "60000", format!("{topic}-0").as_str())
        );

        let unknown = fails_at(&address, &["txn", "abort", &id, "no-such-id"], b"");
        assert!(unknown.contains(&format!("aborted transactional id {id}\n")), "{unknown}");
        assert!(unknown.contains("transactional id no-such-id: TRANSACTIONAL_ID_NOT_FOUND"), "{unknown}");
        transaction.commit().await.expect_err("its producer is fenced");

        let hangs = ["txn", "abort", "--topic", &topic, "--partition", "1", "--start-offset"];
        let wrong = fails_at(&address, &[&hangs[..], &["77"]].concat(), b"");
        assert!(wrong.contains(&format!("no open transaction starts at 77; open from {started}")), "{wrong}");
        succeeds(&address, &[&hangs[..], &[&started.to_string()]].concat(), b"");
        let again = fails_at(&address, &[&hangs[..], &[&started.to_string()]].concat(), b"");
        assert!(again.contains("none is open"), "{again}");
        drop(forgotten);
    });
}
