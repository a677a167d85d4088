//! One partition of `__consumer_offsets` with the groups that live in it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, Shared};
use klamm_protocol::ErrorCode;
use klamm_protocol::records::{BatchBuilder, BatchOptions};

use super::calls::{Effects, Now, StoredRecord};
use super::coordinator::Coordinator;
use crate::config::GroupConfig;
use crate::controller::Image;
use crate::log::StorageError;
use crate::partition::{AppendOrigin, Partition};
use crate::replay::replay;

/// The groups of one partition of `__consumer_offsets`, and its log.
#[derive(Debug)]
pub(super) struct Shard {
    log: Arc<Partition>,
    config: GroupConfig,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    coordinator: Coordinator,
    readiness: Readiness,
    /// The last offset that was written, or what is under way; nothing is told that depends on records which are not
    /// durable.
    last_written: Written,
}

/// The last offset of what is being written; nothing when it could not be.
type Written = Shared<BoxFuture<'static, Option<i64>>>;

fn written(last_offset: Option<i64>) -> Written {
    std::future::ready(last_offset).boxed().shared()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    Loading,
    Ready,
    /// The log could not be read: better no answer than a wrong offset.
    Failed,
}

/// What must be waited for before anything is told.
#[derive(Debug)]
pub(super) struct Durable {
    log: Arc<Partition>,
    written: Written,
}

impl Durable {
    pub(super) fn is_reached(&self) -> bool {
        let written = self.written.clone().now_or_never().flatten();
        written.is_some_and(|last_offset| self.log.high_watermark() > last_offset)
    }

    pub(super) async fn comes(&self) -> bool {
        match self.written.clone().await {
            Some(last_offset) => self.log.wait_durable(last_offset).await.is_ok(),
            None => false,
        }
    }
}

impl Shard {
    /// A shard whose log is yet to be read.
    pub(super) fn loading(log: Arc<Partition>, config: GroupConfig) -> Self {
        let coordinator = Coordinator::new(config.clone());
        let state = State { coordinator, readiness: Readiness::Loading, last_written: written(Some(-1)) };
        Self { log, config, state: Mutex::new(state) }
    }

    /// A shard whose log is new.
    pub(super) fn new(log: Arc<Partition>, config: GroupConfig) -> Self {
        let shard = Self::loading(log, config);
        shard.state().readiness = Readiness::Ready;
        shard
    }

    /// Reads the log. Blocks on the disk.
    pub(super) fn load(&self, now: Now, image: &Image) {
        // Not under the lock: it can take long, and meanwhile everybody is told so.
        let mut coordinator = Coordinator::new(self.config.clone());
        let loaded = replay(&self.log, |record| {
            let key = Bytes::copy_from_slice(record.key.unwrap_or_default());
            let value = record.value.map(Bytes::copy_from_slice);
            if let Err(error) = coordinator.replay(now, &key, value.as_ref()) {
                // One record of a later Kafka must not cost all the others.
                tracing::warn!(partition = self.log.index(), %error, "a record of __consumer_offsets cannot be read");
            }
            Ok(())
        });
        coordinator.replayed();
        let mut state = self.state();
        state.coordinator = coordinator;
        state.readiness = match loaded {
            Ok(()) => Readiness::Ready,
            Err(error) => {
                tracing::error!(partition = self.log.index(), %error, "groups cannot be loaded");
                state.coordinator = Coordinator::new(self.config.clone());
                Readiness::Failed
            }
        };
        state.last_written = written(Some(self.log.log_end_offset() - 1));
        // A crash may have come between a topic's end and that of its offsets.
        let mut effects = Effects::default();
        state.coordinator.retain_topics(|topic| image.topic(topic).is_some(), &mut effects);
        if let Err(error) = state.append(&self.log, &effects.records, now) {
            tracing::warn!(partition = self.log.index(), %error, "offsets of deleted topics cannot be taken back");
        }
    }

    /// Lets the coordinator do one thing, and writes down what comes of it. Then the answer may be given as soon as the
    /// returned mark is reached.
    pub(super) fn turn<T>(
        &self,
        now: Now,
        act: impl FnOnce(&mut Coordinator, &mut Effects) -> T,
    ) -> Result<(T, Effects, Durable), ErrorCode> {
        let mut state = self.ready()?;
        let mut effects = Effects::default();
        let answer = act(&mut state.coordinator, &mut effects);
        let appended = state.append(&self.log, &effects.records, now);
        let written = match appended {
            Ok(()) => state.last_written.clone(),
            Err(error) => {
                tracing::error!(partition = self.log.index(), %error, "__consumer_offsets cannot be written");
                written(None)
            }
        };
        Ok((answer, effects, Durable { log: self.log.clone(), written }))
    }

    /// Asks the coordinator something that changes nothing.
    pub(super) fn ask<T>(&self, question: impl FnOnce(&Coordinator) -> T) -> Result<T, ErrorCode> {
        Ok(question(&self.ready()?.coordinator))
    }

    /// Heartbeats write nothing and are answered at once.
    pub(super) fn touch<T>(&self, act: impl FnOnce(&mut Coordinator) -> T) -> Result<T, ErrorCode> {
        Ok(act(&mut self.ready()?.coordinator))
    }

    pub(super) fn next_deadline(&self) -> Option<i64> {
        self.state().coordinator.next_deadline()
    }

    fn ready(&self) -> Result<MutexGuard<'_, State>, ErrorCode> {
        let state = self.state();
        match state.readiness {
            Readiness::Ready => Ok(state),
            Readiness::Loading => Err(ErrorCode::CoordinatorLoadInProgress),
            Readiness::Failed => Err(ErrorCode::CoordinatorNotAvailable),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn append(
        &mut self,
        log: &Arc<Partition>,
        records: &[StoredRecord],
        now: Now,
    ) -> Result<(), StorageError> {
        if records.is_empty() {
            return Ok(());
        }
        let refused = |error: &dyn std::fmt::Display| StorageError::new(error.to_string());
        let mut batch = BatchBuilder::new(BatchOptions::default());
        for record in records {
            batch
                .append(now.wall_ms, Some(&record.key), record.value.as_deref(), [])
                .map_err(|error| refused(&error))?;
        }
        let batch = batch.build().map_err(|error| refused(&error))?;
        // Queued here, so that the order is that of the turns.
        let (log, append) = (log.clone(), log.append(batch, AppendOrigin::Coordinator, now.wall_ms));
        let told = async move {
            let appended = append.await.inspect_err(
                |error| tracing::error!(partition = log.index(), %error, "__consumer_offsets cannot be written"),
            );
            appended.ok().map(|appended| appended.last_offset)
        };
        self.last_written = told.boxed().shared();
        Ok(())
    }
}
