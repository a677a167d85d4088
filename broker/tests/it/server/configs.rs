//! Settings that are told and changed, and the cluster as it is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_broker::Broker;
use klamm_broker::disk::{MemoryDisk, Tear};
use klamm_protocol::messages::describe_configs::{DescribeConfigsResource, DescribeConfigsResult};
use klamm_protocol::messages::{
    AlterConfigsRequest, DescribeClusterRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
    alter_configs, incremental_alter_configs,
};
use klamm_protocol::{ErrorCode, Utf8Bytes};
use klamm_runtime::MemoryNet;

use super::wire::*;

pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const SET: i8 = 0;
pub(super) const DELETE: i8 = 1;
const APPEND: i8 = 2;
const OF_TOPIC: i8 = 1;
const OF_FILE: i8 = 4;
const DEFAULT: i8 = 5;

/// A broker whose power goes.
#[derive(Default)]
pub(super) struct Durable {
    pub(super) disk: MemoryDisk,
    net: Arc<MemoryNet>,
}

impl Durable {
    pub(super) async fn start(&self) -> Broker {
        let builder = Broker::builder().data_dir("/data").disk(Arc::new(self.disk.clone()));
        builder.net(self.net.clone()).start().await.expect("a broker")
    }

    pub(super) async fn crash(&self, broker: Broker) -> Broker {
        drop(broker);
        self.disk.crash(Tear::None);
        self.start().await
    }

    pub(super) async fn connect(&self, broker: &Broker) -> Wire {
        Wire::connect(&*self.net, broker.bootstrap()).await
    }
}

pub(super) fn resource_named(resource_type: i8, name: &str) -> DescribeConfigsResource {
    let resource_name = name.into();
    DescribeConfigsResource {
        resource_type,
        resource_name,
        configuration_keys: None,
        ..DescribeConfigsResource::default()
    }
}

pub(super) async fn describe(wire: &mut Wire, resource: DescribeConfigsResource) -> DescribeConfigsResult {
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        include_documentation: true,
        ..DescribeConfigsRequest::default()
    };
    wire.ask(&request).await.results.remove(0)
}

/// Values and where they come from.
async fn told(wire: &mut Wire, kind: i8, name: &str) -> BTreeMap<String, (Option<String>, i8)> {
    let result = describe(wire, resource_named(kind, name)).await;
    assert_eq!(result.error_code, 0, "{:?}", result.error_message);
    let configs = result.configs.into_iter();
    let value = |value: Utf8Bytes| value.to_string();
    configs.map(|one| (one.name.to_string(), (one.value.map(value), one.config_source))).collect()
}

pub(super) async fn adjust(
    wire: &mut Wire,
    resource_type: i8,
    name: &str,
    changes: &[(&str, i8, Option<&str>)],
    validate_only: bool,
) -> i16 {
    let configs = changes.iter().map(|(name, operation, value)| incremental_alter_configs::AlterableConfig {
        name: (*name).into(),
        config_operation: *operation,
        value: value.map(Into::into),
        ..Default::default()
    });
    let resource = incremental_alter_configs::AlterConfigsResource {
        resource_type,
        resource_name: name.into(),
        configs: configs.collect(),
        ..Default::default()
    };
    let request =
        IncrementalAlterConfigsRequest { resources: vec![resource], validate_only, ..Default::default() };
    wire.ask(&request).await.responses[0].error_code
}

pub(super) async fn create(wire: &mut Wire, name: &str) {
    assert_eq!(create_topic(wire, name, &[]).await.error_code, 0);
}

