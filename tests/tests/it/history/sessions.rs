//! What a member of a group is told of its partitions: written down, and kept for whoever works on them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use klamm_client::{ConsumerHandle, GroupMetadata, RebalanceListener, TopicPartition, async_trait};
use tokio::sync::watch;

use super::operation::{Micros, Place, What};
use super::world::{World, place};

/// The listener of one consumer.
#[derive(Debug)]
pub(super) struct Sessions {
    world: Arc<World>,
    client: String,
    group: &'static str,
    handle: watch::Sender<Option<ConsumerHandle>>,
    state: Mutex<State>,
    /// Held while something that was read is worked on: partitions are not given up meanwhile.
    pub(super) work: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the session, and since when.
    owned: BTreeMap<Place, (u64, Micros)>,
    /// Who the member was when it was told last.
    metadata: Option<GroupMetadata>,
}

impl Sessions {
    pub(super) fn new(world: &Arc<World>, client: &str, group: &'static str) -> Arc<Self> {
        let (handle, _) = watch::channel(None);
        Arc::new(Self {
            world: Arc::clone(world),
            client: client.to_owned(),
            group,
            handle,
            state: Mutex::default(),
            work: tokio::sync::Mutex::default(),
        })
    }

    /// The consumer whose listener this is.
    pub(super) fn started(&self, handle: ConsumerHandle) {
        self.handle.send_replace(Some(handle));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The session that something belongs to that was handed out before `got`, and who the member is. Nothing when the
    /// partition was given up since: what was read comes again.
    pub(super) fn of(&self, place: Place, got: Micros) -> Option<(u64, GroupMetadata)> {
        let state = self.state();
        let (number, since) = *state.owned.get(&place)?;
        (since <= got).then(|| Some((number, state.metadata.clone()?)))?
    }

    fn gone(&self, partitions: &[TopicPartition]) {
        let mut state = self.state();
        for one in partitions {
            state.owned.remove(&place(&one.topic, one.partition));
        }
    }
}

#[async_trait]
impl RebalanceListener for Sessions {
    async fn assigned(&self, partitions: &[TopicPartition]) {
        let mut handles = self.handle.subscribe();
        let Ok(handle) = handles.wait_for(Option::is_some).await else { return };
        let Some(metadata) = handle.as_ref().and_then(ConsumerHandle::group_metadata) else { return };
        drop(handle);
        let recorder = &self.world.recorder;
        let begun = recorder.now();
        let (generation, member) = (metadata.generation, metadata.member_id.to_string());
        let places = {
            let mut state = self.state();
            for one in partitions {
                state.owned.insert(place(&one.topic, one.partition), (recorder.number(), begun));
            }
            state.metadata = Some(metadata);
            state.owned.keys().copied().collect()
        };
        recorder.note(&self.client, begun, What::Own { group: self.group, generation, member, places });
    }

    async fn revoked(&self, partitions: &[TopicPartition]) {
        // What is in work is done before others go on with it.
        let _work = self.work.lock().await;
        self.gone(partitions);
    }

    async fn lost(&self, partitions: &[TopicPartition]) {
        self.gone(partitions);
    }
}
