//! Templates beyond a plain send: overrides, callbacks, interceptors, routes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use klamm::client::{Headers, Record};
use klamm::prelude::*;
use klamm::serde::{DefaultSerde, Serde, SerdeError, StringSerde};
use klamm::template::{RoutingTemplate, SendError, SendInterceptor, SendOutcome};
use klamm::testing::TestKit;
use tokio::sync::oneshot;

use crate::seen::{Seen, until};

#[klamm::test]
async fn a_record_has_its_own_topic_partition_time_and_headers(kit: TestKit) {
    kit.create_topic("other", 3).await;
    let template = kit.template::<String, String>("usual");
    let mut copied = Headers::new();
    copied.push("copied", None);
    let record = template.record("v".into()).key("k").topic("other").partition(2).timestamp_ms(77);
    let at = record.header("a", "1").headers(copied).send().await.unwrap();
    assert_eq!((&*at.topic, at.partition, at.timestamp_ms), ("other", 2, 77));
    let found = kit.topic("other").next().await;
    let headers: Vec<_> = found.headers.iter().collect();
    assert_eq!(headers, [("a", Some(&b"1"[..])), ("copied", None)]);
    template.send_tombstone("k").await.unwrap();
    assert_eq!(kit.topic("usual").next().await.value, None);
}

#[klamm::test]
async fn who_does_not_wait_is_called_back(kit: TestKit) {
    let template = kit.template::<String, String>("t");
    let (tell, told) = oneshot::channel();
    let callback = |result: Result<_, SendError>| drop(tell.send(result));
    template.record("first".into()).on_result(callback).await.unwrap();
    let sending = template.record("second".into()).enqueue().await.unwrap();
    drop(template.record("third".into()).enqueue().await.unwrap());
    template.flush().await.unwrap();
    assert_eq!(told.await.unwrap().unwrap().offset, 0);
    assert_eq!(sending.await.unwrap().offset, 1);
    assert_eq!(kit.topic("t").values::<String>().await, ["first", "second", "third"]);
}

#[klamm::test(needs_paused_clock)]
async fn a_timeout_says_whether_the_record_may_be_there(kit: TestKit) {
    let template = kit.template::<String, String>("t");
    template.send("k", "v".into()).await.unwrap();
    let limit = Duration::ZERO;
    let late = template.record("late".into()).timeout(limit).send().await.unwrap_err();
    assert!(late.to_string().contains("setting `timeout`") && late.may_have_been_written(), "{late}");
    let unknown = kit.template::<String, String>("a-topic-nobody-knows");
    let late = unknown.record("late".into()).timeout(limit).send().await.unwrap_err();
    assert!(!late.may_have_been_written(), "{late}");
}

#[derive(Debug, Clone, Default)]
struct Watch(Seen, Arc<AtomicUsize>);

impl SendInterceptor for Watch {
    fn on_send(&self, record: &mut Record) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        record.headers.push(("watched".into(), Some("yes".into())));
        match record.value.as_deref() {
            Some(b"refused") => Err("not this one".into()),
            Some(b"panic") => panic!("an interceptor that panics"),
            _ => Ok(()),
        }
    }

    fn on_result(&self, outcome: &SendOutcome<'_>) {
        self.0.add(format!("{} {}", outcome.topic, outcome.result.is_ok()));
        if self.1.fetch_add(1, Ordering::SeqCst) == 0 {
            panic!("an interceptor that panics");
        }
    }
}

#[klamm::test]
async fn interceptors_see_every_record_and_their_panics_are_that_records_failure(kit: TestKit) {
    let watch = Watch::default();
    let template = kit.template::<String, String>("t").interceptor(watch.clone());
    let refused = template.send("k", "refused".into()).await.unwrap_err();
    assert_eq!(refused.to_string(), "an interceptor refused the record: not this one");
    let panicked = template.send("k", "panic".into()).await.unwrap_err();
    assert!(
        matches!(panicked, SendError::Refused(_)) && panicked.to_string().contains("Watch"),
        "{panicked}"
    );
    assert!(watch.0.all().is_empty(), "nothing was sent");

    template.send("k", "good".into()).await.unwrap();
    let (tell, told) = oneshot::channel();
    template.record("good".into()).on_result(|result| tell.send(result.is_ok()).unwrap()).await.unwrap();
    assert!(told.await.unwrap());
    drop(template.record("nobody waits".into()).enqueue().await.unwrap());
    until(|| watch.0.count("t true") == 3).await;
    let found = kit.topic("t").records().await;
    assert!(found.iter().all(|record| record.headers.last("watched").is_some()) && found.len() == 3);
}

