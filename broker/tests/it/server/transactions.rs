//! Transactions as clients of both versions make them: begun, committed, aborted, fenced, timed out.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::disk::{Calls, DiskCall, MemoryDisk, Tear};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::*;
use klamm_runtime::TokioClock;

use super::transacting::*;
use super::wire::*;

#[tokio::test(start_paused = true)]
async fn partitions_take_part_by_what_is_written_into_them() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t", "u"]).await;
    let client = init(&mut wire).await;
    assert_eq!(client.epoch, 0);
    assert_eq!(state(&mut wire, TX).await, "Empty");
    for (topic, sequence, value) in [("t", 0, "a"), ("t", 1, "b"), ("u", 0, "c")] {
        let written = produce(&mut wire, &write(client, topic, sequence, value), PRODUCE_2).await;
        assert_eq!(written.error_code, 0);
    }
    assert_eq!(state(&mut wire, TX).await, "Ongoing");
    assert_eq!((stable(&mut wire, "t").await, stable(&mut wire, "u").await), (0, 0));
    let client = end(&mut wire, client, true, END_2).await;
    assert_eq!(client.epoch, 1, "the end raises the epoch");
    until(&mut wire, TX, "CompleteCommit").await;
    assert_eq!(log(&mut wire, "t").await, ["a", "b", "COMMIT"]);
    assert_eq!(log(&mut wire, "u").await, ["c", "COMMIT"]);
    assert_eq!((stable(&mut wire, "t").await, stable(&mut wire, "u").await), (3, 2));

    assert_eq!(produce(&mut wire, &write(client, "t", 0, "d"), PRODUCE_2).await.error_code, 0);
    assert_eq!(stable(&mut wire, "t").await, 3);
    let client = end(&mut wire, client, false, END_2).await;
    assert_eq!(client.epoch, 2);
    until(&mut wire, TX, "CompleteAbort").await;
    assert_eq!(log(&mut wire, "t").await, ["a", "b", "COMMIT", "d", "ABORT"]);
    assert_eq!(stable(&mut wire, "t").await, 5);
    assert_eq!(log(&mut wire, "u").await, ["c", "COMMIT"], "it took no part in the second one");
}

#[tokio::test(start_paused = true)]
async fn partitions_take_part_when_they_were_added() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t", "u"]).await;
    let client = init(&mut wire).await;
    let refused = ErrorCode::InvalidTxnState.code();
    assert_eq!(produce(&mut wire, &write(client, "t", 0, "a"), 9).await.error_code, refused);
    let codes = add(&mut wire, &add_request(client, &[("t", &[0])]), 3).await;
    assert_eq!(codes, Codes::from([(("t".to_owned(), 0), 0)]));
    for sequence in 0..2 {
        let written = produce(&mut wire, &write(client, "t", sequence, "a"), 9).await;
        assert_eq!(written.error_code, 0);
    }
    // It was not added.
    assert_eq!(produce(&mut wire, &write(client, "u", 0, "a"), 10).await.error_code, refused);
    let abortable = ErrorCode::TransactionAbortable.code();
    assert_eq!(produce(&mut wire, &write(client, "u", 0, "a"), 11).await.error_code, abortable);
    assert!(log(&mut wire, "u").await.is_empty());
    assert_eq!(end(&mut wire, client, true, 4).await, client, "the epoch stays");
    until(&mut wire, TX, "CompleteCommit").await;
    assert_eq!(log(&mut wire, "t").await, ["a", "a", "COMMIT"]);
    // To end it once more is no error: the answer may have been lost.
    assert_eq!(wire.ask_in(&end_request(client, true), 4).await.error_code, 0);
    assert_eq!(wire.ask_in(&end_request(client, false), 4).await.error_code, refused);
    // The next one of the same epoch has to add it anew.
    assert_eq!(produce(&mut wire, &write(client, "t", 2, "b"), 9).await.error_code, refused);
    add(&mut wire, &add_request(client, &[("t", &[0])]), 0).await;
    assert_eq!(produce(&mut wire, &write(client, "t", 2, "b"), 9).await.error_code, 0);
    end(&mut wire, client, false, 0).await;
    until(&mut wire, TX, "CompleteAbort").await;
    assert_eq!(log(&mut wire, "t").await, ["a", "a", "COMMIT", "b", "ABORT"]);
}