#[tokio::test(start_paused = true)]
async fn settings_are_told_with_where_they_come_from() {
    let memory = InMemory::with(|builder| builder.set("log.retention.hours", 2)).await;
    let mut wire = memory.connect().await;
    create(&mut wire, "t").await;
    assert_eq!(adjust(&mut wire, TOPIC, "t", &[("segment.bytes", SET, Some("2048"))], false).await, 0);
    let topic = told(&mut wire, TOPIC, "t").await;
    assert_eq!(topic["segment.bytes"], (Some("2048".into()), OF_TOPIC));
    assert_eq!(topic["retention.ms"], (Some("7200000".into()), OF_FILE));
    assert_eq!(topic["cleanup.policy"], (Some("delete".into()), DEFAULT));
    let broker = told(&mut wire, BROKER, "1").await;
    assert_eq!(broker["log.retention.hours"], (Some("2".into()), OF_FILE));
    assert_eq!(broker["log.retention.ms"], (None, DEFAULT));
    assert_eq!(broker["num.partitions"], (Some("1".into()), DEFAULT));
    assert!(told(&mut wire, BROKER, "").await.is_empty());

    let keys = Some(vec!["segment.bytes".into(), "no.such.thing".into()]);
    let some = DescribeConfigsResource { configuration_keys: keys, ..resource_named(TOPIC, "t") };
    let some = describe(&mut wire, some).await.configs;
    assert_eq!(some.len(), 1);
    let names: Vec<&str> = some[0].synonyms.iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["segment.bytes", "log.segment.bytes"]);
    assert!(some[0].documentation.as_ref().is_some_and(|doc| doc.ends_with('.')) && !some[0].read_only);
    for (wrong, error) in [
        (resource_named(TOPIC, "u"), ErrorCode::UnknownTopicOrPartition),
        (resource_named(BROKER, "2"), ErrorCode::InvalidRequest),
        (resource_named(32, "group"), ErrorCode::InvalidRequest),
    ] {
        assert_eq!(describe(&mut wire, wrong).await.error_code, error.code());
    }
}

/// A changed setting holds for the next batch, and after a restart.
#[tokio::test(start_paused = true)]
async fn a_changed_setting_holds_at_once_and_after_a_restart() {
    let disk = Durable::default();
    let mut broker = disk.start().await;
    let mut wire = disk.connect(&broker).await;
    create(&mut wire, "t").await;
    let large = "x".repeat(500);
    assert_eq!(wire.produce("t", batch(&[&large])).await.error_code, 0);
    let smaller = [("max.message.bytes", SET, Some("300"))];
    assert_eq!(adjust(&mut wire, TOPIC, "t", &smaller, true).await, 0);
    assert_eq!(wire.produce("t", batch(&[&large])).await.error_code, 0, "only asked");
    assert_eq!(adjust(&mut wire, TOPIC, "t", &smaller, false).await, 0);
    assert_eq!(wire.produce("t", batch(&[&large])).await.error_code, ErrorCode::MessageTooLarge.code());
    broker = disk.crash(broker).await;
    let mut wire = disk.connect(&broker).await;
    assert_eq!(wire.produce("t", batch(&[&large])).await.error_code, ErrorCode::MessageTooLarge.code());
    assert_eq!(adjust(&mut wire, TOPIC, "t", &[("max.message.bytes", DELETE, None)], false).await, 0);
    assert_eq!(wire.produce("t", batch(&[&large])).await.error_code, 0);
    assert_eq!(adjust(&mut wire, TOPIC, "t", &[("cleanup.policy", APPEND, Some("compact"))], false).await, 0);
    assert_eq!(
        told(&mut wire, TOPIC, "t").await["cleanup.policy"],
        (Some("delete,compact".into()), OF_TOPIC)
    );

    let replaced = alter_configs::AlterableConfig {
        name: "retention.ms".into(),
        value: Some("1000".into()),
        ..Default::default()
    };
    let resource = alter_configs::AlterConfigsResource {
        resource_type: TOPIC,
        resource_name: "t".into(),
        configs: vec![replaced],
        ..Default::default()
    };
    let request = AlterConfigsRequest { resources: vec![resource], ..AlterConfigsRequest::default() };
    assert_eq!(wire.ask(&request).await.responses[0].error_code, 0);
    let all = told(&mut wire, TOPIC, "t").await;
    assert_eq!((&all["cleanup.policy"].1, &all["retention.ms"].1), (&DEFAULT, &OF_TOPIC));
}

