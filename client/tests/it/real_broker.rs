//! Administration of a real cluster: runs where `KLAMM_APACHE_KAFKA` names the address of an Apache Kafka 4.3 that has
//! one broker with id 1 and that a test may change.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use klamm_client::admin::{
    ConfigChange, ConfigEntry, ConfigResource, ConfigResourceType, ConfigSource, FeatureUpdate, GroupFilter,
    HangingTransaction, MemberToRemove, NewPartitions, OffsetSpec, QuotaEntity, TransactionFilter,
};
use klamm_client::runtime::{Rng, SeededRng};
use klamm_client::{Admin, Client, ErrorCode, NewTopic, OffsetAndMetadata, Record, TopicPartition};

const DEADLINE: Duration = Duration::from_secs(60);

/// A client of the cluster, if there is one.
pub(crate) async fn connect() -> Option<Client> {
    Some(Client::connect(crate::apache_kafka::address()?).await.unwrap())
}

/// A name that no earlier run has used.
fn unique(name: &str) -> Arc<str> {
    format!("{name}-{:x}", SeededRng::from_os().next_u64()).into()
}

async fn topic(client: &Client, partitions: i32) -> Arc<str> {
    let name = unique("admin");
    let created =
        client.admin().create_topics(&[NewTopic::new(&*name).partitions(partitions)]).await.unwrap();
    assert!(created[&name].is_ok(), "{created:?}");
    // Brokers hear of it a moment after the controller.
    let known = async { while client.admin().describe_topics(&[&*name]).await.unwrap()[&name].is_err() {} };
    within(known).await;
    name
}

fn code<T: std::fmt::Debug>(result: &Result<T, klamm_client::AdminError>) -> Option<ErrorCode> {
    result.as_ref().unwrap_err().code()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}

#[tokio::test]
async fn topics_partitions_and_records() {
    let Some(client) = connect().await else { return };
    within(async {
        let admin = client.admin();
        let name = topic(&client, 2).await;
        let checked = admin.validate_topics(&[NewTopic::new(&*name), NewTopic::new("a/b")]).await.unwrap();
        assert_eq!(code(&checked[&name]), Some(ErrorCode::TopicAlreadyExists));
        assert_eq!(code(&checked["a/b"]), Some(ErrorCode::InvalidTopicException));
        let placed = unique("placed");
        let wanted = NewTopic::new(&*placed).on_brokers(vec![vec![1], vec![1], vec![1]]);
        assert!(admin.create_topics(&[wanted]).await.unwrap()[&placed].is_ok());

        let missing = unique("missing");
        let wanted = HashMap::from([
            (Arc::clone(&name), NewPartitions::total(3)),
            (Arc::clone(&placed), NewPartitions::total(4).on_brokers(vec![vec![1]])),
            (Arc::clone(&missing), NewPartitions::total(3)),
        ]);
        let added = admin.create_partitions(&wanted).await.unwrap();
        assert!(added[&name].is_ok() && added[&placed].is_ok(), "{added:?}");
        assert_eq!(code(&added[&missing]), Some(ErrorCode::UnknownTopicOrPartition));
        // Brokers hear of it a moment after the controller.
        loop {
            let described = admin.describe_topics(&[&*name, &*placed, &*missing]).await.unwrap();
            assert_eq!(code(&described[&missing]), Some(ErrorCode::UnknownTopicOrPartition));
            let count = |name: &Arc<str>| described[name].as_ref().map_or(0, |topic| topic.partitions.len());
            if (count(&name), count(&placed)) == (3, 4) {
                break;
            }
        }

        let producer = client.producer().build().unwrap();
        for number in 0..10 {
            producer.send(Record::to(&*name).partition(0).value(number.to_string())).await.unwrap();
        }
        let at = |partition| TopicPartition::new(Arc::clone(&name), partition);
        let before =
            HashMap::from([(at(0), 4), (at(1), -1), (at(2), 99), (TopicPartition::new(&*missing, 0), 1)]);
        let deleted = admin.delete_records(&before).await.unwrap();
        assert_eq!(deleted[&at(0)].as_ref().unwrap(), &4);
        assert_eq!(deleted[&at(1)].as_ref().unwrap(), &0);
        assert_eq!(code(&deleted[&at(2)]), Some(ErrorCode::OffsetOutOfRange));
        assert_eq!(
            code(&deleted[&TopicPartition::new(&*missing, 0)]),
            Some(ErrorCode::UnknownTopicOrPartition)
        );
        let earliest = admin.offsets(&HashMap::from([(at(0), OffsetSpec::Earliest)])).await.unwrap();
        assert_eq!(earliest[&at(0)].as_ref().unwrap().offset, Some(4));

        let gone = admin.delete_topics(&[&*name, &*placed, &*missing]).await.unwrap();
        assert!(gone[&name].is_ok() && gone[&placed].is_ok(), "{gone:?}");
        assert_eq!(code(&gone[&missing]), Some(ErrorCode::UnknownTopicOrPartition));
    })
    .await;
}