#[tokio::test(start_paused = true)]
async fn who_comes_anew_fences_who_was_there() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t"]).await;
    let old = init(&mut wire).await;
    produce(&mut wire, &write(old, "t", 0, "old"), PRODUCE_2).await;
    // The open transaction is aborted first, and the one who asks does not notice.
    let new = init(&mut wire).await;
    assert_eq!((new.id, new.epoch), (old.id, old.epoch + 2));
    assert_eq!(log(&mut wire, "t").await, ["old", "ABORT"]);
    let code = |error: ErrorCode| error.code();
    for version in [9, 12] {
        let late = produce(&mut wire, &write(old, "t", 1, "late"), version).await;
        assert_eq!(late.error_code, code(ErrorCode::InvalidProducerEpoch), "version {version}");
    }
    for (version, told) in
        [(1, ErrorCode::InvalidProducerEpoch), (2, ErrorCode::ProducerFenced), (5, ErrorCode::ProducerFenced)]
    {
        let ended = wire.ask_in(&end_request(old, true), version).await;
        assert_eq!(ended.error_code, code(told), "version {version}");
        assert_eq!((ended.producer_id, ended.producer_epoch), (-1, -1));
    }
    let codes = add(&mut wire, &add_request(old, &[("t", &[0])]), 1).await;
    assert_eq!(codes[&("t".to_owned(), 0)], code(ErrorCode::InvalidProducerEpoch));
    let codes = add(&mut wire, &add_request(old, &[("t", &[0])]), 2).await;
    assert_eq!(codes[&("t".to_owned(), 0)], code(ErrorCode::ProducerFenced));
    let fenced = ask_init(&mut wire, TX, 60_000, Some(old)).await;
    assert_eq!(fenced.error_code, code(ErrorCode::ProducerFenced));
    assert_eq!((fenced.producer_id, fenced.producer_epoch), (-1, -1));
    let request = InitProducerIdRequest {
        transactional_id: Some(TX.into()),
        transaction_timeout_ms: 60_000,
        producer_id: old.id,
        producer_epoch: old.epoch,
        ..InitProducerIdRequest::default()
    };
    let fenced = wire.ask_in(&request, 3).await;
    assert_eq!(fenced.error_code, code(ErrorCode::InvalidProducerEpoch));
    assert_eq!(produce(&mut wire, &write(new, "t", 0, "new"), PRODUCE_2).await.error_code, 0);
}

#[tokio::test(start_paused = true)]
async fn what_takes_too_long_is_aborted() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t"]).await;
    let client = init(&mut wire).await;
    produce(&mut wire, &write(client, "t", 0, "a"), PRODUCE_2).await;
    tokio::time::sleep(Duration::from_millis(59_900)).await;
    assert_eq!(state(&mut wire, TX).await, "Ongoing");
    tokio::time::sleep(Duration::from_millis(200)).await;
    until(&mut wire, TX, "CompleteAbort").await;
    assert_eq!(log(&mut wire, "t").await, ["a", "ABORT"]);
    let late = produce(&mut wire, &write(client, "t", 1, "b"), PRODUCE_2).await;
    assert_eq!(late.error_code, ErrorCode::InvalidProducerEpoch.code());
    // By version 2 this may be the client's own end, whose answer was lost: it hears who it is.
    let ended = wire.ask_in(&end_request(client, true), 4).await;
    assert_eq!(ended.error_code, ErrorCode::ProducerFenced.code());
}

