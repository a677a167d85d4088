//! Standbys and tasks on the move: who takes over, what is restored then, and that nothing is lost or counted twice.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm::client::{Assignor, OffsetReset, TopicPartition};
use klamm::streams::{Materialized, StreamsApp, StreamsBuilder, StreamsConfig, TaskId, Topology};
use klamm::testing::TestKit;

use crate::pipeline::{APPLICATION, CHANGELOG, PARTITIONS, Pipeline, active, caught_up, topology, until};

/// Where the changelog ends, all partitions together.
async fn changelog_ends(kit: &TestKit) -> i64 {
    let partitions: Vec<_> = (0..PARTITIONS).map(|n| TopicPartition::new(CHANGELOG, n)).collect();
    let reader = kit.client().consumer().assign(partitions.clone()).start().await.unwrap();
    reader.handle().end_offsets(&partitions).await.unwrap().values().sum()
}

/// What it has of tasks that run elsewhere, with their lags: those that are to move here, or the others.
fn held(app: &StreamsApp, warming: bool) -> BTreeMap<TaskId, Option<u64>> {
    let tasks = app.standby_tasks().into_iter().filter(|standby| standby.is_warming_up == warming);
    tasks.map(|standby| (standby.task, standby.lag)).collect()
}

/// Whether it has so many standbys, none of which lacks anything.
fn follows(app: &StreamsApp, standbys: usize) -> bool {
    let held = held(app, false);
    held.len() == standbys && held.values().all(|lag| *lag == Some(0))
}

/// The same with the counts in memory.
fn in_memory() -> Topology {
    let mut streams = StreamsBuilder::new();
    let input = streams.stream::<String, String>("in");
    input.to("echo");
    let counts = input.group_by_key().count(Materialized::named("counts").in_memory());
    counts.to_stream().to("totals");
    streams.build().unwrap()
}

/// Restored from scratch, it would be as many as were ever counted.
async fn takes_over(
    kit: &TestKit,
    topology: fn() -> Topology,
    configure: fn(StreamsConfig) -> StreamsConfig,
) {
    let mut pipeline = Pipeline::new(kit).await;
    let config = |instance| configure(pipeline.config(instance).standby_replicas(1));
    let configs = [config(1), config(2)];
    let [one, two] = configs;
    let first = topology().start(one).await.unwrap();
    let second = topology().start(two).await.unwrap();
    for _ in 0..5 {
        pipeline.feed(200).await;
        until(|| active(&first) == 2 && active(&second) == 2).await;
        caught_up(&first).await;
        caught_up(&second).await;
    }
    until(|| follows(&first, 2) && follows(&second, 2)).await;
    assert!(changelog_ends(kit).await >= 30);
    let before = second.metrics().restored;
    first.close().await.unwrap();
    until(|| active(&second) == 4).await;
    pipeline.feed(100).await;
    caught_up(&second).await;
    assert_eq!(second.metrics().restored - before, 0, "its standbys had all of it");
    pipeline.is_exact(&[&second]).await;
    second.close().await.unwrap();
}

#[klamm::test]
async fn a_standby_that_has_all_restores_nothing(kit: TestKit) {
    takes_over(&kit, topology, |config| config).await;
}

#[klamm::test]
async fn a_standby_in_memory_restores_nothing_either(kit: TestKit) {
    takes_over(&kit, in_memory, |config| config).await;
}

#[klamm::test]
async fn a_standby_of_exactly_once_restores_nothing(kit: TestKit) {
    takes_over(&kit, topology, StreamsConfig::exactly_once).await;
}

