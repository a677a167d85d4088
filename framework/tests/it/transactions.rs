//! Transactions of templates: all or nothing, however the work ends.

#![allow(clippy::disallowed_methods)] // Tasks that panic and are aborted are what is looked at.

use std::future::pending;
use std::time::Duration;

use klamm::client::{IsolationLevel, Record, TopicPartition, TransactionError};
use klamm::template::{SendError, TransactError, Transactions, Tx};
use klamm::testing::TestKit;
use tokio::time::timeout;

use crate::seen::Gate;

/// What readers of committed records see, once nothing more comes.
async fn committed(kit: &TestKit, topic: &str) -> Vec<String> {
    let count = kit.client().partition_count(topic).await.unwrap();
    let all = (0..count).map(|partition| TopicPartition::new(topic, partition));
    let consumer = kit.client().consumer().assign(all).isolation(IsolationLevel::ReadCommitted);
    let mut consumer = consumer.from_beginning().start().await.unwrap();
    let mut found = Vec::new();
    while let Ok(Some(record)) = timeout(Duration::from_secs(5), consumer.next()).await {
        found.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
    }
    found
}

async fn send_both(tx: &Tx, value: &str) -> Result<(), SendError> {
    tx.send("a", "k", value).await?;
    tx.send("b", 7_i64, value.to_owned()).await
}

#[klamm::test]
async fn what_is_sent_in_a_transaction_becomes_visible_together_or_never(kit: TestKit) {
    let transactions = Transactions::new(kit.client(), "t");
    let number = transactions
        .run(|tx| async move {
            send_both(&tx, "good").await?;
            Ok::<_, SendError>(7)
        })
        .await;
    assert_eq!(number.unwrap(), 7);
    let failed = transactions
        .run(|tx| async move {
            send_both(&tx, "bad").await.unwrap();
            Err::<(), _>("the work failed")
        })
        .await
        .unwrap_err();
    assert!(matches!(failed, TransactError::Work("the work failed")) && !failed.may_have_been_committed());
    transactions.run(|tx| async move { send_both(&tx, "again").await }).await.unwrap();
    for topic in ["a", "b"] {
        assert_eq!(committed(&kit, topic).await, ["good", "again"]);
    }
}

/// A template sends outside of the transaction: what it sent stays. In it goes what the `Tx` sends.
#[klamm::test]
async fn sends_outside_of_the_transaction_are_told_apart(kit: TestKit) {
    let template = kit.template::<String, String>("a");
    let transactions = Transactions::new(kit.client(), "t");
    let failed = transactions
        .run(|tx| {
            let template = template.clone();
            async move {
                template.send("k", "outside".into()).await.unwrap();
                tx.send_record(template.record("inside".into()).key("k").header("h", "1")).await.unwrap();
                Err::<(), _>(())
            }
        })
        .await;
    assert!(matches!(failed, Err(TransactError::Work(()))));
    transactions
        .run(|tx| {
            let template = template.clone();
            async move { tx.send_record(template.record("inside".into()).key("k")).await }
        })
        .await
        .unwrap();
    assert_eq!(committed(&kit, "a").await, ["outside", "inside"]);
}

#[klamm::test]
async fn a_panic_aborts_and_the_next_transaction_goes_on(kit: TestKit) {
    let transactions = Transactions::new(kit.client(), "t");
    let in_panic = transactions.clone();
    let panicked = tokio::task::spawn(async move {
        let work = |tx: Tx| async move {
            send_both(&tx, "lost").await.unwrap();
            if true {
                panic!("the work panics");
            }
            Ok::<(), SendError>(())
        };
        in_panic.run(work).await
    });
    assert!(panicked.await.unwrap_err().is_panic());
    transactions.run(|tx| async move { send_both(&tx, "kept").await }).await.unwrap();
    assert_eq!(committed(&kit, "a").await, ["kept"]);
}

/// Dropped at every await: before the commit has begun nothing is visible, after it everything or nothing.
#[klamm::test(deadline = "100000s")]
async fn a_transaction_that_is_dropped_anywhere_is_whole_or_not_there(kit: TestKit) {
    use std::pin::pin;
    use std::task::Poll;
    let transactions = Transactions::new(kit.client(), "t");
    let mut ended = 0;
    for polls in 0.. {
        let value = format!("{polls}");
        let mut run = pin!(transactions.run(|tx| {
            let value = value.clone();
            async move { send_both(&tx, &value).await }
        }));
        let mut left = polls;
        let result = std::future::poll_fn(|cx| match run.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => {
                left -= 1;
                Poll::Pending
            }
        })
        .await;
        if let Some(result) = result {
            result.unwrap();
            ended += 1;
        }
        if ended == 3 {
            break;
        }
        assert!(polls < 1_000, "it never ends");
    }
    transactions.run(|tx| async move { send_both(&tx, "last").await }).await.unwrap();
    let (a, b) = (committed(&kit, "a").await, committed(&kit, "b").await);
    assert_eq!(a, b, "both or neither");
    assert!(a.len() >= 4 && a.last().unwrap() == "last", "{a:?}");
}