/// Sent without a pause: the batches of a transaction stay in their order, and the one that comes while the transaction
/// before is being marked waits.
#[tokio::test(start_paused = true)]
async fn requests_that_are_sent_together_are_done_in_their_order() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t"]).await;
    let mut client = init(&mut wire).await;
    let mut wanted = Vec::new();
    for round in 0..10 {
        for sequence in 0..5 {
            wanted.push(format!("{round}.{sequence}"));
            wire.send_in(&write(client, "t", sequence, wanted.last().unwrap()), PRODUCE_2).await;
        }
        for _ in 0..5 {
            let (_, answer) = wire.receive_in::<ProduceRequest>(PRODUCE_2).await;
            assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
        }
        let commit = round % 2 == 0;
        wanted.push(if commit { "COMMIT".to_owned() } else { "ABORT".to_owned() });
        // The next round's first batch is sent before the markers can be there.
        client = end(&mut wire, client, commit, END_2).await;
    }
    until(&mut wire, TX, "CompleteAbort").await;
    assert_eq!(log(&mut wire, "t").await, wanted);
}

#[tokio::test(start_paused = true)]
async fn batches_that_are_of_no_transaction_and_transactions_without_an_id() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t"]).await;
    let client = init(&mut wire).await;
    let mut nameless = write(client, "t", 0, "a");
    nameless.transactional_id = None;
    let refused = produce(&mut wire, &nameless, 9).await;
    assert_eq!(refused.error_code, ErrorCode::TransactionalIdAuthorizationFailed.code());
    let mut plain = produce_request("t", batch(&["plain"]), -1);
    plain.transactional_id = Some(TX.into());
    assert_eq!(produce(&mut wire, &plain, 9).await.error_code, 0);
    let mut stranger = write(client, "t", 0, "a");
    stranger.transactional_id = Some("nobody".into());
    let refused = produce(&mut wire, &stranger, PRODUCE_2).await;
    assert_eq!(refused.error_code, ErrorCode::InvalidProducerIdMapping.code());
    assert_eq!(log(&mut wire, "t").await, ["plain"]);
    assert_eq!(state(&mut wire, TX).await, "Empty");
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_deleted_holds_up_nobody() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t", "u"]).await;
    let client = init(&mut wire).await;
    for topic in ["t", "u"] {
        assert_eq!(produce(&mut wire, &write(client, topic, 0, "a"), PRODUCE_2).await.error_code, 0);
    }
    let delete = DeleteTopicsRequest { topic_names: vec!["u".into()], ..DeleteTopicsRequest::default() };
    assert_eq!(wire.ask_in(&delete, 5).await.responses[0].error_code, 0);
    let client = end(&mut wire, client, true, END_2).await;
    until(&mut wire, TX, "CompleteCommit").await;
    assert_eq!(log(&mut wire, "t").await, ["a", "COMMIT"]);
    wire.metadata(&["u"]).await;
    assert!(log(&mut wire, "u").await.is_empty());
    assert_eq!(produce(&mut wire, &write(client, "u", 0, "b"), PRODUCE_2).await.error_code, 0);
}

/// A marker that cannot be written is written later; until then the next transaction waits, and is told so if it takes
/// long.
#[tokio::test(start_paused = true)]
async fn a_marker_for_which_there_is_no_space_is_written_later() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t"]).await;
    let client = init(&mut wire).await;
    produce(&mut wire, &write(client, "t", 0, "a"), PRODUCE_2).await;
    let full = Calls::of(&[DiskCall::Write]).on("/t-0/").and_all_after();
    broker.disk.fail(full, ErrorKind::StorageFull);
    let client = end(&mut wire, client, true, END_2).await;
    let early = produce(&mut wire, &write(client, "t", 0, "b"), PRODUCE_2).await;
    assert_eq!(early.error_code, ErrorCode::ConcurrentTransactions.code());
    assert_eq!(state(&mut wire, TX).await, "PrepareCommit");
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(state(&mut wire, TX).await, "PrepareCommit");
    broker.disk.clear_faults();
    // What was refused for coming early has begun the next one meanwhile.
    until(&mut wire, TX, "Ongoing").await;
    assert_eq!(produce(&mut wire, &write(client, "t", 0, "b"), PRODUCE_2).await.error_code, 0);
    assert_eq!(log(&mut wire, "t").await, ["a", "COMMIT", "b"]);
}

