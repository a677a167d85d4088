//! A transactional client, which this broker cannot serve yet, is told so with a code that ends it.
//!
//! It was told UNSUPPORTED_VERSION, and librdkafka asked for its coordinator for ever.
//! TRANSACTIONAL_ID_AUTHORIZATION_FAILED ends every client at its first request, and the message beside it, where there
//! is one, says what is the case.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{FindCoordinatorRequest, InitProducerIdRequest};
use klamm_protocol::records::BatchOptions;

use super::wire::*;

const CODE: i16 = ErrorCode::TransactionalIdAuthorizationFailed.code();
const MESSAGE: Option<&str> = Some("transactions are not supported yet");

#[tokio::test(start_paused = true)]
async fn no_coordinator_is_found_in_any_version() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    for version in 1..=3 {
        let request = FindCoordinatorRequest { key: "tx".into(), key_type: 1, ..Default::default() };
        let answer = wire.ask_in(&request, version).await;
        assert_eq!(
            (answer.error_code, answer.error_message.as_deref()),
            (CODE, MESSAGE),
            "version {version}"
        );
        assert_eq!((answer.node_id, answer.port), (-1, -1));
    }
    for version in 4..=6 {
        let keys = vec!["tx".into(), "ty".into()];
        let request = FindCoordinatorRequest { coordinator_keys: keys, key_type: 1, ..Default::default() };
        let answer = wire.ask_in(&request, version).await;
        assert_eq!(answer.coordinators.len(), 2);
        for found in answer.coordinators {
            assert_eq!((found.error_code, found.error_message.as_deref()), (CODE, MESSAGE));
        }
    }
    // Groups are found as ever.
    let group = FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() };
    assert_eq!(wire.ask(&group).await.coordinators[0].error_code, 0);
}

#[tokio::test(start_paused = true)]
async fn no_producer_id_is_given_and_nothing_is_written() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    wire.metadata(&["t"]).await;
    for version in 0..=5 {
        let request = InitProducerIdRequest { transactional_id: Some("tx".into()), ..Default::default() };
        let answer = wire.ask_in(&request, version).await;
        assert_eq!((answer.error_code, answer.producer_id, answer.producer_epoch), (CODE, -1, -1));
    }
    let mut request = produce_request("t", batch(&["x"]), -1);
    request.transactional_id = Some("tx".into());
    let by_id = wire.ask_in(&request, 9).await.responses.remove(0).partition_responses.remove(0);
    let marked = BatchOptions {
        producer_id: 5,
        producer_epoch: 0,
        base_sequence: 0,
        transactional: true,
        ..BatchOptions::default()
    };
    let by_mark = wire.produce("t", batch_with(marked, &["x"])).await;
    for refused in [by_id, by_mark] {
        assert_eq!((refused.error_code, refused.error_message.as_deref()), (CODE, MESSAGE));
    }
    assert!(wire.read_all("t").await.is_empty());
}