#[klamm::test]
async fn of_two_instances_under_one_name_the_older_is_fenced(kit: TestKit) {
    let (older, newer) = (Transactions::new(kit.client(), "t"), Transactions::new(kit.client(), "t"));
    older.run(|tx| async move { send_both(&tx, "older").await }).await.unwrap();
    let gate = Gate::default();
    let (open, opened) = (older.clone(), gate.clone());
    let in_work = tokio::task::spawn(async move {
        let work = |tx: Tx| async move {
            send_both(&tx, "fenced").await?;
            opened.pass().await;
            Ok::<(), SendError>(())
        };
        open.run(work).await
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    newer.run(|tx| async move { send_both(&tx, "newer").await }).await.unwrap();
    gate.let_through(1);
    let fenced = in_work.await.unwrap().unwrap_err();
    assert!(matches!(&fenced, TransactError::NotCommitted(_)), "{fenced:?}");
    let again = older.run(|tx| async move { send_both(&tx, "zombie").await }).await.unwrap_err();
    assert!(again.is_fenced(), "{again:?}");
    newer.run(|tx| async move { send_both(&tx, "newer").await }).await.unwrap();
    assert_eq!(committed(&kit, "a").await, ["older", "newer", "newer"]);
}

#[klamm::test]
async fn a_tx_that_outlives_its_work_is_of_no_use(kit: TestKit) {
    let transactions = Transactions::new(kit.client(), "t");
    let kept = transactions.run(|tx| async move { Ok::<_, SendError>(tx) }).await.unwrap();
    assert!(matches!(send_both(&kept, "late").await, Err(SendError::TransactionEnded)));
    let nothing = Vec::<(TopicPartition, i64)>::new();
    let consumer = kit.client().consumer().group("g").assign([("a", 0)]).start().await.unwrap();
    let group = consumer.handle().group_metadata().unwrap();
    assert!(matches!(kept.send_offsets(nothing, &group).await, Err(TransactionError::Closed)));
}

#[klamm::test]
async fn offsets_go_with_the_records(kit: TestKit) {
    kit.create_topic("in", 1).await;
    kit.send("in", "k", "v").await;
    let consumer = kit.client().consumer().group("g").assign([("in", 0)]).start().await.unwrap();
    let group = consumer.handle().group_metadata().unwrap();
    let transactions = Transactions::new(kit.client(), "t");
    for (commit, expected) in [(false, None), (true, Some(1))] {
        let group = group.clone();
        let work = |tx: Tx| async move {
            send_both(&tx, "copied").await.unwrap();
            tx.send_offsets([(("in", 0), 1)], &group).await.unwrap();
            if commit { Ok(()) } else { Err(()) }
        };
        assert_eq!(transactions.run(work).await.is_ok(), commit);
        assert_eq!(kit.committed("g", "in", 0).await, expected);
    }
    assert_eq!(committed(&kit, "a").await, ["copied"]);
}

#[klamm::test]
async fn transactions_wait_for_one_another_unless_more_are_allowed(kit: TestKit) {
    let one = Transactions::new(kit.client(), "one");
    let many = Transactions::new(kit.client(), "many").concurrency(3).timeout(Duration::from_secs(30));
    for (transactions, overlap) in [(one, false), (many, true)] {
        let holder = transactions.clone();
        let held = tokio::task::spawn(async move { holder.run(|_tx| pending::<Result<(), ()>>()).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        let second = transactions.run(|tx| async move { send_both(&tx, "second").await });
        let second = timeout(Duration::from_secs(5), second).await;
        assert_eq!(second.is_ok(), overlap);
        held.abort();
        let _ = held.await;
        transactions.run(|tx| async move { send_both(&tx, "third").await }).await.unwrap();
    }
    assert_eq!(committed(&kit, "a").await, ["third", "second", "third"]);
}

/// A record that cannot be sent: the work may go on, but what it sent is not committed.
#[klamm::test]
async fn a_record_that_fails_behind_the_works_back_aborts(kit: TestKit) {
    use klamm::client::NewTopic;
    let small = NewTopic::new("small").partitions(1).replication(1).config("max.message.bytes", "200");
    kit.client().admin().create_topics(&[small]).await.unwrap();
    let transactions = Transactions::new(kit.client(), "t");
    let result = transactions
        .run(|tx| async move {
            send_both(&tx, "lost").await?;
            tx.send_raw(Record::to("small").value("x".repeat(1_000))).await
        })
        .await;
    assert!(
        matches!(result, Err(TransactError::NotCommitted(TransactionError::Aborted { .. }))),
        "{result:?}"
    );
    assert!(committed(&kit, "a").await.is_empty());
}
