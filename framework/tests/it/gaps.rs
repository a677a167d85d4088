//! Gaps in the offsets of a partition, faults while an app starts, and where consumers read.

use std::time::Duration;

use klamm::client::testing::Answer;
use klamm::client::{ApiKey, ErrorCode, NewTopic};
use klamm::prelude::*;
use klamm::testing::TestKit;

use crate::seen::{Seen, note};

#[klamm::test(needs_paused_clock)]
async fn gaps_are_read_over_and_committed_over(kit: TestKit) {
    kit.create_topic("t", 1).await;
    kit.leave_gap("t", 0, 3).await;
    assert_eq!(kit.send("t", "k", "a").await.offset, 3);
    kit.leave_gap("t", 0, 2).await;
    assert_eq!(kit.send("t", "k", "b").await.offset, 6);
    kit.leave_gap("t", 0, 40).await;
    let seen = Seen::default();
    let listener = Listener::on("t").group("g").handle(note);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    app.handled("note", 2).await;
    assert_eq!(seen.all(), ["a", "b"]);
    assert!(app.stop().await.is_clean());
    assert_eq!(kit.committed("g", "t", 0).await, Some(47), "what is behind the last record is read as well");
}

/// Every handler finishes while later ones of a gap are still under way, in batches too.
#[klamm::test(needs_paused_clock)]
async fn gaps_between_batches_and_keys_do_not_hold_up_commits(kit: TestKit) {
    kit.create_topic("t", 1).await;
    for n in 0..10 {
        kit.send("t", ["a", "b", "c"][n % 3], format!("{n}")).await;
        kit.leave_gap("t", 0, 2 + n % 3).await;
    }
    let end = kit.send("t", "a", "last").await.offset + 1;
    for (group, dispatch) in
        [("p", Dispatch::by_partition()), ("k", Dispatch::by_key()), ("u", Dispatch::unordered())]
    {
        let listener = Listener::on("t").group(group).dispatch(dispatch).handle(note);
        let app = kit.app().state(Seen::default()).listener(listener).start().await;
        app.handled("note", 11).await;
        assert!(app.stop().await.is_clean());
        assert_eq!(kit.committed(group, "t", 0).await, Some(end));
    }
}

#[klamm::test(needs_paused_clock)]
async fn a_start_meets_every_fault_and_goes_on(kit: TestKit) {
    kit.create_topic("t", 1).await;
    kit.send("t", "k", "v").await;
    let apis = [
        ApiKey::CreateTopics,
        ApiKey::FindCoordinator,
        ApiKey::JoinGroup,
        ApiKey::SyncGroup,
        ApiKey::OffsetFetch,
    ];
    for (round, api) in apis.into_iter().enumerate() {
        kit.faults().next(api, 1, Answer::DisconnectBefore);
        kit.faults().next(api, 1, Answer::DisconnectAfter);
        kit.faults().next(api, 1, Answer::Delayed(Duration::from_secs(3)));
        let seen = Seen::default();
        let listener = Listener::on("t").group(format!("g{round}")).handle(note);
        let app = kit.app().state(seen.clone()).topic(NewTopic::new(format!("made-{round}")).partitions(2));
        let app = app.listener(listener).start().await;
        app.handled("note", 1).await;
        assert_eq!(seen.all(), ["v"], "{api:?}");
        assert!(app.stop().await.is_clean(), "{api:?}");
        kit.faults().behave();
        assert_eq!(kit.client().partition_count(&format!("made-{round}")).await.unwrap(), 2);
    }
}

#[klamm::test(needs_paused_clock)]
async fn a_start_that_cannot_work_leaves_nothing_behind(kit: TestKit) {
    kit.create_topic("t", 1).await;
    kit.faults().always(ApiKey::JoinGroup, Answer::Error(ErrorCode::GroupAuthorizationFailed));
    let listener = || Listener::on("t").group("g").handle(note);
    let refused = kit.app().state(Seen::default()).listener(listener()).try_start().await;
    assert!(refused.unwrap_err().to_string().contains("GROUP_AUTHORIZATION_FAILED"));
    kit.faults().behave();
    kit.send("t", "k", "v").await;
    let app = kit.app().state(Seen::default()).listener(listener()).start().await;
    app.handled("note", 1).await;
}

#[klamm::test(needs_paused_clock)]
async fn fetches_tell_where_a_listener_began_and_went_on(kit: TestKit) {
    kit.create_topic("t", 1).await;
    for n in 0..3 {
        kit.send("t", "k", format!("{n}")).await;
    }
    let start =
        || kit.app().state(Seen::default()).listener(Listener::on("t").group("g").handle(note)).start();
    let app = start().await;
    app.handled("note", 3).await;
    assert!(app.stop().await.is_clean());
    let offsets = |from: usize| kit.fetches("t")[from..].iter().map(|fetch| fetch.offset).collect::<Vec<_>>();
    assert_eq!(offsets(0).first(), Some(&0));
    assert_eq!(offsets(0).last(), Some(&3), "behind the last record");
    let before = offsets(0).len();
    let app = start().await;
    kit.send("t", "k", "3").await;
    app.handled("note", 1).await;
    assert!(offsets(before).iter().all(|offset| *offset >= 3), "it began where it had committed");
    assert!(kit.fetches("other").is_empty());
}