/// The last epoch that a client can have is followed by a new producer id.
#[tokio::test(start_paused = true)]
async fn a_client_that_used_up_its_epochs_gets_a_new_id() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t"]).await;
    let first = init(&mut wire).await;
    let request = InitProducerIdRequest {
        transactional_id: Some(TX.into()),
        transaction_timeout_ms: 60_000,
        ..InitProducerIdRequest::default()
    };
    let last_epoch = i16::MAX - 1;
    let mut client = first;
    while client.epoch < last_epoch {
        let sent = (last_epoch - client.epoch).min(50);
        for _ in 0..sent {
            wire.send_in(&request, 5).await;
        }
        for _ in 0..sent {
            let (_, given) = wire.receive_in::<InitProducerIdRequest>(5).await;
            assert_eq!(given.error_code, 0);
            client = Client { id: given.producer_id, epoch: given.producer_epoch };
        }
    }
    assert_eq!(client, Client { id: first.id, epoch: last_epoch });
    assert_eq!(produce(&mut wire, &write(client, "t", 0, "a"), PRODUCE_2).await.error_code, 0);
    let next = end(&mut wire, client, true, END_2).await;
    assert!(next.id > first.id && next.epoch == 0, "{next:?}");
    // The answer was lost, and is given once more.
    assert_eq!(end(&mut wire, client, true, END_2).await, next);
    assert_eq!(produce(&mut wire, &write(next, "t", 0, "b"), PRODUCE_2).await.error_code, 0);
    end(&mut wire, next, true, END_2).await;
    until(&mut wire, TX, "CompleteCommit").await;
    assert_eq!(log(&mut wire, "t").await, ["a", "COMMIT", "b", "COMMIT"]);
}

#[tokio::test(start_paused = true)]
async fn ids_that_nobody_uses_are_forgotten() {
    let clock = Arc::new(TokioClock::starting_at(1_700_000_000_000));
    let memory = InMemory::with(|builder| {
        builder
            .set("transactional.id.expiration.ms", 3_600_000)
            .set("transaction.remove.expired.transaction.cleanup.interval.ms", 60_000)
            .set("transaction.state.log.num.partitions", 1)
            .clock(clock)
    })
    .await;
    let mut wire = memory.connect().await;
    let first = init(&mut wire).await;
    tokio::time::sleep(Duration::from_secs(59 * 60)).await;
    // Connections do not stay open that long.
    let mut wire = memory.connect().await;
    assert_eq!(state(&mut wire, TX).await, "Empty");
    tokio::time::sleep(Duration::from_secs(3 * 60)).await;
    assert_eq!(state(&mut wire, TX).await, "TRANSACTIONAL_ID_NOT_FOUND");
    let again = init(&mut wire).await;
    assert!(again.id > first.id && again.epoch == 0);
}

/// Transactions of version 2 are in force, and clients hear of it.
#[tokio::test(start_paused = true)]
async fn a_stop_and_a_start_go_on_where_it_was() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t"]).await;
    let client = init(&mut wire).await;
    produce(&mut wire, &write(client, "t", 0, "a"), PRODUCE_2).await;
    broker.broker.shutdown().await.unwrap();
    let broker = broker.again(MemoryDisk::kill).await;
    let mut wire = broker.connect().await;
    until(&mut wire, TX, "Ongoing").await;
    assert_eq!(produce(&mut wire, &write(client, "t", 1, "b"), PRODUCE_2).await.error_code, 0);
    end(&mut wire, client, true, END_2).await;
    broker.broker.shutdown().await.unwrap();
    let broker = broker.again(|disk| disk.crash(Tear::None)).await;
    let mut wire = broker.connect().await;
    until(&mut wire, TX, "CompleteCommit").await;
    assert_eq!(log(&mut wire, "t").await.first().unwrap(), "a");
    assert_eq!(stable(&mut wire, "t").await, i64::try_from(log(&mut wire, "t").await.len()).unwrap());
}
