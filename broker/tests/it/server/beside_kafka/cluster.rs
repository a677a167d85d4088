//! What is asked about the cluster: its controllers, features, telemetry, and who has settings.

use klamm_protocol::Uuid;
use klamm_protocol::messages::describe_quorum::{PartitionRequest, TopicRequest};
use klamm_protocol::messages::update_features::FeatureUpdateKey;
use klamm_protocol::messages::*;

use super::{Dialogue, TOPIC};

impl Dialogue {
    pub(super) async fn cluster(&mut self) {
        let asked = |name: &str, partition_index| {
            let partitions = vec![PartitionRequest { partition_index, ..Default::default() }];
            let topics = vec![TopicRequest { topic_name: name.into(), partitions, ..Default::default() }];
            DescribeQuorumRequest { topics, ..Default::default() }
        };
        for (name, index) in [("__cluster_metadata", 0), ("__cluster_metadata", 1), (TOPIC, 0)] {
            for version in 0..=2 {
                self.ask_with(&format!("quorum of {name}-{index}"), asked(name, index), version, mask_quorum)
                    .await;
            }
        }
        self.ask("quorum of nothing", DescribeQuorumRequest::default(), 2).await;
        for broker_id in [9, -1] {
            let request = UnregisterBrokerRequest { broker_id, ..Default::default() };
            self.ask(&format!("unregister {broker_id}"), request, 0).await;
        }
        self.features().await;
    }

    pub(super) async fn features(&mut self) {
        let updates: [(&str, i16, i8); 10] = [
            ("transaction.version", 2, 1),
            ("transaction.version", 3, 1),
            ("transaction.version", 1, 1),
            ("transaction.version", 1, 2),
            ("transaction.version", 2, 3),
            ("transaction.version", 0, 1),
            ("transaction.version", -1, 1),
            ("transaction.version", 2, 9),
            ("nothing", 1, 1),
            ("", 1, 1),
        ];
        for (feature, max_version_level, upgrade_type) in updates {
            let what = format!("{feature} {max_version_level} {upgrade_type}");
            let update = FeatureUpdateKey {
                feature: feature.into(),
                max_version_level,
                upgrade_type,
                ..Default::default()
            };
            for version in if upgrade_type == 1 { 1..=2 } else { 2..=2 } {
                let feature_updates = vec![update.clone()];
                let request =
                    UpdateFeaturesRequest { feature_updates, validate_only: true, ..Default::default() };
                self.ask(&what, request, version).await;
            }
        }
        let request = UpdateFeaturesRequest { validate_only: true, ..Default::default() };
        self.ask("no feature", request.clone(), 1).await;
        self.ask("no feature", request, 2).await;
    }

    pub(super) async fn telemetry(&mut self) {
        let mask = |response: &mut GetTelemetrySubscriptionsResponse| {
            assert!(!response.client_instance_id.is_zero());
            response.client_instance_id = Uuid::ZERO;
            response.subscription_id = 0;
        };
        let asked = GetTelemetrySubscriptionsRequest::default();
        let first = self.wire.ask(&asked).await;
        self.ask_with("telemetry", asked, 0, mask).await;
        let push = PushTelemetryRequest {
            client_instance_id: first.client_instance_id,
            subscription_id: first.subscription_id,
            metrics: "metrics".into(),
            ..Default::default()
        };
        self.ask("push", push.clone(), 0).await;
        self.ask("push at once again", push.clone(), 0).await;
        let other = PushTelemetryRequest { subscription_id: first.subscription_id ^ 1, ..push.clone() };
        self.ask("push to another subscription", other, 0).await;
        self.ask(
            "push without an id",
            PushTelemetryRequest { client_instance_id: Uuid::ZERO, ..push.clone() },
            0,
        )
        .await;
        self.ask("last push", PushTelemetryRequest { terminating: true, ..push.clone() }, 0).await;
        self.ask("push after the last", push, 0).await;
        self.ask("metrics of clients", ListConfigResourcesRequest::default(), 0).await;
        for types in [&[][..], &[2], &[4], &[8], &[16], &[32], &[2, 4, 2], &[99], &[2, 99]] {
            let request = ListConfigResourcesRequest { resource_types: types.to_vec(), ..Default::default() };
            let sorted = |response: &mut ListConfigResourcesResponse| {
                response.config_resources.retain(|found| !found.resource_name.starts_with("__"));
                response
                    .config_resources
                    .sort_by_key(|found| (found.resource_type, found.resource_name.clone()));
            };
            self.ask_with(&format!("resources {types:?}"), request, 1, sorted).await;
        }
    }
}

/// Offsets, epochs and times are as they are.
fn mask_quorum(response: &mut DescribeQuorumResponse) {
    for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        if partition.error_code != 0 {
            continue;
        }
        assert!(partition.high_watermark > 0 && partition.leader_epoch >= 0, "{partition:?}");
        (partition.high_watermark, partition.leader_epoch) = (1, 1);
        for voter in &mut partition.current_voters {
            assert!(voter.log_end_offset > 0, "{voter:?}");
            voter.log_end_offset = 1;
            for time in [&mut voter.last_fetch_timestamp, &mut voter.last_caught_up_timestamp] {
                *time = (*time).min(1);
            }
            voter.replica_directory_id = Uuid::from_u128(u128::from(!voter.replica_directory_id.is_zero()));
        }
    }
    for node in &mut response.nodes {
        for listener in &mut node.listeners {
            (listener.name, listener.host, listener.port) = ("L".into(), "h".into(), 1);
        }
    }
}
