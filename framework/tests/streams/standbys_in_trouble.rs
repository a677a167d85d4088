//! Standbys whose changelogs cannot be read, beside others whose can.

use klamm::client::testing::Answer;
use klamm::client::{ApiKey, ErrorCode, TopicPartition};
use klamm::streams::{StreamsApp, TaskId};
use klamm::testing::TestKit;

use crate::pipeline::{CHANGELOG, Pipeline, active, caught_up, topology, until};

/// The standbys of which it is known how far they are, and that they have all.
fn whole(app: &StreamsApp) -> Vec<TaskId> {
    let whole = app.standby_tasks().into_iter().filter(|standby| standby.lag == Some(0));
    whole.map(|standby| standby.task).collect()
}

/// While the leader of one changelog was away, no standby of the instance was kept up to date.
#[klamm::test]
async fn a_changelog_that_nobody_leads_keeps_no_other_standby_waiting(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let config = |instance| pipeline.config(instance).standby_replicas(1);
    let (one, two) = (config(1), config(2));
    let first = topology().start(one).await.unwrap();
    pipeline.feed(200).await;
    caught_up(&first).await;
    let sore = TopicPartition::new(CHANGELOG, 0);
    kit.faults().always_for(sore, ApiKey::ListOffsets, Answer::Error(ErrorCode::NotLeaderOrFollower));
    let second = topology().start(two).await.unwrap();
    until(|| active(&first) + active(&second) == 3).await;
    until(|| whole(&first).len() + whole(&second).len() == 3).await;
    kit.faults().behave();
    caught_up(&first).await;
    caught_up(&second).await;
    until(|| whole(&first).len() == 2 && whole(&second).len() == 2).await;
    pipeline.is_exact(&[&first, &second]).await;
    first.close().await.unwrap();
    second.close().await.unwrap();
}