/// An instance that vanishes is missed after a session, and what it had goes on where its standby is.
#[klamm::test]
async fn an_instance_that_vanishes_is_replaced_by_its_standbys(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let config = |instance| pipeline.config(instance).standby_replicas(1).exactly_once();
    let configs = [config(1), config(2), config(3)];
    let mut apps = Vec::new();
    for config in configs {
        apps.push(in_memory().start(config).await.unwrap());
    }
    pipeline.feed(500).await;
    until(|| apps.iter().map(active).sum::<usize>() == 4 && apps.iter().all(|app| active(app) > 0)).await;
    for app in &apps {
        caught_up(app).await;
    }
    let standbys = |apps: &[StreamsApp]| apps.iter().map(|app| held(app, false).len()).sum::<usize>();
    until(|| {
        standbys(&apps) == 4 && apps.iter().all(|app| held(app, false).values().all(|lag| *lag == Some(0)))
    })
    .await;
    let before: Vec<u64> = apps.iter().map(|app| app.metrics().restored).collect();
    drop(apps.remove(0));
    pipeline.feed(100).await;
    until(|| apps.iter().map(active).sum::<usize>() == 4).await;
    for app in &apps {
        caught_up(app).await;
    }
    let restored: u64 =
        apps.iter().zip(&before[1..]).map(|(app, before)| app.metrics().restored - before).sum();
    assert_eq!(restored, 0, "who vanished had committed all that its standbys have");
    pipeline.is_exact(&apps.iter().collect::<Vec<_>>()).await;
    until(|| standbys(&apps) == 4).await;
    for app in apps {
        app.close().await.unwrap();
    }
}

/// A new instance gets tasks whose state it has, one after the other, while they go on where they are.
#[klamm::test]
async fn a_task_moves_when_its_new_instance_has_caught_up(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let config = |instance| pipeline.config(instance).acceptable_lag(0).max_warmup_replicas(1);
    let configs = [config(1), config(2)];
    let [one, two] = configs;
    let first = topology().start(one).await.unwrap();
    for _ in 0..5 {
        pipeline.feed(200).await;
        caught_up(&first).await;
    }
    let second = topology().start(two).await.unwrap();
    until(|| active(&first) == 2 && active(&second) == 2).await;
    until(|| held(&second, true).is_empty()).await;
    pipeline.feed(200).await;
    caught_up(&first).await;
    caught_up(&second).await;
    assert_eq!(second.metrics().restored, 0, "all of it was read before the tasks moved");
    pipeline.is_exact(&[&first, &second]).await;
    first.close().await.unwrap();
    second.close().await.unwrap();
}

