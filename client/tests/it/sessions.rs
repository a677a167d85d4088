//! Sessions that end: renewed on the connection, beside whatever else goes over it (KIP-368).

use std::time::Duration;

use klamm_client::testing::{Answer, FakeBroker};
use klamm_client::{Client, Record, Sasl, Security};
use klamm_protocol::ApiKey;
use klamm_protocol::messages::{SaslAuthenticateRequest, SaslAuthenticateResponse};

use crate::scripted::{self, TOPIC};

/// Logins take a while, and the sessions after them last so long.
fn sessions_last(broker: &FakeBroker, lifetime_ms: i64) {
    let lasting = move |answer: &mut SaslAuthenticateResponse| answer.session_lifetime_ms = lifetime_ms;
    broker.always(ApiKey::SaslHandshake, Answer::Delayed(Duration::from_millis(20)));
    broker.always(ApiKey::SaslAuthenticate, Answer::edited::<SaslAuthenticateRequest>(lasting));
}

#[tokio::test(start_paused = true)]
async fn a_session_is_renewed_between_requests_and_none_is_lost() {
    let broker = scripted::start(1).await;
    sessions_last(&broker, 1_000);
    let security = Security::plaintext().danger_plaintext_credentials().sasl(Sasl::plain("alice", "pw"));
    let net = broker.net();
    let client =
        Client::builder().bootstrap(broker.bootstrap()).net(net).security(security).build().await.unwrap();
    let producer = client.producer().build().unwrap();
    producer.send(Record::to(TOPIC).partition(0).value("first")).await.unwrap();
    let before = broker.connections();
    for number in 0..400 {
        let sends = (0..5).map(|_| producer.send(Record::to(TOPIC).partition(0).value(number.to_string())));
        for result in futures::future::join_all(sends).await {
            result.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(broker.values(TOPIC, 0).len(), 2_001);
    // The broker closes a connection on which anything else comes in the middle of a login.
    assert_eq!(broker.connections(), before, "the sessions went on: no connection was made anew");
    assert!(broker.requests(ApiKey::SaslHandshake) > 2 * 10);
}

/// A hostile broker: sessions of a millisecond would have the client do nothing but log in.
#[tokio::test(start_paused = true)]
async fn sessions_of_no_time_do_not_keep_the_client_busy() {
    let broker = scripted::start(1).await;
    sessions_last(&broker, 1);
    let security = Security::plaintext().danger_plaintext_credentials().sasl(Sasl::plain("alice", "pw"));
    let builder = Client::builder().bootstrap(broker.bootstrap()).net(broker.net());
    let client = builder.security(security).build().await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (logins, connections) = (broker.requests(ApiKey::SaslHandshake), broker.connections());
    assert!((10..=110 * connections).contains(&logins), "{logins} on {connections} connections");
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_wants_no_login_gets_none() {
    let broker = scripted::start(1).await;
    broker.client().await.unwrap().admin().list_topics().await.unwrap();
    assert_eq!(broker.requests(ApiKey::SaslHandshake), 0);
}
