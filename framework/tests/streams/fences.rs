//! Transactions that end otherwise than they should: members that do not know that they are none, coordinators that
//! refuse, records that take longer than a transaction may, directories that were copied.

use std::time::Duration;

use klamm::client::testing::Answer;
use klamm::client::{ApiKey, ErrorCode};
use klamm::listener::BoxError;
use klamm::streams::{
    AppState, InRecord, Processor, ProcessorContext, Punctuation, PunctuationType, StoreName, StoreRef,
    StreamsBuilder, StreamsError, Topology,
};
use klamm::testing::TestKit;
use klamm_protocol::messages::InitProducerIdRequest;

use crate::pipeline::{APPLICATION, Pipeline, SESSION, caught_up, topology, until};

type Context<'a, 'b> = &'a mut ProcessorContext<'b, String, String>;

/// Counts the time in its store.
struct Ticker {
    store: StoreRef<String, i64>,
}

impl Processor<String, String> for Ticker {
    type Key = String;
    type Value = String;

    fn stores(&self) -> Vec<StoreName> {
        vec![self.store.name()]
    }

    fn init(&mut self, context: Context<'_, '_>) -> Result<(), BoxError> {
        context.schedule(Duration::from_millis(200), PunctuationType::WallClock);
        Ok(())
    }

    fn process(&mut self, _: Context<'_, '_>, _: InRecord<'_, String, String>) -> Result<(), BoxError> {
        Ok(())
    }

    fn punctuate(&mut self, context: Context<'_, '_>, _: Punctuation) -> Result<(), BoxError> {
        let mut store = context.store(&self.store)?;
        let ticks = store.get(&"ticks".to_owned())?.unwrap_or(0);
        store.put(&"ticks".to_owned(), &(ticks + 1))?;
        Ok(())
    }
}

fn ticking() -> Topology {
    let mut streams = StreamsBuilder::new();
    let store: StoreRef<String, i64> = streams.key_value_store("ticks");
    streams.stream::<String, String>("in").process(move || Ticker { store: store.clone() }).to("echo");
    streams.build().unwrap()
}

/// What is committed of the ticks.
async fn ticks(pipeline: &Pipeline) -> usize {
    pipeline.read("pipeline-ticks-changelog").await.len()
}

/// Where no record came since the tasks began, there were no offsets to send with what a clock brought forth, and so
/// nobody asked whether this is a member still: what a zombie's clock did was committed among what the next owner did.
async fn a_zombies_clock(kit: &TestKit, fed: usize) {
    let mut pipeline = Pipeline::new(kit).await;
    let app = ticking().start(pipeline.config(1).exactly_once()).await.unwrap();
    pipeline.feed(fed).await;
    caught_up(&app).await;
    until(|| app.metrics().commits > 5).await;
    app.close().await.unwrap();
    let app = ticking().start(pipeline.config(1).exactly_once()).await.unwrap();
    until(|| app.metrics().commits > 5).await;
    assert!(ticks(&pipeline).await > 0);
    // It does not hear of it.
    kit.faults().always(ApiKey::Heartbeat, Answer::Hang);
    tokio::time::sleep(SESSION / 6 + Duration::from_millis(200)).await;
    kit.expel(APPLICATION).await;
    let before = ticks(&pipeline).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = ticks(&pipeline).await;
    assert_eq!(after, before, "nothing of a zombie is committed");
    kit.faults().behave().disconnect();
    tokio::time::timeout(Duration::from_secs(60), async {
        while ticks(&pipeline).await == after {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("it goes on");
    app.close().await.unwrap();
}

#[klamm::test]
async fn what_a_zombies_clock_brings_forth_is_not_committed(kit: TestKit) {
    a_zombies_clock(&kit, 40).await;
}

#[klamm::test]
async fn what_a_zombies_clock_brings_forth_is_not_committed_either_where_no_record_ever_came(kit: TestKit) {
    a_zombies_clock(&kit, 0).await;
}

/// It was asked again, ten times a second, for ever.
#[klamm::test]
async fn a_coordinator_that_refuses_for_good_ends_the_application(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1).exactly_once()).await.unwrap();
    pipeline.feed(50).await;
    caught_up(&app).await;
    app.pause();
    pipeline.feed(50).await;
    kit.faults().always(ApiKey::EndTxn, Answer::Error(ErrorCode::InvalidProducerEpoch));
    kit.faults().always(ApiKey::InitProducerId, Answer::Error(ErrorCode::TransactionalIdAuthorizationFailed));
    app.resume();
    let ended = tokio::time::timeout(Duration::from_secs(60), app.ended()).await;
    let failure = ended.unwrap_or_else(|_| panic!("it goes on: {app:?}")).unwrap_err();
    assert!(matches!(&*failure, StreamsError::Transaction(_)), "{failure}");
    assert!(failure.to_string().contains("TRANSACTIONAL_ID_AUTHORIZATION_FAILED"), "{failure}");
}

/// The transaction in which it was processed was given up by the coordinator, and so was the next one, and the next.
#[klamm::test]
async fn a_record_that_takes_longer_than_a_transaction_is_processed_nevertheless(kit: TestKit) {
    let pipeline = Pipeline::new(&kit).await;
    let mut streams = StreamsBuilder::new();
    let slow = streams.stream::<String, String>("in").map_values(|value| {
        if value == "slow" {
            std::thread::sleep(Duration::from_secs(12));
        }
        value.clone()
    });
    slow.to("echo");
    for number in 0..100 {
        kit.send_to("in", 0, "k", number.to_string().as_str()).await;
    }
    kit.send_to("in", 1, "k", "slow").await;
    let app = streams.build().unwrap().start(pipeline.config(1).exactly_once()).await.unwrap();
    caught_up(&app).await;
    assert_eq!(pipeline.read("echo").await.len(), 101);
    app.close().await.unwrap();
}

/// How often instances introduced themselves to the coordinator of their transactions.
fn introduced(kit: &TestKit) -> usize {
    let seen = kit.faults().seen(ApiKey::InitProducerId);
    let requests = seen.iter().map(|request| request.decode::<InitProducerIdRequest>().unwrap());
    requests.filter(|request| request.transactional_id.is_some()).count()
}

/// Its tasks waited until the transaction of its earlier life had timed out, which nobody ended: it was to be ended
/// with the first output of those tasks.
#[klamm::test]
async fn an_instance_takes_its_transactions_over_before_its_tasks_begin(kit: TestKit) {
    let pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1).exactly_once().threads(2)).await.unwrap();
    until(|| introduced(&kit) == 2).await;
    app.close().await.unwrap();
}