#[tokio::test]
async fn settings() {
    let Some(client) = connect().await else { return };
    within(async {
        let admin = client.admin();
        let name = topic(&client, 1).await;
        let (resource, group) = (ConfigResource::topic(&*name), ConfigResource::group(&*unique("group")));
        let missing = ConfigResource::topic(&*unique("missing"));
        let changes = HashMap::from([
            (
                resource.clone(),
                vec![
                    ConfigChange::set("retention.ms", "3600000"),
                    ConfigChange::Append("cleanup.policy".into(), "compact".into()),
                ],
            ),
            (group.clone(), vec![ConfigChange::set("consumer.session.timeout.ms", "50000")]),
            (missing.clone(), vec![ConfigChange::set("retention.ms", "1")]),
        ]);
        let checked = admin.validate_configs(&changes).await.unwrap();
        assert!(checked[&resource].is_ok(), "{checked:?}");
        let changed = admin.alter_configs(&changes).await.unwrap();
        assert!(changed[&resource].is_ok() && changed[&group].is_ok(), "{changed:?}");
        assert_eq!(code(&changed[&missing]), Some(ErrorCode::UnknownTopicOrPartition));

        let broker = ConfigResource::broker(1);
        let asked = [resource.clone(), group.clone(), broker.clone(), ConfigResource::broker(77)];
        let find = |entries: &[ConfigEntry], name: &str| {
            entries.iter().find(|entry| &*entry.name == name).cloned().unwrap()
        };
        // The broker hears of it a moment after the controller, of the topic's and the group's one after the other.
        let described = loop {
            let described = admin.describe_configs(&asked).await.unwrap();
            let source = |resource, name| find(described[resource].as_ref().unwrap(), name).source;
            if source(&resource, "retention.ms") == ConfigSource::Topic
                && source(&resource, "cleanup.policy") == ConfigSource::Topic
                && source(&group, "consumer.session.timeout.ms") == ConfigSource::Group
            {
                break described;
            }
        };
        let value = |resource: &ConfigResource, name: &str| find(described[resource].as_ref().unwrap(), name);
        assert_eq!(value(&resource, "retention.ms").value.as_deref(), Some("3600000"));
        assert_eq!(value(&resource, "cleanup.policy").value.as_deref(), Some("delete,compact"));
        assert_eq!(value(&group, "consumer.session.timeout.ms").value.as_deref(), Some("50000"));
        assert_eq!(value(&broker, "node.id").value.as_deref(), Some("1"));
        assert!(described[&ConfigResource::broker(77)].is_err());

        let back = HashMap::from([(resource.clone(), vec![ConfigChange::reset("retention.ms")])]);
        assert!(admin.alter_configs(&back).await.unwrap()[&resource].is_ok());
        let groups = admin.list_config_resources(&[ConfigResourceType::Group]).await.unwrap();
        assert!(groups.contains(&group), "{groups:?}");
        assert!(admin.list_config_resources(&[]).await.unwrap().contains(&resource));
    })
    .await;
}