#[tokio::test(start_paused = true)]
async fn changes_that_cannot_be_change_nothing() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    create(&mut wire, "t").await;
    let good = ("retention.ms", SET, Some("5"));
    for (kind, name, change, error) in [
        (TOPIC, "u", ("segment.ms", SET, Some("5")), ErrorCode::UnknownTopicOrPartition),
        (TOPIC, "t", ("segment.ms", SET, Some("soon")), ErrorCode::InvalidConfig),
        (TOPIC, "t", ("no.such.thing", SET, Some("1")), ErrorCode::InvalidConfig),
        (TOPIC, "t", ("segment.ms", SET, None), ErrorCode::InvalidRequest),
        (TOPIC, "t", ("segment.ms", 9, Some("1")), ErrorCode::InvalidRequest),
        (TOPIC, "t", ("segment.ms", APPEND, Some("1")), ErrorCode::InvalidConfig),
        (TOPIC, "t", good, ErrorCode::InvalidRequest),
        (BROKER, "1", ("num.partitions", SET, Some("5")), ErrorCode::InvalidRequest),
        (BROKER, "7", ("num.partitions", SET, Some("5")), ErrorCode::InvalidRequest),
        (99, "t", ("num.partitions", SET, Some("5")), ErrorCode::InvalidRequest),
    ] {
        assert_eq!(adjust(&mut wire, kind, name, &[good, change], false).await, error.code(), "{change:?}");
    }
    assert_eq!(told(&mut wire, TOPIC, "t").await["retention.ms"].1, DEFAULT);
}

/// Which of two changes is meant is not said, so none is made.
#[tokio::test(start_paused = true)]
async fn what_is_named_twice_is_not_changed() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    create(&mut wire, "t").await;
    let resource = |value: &str| {
        let config = incremental_alter_configs::AlterableConfig {
            name: "retention.ms".into(),
            value: Some(value.into()),
            ..Default::default()
        };
        incremental_alter_configs::AlterConfigsResource {
            resource_type: TOPIC,
            resource_name: "t".into(),
            configs: vec![config],
            ..Default::default()
        }
    };
    let resources = vec![resource("5"), resource("6")];
    let request = IncrementalAlterConfigsRequest { resources, ..IncrementalAlterConfigsRequest::default() };
    let codes: Vec<i16> = wire.ask(&request).await.responses.iter().map(|one| one.error_code).collect();
    assert_eq!(codes, [ErrorCode::InvalidRequest.code()]);
    for values in [&[Some("5"), Some("6")][..], &[None]] {
        let configs = values.iter().map(|value| alter_configs::AlterableConfig {
            name: "retention.ms".into(),
            value: value.map(Into::into),
            ..Default::default()
        });
        let resource = alter_configs::AlterConfigsResource {
            resource_type: TOPIC,
            resource_name: "t".into(),
            configs: configs.collect(),
            ..Default::default()
        };
        let request = AlterConfigsRequest { resources: vec![resource], ..AlterConfigsRequest::default() };
        assert_eq!(wire.ask(&request).await.responses[0].error_code, ErrorCode::InvalidRequest.code());
    }
    assert_eq!(told(&mut wire, TOPIC, "t").await["retention.ms"].1, DEFAULT);
    // Each spelling would be told all settings of the broker.
    for name in ["01", "+1"] {
        let refused = describe(&mut wire, resource_named(BROKER, name)).await;
        assert_eq!((refused.error_code, refused.configs.len()), (ErrorCode::InvalidRequest.code(), 0));
    }
}

#[tokio::test(start_paused = true)]
async fn the_cluster_is_one_broker() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    let cluster_id = wire.metadata(&[]).await.cluster_id;
    let described = wire.ask(&DescribeClusterRequest::default()).await;
    assert_eq!((described.error_code, described.controller_id), (0, 1));
    assert_eq!(Some(&described.cluster_id), cluster_id.as_ref());
    let [broker] = &described.brokers[..] else { panic!("{described:?}") };
    assert_eq!(format!("{}:{}", broker.host, broker.port), memory.broker.bootstrap());
    for (endpoint_type, error) in
        [(2, ErrorCode::MismatchedEndpointType), (3, ErrorCode::UnsupportedEndpointType)]
    {
        let request = DescribeClusterRequest { endpoint_type, ..DescribeClusterRequest::default() };
        assert_eq!(wire.ask(&request).await.error_code, error.code());
    }
}
