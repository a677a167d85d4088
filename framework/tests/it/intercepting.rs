//! Interceptors: what they discard, refuse and hear of, with single records, batches and acknowledgements by hand.

use klamm::client::Record as OutRecord;
use klamm::listener::{Before, BoxError, Delivery, Failure, ListenInterceptor};
use klamm::prelude::*;
use klamm::testing::TestKit;

use crate::seen::{Seen, note};

/// Discards "spam", refuses "forged", panics at "bomb"; hears what became of the others.
#[derive(Debug, Clone)]
struct Guard(Seen);

fn text(delivery: &Delivery<'_>) -> String {
    String::from_utf8_lossy(delivery.record().value.as_deref().unwrap_or_default()).into_owned()
}

impl ListenInterceptor for Guard {
    fn before(&self, delivery: &Delivery<'_>) -> Result<Before, BoxError> {
        match &*text(delivery) {
            "spam" => Ok(Before::Discard),
            "forged" => Err("it is forged".into()),
            "bomb" => panic!("an interceptor that breaks"),
            _ => Ok(Before::Handle),
        }
    }

    fn after(&self, delivery: &Delivery<'_>, failure: Option<&Failure>) {
        let ended = failure.map_or("well".to_owned(), ToString::to_string);
        self.0.add(format!("{} {}: {ended}", text(delivery), delivery.attempt()));
        assert!(text(delivery) != "fuse", "an interceptor that breaks afterwards");
    }
}

const SENT: [&str; 6] = ["one", "spam", "forged", "bomb", "fuse", "two"];

async fn send_all(kit: &TestKit) {
    for text in SENT {
        kit.send("t", "k", text).await;
    }
}

async fn letters(kit: &TestKit) -> Vec<String> {
    kit.topic("t-dlt").values::<String>().await
}

#[klamm::test]
async fn a_record_is_discarded_refused_or_handled_and_told_of(kit: TestKit) {
    let (seen, heard) = (Seen::default(), Seen::default());
    let listener =
        Listener::on("t").group("g").on_failure(FailurePolicy::new()).intercept(Guard(heard.clone()));
    let app = kit.app().state(seen.clone()).listener(listener.handle(note)).start().await;
    send_all(&kit).await;
    app.handled("note", 6).await;
    assert_eq!(seen.all(), ["one", "fuse", "two"]);
    assert_eq!(heard.all(), ["one 1: well", "fuse 1: well", "two 1: well"]);
    assert_eq!(letters(&kit).await, ["forged", "bomb"]);
    assert_eq!(kit.committed("g", "t", 0).await, Some(6));
}

#[klamm::test]
async fn retries_are_deliveries_and_tell_their_failure(kit: TestKit) {
    let heard = Seen::default();
    let fails_once = async |meta: RecordMeta| if meta.attempt == 1 { Err("not yet") } else { Ok(()) };
    let policy = FailurePolicy::new().retry_in_place(Backoff::immediate());
    let listener = Listener::on("t").group("g").id("once").on_failure(policy).handle(fails_once);
    let app = kit.app().intercept(Guard(heard.clone())).listener(listener).start().await;
    kit.send("t", "k", "one").await;
    app.handled("once", 1).await;
    assert_eq!(heard.all(), ["one 1: not yet", "one 2: well"]);
}

#[klamm::test]
async fn of_a_batch_each_record_is_asked_about(kit: TestKit) {
    async fn batches(batch: Batch<Value<String>>, State(seen): State<Seen>) -> BatchOutcome {
        let mut outcome = BatchOutcome::ok();
        for (index, text) in batch.into_iter().enumerate() {
            seen.add(&**text);
            if **text == *"two" {
                outcome.fail(index, "two is too many");
            }
        }
        outcome
    }
    let (seen, heard) = (Seen::default(), Seen::default());
    kit.create_topic("t", 1).await;
    send_all(&kit).await;
    let listener =
        Listener::on("t").group("g").on_failure(FailurePolicy::new()).intercept(Guard(heard.clone()));
    let app = kit.app().state(seen.clone()).listener(listener.handle(batches)).start().await;
    app.handled("batches", 6).await;
    assert_eq!(seen.all(), ["one", "fuse", "two"]);
    assert_eq!(heard.all(), ["one 1: well", "fuse 1: well", "two 1: two is too many"]);
    let mut letters = letters(&kit).await;
    letters.sort_unstable();
    assert_eq!(letters, ["bomb", "forged", "two"]);
    assert_eq!(kit.committed("g", "t", 0).await, Some(6));
}

#[klamm::test]
async fn what_is_discarded_needs_no_acknowledgement(kit: TestKit) {
    async fn by_hand(Value(text): Value<String>, ack: Ack, State(seen): State<Seen>) {
        seen.add(text);
        ack.mark();
    }
    let (seen, heard) = (Seen::default(), Seen::default());
    let listener = Listener::on("t").group("g").ack(AckPolicy::Manual).on_failure(FailurePolicy::new());
    let listener = listener.intercept(Guard(heard.clone())).handle(by_hand);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    send_all(&kit).await;
    app.handled("by_hand", 6).await;
    assert_eq!(seen.all(), ["one", "fuse", "two"]);
    assert_eq!(kit.committed("g", "t", 0).await, Some(6));
}

#[klamm::test]
async fn with_record_acks_what_is_discarded_is_committed(kit: TestKit) {
    let seen = Seen::default();
    let listener = Listener::on("t").group("g").ack(AckPolicy::Record).on_failure(FailurePolicy::new());
    let listener = listener.intercept(Guard(Seen::default())).handle(note);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    kit.send_record(OutRecord::to("t").key("k").value("spam")).await;
    app.handled("note", 1).await;
    assert_eq!((seen.all().len(), kit.committed("g", "t", 0).await), (0, Some(1)));
}

/// Those of the app are asked first; a discarded record is asked about no further.
#[klamm::test]
async fn interceptors_have_an_order(kit: TestKit) {
    #[derive(Debug)]
    struct Named(&'static str, Seen);
    impl ListenInterceptor for Named {
        fn before(&self, _delivery: &Delivery<'_>) -> Result<Before, BoxError> {
            self.1.add(format!("before {}", self.0));
            Ok(Before::Handle)
        }
        fn after(&self, _delivery: &Delivery<'_>, _failure: Option<&Failure>) {
            self.1.add(format!("after {}", self.0));
        }
    }
    let seen = Seen::default();
    let named = |name| Named(name, seen.clone());
    let listener = Listener::on("t").group("g").intercept(named("own")).intercept(named("last")).handle(note);
    let app = kit.app().state(seen.clone()).intercept(named("app")).listener(listener).start().await;
    kit.send("t", "k", "one").await;
    app.handled("note", 1).await;
    let expected = ["before app", "before own", "before last", "one", "after last", "after own", "after app"];
    assert_eq!(seen.all(), expected);
}