/// Both have the name by which the coordinator tells instances apart.
#[klamm::test]
async fn instances_with_copies_of_one_directory_do_all_of_the_work_once(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1).exactly_once()).await.unwrap();
    pipeline.feed(50).await;
    caught_up(&app).await;
    app.close().await.unwrap();
    let (from, to) = (pipeline.directory.path().join("1"), pipeline.directory.path().join("2"));
    let copied = std::process::Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
    let first = topology().start(pipeline.config(1).exactly_once()).await.unwrap();
    let second = topology().start(pipeline.config(2).exactly_once()).await.unwrap();
    until(|| first.metrics().tasks == 2 && second.metrics().tasks == 2).await;
    for _ in 0..5 {
        pipeline.feed(50).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    tokio::join!(caught_up(&first), caught_up(&second));
    pipeline.is_exact(&[&first, &second]).await;
    assert_eq!(first.state(), AppState::Running);
    first.close().await.unwrap();
    second.close().await.unwrap();
}

/// What a coordinator or a leader may refuse a step with.
const REFUSALS: [ErrorCode; 18] = [
    ErrorCode::NotCoordinator,
    ErrorCode::CoordinatorLoadInProgress,
    ErrorCode::ConcurrentTransactions,
    ErrorCode::InvalidProducerEpoch,
    ErrorCode::ProducerFenced,
    ErrorCode::TransactionCoordinatorFenced,
    ErrorCode::InvalidProducerIdMapping,
    ErrorCode::UnknownProducerId,
    ErrorCode::InvalidTxnState,
    ErrorCode::TransactionAbortable,
    ErrorCode::IllegalGeneration,
    ErrorCode::UnknownMemberId,
    ErrorCode::RebalanceInProgress,
    ErrorCode::RequestTimedOut,
    ErrorCode::UnknownServerError,
    ErrorCode::OutOfOrderSequenceNumber,
    ErrorCode::NotEnoughReplicas,
    ErrorCode::KafkaStorageError,
];

/// The last three only leaders give, and the two before them no coordinator of transactions that is asked for an id.
fn refusals(step: ApiKey) -> &'static [ErrorCode] {
    match step {
        ApiKey::InitProducerId => &REFUSALS[..12],
        ApiKey::AddOffsetsToTxn | ApiKey::TxnOffsetCommit | ApiKey::EndTxn => &REFUSALS[..15],
        _ => &REFUSALS,
    }
}

/// A refusal of one step, which the next attempt does not meet.
#[klamm::test]
async fn once_whatever_is_answered_to_a_step(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1).exactly_once().threads(2)).await.unwrap();
    let steps = [
        ApiKey::InitProducerId,
        ApiKey::AddOffsetsToTxn,
        ApiKey::TxnOffsetCommit,
        ApiKey::EndTxn,
        ApiKey::Produce,
    ];
    let cases = steps.into_iter().flat_map(|step| refusals(step).iter().map(move |code| (step, *code)));
    for (step, code) in cases {
        app.pause();
        pipeline.feed(20).await;
        kit.faults().next(step, 1, Answer::Error(code));
        if step == ApiKey::InitProducerId {
            kit.faults().next(ApiKey::EndTxn, 1, Answer::Error(ErrorCode::ProducerFenced));
        }
        app.resume();
        let done = tokio::time::timeout(Duration::from_secs(40), app.caught_up()).await;
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) => panic!("{step:?} {code}: {error}"),
            Err(_) => panic!("{step:?} {code}: stuck, {app:?}"),
        }
        kit.faults().behave();
    }
    pipeline.is_exact(&[&app]).await;
    app.close().await.unwrap();
}
