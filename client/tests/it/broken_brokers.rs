//! Brokers that break the protocol: typed errors, no panic, no memory without bounds, and recovery when
//! they come to their senses.

use std::sync::Arc;
use std::time::Duration;

use klamm_client::runtime::{MemoryNet, Net};
use klamm_client::testing::Answer;
use klamm_client::{Client, ClientError, ConsumeError, Record, RequestError};
use klamm_protocol::ApiKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::scripted::{self, TOPIC};

fn nonsense() -> Vec<Vec<u8>> {
    let framed = |body: &[u8]| [&(body.len() as i32).to_be_bytes()[..], body].concat();
    vec![
        (-1_i32).to_be_bytes().to_vec(),
        0_i32.to_be_bytes().to_vec(),
        3_i32.to_be_bytes().to_vec(),
        i32::MAX.to_be_bytes().to_vec(),
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        framed(&[0, 0, 0, 99, 1, 2, 3]), // a wrong correlation id
        framed(&[0xff; 64]),
        framed(&[0, 0, 0, 2, 0x7f, 0xff, 0xff, 0xff]), // an absurd array count
    ]
}

#[tokio::test(start_paused = true)]
async fn connecting_to_something_else_is_a_clear_error() {
    for bytes in nonsense() {
        let net = MemoryNet::new();
        let mut listener = net.bind("server:0").await.unwrap();
        let address = listener.local_address();
        let server = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 8];
                let _ = stream.read_exact(&mut request).await;
                let _ = stream.write_all(&bytes).await;
                let _ = stream.flush().await;
                // Kept open until the client hangs up.
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
            }
        };
        let connect = Client::builder().bootstrap(&address).net(Arc::new(net.clone())).build();
        let error = tokio::select! {
            result = connect => result.unwrap_err(),
            () = server => unreachable!("it serves for ever"),
        };
        let text = error.to_string();
        assert!(matches!(error, ClientError::Request(RequestError::NoBroker { .. })), "{text}");
        assert!(text.contains(&address), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn nonsense_instead_of_answers_is_survived() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    let producer = client.producer().build().unwrap();
    for api in [ApiKey::Produce, ApiKey::Metadata] {
        for bytes in nonsense() {
            broker.next(api, 1, Answer::Bytes(bytes.into()));
        }
    }
    for number in 0..20 {
        producer.send(Record::to(TOPIC).value(number.to_string())).await.unwrap();
    }
    for bytes in nonsense() {
        broker.next(ApiKey::Fetch, 1, Answer::Bytes(bytes.into()));
    }
    let mut consumer =
        client.consumer().assign([(TOPIC, 0)]).request_timeout(Duration::from_secs(2)).start().await.unwrap();
    consumer.handle().seek(&(TOPIC, 0).into(), 0).unwrap();
    let mut values = Vec::new();
    while values.len() < 20 {
        match consumer.next().await.unwrap() {
            Ok(record) => values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap()),
            Err(error) => assert!(!error.is_fatal(), "{error}"),
        }
    }
    assert_eq!(values, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn an_older_broker_is_asked_in_its_version() {
    for up_to in [0, 2, 3] {
        let broker = scripted::start(1).await;
        broker.up_to_version(ApiKey::ApiVersions, up_to);
        let client = broker.client().await.unwrap();
        client.producer().build().unwrap().send(Record::to(TOPIC).value("a")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_batch_is_told_and_read_when_it_is_whole_again() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    let producer = client.producer().build().unwrap();
    for value in ["a", "b"] {
        producer.send(Record::to(TOPIC).value(value)).await.unwrap();
    }
    let whole = broker.batches(TOPIC, 0)[1].clone();
    let mut damaged = whole.bytes().to_vec();
    *damaged.last_mut().unwrap() ^= 0x55;
    assert!(broker.replace_batch(TOPIC, 0, 1, damaged));

    let mut consumer = client.consumer().assign([(TOPIC, 0)]).start().await.unwrap();
    consumer.handle().seek(&(TOPIC, 0).into(), 0).unwrap();
    let error = loop {
        match consumer.next().await.unwrap() {
            Ok(record) => assert_eq!(record.offset, 0),
            Err(error) => break error,
        }
    };
    match error {
        ConsumeError::Corrupt { partition, offset, .. } => {
            assert_eq!((partition, offset), ((TOPIC, 0).into(), 1));
        }
        other => panic!("{other}"),
    }
    assert!(broker.replace_batch(TOPIC, 0, 1, whole.into_bytes()));
    let next = loop {
        if let Ok(record) = consumer.next().await.unwrap() {
            break record;
        }
    };
    assert_eq!(next.value.as_deref(), Some(&b"b"[..]));
}