/// What stays where it is keeps its stores open, those in memory too.
#[klamm::test]
async fn a_rebalance_restores_nothing_of_what_stays(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let config = pipeline.config(1);
    let app = in_memory().start(config).await.unwrap();
    pipeline.feed(500).await;
    caught_up(&app).await;
    let other = in_memory().start(pipeline.config(2)).await.unwrap();
    let store = app.store::<String, i64>("counts").unwrap();
    while active(&app) != 2 || active(&other) != 2 {
        assert!(store.all().await.is_ok(), "a rebalance is no reason not to answer");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    pipeline.feed(100).await;
    caught_up(&app).await;
    assert_eq!(app.metrics().restored, 0);
    other.close().await.unwrap();
    pipeline.feed(100).await;
    caught_up(&app).await;
    pipeline.counts_are_right(&[&app]).await;
    app.close().await.unwrap();
}

/// It is started again with what is on its disk, which the leader hears of.
#[klamm::test]
async fn whoever_comes_back_gets_what_is_on_its_disk(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let first = topology().start(pipeline.config(1)).await.unwrap();
    pipeline.feed(500).await;
    caught_up(&first).await;
    first.close().await.unwrap();
    // Another one that has nothing leads.
    let other = topology().start(pipeline.config(2).acceptable_lag(0).max_warmup_replicas(4)).await.unwrap();
    until(|| active(&other) == 4).await;
    let again = topology().start(pipeline.config(1).acceptable_lag(0).max_warmup_replicas(4)).await.unwrap();
    until(|| active(&again) == 2 && active(&other) == 2).await;
    caught_up(&again).await;
    caught_up(&other).await;
    assert_eq!(again.metrics().restored, 0);
    again.close().await.unwrap();
    other.close().await.unwrap();
}

#[klamm::test]
async fn instances_tell_where_keys_are_and_standbys_are_read_on_request(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let config = |instance: usize| {
        pipeline.config(instance).standby_replicas(1).application_server(format!("host-{instance}:80"))
    };
    let configs = [config(1), config(2)];
    let [one, two] = configs;
    let first = topology().start(one).await.unwrap();
    let second = topology().start(two).await.unwrap();
    pipeline.feed(500).await;
    until(|| active(&first) == 2 && active(&second) == 2).await;
    caught_up(&first).await;
    caught_up(&second).await;
    until(|| follows(&first, 2) && follows(&second, 2)).await;
    let apps = [("host-1:80", &first), ("host-2:80", &second)];
    for (key, count) in pipeline.counts() {
        let hosts = first.store::<String, i64>("counts").unwrap().hosts_of(key.clone()).await.unwrap();
        assert_eq!(
            hosts,
            second.store::<String, i64>("counts").unwrap().hosts_of(key.clone()).await.unwrap()
        );
        let owner = hosts.active.clone().unwrap();
        assert_eq!(hosts.standbys.len(), 1, "{hosts:?}");
        assert_ne!(*hosts.standbys[0], *owner);
        for (name, app) in apps {
            let store = app.store::<String, i64>("counts").unwrap();
            let here = store.get(key.clone()).await.unwrap();
            assert_eq!(here, (*name == *owner).then_some(count), "{key} at {name}: {hosts:?}");
            assert_eq!(store.with_standbys().get(key.clone()).await.unwrap(), Some(count));
        }
    }
    first.close().await.unwrap();
    second.close().await.unwrap();
}

/// While a member is there that only shares out by range, as instances of earlier versions do, the group does; when it
/// is gone, tasks are where their state is again.
#[klamm::test]
async fn a_member_of_an_earlier_version_is_got_along_with(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let first = topology().start(pipeline.config(1).standby_replicas(1)).await.unwrap();
    until(|| active(&first) == 4).await;
    let old = kit.client().consumer().group(APPLICATION).topics(["in"]).assignor(Assignor::Range);
    let old = old.auto_offset_reset(OffsetReset::Earliest).start().await.unwrap();
    until(|| active(&first) == 2).await;
    pipeline.feed(100).await;
    let second = topology().start(pipeline.config(2).standby_replicas(1)).await.unwrap();
    until(|| active(&first) + active(&second) == 3).await;
    assert!(held(&first, false).is_empty() && held(&second, false).is_empty(), "range knows of no standbys");
    old.close().await.unwrap();
    until(|| active(&first) == 2 && active(&second) == 2).await;
    caught_up(&first).await;
    caught_up(&second).await;
    until(|| follows(&first, 2) && follows(&second, 2)).await;
    pipeline.is_exact(&[&first, &second]).await;
    first.close().await.unwrap();
    second.close().await.unwrap();
}

/// Standbys come and go with instances; in the end, all is there and there once.
#[klamm::test]
async fn chaos_with_standbys_counts_everything_once(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let configs: Vec<StreamsConfig> = (0..8)
        .map(|instance| {
            let config = pipeline.config(instance).standby_replicas(1).acceptable_lag(5).exactly_once();
            config.probing_rebalance_interval(Duration::from_millis(500))
        })
        .collect();
    let mut apps: Vec<StreamsApp> = Vec::new();
    for (turn, config) in configs.into_iter().enumerate() {
        apps.push(topology().start(config).await.unwrap());
        pipeline.feed(100).await;
        match turn % 4 {
            1 if apps.len() > 1 => apps.remove(0).close().await.unwrap(),
            2 => drop(apps.remove(0)),
            3 => kit.expel(APPLICATION).await,
            _ => caught_up(&apps[0]).await,
        }
        pipeline.feed(100).await;
    }
    // Whoever reads stores while a task moves finds none.
    let settled = |app: &StreamsApp| active(app) == 1 && held(app, true).is_empty();
    until(|| apps.iter().all(settled)).await;
    for app in &apps {
        caught_up(app).await;
    }
    pipeline.is_exact(&apps.iter().collect::<Vec<_>>()).await;
    for app in apps {
        app.close().await.unwrap();
    }
}
