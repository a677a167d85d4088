//! What brokers, tools and operators ask and are told of transactions, and what is refused.

#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::time::Duration;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::add_partitions_to_txn::AddPartitionsToTxnTransaction;
use klamm_protocol::messages::write_txn_markers::{WritableTxnMarker, WritableTxnMarkerTopic};
use klamm_protocol::messages::*;

use super::transacting::*;
use super::wire::*;

#[tokio::test(start_paused = true)]
async fn transactions_are_described_and_listed() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t", "u"]).await;
    assert_eq!(state(&mut wire, TX).await, "TRANSACTIONAL_ID_NOT_FOUND", "no topic yet");
    assert!(wire.ask(&ListTransactionsRequest::default()).await.transaction_states.is_empty());
    let client = init(&mut wire).await;
    ask_init(&mut wire, "other", 60_000, None).await;
    for topic in ["t", "u"] {
        produce(&mut wire, &write(client, topic, 0, "a"), PRODUCE_2).await;
    }
    let ids = vec![TX.into(), "nobody".into(), "".into(), TX.into()];
    let request = DescribeTransactionsRequest { transactional_ids: ids, ..Default::default() };
    let described = wire.ask(&request).await.transaction_states;
    assert_eq!(described.len(), 3, "each id once");
    let found = &described[0];
    assert_eq!((found.error_code, &*found.transaction_state), (0, "Ongoing"));
    assert_eq!((found.producer_id, found.producer_epoch), (client.id, client.epoch));
    assert_eq!(found.transaction_timeout_ms, 60_000);
    assert!(found.transaction_start_time_ms >= 1_700_000_000_000);
    let topics = found.topics.iter().map(|topic| (&*topic.topic, topic.partitions.clone()));
    assert_eq!(topics.collect::<Vec<_>>(), [("t", vec![0]), ("u", vec![0])]);
    assert_eq!(described[1].error_code, ErrorCode::TransactionalIdNotFound.code());
    assert_eq!(described[2].error_code, ErrorCode::InvalidRequest.code());

    let listed = async |wire: &mut Wire, request: ListTransactionsRequest| {
        let answer = wire.ask(&request).await;
        assert_eq!(answer.error_code, 0);
        let all = answer.transaction_states.into_iter();
        all.map(|one| format!("{} {}", one.transactional_id, one.transaction_state)).collect::<Vec<_>>()
    };
    let all = listed(&mut wire, ListTransactionsRequest::default()).await;
    assert_eq!(all, ["other Empty", "payments Ongoing"]);
    let state_filters = vec!["Ongoing".into()];
    let ongoing = ListTransactionsRequest { state_filters, ..ListTransactionsRequest::default() };
    assert_eq!(listed(&mut wire, ongoing).await, ["payments Ongoing"]);
    let producer_id_filters = vec![client.id + 1];
    let other = ListTransactionsRequest { producer_id_filters, ..ListTransactionsRequest::default() };
    assert_eq!(listed(&mut wire, other).await, ["other Empty"]);
    let old = |duration_filter| ListTransactionsRequest {
        duration_filter,
        state_filters: vec!["Ongoing".into()],
        ..ListTransactionsRequest::default()
    };
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(listed(&mut wire, old(20_000)).await.is_empty());
    assert_eq!(listed(&mut wire, old(9_000)).await, ["payments Ongoing"]);
    let matching = |pattern: &str| ListTransactionsRequest {
        transactional_id_pattern: Some(pattern.into()),
        ..ListTransactionsRequest::default()
    };
    assert_eq!(listed(&mut wire, matching("pay.*")).await, ["payments Ongoing"]);
    let broken = wire.ask(&matching("(")).await;
    assert_eq!(broken.error_code, ErrorCode::InvalidRegularExpression.code());
}

