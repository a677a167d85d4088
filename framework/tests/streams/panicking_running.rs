//! An aggregation that panics now and then, in an application: its store and its changelog have what it did not panic
//! at.

use std::collections::BTreeMap;

use klamm::streams::{ErrorPolicy, StreamsBuilder, Topology};
use klamm::testing::TestKit;

use crate::pipeline::{Pipeline, caught_up};

/// Sums up, and panics at every number that ends with 3.
fn sums(policy: ErrorPolicy) -> Topology {
    let mut streams = StreamsBuilder::new();
    let add = |_: &String, value: &String, sum: i64| {
        assert!(!value.ends_with('3'), "a sum that panics");
        sum + value.parse::<i64>().unwrap()
    };
    let summed = streams.stream::<String, String>("in").group_by_key().aggregate("sums", || 0, add);
    summed.on_error(policy).to_stream().to("totals");
    streams.build().unwrap()
}

fn wanted(records: usize) -> BTreeMap<String, i64> {
    let mut sums = BTreeMap::new();
    for number in (0..records).filter(|number| number % 10 != 3) {
        *sums.entry(format!("k{}", number % 7)).or_default() += number as i64;
    }
    sums
}

async fn sums_without(kit: &TestKit, exactly_once: bool, cache_bytes: usize) {
    let mut pipeline = Pipeline::new(kit).await;
    kit.create_topic("letters", 1).await;
    let mut fed = 0;
    for (disk, policy) in [(1, ErrorPolicy::skip()), (2, ErrorPolicy::dead_letter("letters"))] {
        let config = pipeline.config(disk).cache_bytes(cache_bytes);
        let config = if exactly_once { config.exactly_once() } else { config };
        let app = sums(policy).start(config).await.unwrap();
        pipeline.feed(150).await;
        fed += 150;
        caught_up(&app).await;
        let all = app.store::<String, i64>("sums").unwrap().all().await.unwrap();
        assert_eq!(all.into_iter().collect::<BTreeMap<_, _>>(), wanted(fed), "disk {disk}");
        assert_eq!(pipeline.totals().await, wanted(fed));
        app.close().await.unwrap();
    }
    assert_eq!(pipeline.read("letters").await.len(), 15);
}

#[klamm::test]
async fn a_panic_leaves_the_store_as_it_was(kit: TestKit) {
    sums_without(&kit, false, 1 << 20).await;
}

#[klamm::test]
async fn a_panic_leaves_the_store_as_it_was_exactly_once(kit: TestKit) {
    sums_without(&kit, true, 1 << 20).await;
}

#[klamm::test]
async fn a_panic_leaves_the_store_as_it_was_exactly_once_without_a_cache(kit: TestKit) {
    sums_without(&kit, true, 0).await;
}

#[klamm::test]
async fn a_panic_leaves_the_store_as_it_was_without_a_cache(kit: TestKit) {
    sums_without(&kit, false, 0).await;
}
