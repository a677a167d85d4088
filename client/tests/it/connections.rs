//! Brokers that keep silent: at connecting, and in the middle of a conversation.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm_client::Record;
use klamm_client::runtime::{Net, Tasks};
use klamm_client::testing::Answer;
use klamm_protocol::ApiKey;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tokio::time::Instant;

use crate::scripted::{self, TOPIC};

/// An address that takes connections and never answers.
async fn silent(net: &dyn Net, tasks: &Tasks) -> String {
    let mut listener = net.bind("silent:0").await.unwrap();
    let address = listener.local_address();
    tasks.spawn("silent broker", async move {
        let mut held = Vec::new();
        while let Ok(connection) = listener.accept().await {
            held.push(connection);
        }
    });
    address
}

#[tokio::test(start_paused = true)]
async fn a_silent_bootstrap_address_does_not_hide_another() {
    let (broker, tasks) = (scripted::start(1).await, Tasks::new());
    for silent_ones in 1..=2 {
        let mut addresses = Vec::new();
        for _ in 0..silent_ones {
            addresses.push(silent(&*broker.net(), &tasks).await);
        }
        addresses.push(broker.bootstrap().to_owned());
        let started = Instant::now();
        let client = broker.client_builder().bootstrap(addresses.join(",")).build().await.unwrap();
        assert!(started.elapsed() <= Duration::from_secs(silent_ones), "{:?}", started.elapsed());
        assert_eq!(client.partition_count(TOPIC).await.unwrap(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_ends_though_nobody_has_the_patience_to_see_it() {
    let broker = scripted::start(1).await;
    let client = broker.client_builder().request_timeout(Duration::from_secs(10)).build().await.unwrap();
    broker.next(ApiKey::Metadata, 1, Answer::Hang);
    let started = Instant::now();
    let mut failed = 0;
    loop {
        // Each caller goes away after a second; the connection's own deadline counts from the first request.
        let listed = tokio::time::timeout(Duration::from_secs(1), client.admin().list_topics()).await;
        if matches!(listed, Ok(Ok(_))) {
            break;
        }
        failed += 1;
        assert!(failed < 15, "the silent connection is given out for ever");
    }
    assert!(started.elapsed() <= Duration::from_secs(12), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_record_is_sent_once_its_broker_can_be_reached_again() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    let producer = client.producer().build().unwrap();
    broker.next(ApiKey::Produce, 1, Answer::Never);
    let started = Instant::now();
    producer.send(Record::to(TOPIC).value("a")).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(30), "the request timeout");
    assert_eq!(broker.values(TOPIC, 0), ["a"], "recognised when it is sent again");
}

/// A broker that takes connections, negotiates, and closes them was connected to as fast as it closed.
#[tokio::test]
async fn a_broker_that_closes_every_connection_is_not_stormed() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    let producer = client.producer().build().unwrap();
    producer.send(Record::to(TOPIC).value("a")).await.unwrap();
    broker.next(ApiKey::ApiVersions, 1_000_000, Answer::ThenDisconnect);
    broker.next(ApiKey::Produce, 1_000_000, Answer::DisconnectBefore);
    let before = broker.connections();
    let waiting = producer.enqueue(Record::to(TOPIC).value("b")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let made = broker.connections() - before;
    // 50 ms to 1 s lie between two attempts of the producer, and of what looks for the metadata.
    assert!((2..=80).contains(&made), "{made} connections in 2 s");
    broker.behave();
    waiting.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn many_unknown_topics_are_asked_about_together() {
    let broker = scripted::start(1).await;
    // Too short for a second round.
    let client = broker.client_builder().request_timeout(Duration::from_millis(5)).build().await.unwrap();
    let before = broker.requests(ApiKey::Metadata);
    // The broker knows one topic only and says nothing about the others.
    let asked = (0..200).map(|number| {
        let client = client.clone();
        async move { client.partition_count(&format!("unknown-{number}")).await.unwrap_err() }
    });
    futures::future::join_all(asked).await;
    let requests = broker.requests(ApiKey::Metadata) - before;
    assert!((1..=3).contains(&requests), "{requests} requests");
}

#[test]
fn requests_are_counted_for_the_programs_recorder() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let broker = scripted::start(1).await;
            let client = broker.client().await.unwrap();
            let producer = client.producer().build().unwrap();
            broker.next(ApiKey::Produce, 1, Answer::DisconnectBefore);
            producer.send(Record::to(TOPIC).value("a")).await.unwrap();
        });
    });
    let mut told = BTreeMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let labels: Vec<_> = key.key().labels().map(metrics::Label::value).collect();
        told.insert(format!("{}{labels:?}", key.key().name()), value);
    }
    assert_eq!(told["klamm_client_requests_total[\"Produce\"]"], DebugValue::Counter(2));
    assert_eq!(told["klamm_client_requests_failed_total[\"Produce\"]"], DebugValue::Counter(1));
    match &told["klamm_client_request_seconds[\"Produce\"]"] {
        DebugValue::Histogram(times) => assert_eq!(times.len(), 1),
        other => panic!("{other:?}"),
    }
    assert!(matches!(told["klamm_client_sent_bytes_total[]"], DebugValue::Counter(bytes) if bytes > 100));
    assert!(matches!(told["klamm_client_received_bytes_total[]"], DebugValue::Counter(bytes) if bytes > 100));
    assert_eq!(told["klamm_client_connections_total[\"opened\"]"], DebugValue::Counter(3));
}

/// Whatever listens there: an error in time, and no more memory than a handshake takes.
#[tokio::test]
async fn peers_that_speak_no_tls_or_half_of_it_are_an_error_in_time() {
    use klamm_client::Security;
    use klamm_client::security::Tls;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let hello: &[u8] = &[22, 3, 3, 0, 4, 2, 0, 255, 255];
    let record = |kind: u8, length: usize| {
        let mut record = vec![kind, 3, 3, (length >> 8) as u8, length as u8];
        record.resize(5 + length, 0);
        record
    };
    let mut certificates = record(22, 16_000);
    certificates[5..9].copy_from_slice(&[11, 255, 255, 255]);
    let peers: [(&str, Vec<u8>, usize); 7] = [
        ("silence", vec![], 0),
        ("plain text", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), 1),
        ("zeros", vec![0; 65_536], 10),
        ("half a hello", hello.to_vec(), 1),
        ("16 MB of certificates", certificates, 1_024),
        ("alerts without end", vec![21, 3, 3, 0, 2, 1, 90], 100_000),
        ("empty records without end", record(22, 0), 100_000),
    ];
    for (name, bytes, times) in peers {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let peer = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut nothing = [0; 512];
                let _ = stream.read(&mut nothing).await;
                for _ in 0..times {
                    if stream.write_all(&bytes).await.is_err() {
                        break;
                    }
                }
                tokio::spawn(async move {
                    let _held = stream;
                    std::future::pending::<()>().await;
                });
            }
        });
        let begun = std::time::Instant::now();
        let client = klamm_client::Client::builder().bootstrap(&*address).security(Security::tls(Tls::new()));
        let client = client.connect_timeout(Duration::from_secs(1)).request_timeout(Duration::from_secs(1));
        let result = tokio::time::timeout(Duration::from_secs(20), client.build()).await;
        let error = result.unwrap_or_else(|_| panic!("{name}: nobody was told")).err();
        assert!(error.is_some() && begun.elapsed() < Duration::from_secs(10), "{name}: {error:?}");
        peer.abort();
    }
}