#[tokio::test(start_paused = true)]
async fn an_operator_ends_a_transaction_in_one_partition() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t"]).await;
    let client = init(&mut wire).await;
    add(&mut wire, &add_request(client, &[("t", &[0])]), 3).await;
    produce(&mut wire, &write(client, "t", 0, "a"), 9).await;
    let marker = |topics: &[(&str, &[i32])]| WritableTxnMarker {
        producer_id: client.id,
        producer_epoch: client.epoch,
        transaction_result: false,
        // Of a coordinator that there never was: ours goes on all the same.
        coordinator_epoch: 9,
        topics: topics
            .iter()
            .map(|(name, partition_indexes)| WritableTxnMarkerTopic {
                name: (*name).into(),
                partition_indexes: partition_indexes.to_vec(),
                ..WritableTxnMarkerTopic::default()
            })
            .collect(),
        ..WritableTxnMarker::default()
    };
    let own: (&str, &[i32]) = ("__transaction_state", &[0]);
    let markers = vec![marker(&[("t", &[0, 7]), ("nowhere", &[0]), own])];
    let answer = wire.ask(&WriteTxnMarkersRequest { markers, ..Default::default() }).await;
    let told: Vec<(String, i32, ErrorCode)> = answer.markers[0]
        .topics
        .iter()
        .flat_map(|topic| {
            let partitions = topic.partitions.iter();
            partitions.map(|one| {
                (topic.name.to_string(), one.partition_index, ErrorCode::from_code(one.error_code))
            })
        })
        .collect();
    let unknown = ErrorCode::UnknownTopicOrPartition;
    let wanted = [
        ("__transaction_state", 0, ErrorCode::InvalidTopicException),
        ("nowhere", 0, unknown),
        ("t", 0, ErrorCode::None),
        ("t", 7, unknown),
    ];
    assert_eq!(told, wanted.map(|(topic, index, code)| (topic.to_owned(), index, code)));
    assert_eq!(log(&mut wire, "t").await, ["a", "ABORT"]);
    assert_eq!(stable(&mut wire, "t").await, 2);
    assert_eq!(state(&mut wire, TX).await, "Ongoing", "its coordinator was not asked");
    end(&mut wire, client, false, 4).await;
    until(&mut wire, TX, "CompleteAbort").await;
    add(&mut wire, &add_request(client, &[("t", &[0])]), 3).await;
    assert_eq!(produce(&mut wire, &write(client, "t", 1, "b"), 9).await.error_code, 0);
    end(&mut wire, client, true, 4).await;
    until(&mut wire, TX, "CompleteCommit").await;
    assert_eq!(log(&mut wire, "t").await, ["a", "ABORT", "ABORT", "b", "COMMIT"]);
    assert_eq!(stable(&mut wire, "t").await, 5);
}

