//! The fault script of the test kit, between apps and the in-process broker.

use std::time::Duration;

use klamm::client::testing::Answer;
use klamm::client::{ApiKey, ErrorCode, Record as OutRecord};
use klamm::prelude::*;
use klamm::testing::{RunningTestApp, TestKit};
use tokio::time::{Instant, timeout};

use crate::seen::{Seen, note, until, until_at_last};

const LONG: Duration = Duration::from_secs(600);

async fn start(kit: &TestKit, seen: &Seen) -> RunningTestApp {
    let listener = Listener::on("t").group("g").handle(note);
    kit.app().state(seen.clone()).listener(listener).start().await
}

#[klamm::test]
async fn a_request_is_refused_late_or_cut_as_often_as_it_says(kit: TestKit) {
    kit.create_topic("t", 1).await;
    kit.send("t", "k", "first").await;
    let before = kit.faults().requests(ApiKey::Produce);
    kit.faults().next(ApiKey::Produce, 2, Answer::Error(ErrorCode::NotLeaderOrFollower));
    kit.faults().next(ApiKey::Produce, 1, Answer::DisconnectBefore);
    kit.faults().next(ApiKey::Produce, 1, Answer::DisconnectAfter);
    kit.faults().next(ApiKey::Produce, 1, Answer::Delayed(Duration::from_secs(5)));
    let started = Instant::now();
    kit.send("t", "k", "second").await;
    assert!(started.elapsed() >= Duration::from_secs(5));
    assert_eq!(kit.topic("t").values::<String>().await, ["first", "second"], "carried out once");
    assert_eq!(kit.faults().requests(ApiKey::Produce) - before, 5);
}

/// Requests name topics by their ids, which the script knows.
#[klamm::test]
async fn a_rule_is_for_its_topic_alone(kit: TestKit) {
    for topic in ["t", "other"] {
        kit.create_topic(topic, 1).await;
        kit.send(topic, "k", "v").await;
    }
    let refused = Answer::Error(ErrorCode::TopicAuthorizationFailed);
    kit.faults().always_for("other", ApiKey::Produce, refused.clone());
    kit.send("t", "k", "v").await;
    let producer = kit.client().producer().build().unwrap();
    let error = producer.send(OutRecord::to("other").value("v")).await.unwrap_err();
    assert!(error.to_string().contains("TOPIC_AUTHORIZATION_FAILED"), "{error}");
    kit.faults().behave();
    kit.send("other", "k", "v").await;
}

/// Whatever API goes wrong in whatever way, a listener on a real broker gets over it.
#[klamm::test(deadline = "1000000s")]
async fn a_listener_gets_over_every_fault(kit: TestKit) {
    let answers = [
        Answer::DisconnectBefore,
        Answer::DisconnectAfter,
        Answer::Hang,
        Answer::Delayed(Duration::from_secs(20)),
        Answer::Error(ErrorCode::NotCoordinator),
        Answer::Error(ErrorCode::CoordinatorLoadInProgress),
        Answer::Error(ErrorCode::UnknownServerError),
    ];
    let apis = [
        ApiKey::Fetch,
        ApiKey::OffsetCommit,
        ApiKey::OffsetFetch,
        ApiKey::ListOffsets,
        ApiKey::Heartbeat,
        ApiKey::JoinGroup,
        ApiKey::SyncGroup,
        ApiKey::FindCoordinator,
        ApiKey::LeaveGroup,
    ];
    kit.create_topic("t", 2).await;
    let mut sent = 0;
    for api in apis {
        let seen = Seen::default();
        for answer in &answers {
            let app = start(&kit, &seen).await;
            // It joins again, and asks for everything again.
            kit.expel("g").await;
            if api == ApiKey::FindCoordinator {
                kit.faults().disconnect();
            }
            kit.faults().next(api, 1, answer.clone());
            for partition in 0..2 {
                kit.send_to("t", partition, "k", format!("{sent}")).await;
                sent += 1;
            }
            let both = || (sent - 2..sent).all(|n| seen.count(&n.to_string()) > 0);
            let done = timeout(LONG, until_at_last(both)).await;
            assert!(done.is_ok(), "{api:?} {answer:?}: {}", app.health());
            let all = i64::from(sent / 2);
            // Looked at as they come by: the kit's own questions would meet the fault, too.
            let last =
                |kit: &TestKit| kit.commits("g").into_iter().rfind(|commit| commit.partition.partition == 1);
            let is_committed = || last(&kit).is_some_and(|commit| commit.offset == all);
            assert!(
                timeout(LONG, until_at_last(is_committed)).await.is_ok(),
                "{api:?} {answer:?}: {}",
                app.health()
            );
            app.stop().await;
            kit.faults().behave();
        }
    }
}

