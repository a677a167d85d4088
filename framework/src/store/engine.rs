//! Who opens stores that are kept in another way than the crate's.

use std::path::PathBuf;
use std::sync::Arc;

use super::{StateStore, StoreError};

/// Opens stores that are kept in another way than the crate does; see
/// [`Materialized::stored_in`](crate::streams::Materialized::stored_in). A closure is one:
///
/// ```
/// use klamm::store::{MemoryStore, StoreError, StorePlace};
/// use klamm::streams::{Materialized, StreamsBuilder};
///
/// let engine = |place: &StorePlace| {
///     println!("{} is opened in {}", place.store, place.directory.display());
///     Ok::<_, StoreError>(MemoryStore::new())
/// };
/// let mut streams = StreamsBuilder::new();
/// let counts = Materialized::<i64>::named("counts").stored_in(engine);
/// streams.stream::<String, String>("words").group_by_key().count(counts);
/// # streams.build()?;
/// # Ok::<(), klamm::streams::TopologyError>(())
/// ```
pub trait StoreEngine: Send + Sync + 'static {
    /// Opens a store, or begins it. Each task has its own, and so has a standby: whatever lies elsewhere than in
    /// `place.directory` has to be told apart by that path. A store is open once at a time, and closed when it is
    /// dropped. It may block.
    ///
    /// Where the directory is new, the store begins empty: what it has is deleted.
    ///
    /// # Errors
    /// It cannot be opened; the task fails. [`StoreError::Corrupt`] says that it is damaged: its directory is put
    /// aside, and it is built anew from its changelog.
    fn open(&self, place: &StorePlace) -> Result<Arc<dyn StateStore>, StoreError>;
}

impl<F, S> StoreEngine for F
where
    F: Fn(&StorePlace) -> Result<S, StoreError> + Send + Sync + 'static,
    S: StateStore,
{
    fn open(&self, place: &StorePlace) -> Result<Arc<dyn StateStore>, StoreError> {
        Ok(Arc::new(self(place)?))
    }
}

/// Which store of which task is to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StorePlace {
    /// The store's name.
    pub store: String,
    /// Of this store of this task and nothing else. It is there, and it is removed or moved away when the store has to
    /// begin anew.
    pub directory: PathBuf,
}
