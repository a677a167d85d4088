//! Acknowledging a part of a batch, and putting records off.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm::listener::{AckError, SeekTo};
use klamm::prelude::*;
use klamm::testing::TestKit;
use klamm_runtime::{Rng, SeededRng, Tasks};
use tokio::time::{Instant, sleep};

use crate::seen::{Seen, until};

const TEN_SECONDS: Duration = Duration::from_secs(10);

/// Puts "busy" off, as long as it was not seen three times.
#[kafka_listener(topics = "t", group = "g", ack = manual, on_failure = FailurePolicy::new())]
async fn polite(Value(text): Value<String>, meta: RecordMeta, ack: Ack, State(seen): State<Seen>) {
    seen.add(format!("{text} of {} at attempt {}", meta.partition, meta.attempt));
    match text == "busy" && seen.all().iter().filter(|seen| seen.starts_with("busy")).count() < 3 {
        true => ack.nack(TEN_SECONDS),
        false => ack.mark(),
    }
}

#[klamm::test]
async fn a_record_put_off_comes_again_before_later_ones_and_nobody_else_waits(kit: TestKit) {
    kit.create_topic("t", 2).await;
    for text in ["first", "busy", "last"] {
        kit.send_to("t", 0, "k", text).await;
    }
    let seen = Seen::default();
    let begun = Instant::now();
    let app = kit.app().state(seen.clone()).listener(polite).start().await;
    until(|| seen.all().len() == 2).await;
    kit.send_to("t", 1, "k", "elsewhere").await;
    until(|| seen.all().len() == 3).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    app.handled("polite", 4).await;
    let busy = "busy of 0 at attempt 1";
    let all = [
        "first of 0 at attempt 1",
        busy,
        "elsewhere of 1 at attempt 1",
        busy,
        busy,
        "last of 0 at attempt 1",
    ];
    assert_eq!(seen.all(), all);
    assert!(begun.elapsed() >= 2 * TEN_SECONDS, "{:?}", begun.elapsed());
    assert!(app.stop().await.is_clean());
    assert_eq!(kit.committed("g", "t", 0).await, Some(3));
    kit.topic("t-dlt").stays_empty().await;
}

/// Acknowledgements that handlers left for later.
#[derive(Clone, Default)]
struct Later(Arc<Mutex<Vec<Ack>>>);

impl Later {
    fn take(&self) -> Ack {
        self.0.lock().unwrap().remove(0)
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

#[kafka_listener(topics = "t", group = "g", ack = manual, on_failure = FailurePolicy::new())]
async fn leaving(ack: Ack, State(later): State<Later>) {
    later.0.lock().unwrap().push(ack);
}

#[klamm::test]
async fn it_may_be_put_off_when_the_handler_has_returned(kit: TestKit) {
    kit.send("t", "k", "v").await;
    let later = Later::default();
    let app = kit.app().state(later.clone()).listener(leaving).start().await;
    for _ in 0..3 {
        until(|| later.len() == 1).await;
        let begun = Instant::now();
        later.take().nack(TEN_SECONDS);
        until(|| later.len() == 1).await;
        assert!(begun.elapsed() >= TEN_SECONDS, "{:?}", begun.elapsed());
    }
    assert_eq!(kit.committed("g", "t", 0).await, None);
    later.take().now().await.unwrap();
    assert_eq!(kit.committed("g", "t", 0).await, Some(1));
    app.handled("leaving", 1).await;
}

#[klamm::test]
async fn what_is_put_off_for_long_ends_with_the_listener_and_comes_after_a_restart(kit: TestKit) {
    kit.send("t", "k", "v").await;
    let later = Later::default();
    let app = kit.app().state(later.clone()).listener(leaving).start().await;
    until(|| later.len() == 1).await;
    later.take().nack(Duration::MAX);
    let begun = Instant::now();
    let report = app.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(report.unfinished.len(), 1, "{report:?}");
    let app = kit.app().state(later.clone()).listener(leaving).start().await;
    until(|| later.len() == 1).await;
    later.take().mark();
    app.handled("leaving", 1).await;
}

#[klamm::test]
async fn a_seek_over_what_is_put_off_brings_it_once(kit: TestKit) {
    kit.send("t", "k", "v").await;
    let later = Later::default();
    let app = kit.app().state(later.clone()).listener(leaving).start().await;
    until(|| later.len() == 1).await;
    later.take().nack(TEN_SECONDS);
    app.listener("leaving").unwrap().seek(("t", 0), SeekTo::Beginning).await.unwrap();
    until(|| later.len() == 1).await;
    sleep(2 * TEN_SECONDS).await;
    assert_eq!(later.len(), 1);
    later.take().mark();
    app.handled("leaving", 1).await;
}

/// What a batch handler is to do, and what it saw.
#[derive(Clone, Default)]
struct Orders {
    seen: Seen,
    orders: Arc<Mutex<Vec<&'static str>>>,
}

impl Orders {
    fn new(orders: &[&'static str]) -> Self {
        Self { seen: Seen::default(), orders: Arc::new(Mutex::new(orders.to_vec())) }
    }

    fn next(&self) -> &'static str {
        let mut orders = self.orders.lock().unwrap();
        if orders.is_empty() { "mark" } else { orders.remove(0) }
    }
}

#[kafka_listener(
    topics = "t",
    group = "g",
    batch(max = 5, wait = "1s"),
    ack = manual,
    on_failure = FailurePolicy::new()
)]
async fn ordered(
    batch: Batch<Value<i32>>,
    ack: Ack,
    State(orders): State<Orders>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let values: Vec<String> = batch.iter().map(|Value(value)| value.to_string()).collect();
    orders.seen.add(values.join(" "));
    match orders.next() {
        "two, then later" => {
            ack.up_to(1)?;
            ack.nack(TEN_SECONDS);
        }
        "later, but fails" => {
            ack.nack(TEN_SECONDS);
            return Err("that does not count".into());
        }
        "three, then fails" => {
            ack.up_to(0)?;
            ack.up_to(2)?;
            return Err("the rest".into());
        }
        "one, then drops" => ack.up_to(0)?,
        "beyond" => ack.up_to(5)?,
        "backwards" => {
            ack.up_to(1)?;
            ack.up_to(1)?;
        }
        "all by place" => {
            ack.up_to(1)?;
            ack.up_to(batch.len() - 1)?;
            let AckError::Over = ack.up_to(0).unwrap_err() else { panic!("nothing was left") };
        }
        _ => ack.mark(),
    }
    Ok(())
}