#[tokio::test]
async fn groups_and_their_offsets() {
    let Some(client) = connect().await else { return };
    within(async {
        let admin = client.admin();
        let (name, group) = (topic(&client, 2).await, unique("group"));
        let at = |partition| TopicPartition::new(Arc::clone(&name), partition);
        let offset = OffsetAndMetadata::new(7).with_leader_epoch(Some(0)).with_metadata("by hand");
        let set = HashMap::from([(at(0), offset.clone()), (at(1), 3.into()), (at(9), 1.into())]);
        let altered = admin.alter_group_offsets(&group, &set).await.unwrap();
        assert!(altered[&at(0)].is_ok() && altered[&at(1)].is_ok(), "{altered:?}");
        assert_eq!(code(&altered[&at(9)]), Some(ErrorCode::UnknownTopicOrPartition));
        let empty = unique("empty");
        let offsets = admin.list_group_offsets(&[&*group, &*empty]).await.unwrap();
        assert_eq!(offsets[&group].as_ref().unwrap()[&at(0)], offset);
        assert!(offsets[&empty].as_ref().unwrap().is_empty());
        assert_eq!(admin.committed_offsets(&group).await.unwrap()[&at(1)], 3);
        let deleted = admin.delete_group_offsets(&group, &[at(1)]).await.unwrap();
        assert!(deleted[&at(1)].is_ok(), "{deleted:?}");
        assert_eq!(admin.committed_offsets(&group).await.unwrap().len(), 1);

        let consumer = client.consumer().group(&*group).topics([&*name]).start().await.unwrap();
        let stable = async {
            loop {
                let described = admin.describe_groups(&[&*group, &*empty]).await.unwrap();
                assert_eq!(code(&described[&empty]), Some(ErrorCode::GroupIdNotFound));
                let described = described[&group].as_ref().unwrap();
                if &*described.state == "Stable" && described.members[0].assignment.len() == 2 {
                    return described.clone();
                }
            }
        };
        let described = stable.await;
        assert_eq!((&*described.group_type, described.coordinator), ("classic", 1));
        let listed = admin.list_groups_with(&GroupFilter::new().state("Stable")).await.unwrap();
        assert!(listed.iter().any(|listed| listed.group == group), "{listed:?}");
        let listed = admin.list_groups_with(&GroupFilter::new().state("Empty")).await.unwrap();
        assert!(listed.iter().all(|listed| listed.group != group), "{listed:?}");
        let refused = admin.alter_group_offsets(&group, &HashMap::from([(at(0), 1.into())])).await.unwrap();
        assert_eq!(code(&refused[&at(0)]), Some(ErrorCode::UnknownMemberId));
        let refused = admin.delete_groups(&[&*group]).await.unwrap();
        assert_eq!(code(&refused[&group]), Some(ErrorCode::NonEmptyGroup));
        let refused = admin.delete_group_offsets(&group, &[at(0)]).await.unwrap();
        assert_eq!(code(&refused[&at(0)]), Some(ErrorCode::GroupSubscribedToTopic));

        let member = MemberToRemove::Dynamic(Arc::clone(&described.members[0].member_id));
        let stranger = MemberToRemove::Static("stranger".into());
        let removed = admin.remove_members(&group, &[member.clone(), stranger.clone()]).await.unwrap();
        assert!(removed[&member].is_ok(), "{removed:?}");
        assert_eq!(code(&removed[&stranger]), Some(ErrorCode::UnknownMemberId));
        consumer.close().await.unwrap();
        let deleted = admin.delete_groups(&[&*group, &*empty]).await.unwrap();
        assert!(deleted[&group].is_ok(), "{deleted:?}");
        assert_eq!(code(&deleted[&empty]), Some(ErrorCode::GroupIdNotFound));
        let share = admin.describe_share_groups(&[&*empty]).await.unwrap();
        assert_eq!(code(&share[&empty]), Some(ErrorCode::GroupIdNotFound));
    })
    .await;
}

#[tokio::test]
async fn transactions_and_producers() {
    let Some(client) = connect().await else { return };
    within(async {
        let admin = client.admin();
        let (name, id) = (topic(&client, 1).await, unique("transactional"));
        let at = TopicPartition::new(Arc::clone(&name), 0);
        let fenced = admin.fence_producers(&[&*id]).await.unwrap();
        let (producer_id, epoch) = *fenced[&id].as_ref().unwrap();
        assert!(producer_id >= 0);
        let again = admin.fence_producers(&[&*id]).await.unwrap();
        assert_eq!(*again[&id].as_ref().unwrap(), (producer_id, epoch + 1));
        let described = admin.describe_transactions(&[&*id, "missing"]).await.unwrap();
        let state = described[&id].as_ref().unwrap();
        assert_eq!(
            (&*state.state, state.producer_id, state.producer_epoch),
            ("Empty", producer_id, epoch + 1)
        );
        assert_eq!(code(&described["missing"]), Some(ErrorCode::TransactionalIdNotFound));
        let all =
            TransactionFilter::new().state("Empty").producer_id(producer_id).id_pattern("transactional-.*");
        let listed = admin.list_transactions(&all).await.unwrap();
        assert!(listed.len() == 1 && listed[0].transactional_id == id, "{listed:?}");
        let long = TransactionFilter::new().open_longer_than(Duration::from_secs(1)).state("Ongoing");
        // Others' tests may leave some open, this one has none.
        let open = admin.list_transactions(&long).await.unwrap();
        assert!(open.iter().all(|open| open.transactional_id != id), "{open:?}");

        client.producer().build().unwrap().send(Record::to(&*name).value("v")).await.unwrap();
        let producers = admin.describe_producers(std::slice::from_ref(&at)).await.unwrap();
        let producers = producers[&at].as_ref().unwrap();
        assert_eq!((producers.len(), producers[0].last_sequence), (1, Some(0)));
        assert_eq!(producers[0].transaction_start, None);
        // The marker of a producer that the partition does not know is written all the same, as an abort of nothing;
        // one of an older epoch than known is refused.
        let abort = HangingTransaction {
            partition: at.clone(),
            producer_id,
            producer_epoch: epoch,
            coordinator_epoch: 0,
        };
        let aborted = admin.abort_transaction(&abort).await;
        assert!(aborted.is_ok(), "{aborted:?}");
    })
    .await;
}