#[tokio::test(start_paused = true)]
async fn partitions_that_are_not_there_keep_the_others_out() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t"]).await;
    let client = init(&mut wire).await;
    let request = add_request(client, &[("t", &[0, 9]), ("nowhere", &[0]), ("__transaction_state", &[0])]);
    let codes = add(&mut wire, &request, 3).await;
    let of = |topic: &str, index| ErrorCode::from_code(codes[&(topic.to_owned(), index)]);
    assert_eq!(of("t", 0), ErrorCode::OperationNotAttempted);
    assert_eq!(of("t", 9), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(of("nowhere", 0), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(of("__transaction_state", 0), ErrorCode::InvalidTopicException);
    assert_eq!(state(&mut wire, TX).await, "Empty");
}

#[tokio::test(start_paused = true)]
async fn brokers_ask_for_several_transactions() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t", "u"]).await;
    let client = init(&mut wire).await;
    let one = |id: &str, topics: &[(&str, &[i32])], verify_only| AddPartitionsToTxnTransaction {
        transactional_id: id.into(),
        producer_id: client.id,
        producer_epoch: client.epoch,
        verify_only,
        topics: named(topics),
        ..AddPartitionsToTxnTransaction::default()
    };
    let mut ask = async |transactions: Vec<AddPartitionsToTxnTransaction>, version| {
        let request = AddPartitionsToTxnRequest { transactions, ..Default::default() };
        let answer = wire.ask_in(&request, version).await;
        assert_eq!(answer.error_code, 0);
        let mut told = Vec::new();
        for result in answer.results_by_transaction {
            for topic in result.topic_results {
                for partition in topic.results_by_partition {
                    let code = ErrorCode::from_code(partition.partition_error_code);
                    told.push((result.transactional_id.to_string(), topic.name.to_string(), code));
                }
            }
        }
        told
    };
    let told = |id: &str, topic: &str, code| (id.to_owned(), topic.to_owned(), code);
    let asked = vec![one(TX, &[("t", &[0])], true), one("nobody", &[("t", &[0])], true)];
    let none_yet = [
        told(TX, "t", ErrorCode::TransactionAbortable),
        told("nobody", "t", ErrorCode::InvalidProducerIdMapping),
    ];
    assert_eq!(ask(asked, 4).await, none_yet);
    assert_eq!(ask(vec![one(TX, &[("t", &[0])], false)], 5).await, [told(TX, "t", ErrorCode::None)]);
    let asked = vec![one(TX, &[("t", &[0]), ("u", &[0])], true)];
    let verified = [told(TX, "t", ErrorCode::None), told(TX, "u", ErrorCode::TransactionAbortable)];
    assert_eq!(ask(asked, 5).await, verified);
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_is_found_and_its_topic_made() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    for version in 1..=3 {
        let request = FindCoordinatorRequest { key: TX.into(), key_type: 1, ..Default::default() };
        let answer = wire.ask_in(&request, version).await;
        assert_eq!((answer.error_code, answer.node_id), (0, 1), "version {version}");
    }
    for version in 4..=6 {
        let keys = vec![TX.into(), "other".into()];
        let request = FindCoordinatorRequest { coordinator_keys: keys, key_type: 1, ..Default::default() };
        let found = wire.ask_in(&request, version).await.coordinators;
        assert!(found.len() == 2 && found.iter().all(|one| (one.error_code, one.node_id) == (0, 1)));
    }
    let topic = wire.metadata(&["__transaction_state"]).await.topics.remove(0);
    assert_eq!((topic.error_code, topic.is_internal, topic.partitions.len()), (0, true, 2));
    let written = wire.produce("__transaction_state", batch(&["x"])).await;
    assert_eq!(written.error_code, ErrorCode::InvalidTopicException.code());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_begun_is_refused() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    let code = async |wire: &mut Wire, id: &str, timeout_ms, was| {
        ErrorCode::from_code(ask_init(wire, id, timeout_ms, was).await.error_code)
    };
    assert_eq!(code(&mut wire, "", 60_000, None).await, ErrorCode::InvalidRequest);
    for timeout_ms in [0, -1, 900_001] {
        let told = code(&mut wire, TX, timeout_ms, None).await;
        assert_eq!(told, ErrorCode::InvalidTransactionTimeout, "{timeout_ms}");
    }
    for was in [Client { id: 5, epoch: -1 }, Client { id: -1, epoch: 5 }] {
        assert_eq!(code(&mut wire, TX, 60_000, Some(was)).await, ErrorCode::InvalidRequest);
    }
    assert_eq!(code(&mut wire, TX, 900_000, None).await, ErrorCode::None);
    let nobody = Client { id: 99, epoch: 0 };
    let ended = wire.ask_in(&end_request(nobody, true), 5).await;
    assert_eq!(ended.error_code, ErrorCode::InvalidProducerIdMapping.code());
}

#[tokio::test(start_paused = true)]
async fn the_version_of_transactions_is_announced() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    for version in 0..=5 {
        let request = ApiVersionsRequest {
            client_software_name: "test".into(),
            client_software_version: "1.0".into(),
            ..ApiVersionsRequest::default()
        };
        let answer = wire.ask_in(&request, version).await;
        let level = |name: &str, min, max| (name.to_owned(), min, max);
        let supported: Vec<_> = answer
            .supported_features
            .iter()
            .map(|one| level(&one.name, one.min_version, one.max_version))
            .collect();
        let finalized: Vec<_> = answer
            .finalized_features
            .iter()
            .map(|one| level(&one.name, one.min_version_level, one.max_version_level))
            .collect();
        // Clients before version 4 do not understand a feature that may be at level 0.
        let none = Vec::new();
        let wanted = if version >= 4 { vec![level("transaction.version", 0, 2)] } else { none.clone() };
        assert_eq!(supported, wanted, "version {version}");
        let wanted = if version >= 3 { vec![level("transaction.version", 2, 2)] } else { none };
        assert_eq!(finalized, wanted, "version {version}");
        assert_eq!(answer.finalized_features_epoch, if version >= 3 { 0 } else { -1 });
    }
}