/// Five numbers go to a batch; gives what handlers saw and the dead letters.
async fn five(kit: &TestKit, orders: &[&'static str]) -> (Vec<String>, Vec<i32>) {
    let orders = Orders::new(orders);
    let app = kit.app().state(orders.clone()).listener(ordered).start().await;
    for number in 0..5 {
        kit.send("t", "k", number).await;
    }
    app.handled("ordered", 5).await;
    assert!(app.stop().await.is_clean());
    assert_eq!(kit.committed("g", "t", 0).await, Some(5));
    (orders.seen.all(), kit.topic("t-dlt").values().await)
}

#[klamm::test]
async fn a_batch_is_acknowledged_in_part_and_the_rest_put_off(kit: TestKit) {
    let (seen, letters) = five(&kit, &["two, then later"]).await;
    assert_eq!(seen, ["0 1 2 3 4", "2 3 4"]);
    assert!(letters.is_empty(), "{letters:?}");
}

#[klamm::test]
async fn who_puts_off_does_not_fail(kit: TestKit) {
    let (seen, letters) = five(&kit, &["later, but fails"]).await;
    assert_eq!(seen, ["0 1 2 3 4", "0 1 2 3 4"]);
    assert!(letters.is_empty(), "{letters:?}");
}

#[klamm::test]
async fn what_was_acknowledged_in_part_does_not_fail_with_the_rest(kit: TestKit) {
    let (seen, letters) = five(&kit, &["three, then fails"]).await;
    assert_eq!((seen, letters), (vec!["0 1 2 3 4".to_owned()], vec![3, 4]));
}

#[klamm::test]
async fn what_was_left_of_a_batch_fails_when_its_acknowledgement_is_dropped(kit: TestKit) {
    let (seen, letters) = five(&kit, &["one, then drops"]).await;
    assert_eq!((seen, letters), (vec!["0 1 2 3 4".to_owned()], vec![1, 2, 3, 4]));
}

#[klamm::test]
async fn a_place_that_the_batch_does_not_have_is_an_error(kit: TestKit) {
    let (_, letters) = five(&kit, &["beyond"]).await;
    assert_eq!(letters, [0, 1, 2, 3, 4]);
    let letter = kit.topic("t-dlt").next().await;
    let message = letter.headers.last("kafka_dlt-exception-message").flatten().unwrap();
    assert_eq!(
        String::from_utf8_lossy(message),
        "there is no record 5 to acknowledge: the batch has 5, counted from 0, and the first 0 are acknowledged"
    );
}

#[klamm::test]
async fn places_rise(kit: TestKit) {
    let (_, letters) = five(&kit, &["backwards"]).await;
    assert_eq!(letters, [2, 3, 4]);
}

#[klamm::test]
async fn all_may_be_acknowledged_by_place(kit: TestKit) {
    let (seen, letters) = five(&kit, &["all by place"]).await;
    assert_eq!((seen.len(), letters), (1, vec![]));
}

#[klamm::test]
async fn places_are_those_of_the_handlers_batch_without_what_does_not_decode(kit: TestKit) {
    let orders = Orders::new(&["two, then later"]);
    let app = kit.app().state(orders.clone()).listener(ordered).start().await;
    kit.send("t", "k", 0).await;
    kit.send("t", "k", "not a number").await;
    for number in [1, 2] {
        kit.send("t", "k", number).await;
    }
    app.handled("ordered", 4).await;
    assert_eq!(orders.seen.all(), ["0 1 2", "2"]);
    assert_eq!(kit.topic("t-dlt").records().await.len(), 1);
}

/// Acknowledges, puts off, fails and leaves as chance has it.
#[derive(Clone)]
struct Moody {
    rng: Arc<SeededRng>,
    done: Arc<Mutex<HashSet<i32>>>,
    tasks: Arc<Tasks>,
}

async fn moody(batch: Batch<Value<i32>>, ack: Ack, State(moody): State<Moody>) -> Result<(), String> {
    let values: Vec<i32> = batch.iter().map(|Value(value)| *value).collect();
    let mut from = 0;
    while from < values.len() && moody.rng.below(3) > 0 {
        let to = from + usize::try_from(moody.rng.below(3)).unwrap();
        if to >= values.len() {
            ack.up_to(to).unwrap_err();
            break;
        }
        moody.done.lock().unwrap().extend(&values[from..=to]);
        ack.up_to(to).unwrap();
        from = to + 1;
    }
    let mark = move |ack: Ack, done: &Mutex<HashSet<i32>>| {
        done.lock().unwrap().extend(&values[from..]);
        ack.mark();
    };
    match moody.rng.below(6) {
        0 => ack.nack(Duration::from_millis(moody.rng.below(100))),
        1 => return Err("moody".to_owned()),
        2 => drop(ack),
        3 => panic!("moody"),
        4 => {
            let tasks = Arc::clone(&moody.tasks);
            tasks.spawn("moody", async move {
                sleep(Duration::from_millis(moody.rng.below(50))).await;
                match moody.rng.below(3) {
                    0 => ack.nack(Duration::from_millis(moody.rng.below(100))),
                    1 => drop(ack),
                    _ => mark(ack, &moody.done),
                }
            });
        }
        _ => mark(ack, &moody.done),
    }
    Ok(())
}

#[klamm::test]
async fn whatever_is_acknowledged_and_put_off_commits_stay_below_what_is_not_done(kit: TestKit) {
    for number in 0..200 {
        kit.send("t", "k", number).await;
    }
    for seed in 0..6 {
        let done = Arc::<Mutex<HashSet<i32>>>::default();
        let moods =
            Moody { rng: Arc::new(SeededRng::new(seed)), done: Arc::clone(&done), tasks: Arc::default() };
        let policy = FailurePolicy::new().retry_in_place(Backoff::fixed(Duration::from_millis(20)));
        let listener = Listener::on("t").group(format!("g{seed}")).ack(AckPolicy::Manual).on_failure(policy);
        let listener = listener.id("moody").batch(7, Duration::from_millis(5)).handle(moody);
        let app = kit.app().state(moods.clone()).listener(listener).start().await;
        let lowest = || {
            let done = done.lock().unwrap();
            (0..).find(|number| !done.contains(number)).unwrap()
        };
        let deadline = Instant::now() + Duration::from_secs(600);
        while lowest() < 200 {
            assert!(Instant::now() < deadline, "seed {seed}: {} stays undone", lowest());
            // What is done only grows, so that this comes first.
            let committed = kit.committed(&format!("g{seed}"), "t", 0).await.unwrap_or(0);
            assert!(
                committed <= i64::from(lowest()),
                "seed {seed}: {committed} was committed at {}",
                lowest()
            );
            sleep(Duration::from_millis(100)).await;
        }
        app.handled("moody", 200).await;
        assert!(app.stop().await.is_clean());
    }
}