#[tokio::test]
async fn the_cluster() {
    let Some(client) = connect().await else { return };
    within(async {
        let admin: Admin = client.admin().timeout(Duration::from_secs(20));
        let name = topic(&client, 1).await;
        let cluster = admin.describe_cluster().await.unwrap();
        assert!(cluster.cluster_id.is_some() && cluster.controller == Some(1), "{cluster:?}");
        assert_eq!(cluster.brokers.iter().map(|broker| broker.id).collect::<Vec<_>>(), [1]);
        let features = admin.describe_features().await.unwrap();
        assert!(features["metadata.version"].level.is_some(), "{features:?}");
        assert!(features["transaction.version"].supported.is_some(), "{features:?}");
        let quorum = admin.describe_quorum().await.unwrap();
        assert_eq!((quorum.leader, quorum.voters.len()), (Some(1), 1));
        assert!(quorum.high_watermark > 0);
        let at = TopicPartition::new(Arc::clone(&name), 0);
        // The log of a new partition comes a moment after its topic.
        loop {
            let directories = admin.describe_log_dirs(&[1, 77]).await.unwrap();
            assert!(directories[&77].is_err());
            let own = directories[&1].as_ref().unwrap().values().next().unwrap();
            assert!(own.error.is_none() && own.total_bytes > Some(0), "{own:?}");
            if own.replicas.contains_key(&at) {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn quotas() {
    let Some(client) = connect().await else { return };
    within(async {
        let admin = client.admin();
        let name = unique("user");
        let entity = QuotaEntity::user(Some(&*name)).with("client-id", None);
        let wrong = QuotaEntity::user(Some("u"));
        let rate = |name: &str, value: Option<f64>| BTreeMap::from([(Arc::from(name), value)]);
        let changes = HashMap::from([
            (entity.clone(), rate("producer_byte_rate", Some(2048.0))),
            (wrong.clone(), rate("no_such_quota", Some(1.0))),
        ]);
        let changed = admin.alter_quotas(&changes).await.unwrap();
        assert!(changed[&entity].is_ok(), "{changed:?}");
        assert_eq!(code(&changed[&wrong]), Some(ErrorCode::InvalidRequest));
        // The broker hears of it a moment after the controller.
        while admin.describe_quota(&entity).await.unwrap().get("producer_byte_rate") != Some(&2048.0) {}
        assert!(admin.describe_quotas().await.unwrap().contains_key(&entity));
        let none = admin.describe_quota(&QuotaEntity::user(Some(&*name))).await.unwrap();
        assert!(none.is_empty(), "exactly this entity: {none:?}");
        let back = HashMap::from([(entity.clone(), rate("producer_byte_rate", None))]);
        assert!(admin.alter_quotas(&back).await.unwrap()[&entity].is_ok());
        while !admin.describe_quota(&entity).await.unwrap().is_empty() {}
    })
    .await;
}

/// One broker can move nothing, but says so of each partition.
#[tokio::test]
async fn moves_elections_and_features() {
    let Some(client) = connect().await else { return };
    within(async {
        let admin = client.admin();
        let name = topic(&client, 2).await;
        let at = |partition| TopicPartition::new(Arc::clone(&name), partition);
        let wanted = HashMap::from([(at(0), Some(vec![77])), (at(1), None), (at(9), None)]);
        let moved = admin.reassign_partitions(&wanted).await.unwrap();
        assert_eq!(code(&moved[&at(0)]), Some(ErrorCode::InvalidReplicaAssignment));
        assert_eq!(code(&moved[&at(1)]), Some(ErrorCode::NoReassignmentInProgress));
        assert_eq!(code(&moved[&at(9)]), Some(ErrorCode::UnknownTopicOrPartition));
        assert!(admin.list_reassignments().await.unwrap().is_empty());
        let elected = admin.elect_preferred_leaders(&[at(0), at(9)]).await.unwrap();
        assert_eq!(code(&elected[&at(0)]), Some(ErrorCode::ElectionNotNeeded));
        assert_eq!(code(&elected[&at(9)]), Some(ErrorCode::UnknownTopicOrPartition));
        let elected = admin.danger_elect_unclean_leaders(&[at(1)]).await.unwrap();
        assert_eq!(code(&elected[&at(1)]), Some(ErrorCode::ElectionNotNeeded));

        let features = admin.describe_features().await.unwrap();
        let level = features["group.version"].level.unwrap();
        let same = BTreeMap::from([(Arc::from("group.version"), FeatureUpdate::upgrade(level))]);
        let updated = admin.update_features(&same).await.unwrap();
        assert!(updated["group.version"].is_ok(), "{updated:?}");
        let unknown = BTreeMap::from([(Arc::from("no.such.feature"), FeatureUpdate::upgrade(1))]);
        let refused = admin.update_features(&unknown).await.unwrap();
        assert!(code(&refused["no.such.feature"]).is_some(), "{refused:?}");
    })
    .await;
}
