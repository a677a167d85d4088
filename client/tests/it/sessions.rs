//! Sessions that end: renewed on the connection, beside whatever else goes over it (KIP-368).

use std::sync::Arc;
use std::time::Duration;

use klamm_client::{Client, Record, Sasl, Security};
use klamm_protocol::ApiKey;

use crate::fake::{FakeBroker, TOPIC};

#[tokio::test(start_paused = true)]
async fn a_session_is_renewed_between_requests_and_none_is_lost() {
    let broker = FakeBroker::start(1).await;
    broker.state().session_lifetime_ms = 1_000;
    let security = Security::plaintext().danger_plaintext_credentials().sasl(Sasl::plain("alice", "pw"));
    let net = Arc::new(broker.net.clone());
    let client =
        Client::builder().bootstrap(&broker.address).net(net).security(security).build().await.unwrap();
    let producer = client.producer().build().unwrap();
    producer.send(Record::to(TOPIC).partition(0).value("first")).await.unwrap();
    let before = broker.state().connections;
    for number in 0..400 {
        let sends = (0..5).map(|_| producer.send(Record::to(TOPIC).partition(0).value(number.to_string())));
        for result in futures::future::join_all(sends).await {
            result.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(broker.values(0).len(), 2_001);
    let state = broker.state();
    assert_eq!(state.interrupted_logins, 0, "nothing goes out in the middle of a login");
    assert_eq!(state.connections, before, "the sessions went on: no connection was made anew");
    assert!(state.seen[&ApiKey::SaslHandshake.code()] > 2 * 10, "{:?}", state.seen);
}

/// A hostile broker: sessions of a millisecond would have the client do nothing but log in.
#[tokio::test(start_paused = true)]
async fn sessions_of_no_time_do_not_keep_the_client_busy() {
    let broker = FakeBroker::start(1).await;
    broker.state().session_lifetime_ms = 1;
    let security = Security::plaintext().danger_plaintext_credentials().sasl(Sasl::plain("alice", "pw"));
    let builder = Client::builder().bootstrap(&broker.address).net(Arc::new(broker.net.clone()));
    let client = builder.security(security).build().await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let state = broker.state();
    let (logins, connections) = (state.seen[&ApiKey::SaslHandshake.code()], state.connections);
    assert!((10..=110 * connections).contains(&logins), "{logins} on {connections} connections");
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_wants_no_login_gets_none() {
    let broker = FakeBroker::start(1).await;
    broker.client().await.admin().list_topics().await.unwrap();
    assert!(!broker.state().seen.contains_key(&ApiKey::SaslHandshake.code()));
}
