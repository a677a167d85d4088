//! Asynchronous steps on the test driver: orders, limits, failures, what follows from them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm::streams::{AsyncCalls, ErrorPolicy, KStream, Repartitioned, StreamsBuilder, TopologyTestDriver};
use tokio::sync::Notify;

fn driver(build: impl FnOnce(KStream<String, String>), cached: bool) -> TopologyTestDriver {
    let mut streams = StreamsBuilder::new();
    build(streams.stream::<String, String>("in"));
    let topology = streams.build().unwrap();
    match cached {
        true => TopologyTestDriver::cached(topology, 1 << 20),
        false => TopologyTestDriver::new(topology),
    }
}

fn pipe(driver: &TopologyTestDriver, records: &[(&str, &str)]) {
    for ((key, value), at) in records.iter().zip(1..) {
        driver.input::<String, String>("in").pipe(*key, *value).header("at", value.to_string()).at(at);
    }
}

fn told(driver: &TopologyTestDriver) -> Vec<String> {
    let out = driver.output::<String, String>("out").read_all();
    out.into_iter().map(|record| format!("{}:{}@{}", record.key, record.value, record.timestamp_ms)).collect()
}

/// A call that ends when the one of `after` was made.
fn waiting_for(after: &'static str, calls: AsyncCalls) -> impl FnOnce(KStream<String, String>) {
    move |stream| {
        let made = Arc::new(Notify::new());
        let called = stream.map_values_async_with(calls, move |_, value: String| {
            let made = Arc::clone(&made);
            async move {
                match value.as_str() {
                    "slow" => made.notified().await,
                    of if of == after => made.notify_one(),
                    _ => {}
                }
                Ok::<_, std::io::Error>(value.to_uppercase())
            }
        });
        called.to("out");
    }
}

#[test]
fn c6_keys_overtake_each_other_and_records_of_a_key_do_not() {
    let mut driver = driver(waiting_for("other", AsyncCalls::new()), true);
    pipe(&driver, &[("a", "slow"), ("a", "next"), ("b", "other")]);
    assert_eq!(told(&driver), Vec::<String>::new(), "it ends with the commit");
    driver.commit();
    assert_eq!(told(&driver), ["b:OTHER@3", "a:SLOW@1", "a:NEXT@2"]);
}

#[test]
fn unordered_calls_of_a_key_overtake_each_other() {
    let mut driver = driver(waiting_for("next", AsyncCalls::new().unordered()), true);
    pipe(&driver, &[("a", "slow"), ("a", "next")]);
    driver.commit();
    assert_eq!(told(&driver), ["a:NEXT@2", "a:SLOW@1"]);
}

#[test]
fn without_a_cache_a_call_has_ended_when_its_record_was_piped() {
    let driver = driver(waiting_for("none", AsyncCalls::new()), false);
    pipe(&driver, &[("a", "x")]);
    let record = driver.output::<String, String>("out").read().unwrap();
    assert_eq!((record.value.as_str(), record.timestamp_ms), ("X", 1));
    assert_eq!(record.headers.last("at"), Some(Some(&b"x"[..])), "headers follow");
}

#[test]
fn no_more_calls_than_allowed_are_under_way() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (running, seen) = (Arc::clone(&now), Arc::clone(&most));
    let mut driver = driver(
        move |stream| {
            let calls = AsyncCalls::new().max_in_flight(3);
            let called = stream.map_values_async_with(calls, move |_, value: String| {
                let (running, seen) = (Arc::clone(&running), Arc::clone(&seen));
                async move {
                    seen.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok::<_, std::io::Error>(value)
                }
            });
            called.to("out");
        },
        true,
    );
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|key| (key, "v"));
    pipe(&driver, &keys);
    driver.commit();
    assert_eq!((told(&driver).len(), now.load(Ordering::SeqCst), most.load(Ordering::SeqCst)), (8, 0, 3));
}

