//! What the reader, the handles and the background tasks of one consumer share, and how offsets are committed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::task::AtomicWaker;
use klamm_protocol::ErrorCode;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::builder::ConsumerConfig;
use super::partitions::{Partitions, Rules};
use super::positions::Pauses;
use crate::cluster::Core;
use crate::error::ConsumeError;
use crate::group::offsets::{self, Committer};
use crate::group::{CoordinatorLink, moved};
use crate::types::TopicPartition;

/// Shared by everything that belongs to one consumer.
pub(super) struct Shared {
    pub(super) core: Arc<Core>,
    pub(super) config: ConsumerConfig,
    partitions: Mutex<Partitions>,
    /// Wakes whoever waits for records.
    pub(super) reader: AtomicWaker,
    /// Wakes the fetcher: there is room, or something new to fetch.
    pub(super) fetch: Notify,
    /// For commits and committed offsets; membership has its own connection, where a join may take minutes.
    pub(super) offsets: Option<CoordinatorLink>,
    /// Who commits; changes with every rebalance.
    membership: watch::Sender<Membership>,
    /// Commits to be made in the background.
    waiting: Mutex<HashMap<TopicPartition, i64>>,
    pub(super) commit_waiting: Notify,
    /// Set to true by `close`.
    pub(super) closing: watch::Sender<bool>,
}

/// Where this consumer stands in its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Membership {
    pub(super) generation: i32,
    pub(super) member_id: Arc<str>,
    /// Partitions are being given up: a rebalance will not finish before.
    pub(super) revoking: bool,
}

impl Default for Membership {
    fn default() -> Self {
        Self { generation: -1, member_id: Arc::from(""), revoking: false }
    }
}

impl Shared {
    pub(super) fn new(core: Arc<Core>, config: ConsumerConfig) -> Self {
        let rules = Rules {
            prefetch_bytes: config.prefetch_bytes,
            partition_bytes: config.partition_fetch_bytes,
            reset: config.offset_reset,
            has_group: config.group.is_some(),
            pauses: Pauses { first: core.config.retry_backoff, longest: core.config.retry_backoff_max },
        };
        Self {
            core,
            partitions: Mutex::new(Partitions::new(rules)),
            reader: AtomicWaker::new(),
            fetch: Notify::new(),
            offsets: config.group.clone().map(CoordinatorLink::new),
            membership: watch::Sender::default(),
            waiting: Mutex::default(),
            commit_waiting: Notify::new(),
            closing: watch::Sender::default(),
            config,
        }
    }

    pub(super) fn partitions(&self) -> MutexGuard<'_, Partitions> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn membership(&self) -> Membership {
        self.membership.borrow().clone()
    }

    pub(super) fn set_membership(&self, change: impl FnOnce(&mut Membership)) {
        self.membership.send_modify(change);
    }

    /// Hands an error to the reader.
    pub(super) fn report(&self, error: ConsumeError) {
        let mut partitions = self.partitions();
        if error.is_fatal() {
            partitions.finish();
        }
        partitions.report(error);
        drop(partitions);
        self.reader.wake();
    }

    /// Commits, retried until `request_timeout`. A rebalance meanwhile is waited for; what this consumer still owns
    /// after it is committed in the new generation.
    pub(super) async fn commit(&self, offsets: &HashMap<TopicPartition, i64>) -> Result<(), ConsumeError> {
        let Some(link) = &self.offsets else { return Err(ConsumeError::NoGroup) };
        if offsets.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + self.config.request_timeout;
        let mut membership = self.membership.subscribe();
        let mut left = offsets.clone();
        let mut backoff = self.core.backoff();
        loop {
            let now = membership.borrow_and_update().clone();
            let committer = Committer {
                generation: now.generation,
                member_id: Arc::clone(&now.member_id),
                group_instance_id: self.config.group_instance_id.clone().filter(|_| now.generation >= 0),
            };
            let attempt = offsets::commit(&self.core, link, &committer, &left, self.config.request_timeout);
            let refused = match tokio::time::timeout_at(deadline, attempt).await {
                Ok(Ok(refused)) if refused.is_empty() => {
                    self.intercept_commit(offsets);
                    return Ok(());
                }
                Ok(Ok(refused)) => refused,
                Ok(Err(error)) => {
                    link.learn_from(&error);
                    let pause = backoff.next(&*self.core.config.rng);
                    if !error.is_retriable() || Instant::now() + pause >= deadline {
                        return Err(error.into());
                    }
                    tokio::time::sleep(pause).await;
                    continue;
                }
                Err(_) => return Err(self.commit_deadline()),
            };
            let (partition, code) = refused[0].clone();
            left.retain(|partition, _| refused.iter().any(|(other, _)| other == partition));
            let error = ConsumeError::Commit { group: Arc::clone(link.group()), partition, code };
            let stale = matches!(
                code,
                ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration | ErrorCode::UnknownMemberId
            );
            if stale {
                // Inside `revoked` the rebalance waits for this very commit.
                if now.revoking || now.generation < 0 {
                    return Err(error);
                }
                // Nothing is ours any more, or it will be known soon.
                let changed = membership.wait_for(|other| other.generation != now.generation);
                if !matches!(tokio::time::timeout_at(deadline, changed).await, Ok(Ok(_))) {
                    return Err(error);
                }
                let owned = self.partitions().assignment();
                if left.keys().any(|partition| !owned.contains(partition)) {
                    return Err(error);
                }
                continue;
            }
            if moved(code) {
                link.forget();
            }
            let pause = backoff.next(&*self.core.config.rng);
            if !code.is_retriable() || Instant::now() + pause >= deadline {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn intercept_commit(&self, offsets: &HashMap<TopicPartition, i64>) {
        if !self.config.interceptors.is_empty() {
            let told = offsets.iter().map(|(partition, &offset)| (partition.clone(), offset.into()));
            self.config.interceptors.committed(&told.collect());
        }
    }

    fn commit_deadline(&self) -> ConsumeError {
        ConsumeError::Request(crate::error::RequestError::Deadline {
            what: "committing offsets",
            after: self.config.request_timeout,
            last: Arc::from("no answer"),
        })
    }

    /// Commits soon, in the background.
    pub(super) fn commit_later(&self, offsets: HashMap<TopicPartition, i64>) {
        self.waiting().extend(offsets);
        self.commit_waiting.notify_one();
    }

    /// Commits what was asked for by [`Shared::commit_later`]. Cancel-safe: what is not known to be committed stays.
    pub(super) async fn commit_waiting(&self) {
        let offsets = self.waiting().clone();
        if offsets.is_empty() {
            return;
        }
        if let Err(error) = self.commit(&offsets).await {
            tracing::warn!(%error, "a background commit failed");
        }
        self.waiting().retain(|partition, offset| offsets.get(partition) != Some(offset));
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<TopicPartition, i64>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that must be committed before partitions go: background commits, and with
    /// `auto_commit` what is processed.
    pub(super) async fn commit_before_revoke(&self, partitions: &[TopicPartition]) {
        self.commit_waiting().await;
        if self.config.auto_commit.is_none() {
            return;
        }
        let mut offsets = self.partitions().positions(true);
        offsets.retain(|partition, _| partitions.contains(partition));
        if let Err(error) = self.commit(&offsets).await {
            tracing::warn!(%error, "the commit before a rebalance failed; records will come again");
        }
    }
}
