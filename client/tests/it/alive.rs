//! How sure a consumer is that its group counts it in.

use std::time::Duration;

use klamm_client::ApiKey;
use klamm_client::testing::Answer;
use tokio::time::{Instant, sleep};

use crate::scripted::{self, TOPIC};

const SESSION: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn a_member_is_sure_of_itself_for_a_session_after_the_last_answered_heartbeat() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    let consumer = client.consumer().group("g").topics([TOPIC]).session_timeout(SESSION);
    let consumer = consumer.heartbeat_interval(Duration::from_secs(2)).start().await.unwrap();
    let handle = consumer.handle();
    assert_eq!(handle.alive_until(), None, "it has not joined");
    while handle.assignment().is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    for _ in 0..3 {
        sleep(Duration::from_secs(7)).await;
        let left = handle.alive_until().unwrap() - Instant::now();
        assert!(left > SESSION * 7 / 10 && left <= SESSION, "{left:?}");
    }
    broker.always(ApiKey::Heartbeat, Answer::Hang);
    broker.always(ApiKey::JoinGroup, Answer::Hang);
    let until = handle.alive_until().unwrap();
    sleep(SESSION / 2).await;
    assert!(handle.alive_until().unwrap() < until + Duration::from_secs(3), "silence renews nothing");
    sleep(SESSION).await;
    assert_eq!(handle.alive_until(), None);
    assert_eq!(handle.assignment(), []);
}
