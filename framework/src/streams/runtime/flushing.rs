//! Makes stores durable while their tasks go on, beside the threads that process.
//!
//! # Why not otherwise
//!
//! The engine has no log of its own, for the changelog is one; so a crash takes what lies in memtables, and the
//! changelog gives it back when the tasks begin again. That is bounded here: see [`unflushed`](super::unflushed). A
//! log of the engine would make every write twice, in normal times, to save a restore of a few tenths of a second;
//! after a crash it would have to be read again as well. Hard links of the files (a checkpoint) would save nothing: a
//! file that RocksDB has written is never changed, and it lists them in one atomic step, so that what it opens after a
//! crash is whole: some prefix of each store, with the position of that prefix.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use klamm_runtime::Blocking;
use tokio::time::Instant;

use super::shared::{Shared, lock};
use super::unflushed::Unflushed;
use crate::store::StateStore;

/// Between looks at what is not durable: a few counters of each store.
const LOOK: Duration = Duration::from_millis(250);

type Place = (String, i32);

/// Works until the application ends.
pub(super) async fn serve(shared: Weak<Shared>) {
    let mut unflushed = Unflushed::default();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        // An engine that is given up meanwhile is closed there, too.
        let flushed = Blocking::start(move || {
            flush(&shared, &mut unflushed);
            unflushed
        });
        unflushed = flushed.join().await;
    }
}

/// Makes durable what is due, one store after the other: the disk has other things to do.
fn flush(shared: &Shared, unflushed: &mut Unflushed<Place>) {
    let mut engines = engines(shared);
    let writes = engines.iter().map(|(place, engine)| (place.clone(), engine.unflushed_writes())).collect();
    let due = unflushed.due(Instant::now(), &writes);
    engines.retain(|place, _| due.contains(place));
    while let Some(((store, partition), engine)) = engines.pop_first() {
        if let Err(error) = engine.flush() {
            // Its thread finds out when it writes.
            tracing::warn!(store, partition, %error, "a store is not made durable");
        }
    }
}

/// Of the tasks that process, and of the standbys.
fn engines(shared: &Shared) -> BTreeMap<Place, Arc<dyn StateStore>> {
    let published = lock(&shared.stores);
    let mut engines = BTreeMap::new();
    let mut sorted: Vec<_> = published.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    for (name, partitions) in sorted {
        for (partition, engine) in partitions {
            if let Some(engine) = engine.upgrade() {
                engines.insert((name.clone(), *partition), engine);
            }
        }
    }
    for ((name, partition), engine) in shared.standbys.all_published() {
        engines.insert((name.to_string(), partition), engine);
    }
    engines
}
