//! What became of the records of a worker's outputs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use klamm_client::{ProduceError, TopicPartition, Watch};

use super::outbox::ChangelogOffsets;
use super::shared::lock;
use super::trouble::Trouble;
use crate::streams::node::TopicId;

/// What became of the records so far.
pub(super) struct Fate {
    /// By name.
    changelogs: Arc<HashMap<Arc<str>, TopicId>>,
    trouble: Mutex<Option<Trouble>>,
    written: Mutex<ChangelogOffsets>,
}

impl Fate {
    pub(super) fn new(changelogs: &Arc<HashMap<Arc<str>, TopicId>>) -> Arc<Self> {
        let (trouble, written) = (Mutex::default(), Mutex::default());
        Arc::new(Self { changelogs: Arc::clone(changelogs), trouble, written })
    }

    /// Nothing commits any more once a record is lost: the first trouble stays.
    pub(super) fn seal(&self, trouble: Trouble) {
        lock(&self.trouble).get_or_insert(trouble);
    }

    pub(super) fn is_sealed(&self) -> bool {
        lock(&self.trouble).is_some()
    }

    /// The trouble that there is, once.
    pub(super) fn unseal(&self) -> Result<(), Trouble> {
        lock(&self.trouble).take().map_or(Ok(()), Err)
    }

    /// How far changelogs are written, once.
    pub(super) fn take_written(&self) -> ChangelogOffsets {
        std::mem::take(&mut *lock(&self.written))
    }

    /// What it means that a record was not taken.
    pub(super) fn trouble_of(&self, error: ProduceError) -> Trouble {
        match &error {
            ProduceError::UnknownPartition { topic, .. } if self.changelogs.contains_key(topic) => {
                Trouble::of_change(error)
            }
            _ => Trouble::of_record(error),
        }
    }
}

impl Watch for Fate {
    fn told(&self, fate: Result<(&TopicPartition, i64), &ProduceError>) {
        match fate {
            Ok((written, offset)) => {
                let Some(changelog) = self.changelogs.get(&written.topic) else { return };
                let mut changelogs = lock(&self.written);
                let next = changelogs.entry((*changelog, written.partition)).or_insert(0);
                *next = (*next).max(offset + 1);
            }
            Err(error) => self.seal(Trouble::of_record(error.clone())),
        }
    }
}
