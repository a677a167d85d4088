//! Topics that come and go: what nobody uses any more is not asked for, and forgetting it harms nobody who does.

use std::sync::Arc;
use std::time::Duration;

use klamm_client::Record;
use klamm_client::testing::FakeBroker;
use klamm_protocol::ApiKey;
use klamm_protocol::messages::MetadataRequest;
use tokio::time::{Instant, timeout};

const DEADLINE: Duration = Duration::from_secs(60);

/// Refreshes all the time, many topics at once, each learned and written to at odd moments: no record waits longer than
/// a few requests take, and each topic's are in order.
#[tokio::test(start_paused = true)]
async fn forgetting_harms_nobody_who_writes() {
    const TOPICS: usize = 40;
    let broker = FakeBroker::start_in_memory().await.unwrap();
    for topic in 0..TOPICS {
        broker.topic(&format!("t{topic}"), 2);
    }
    let often = Duration::from_millis(1);
    let client = broker.client_builder().metadata_max_age(often).retry_backoff(often, 10 * often);
    let client = client.build().await.unwrap();
    let producer = client.producer().build().unwrap();
    let writers = (0..TOPICS).map(|topic| {
        let producer = producer.clone();
        async move {
            let name: Arc<str> = format!("t{topic}").into();
            for number in 0..20_u64 {
                tokio::time::sleep(Duration::from_millis((topic as u64 * 7 + number * 13) % 29)).await;
                let began = Instant::now();
                producer
                    .send(Record::to(Arc::clone(&name)).partition(0).value(number.to_string()))
                    .await
                    .unwrap();
                assert!(began.elapsed() < Duration::from_secs(1), "{name} {number}: {:?}", began.elapsed());
            }
        }
    });
    timeout(DEADLINE, futures::future::join_all(writers)).await.unwrap();
    let expected: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    (0..TOPICS).for_each(|topic| assert_eq!(broker.values(&format!("t{topic}"), 0), expected));

    // A refresh names what is written to, and nothing once nobody writes.
    assert_eq!(named_next(&broker).await, TOPICS);
    producer.close().await.unwrap();
    drop(producer);
    assert_eq!(named_next(&broker).await, 0);
    drop(client);
}

/// How many topics the refreshes to come ask for.
async fn named_next(broker: &FakeBroker) -> usize {
    let seen = broker.requests(ApiKey::Metadata);
    // One may be under way that was begun before.
    timeout(DEADLINE, broker.until(|broker| broker.requests(ApiKey::Metadata) > seen + 2)).await.unwrap();
    let newest = broker.seen(ApiKey::Metadata).pop().unwrap();
    newest.decode::<MetadataRequest>().unwrap().topics.unwrap().len()
}
