//! Topics with names as long as they may be, on the machine's own files: created, deleted, created anew, and again
//! after an end without a shutdown. A deleted partition's directory used to have a longer name than the topic's, too
//! long from 224 bytes on: the partition was forgotten, its directory stayed, and the next topic of the name found the
//! old records.

#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::path::Path;
use std::time::Duration;

use klamm_broker::Broker;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::DeleteTopicsRequest;

use super::wire::*;

fn directories(dir: &Path) -> Vec<String> {
    let entries = dir.read_dir().unwrap().map(Result::unwrap);
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("__"))
        .collect();
    names.sort();
    names
}

async fn delete(wire: &mut Wire, name: &str) -> i16 {
    let request = DeleteTopicsRequest { topic_names: vec![name.into()], ..DeleteTopicsRequest::default() };
    wire.ask_in(&request, 5).await.responses[0].error_code
}

#[tokio::test]
async fn names_of_any_length_are_deleted_and_come_again_empty() {
    let dir = tempfile::tempdir().unwrap();
    let builder = || Broker::builder().data_dir(dir.path()).set("log.segment.delete.delay.ms", 0);
    let start = || builder().set("num.partitions", 11).start();
    for len in [1, 200, 203, 204, 213, 214, 223, 224, 248, 249] {
        let name = "n".repeat(len);
        let broker = start().await.unwrap();
        let mut wire = tcp(&broker).await;
        let first = wire.metadata(&[&name]).await.topics.remove(0);
        assert_eq!((first.error_code, first.partitions.len()), (0, 11));
        assert_eq!(wire.produce(&name, batch(&["old", "older"])).await.error_code, 0);
        assert_eq!(delete(&mut wire, &name).await, 0, "{len}");
        let gone = wire.produce(&name, batch(&["x"])).await.error_code;
        assert_eq!(gone, ErrorCode::UnknownTopicOrPartition.code());
        let second = wire.metadata(&[&name]).await.topics.remove(0);
        assert_ne!(second.topic_id, first.topic_id);
        assert_eq!(wire.read_all(&name).await, [""; 0], "{len}: records of an earlier topic");
        assert_eq!(wire.produce(&name, batch(&["new"])).await.base_offset, 0);
        drop((wire, broker));

        let broker = again(&start).await;
        let mut wire = tcp(&broker).await;
        assert_eq!(wire.metadata(&[&name]).await.topics[0].topic_id, second.topic_id);
        assert_eq!(wire.read_all(&name).await, ["new"], "{len}");
        assert_eq!(delete(&mut wire, &name).await, 0, "{len}");
        broker.shutdown().await.unwrap();
        assert_eq!(directories(dir.path()), [""; 0], "{len}");
        drop(broker);
    }
}

/// The directories are free a moment after the broker is dropped.
async fn again<F: Future<Output = Result<Broker, klamm_broker::BrokerError>>>(
    start: &impl Fn() -> F,
) -> Broker {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        match start().await {
            Ok(broker) => return broker,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

/// What a broker that was killed left half removed is recognised by its name, and nothing else is.
#[tokio::test]
#[allow(clippy::disallowed_methods)] // Directories as an operator or a killed broker leaves them.
async fn a_start_removes_what_was_being_deleted_and_leaves_what_no_record_spoke_of() {
    let dir = tempfile::tempdir().unwrap();
    let unique = "0123456789abcdef0123456789abcdef";
    let ours =
        [format!("{}-3.{unique}-delete", "n".repeat(204)), "t-0.4L6g3nShT-eMCtK--X86sw-delete".to_owned()];
    let theirs = ["backup-delete", "notes-1", "orders-7", "t-0.future"];
    for name in ours.iter().map(String::as_str).chain(theirs) {
        std::fs::create_dir_all(dir.path().join(name)).unwrap();
        std::fs::write(dir.path().join(name).join("text"), "precious").unwrap();
    }
    for _ in 0..2 {
        let broker = Broker::builder().data_dir(dir.path()).start().await.unwrap();
        let mut wire = tcp(&broker).await;
        wire.metadata(&["t"]).await;
        assert_eq!(wire.produce("t", batch(&["a"])).await.error_code, 0);
        broker.shutdown().await.unwrap();
    }
    assert_eq!(directories(dir.path()), ["backup-delete", "notes-1", "orders-7", "t-0", "t-0.future"]);
    for name in theirs {
        assert_eq!(
            std::fs::read_to_string(dir.path().join(name).join("text")).unwrap(),
            "precious",
            "{name}"
        );
    }
}
