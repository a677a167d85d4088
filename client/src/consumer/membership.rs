//! What membership of a group does to its consumer: partitions come and go, the listener is told, who commits changes.

use std::sync::Arc;

use async_trait::async_trait;
use klamm_protocol::Uuid;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{Instrument, debug_span};

use super::positions::Start;
use super::shared::Shared;
use crate::error::ConsumeError;
use crate::group::{MemberTask, Membership, Owner, Report, Settings, Wanted};
use crate::observe::ClientEvent;
use crate::types::TopicPartition;

/// The task that makes this consumer a member of its group; `None` when it is not to be one.
pub(super) fn member_task(
    shared: &Arc<Shared>,
    wanted: watch::Receiver<Wanted>,
) -> Option<MemberTask<Shared>> {
    let (core, config) = (&shared.core, &shared.config);
    let settings = Settings {
        protocol: config.group_protocol,
        strategies: config.strategies.clone(),
        session_timeout: config.session_timeout,
        heartbeat_interval: config.heartbeat_interval,
        rebalance_timeout: config.rebalance_timeout,
        retry_backoff: (core.config.retry_backoff, core.config.retry_backoff_max),
        is_static: config.group_instance_id.is_some(),
        create_topics: core.config.allow_auto_create_topics,
        rack: config.rack.clone(),
        rng: Arc::clone(&core.config.rng),
    };
    Some(MemberTask::new(Membership {
        core: Arc::clone(core),
        link: Arc::clone(shared.offsets.as_ref()?),
        owner: Arc::clone(shared),
        settings,
        group_instance_id: config.group_instance_id.clone(),
        request_timeout: config.request_timeout,
        fresh_id: Uuid::from_random(core.config.rng.next_u128()).to_string().into(),
        wanted,
        rejoins: shared.rejoins.subscribe(),
        closing: shared.closing.subscribe(),
    }))
}

#[async_trait]
impl Owner for Shared {
    fn stop_handing_out(&self, partitions: &[TopicPartition]) {
        self.partitions().stop(partitions);
    }

    fn take(&self, partitions: &[TopicPartition]) {
        let mut owned = self.partitions();
        partitions.iter().for_each(|partition| owned.add(partition.clone(), Start::Committed, true));
    }

    fn start_fetching(&self, _partitions: &[TopicPartition]) {
        // One call of the listener runs at a time: whatever is held waited for this one.
        self.partitions().release();
        self.fetch.notify_one();
    }

    fn release(&self, partitions: &[TopicPartition]) {
        self.partitions().remove(partitions);
        // Metrics tell of it.
        self.fetch.notify_one();
    }

    fn identify(&self, member_id: Arc<str>, generation: i32) {
        self.metrics.joined(generation >= 0);
        self.change_standing(|standing| {
            standing.member_id = member_id;
            standing.generation = generation;
        });
    }

    fn alive_until(&self, until: Option<Instant>) {
        self.set_alive_until(until);
    }

    fn report(&self, report: Report) {
        self.tell_reader(match report {
            Report::Refused(code) => {
                self.core.config.observers.tell(|| ClientEvent::MemberRefused { group: self.group(), code });
                ConsumeError::Group { group: self.group(), code }
            }
            Report::Topic(topic, code) => ConsumeError::Topic { topic, code },
        });
    }

    fn abandoned(&self) {
        self.tell_reader(ConsumeError::Closed);
    }

    async fn revoked(&self, partitions: &[TopicPartition]) {
        self.change_standing(|standing| standing.revoking = true);
        // Also when the call is ended by its deadline.
        let _over = Revoking(self);
        let event =
            || ClientEvent::PartitionsRevoked { group: self.group(), partitions: partitions.to_vec() };
        self.core.config.observers.tell(event);
        let revoke = async {
            self.commit_before_revoke(partitions).await;
            if let Some(listener) = &self.config.listener {
                listener.revoked(partitions).await;
            }
        };
        revoke.instrument(self.rebalance("revoked", partitions)).await;
    }

    async fn assigned(&self, partitions: &[TopicPartition]) {
        self.metrics.rebalanced();
        let event =
            || ClientEvent::PartitionsAssigned { group: self.group(), partitions: partitions.to_vec() };
        self.core.config.observers.tell(event);
        if let Some(listener) = &self.config.listener {
            listener.assigned(partitions).instrument(self.rebalance("assigned", partitions)).await;
        }
    }

    async fn lost(&self, partitions: &[TopicPartition]) {
        self.metrics.lost(partitions.len());
        let event = || ClientEvent::PartitionsLost { group: self.group(), partitions: partitions.to_vec() };
        self.core.config.observers.tell(event);
        if let Some(listener) = &self.config.listener {
            listener.lost(partitions).instrument(self.rebalance("lost", partitions)).await;
        }
    }
}

impl Shared {
    fn group(&self) -> Arc<str> {
        self.config.group.clone().unwrap_or_default()
    }

    /// The span of one step of a rebalance.
    fn rebalance(&self, step: &'static str, partitions: &[TopicPartition]) -> tracing::Span {
        debug_span!("rebalance", group = %self.group(), step, partitions = partitions.len())
    }
}

struct Revoking<'a>(&'a Shared);

impl Drop for Revoking<'_> {
    fn drop(&mut self) {
        self.0.change_standing(|standing| standing.revoking = false);
    }
}