#[klamm::test]
async fn commits_are_kept_in_order(kit: TestKit) {
    let seen = Seen::default();
    kit.create_topic("t", 1).await;
    let app = start(&kit, &seen).await;
    app.assigned("note", 1).await;
    for n in 0..5 {
        kit.send("t", "k", format!("{n}")).await;
        app.handled("note", n + 1).await;
    }
    let offsets: Vec<i64> = kit.commits("g").into_iter().map(|commit| commit.offset).collect();
    assert_eq!(offsets, [1, 2, 3, 4, 5]);
    assert!(kit.commits("other").is_empty());
    // What the broker did not take is not there.
    kit.faults().next(ApiKey::OffsetCommit, 1, Answer::Error(ErrorCode::CoordinatorLoadInProgress));
    kit.send("t", "k", "5").await;
    app.handled("note", 6).await;
    assert_eq!(kit.commits("g").len(), 6);
    assert!(kit.faults().seen(ApiKey::OffsetCommit).len() > 6);
}

/// Its session ends while it works: it comes back, and the record that it had in hand comes again.
#[klamm::test]
async fn a_member_whose_session_ends_comes_back(kit: TestKit) {
    let seen = Seen::default();
    kit.create_topic("t", 2).await;
    let app = start(&kit, &seen).await;
    app.assigned("note", 2).await;
    kit.send("t", "k", "one").await;
    app.handled("note", 1).await;
    let joins = kit.faults().requests(ApiKey::JoinGroup);
    kit.expel("g").await;
    until(|| kit.faults().requests(ApiKey::JoinGroup) > joins).await;
    app.assigned("note", 2).await;
    kit.send("t", "k", "two").await;
    until(|| seen.count("two") == 1).await;
    assert_eq!(seen.count("one"), 1, "it was committed");
}

/// A disk without room: nothing is acknowledged that is not there, and all goes on when there is room.
#[klamm::test(deadline = "100000s")]
async fn a_full_disk_loses_nothing(kit: TestKit) {
    async fn picky(Value(text): Value<String>, State(seen): State<Seen>) -> Result<(), String> {
        seen.add(&text);
        if text.starts_with("bad") { Err(text) } else { Ok(()) }
    }
    for topic in ["t", "t-dlt"] {
        kit.create_topic(topic, 1).await;
    }
    let seen = Seen::default();
    let listener = Listener::on("t").group("g").on_failure(FailurePolicy::new()).handle(picky);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    kit.send("t", "k", "good").await;
    app.handled("picky", 1).await;
    kit.send("t", "k", "bad").await;
    kit.fill_disk();
    let producer = kit.client().producer().delivery_timeout(Duration::from_secs(30)).build().unwrap();
    assert!(producer.send(OutRecord::to("t").value("never")).await.is_err());
    kit.free_disk();
    kit.restart_broker().await;
    timeout(LONG, app.handled("picky", 2)).await.expect("it goes on");
    assert_eq!(kit.topic("t-dlt").values::<String>().await, ["bad"]);
    kit.send("t", "k", "better").await;
    timeout(LONG, app.handled("picky", 3)).await.expect("and on");
}
