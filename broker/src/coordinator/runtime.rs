//! All partitions of a coordinator's topic: which of them a key lives in, and the tasks that serve them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use klamm_runtime::{Clock, Tasks};
use tokio::sync::Semaphore;

use super::core::Core;
use super::durable_log::DurableLog;
use super::shard::{Shard, Time};

/// How many partitions of a log directory are loaded at the same time.
const PARALLEL_LOADS: usize = 4;

/// The partitions, by index; nothing where there is no log.
type Shards<C, L> = Arc<[Option<Arc<Shard<C, L>>>]>;

/// A coordinator: its cores, sharded by the hash of their keys.
#[derive(Debug)]
pub(crate) struct Runtime<C: Core, L: DurableLog> {
    time: Time,
    /// Empty until the topic is there.
    shards: RwLock<Shards<C, L>>,
    /// The turns to load, of each log directory: one that hangs keeps its own.
    loading: Mutex<BTreeMap<PathBuf, Arc<Semaphore>>>,
    tasks: Tasks,
}

impl<C: Core, L: DurableLog> Runtime<C, L> {
    /// A coordinator whose topic is not there yet.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            time: Time::new(clock),
            shards: RwLock::new(Arc::new([])),
            loading: Mutex::default(),
            tasks: Tasks::new(),
        }
    }

    /// Serves these logs, one for each partition of the topic and nothing where one could not be made. Those that are
    /// served already go on. `fresh` makes a core that knows nothing, `first` the command that a core begins with when
    /// it has loaded.
    pub(crate) fn open(
        &self,
        logs: impl IntoIterator<Item = Option<L>>,
        fresh: impl Fn() -> C + Clone + Send + Sync + 'static,
        first: impl Fn() -> Option<C::Command> + Clone + Send + Sync + 'static,
    ) {
        let mut shards = self.shards.write().unwrap_or_else(PoisonError::into_inner);
        let served = shards.clone();
        let open = |(index, log): (usize, Option<L>)| {
            if let Some(Some(shard)) = served.get(index) {
                return Some(shard.clone());
            }
            let log = log?;
            let (loading, fresh, first) = (self.turns(log.directory()), fresh.clone(), first.clone());
            let shard = Arc::new(Shard::new(log, self.time.clone(), fresh(), fresh()));
            let served = shard.clone();
            self.tasks.spawn("coordinator", async move { served.run(fresh, loading, first).await });
            Some(shard)
        };
        *shards = logs.into_iter().enumerate().map(open).collect();
    }

    /// Whether every partition has its log.
    pub(crate) fn is_open(&self) -> bool {
        let shards = self.shards();
        !shards.is_empty() && shards.iter().all(Option::is_some)
    }

    /// Whether the topic is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.shards().is_empty()
    }

    /// The partition that a key lives in, if it can be served.
    pub(crate) fn shard(&self, key: &str) -> Option<Arc<Shard<C, L>>> {
        let shards = self.shards();
        shards.get(partition_for(key, shards.len())?).cloned().flatten()
    }

    /// The number of the partition that a key lives in; none while the topic is not there.
    pub(crate) fn partition(&self, key: &str) -> Option<usize> {
        partition_for(key, self.shards().len())
    }

    /// The partitions, by index; nothing where there is no log.
    pub(crate) fn shards(&self) -> Shards<C, L> {
        self.shards.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has every partition do something that nobody waits for; those that are loading do it when they have loaded.
    pub(crate) fn inform_all(&self, command: impl Fn() -> C::Command) {
        for shard in self.shards().iter().flatten() {
            shard.inform(&command);
        }
    }

    fn turns(&self, directory: &Path) -> Arc<Semaphore> {
        let mut loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let turns = loading.entry(directory.to_owned());
        turns.or_insert_with(|| Arc::new(Semaphore::new(PARALLEL_LOADS))).clone()
    }

    /// Ends the waits for others, now and from now on.
    pub(crate) fn stop(&self) {
        self.shards().iter().flatten().for_each(|shard| shard.stop());
    }

    /// Ends the tasks. After this nothing is appended, and time stands still.
    pub(crate) async fn close(&self) {
        self.tasks.shutdown().await;
    }
}

/// The partition that a key lives in: Java's hash of the key, as in Kafka.
fn partition_for(key: &str, partitions: usize) -> Option<usize> {
    let hash =
        key.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    usize::try_from(hash & i32::MAX).ok().and_then(|hash| hash.checked_rem(partitions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_live_where_kafka_puts_them() {
        // "".hashCode() is 0; "a" is 97; "polygenelubricants" is Integer.MIN_VALUE, as Java computes them.
        assert_eq!(partition_for("", 50), Some(0));
        assert_eq!(partition_for("a", 50), Some(47));
        assert_eq!(partition_for("polygenelubricants", 50), Some(0));
        assert_eq!(partition_for("a", 0), None);
    }
}