/// Fails at `bad` for so many attempts.
fn failing(
    attempts: usize,
    policy: ErrorPolicy,
    seen: &Arc<AtomicUsize>,
) -> impl FnOnce(KStream<String, String>) {
    let seen = Arc::clone(seen);
    move |stream| {
        let called = stream.map_values_async(move |_, value: String| {
            let seen = Arc::clone(&seen);
            async move {
                if value == "panics" {
                    assert_ne!(value, "panics", "a call that panics");
                }
                if value == "bad" && seen.fetch_add(1, Ordering::SeqCst) < attempts {
                    return Err(std::io::Error::other("not today"));
                }
                Ok(value)
            }
        });
        called.on_error(policy).to("out");
    }
}

#[test]
fn calls_that_fail_follow_the_policy() {
    let seen = Arc::default();
    let retried = ErrorPolicy::fail().retry(2, Duration::from_secs(15));
    let d = driver(failing(2, retried.clone(), &seen), false);
    pipe(&d, &[("a", "bad"), ("b", "good")]);
    assert_eq!(
        (told(&d), seen.load(Ordering::SeqCst)),
        (vec!["a:bad@1".to_owned(), "b:good@2".to_owned()], 3)
    );

    let d = driver(failing(usize::MAX, retried, &Arc::default()), false);
    let error = d.input::<String, String>("in").pipe("a", "bad").try_at(1).unwrap_err().to_string();
    let wanted = "operator `in.map_values_async` failed at the record at in-0 offset 0: not today";
    assert!(error.starts_with(wanted), "{error}");

    let d = driver(failing(usize::MAX, ErrorPolicy::skip(), &Arc::default()), false);
    pipe(&d, &[("a", "bad"), ("b", "panics"), ("c", "good")]);
    assert_eq!((told(&d), d.dropped().failed), (vec!["c:good@3".to_owned()], 2));

    let letters = ErrorPolicy::dead_letter("letters");
    let mut d = driver(failing(usize::MAX, letters, &Arc::default()), true);
    pipe(&d, &[("a", "bad"), ("b", "good"), ("c", "panics")]);
    d.commit();
    let letters = d.output::<String, String>("letters").read_all();
    assert_eq!(letters, [("a", "bad", 1), ("c", "panics", 3)], "the source records, as they came");
    assert_eq!(letters[0].headers.last("__streams.errors.offset"), Some(Some(&b"0"[..])));
    let message = letters[1].headers.last("__streams.errors.message").flatten().unwrap();
    assert!(message.starts_with(b"it panicked: "), "{}", message.escape_ascii());
}

#[test]
fn a_call_that_takes_too_long_has_failed() {
    let calls = AsyncCalls::new().timeout(Duration::from_millis(20));
    let d = driver(
        move |stream| {
            let never =
                stream.map_values_async_with(calls, |_, _| std::future::pending::<std::io::Result<String>>());
            never.to("out");
        },
        false,
    );
    let error = d.input::<String, String>("in").pipe("a", "x").try_at(1).unwrap_err().to_string();
    assert!(error.contains("it did not end within 20ms"), "{error}");
}

/// What follows a call may be anything: another call, state, a repartition topic.
#[test]
fn calls_follow_each_other_and_feed_state() {
    for cached in [false, true] {
        let order = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&order);
        let mut d = driver(
            move |stream| {
                let words = stream
                    .map_values_async(|_, line| async move { Ok::<_, std::io::Error>(line.to_lowercase()) })
                    .flat_map_async(move |key, line| {
                        log.lock().unwrap().push(key);
                        let words: Vec<_> = line.split(' ').map(|word| (word.to_owned(), 1_i64)).collect();
                        async move { Ok::<_, std::io::Error>(words) }
                    });
                let repartitioned = Repartitioned::named("words").partitions(1);
                let counts = words.repartition(repartitioned).group_by_key().count("counts");
                counts.to_stream().for_each(|_, _| {});
            },
            cached,
        );
        pipe(&d, &[("1", "A b"), ("2", "a"), ("3", "B a")]);
        d.commit();
        let counts = d.store::<String, i64>("counts").all();
        assert_eq!(counts, [("a".to_owned(), 3), ("b".to_owned(), 2)], "cached: {cached}");
        assert_eq!(*order.lock().unwrap(), ["1", "2", "3"]);
    }
}
