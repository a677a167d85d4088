//! What is committed of a listener's offsets: by its consumer, or in its transactions.

use klamm_client::{ConsumeError, OffsetReset, TopicPartition};

use super::shared::Shared;
use super::start_offsets;
use crate::listener::builder::Settings;
use crate::listener::flow::{Flow, PartId};

impl Shared {
    /// Commits what is safe to commit of every partition.
    pub(super) async fn commit_all(&self) -> Result<(), ConsumeError> {
        let _turn = self.commit_turn.lock().await;
        let all = self.look(Flow::ids);
        self.commit(&all).await
    }

    /// Commits what is safe to commit of these partitions, which may be about to leave.
    pub(super) async fn commit_of(&self, parts: &[PartId]) -> Result<(), ConsumeError> {
        let _turn = self.commit_turn.lock().await;
        self.commit(parts).await
    }

    async fn commit(&self, parts: &[PartId]) -> Result<(), ConsumeError> {
        if let Some(transactions) = &self.transactions {
            return self.commit_in_transactions(transactions, parts).await;
        }
        let safe = self.look(|flow| flow.committable(parts));
        let (false, Some(consumer)) = (safe.is_empty(), self.consumer.get()) else { return Ok(()) };
        if self.scope.group.is_empty() {
            // Nobody keeps them.
            self.change(|flow| flow.committed(&safe));
            return Ok(());
        }
        let committed = consumer.commit(safe.iter().map(|safe| (safe.place.clone(), safe.offset))).await;
        self.observed.meters.committed(committed.is_ok());
        committed?;
        self.change(|flow| flow.committed(&safe));
        Ok(())
    }

    /// Commits where partitions begin that have no committed offset, if that is wanted.
    pub(super) async fn commit_starts(&self, places: &[TopicPartition]) {
        if self.scope.group.is_empty() {
            return;
        }
        // The group may be faster than whoever started the consumer.
        let consumer = self.consumer.wait().await;
        let _turn = self.commit_turn.lock().await;
        let Settings { commit_on_assign, offset_reset, .. } = self.settings;
        // Retry topics begin where they begin, which does not move.
        let is_retry = |place: &&TopicPartition| self.scope.retries.source_of(&place.topic).is_some();
        let others: Vec<_> = places.iter().filter(|place| !is_retry(place)).cloned().collect();
        let commit = async {
            if let Some(transactions) = &self.transactions
                && offset_reset != OffsetReset::Earliest
            {
                self.take_over_places(transactions, places).await;
            }
            let starts = start_offsets::starts(consumer, &others, commit_on_assign, offset_reset).await?;
            let count = starts.len();
            match &self.transactions {
                _ if starts.is_empty() => {}
                Some(transactions) => self.commit_starts_in_transactions(transactions, starts).await?,
                None => consumer.commit(starts).await?,
            }
            Ok::<_, ConsumeError>(count)
        };
        match commit.await {
            Ok(0) => {}
            Ok(partitions) => {
                tracing::debug!(listener = %self.scope.id, partitions, "committed where the group begins");
            }
            Err(error) => tracing::warn!(
                listener = %self.scope.id, %error,
                "it could not be committed where the group begins: what is unfinished when the listener stops before \
                 its first commit may be passed over by the next start"
            ),
        }
    }
}