#[derive(Debug, Clone, Copy, Default)]
struct Rude;

#[derive(Debug)]
struct Shy;

impl Serde<Shy> for Rude {
    fn serialize(&self, _: &str, _: &Shy) -> Result<Bytes, SerdeError> {
        panic!("a serde that panics")
    }

    fn deserialize(&self, _: &str, _: &Bytes) -> Result<Shy, SerdeError> {
        panic!("a serde that panics")
    }
}

impl DefaultSerde for Shy {
    type Serde = Rude;
}

#[klamm::test]
async fn a_serde_that_panics_is_that_records_failure(kit: TestKit) {
    let template = kit.template::<String, Shy>("t");
    let panicked = template.send("k", Shy).await.unwrap_err();
    assert!(matches!(panicked, SendError::Panicked { part: "value", .. }), "{panicked}");
    let producer = kit.client().producer().build().unwrap();
    let template = Template::<Shy, String>::with_serdes(&producer, "t", Rude, StringSerde);
    let panicked = template.send(Shy, "v".into()).await.unwrap_err();
    assert!(panicked.to_string().contains("what writes the key panicked"), "{panicked}");
}

#[klamm::test]
async fn routes_go_by_the_type_of_the_value_and_the_name_of_the_topic(kit: TestKit) {
    let (usual, slow) = (kit.client().producer().build().unwrap(), kit.client().producer().build().unwrap());
    let events = RoutingTemplate::new(&usual)
        .values::<String>("texts")
        .values::<i64>("numbers")
        .producer("num.*", &slow)
        .unwrap();
    events.send("k".to_owned(), "text".to_owned()).await.unwrap();
    assert_eq!(events.send("k".to_owned(), 7_i64).await.unwrap().topic, "numbers".into());
    let nowhere = events.send("k".to_owned(), true).await.unwrap_err().to_string();
    assert_eq!(
        nowhere,
        "no topic is named for values of type bool; add `RoutingTemplate::values::<bool>(topic)`"
    );
    assert!(events.clone().producer("(", &slow).is_err());
    assert_eq!(kit.topic("texts").values::<String>().await, ["text"]);
    assert_eq!(kit.topic("numbers").values::<i64>().await, [7]);
    // The other producer is closed, and only its topics notice.
    slow.close().await.unwrap();
    assert!(events.send("k".to_owned(), 8_i64).await.is_err());
    events.send("k".to_owned(), "text".to_owned()).await.unwrap();
}

#[klamm::test]
async fn declared_topics_are_made_and_grown_and_never_shrunk(kit: TestKit) {
    use klamm::client::NewTopic;
    async fn nothing() {}
    kit.create_topic("small", 2).await;
    kit.create_topic("large", 5).await;
    let app = || {
        let listener = Listener::on("small").group("g").handle(nothing);
        kit.app()
            .listener(listener)
            .topic(NewTopic::new("missing").partitions(3).config("retention.ms", "1000"))
            .topic(NewTopic::new("small").partitions(4))
            .topic(NewTopic::new("large").partitions(1))
    };
    for _ in 0..2 {
        let started = app().start().await;
        let told: Vec<String> = started.topic_differences().iter().map(ToString::to_string).collect();
        assert_eq!(told, ["topic large has 5 partitions, more than the 1 that are declared"]);
        started.stop().await;
        let mut counts = Vec::new();
        for described in kit.client().admin().list_topics().await.unwrap() {
            counts.push((described.name.to_string(), described.partitions.len()));
        }
        counts.retain(|(name, _)| !name.starts_with("__"));
        counts.sort();
        assert_eq!(counts, [("large".to_owned(), 5), ("missing".to_owned(), 3), ("small".to_owned(), 4)]);
    }
    let refused =
        kit.app().listener(Listener::on("small").group("g").handle(nothing)).topic(NewTopic::new("a b"));
    let refused = refused.try_start().await.unwrap_err().to_string();
    assert!(refused.contains("a topic that the app declares") && refused.contains("a b"), "{refused}");
}
