//! Stores that lack much of their changelogs: read and written past the thread that has their task, in large pieces,
//! several stores at a time.
//!
//! A piece is some tens of thousands of records, sorted in memory, of which the engine makes a file of its own; it is
//! durable then, with the position after its last record in it. So a crash costs the piece under way, and nothing of
//! what an earlier life of the task reads is written when that life is over: see [`Wanted`].

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use klamm_client::{BatchRoom, ConsumerRecords, TopicPartition};
use klamm_runtime::Blocking;
use tokio::time::Instant;

use super::changelogs::{self, Reading};
use super::error::StreamsError;
use super::observe::Part;
use super::shared::{Shared, lock};
use crate::store::{Position, Rows, StateStore, StoreError};
use crate::streams::node::ChangelogRows;
use crate::streams::task::TaskId;

/// Offsets that a store lacks: below, writing them as they come is as fast.
pub(super) const WORTH_IT: i64 = 20_000;

/// A piece; two of each store are in memory, one that is filled and one that is written.
const PIECE_BYTES: usize = 16 * 1024 * 1024;

/// Stores at a time in one application, of the cores.
const MOST_AT_A_TIME: usize = 4;

/// What one fetch may bring, and what may wait of it.
const FETCH_BYTES: usize = 2 * 1024 * 1024;
const PREFETCH_BYTES: usize = 8 * 1024 * 1024;

/// Between lines of the log.
const TELL: Duration = Duration::from_secs(10);

/// How many stores are loaded at a time.
pub(super) fn at_a_time() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MOST_AT_A_TIME)
}

/// Whether an incarnation of a task still wants what is read for it. What it wants is written while this is held, so
/// that nothing of it comes after the end.
#[derive(Debug, Clone)]
pub(super) struct Wanted(Arc<Mutex<bool>>);

impl Default for Wanted {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(true)))
    }
}

impl Wanted {
    /// Nothing is written from now on; waits for what is.
    pub(super) fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }

    /// Does this while it is wanted.
    fn meanwhile<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let wanted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.then(work)
    }
}

/// How a store is written past the thread that has its task.
#[derive(Debug, Clone)]
pub(super) struct Load {
    /// Of whoever has the task: a database is not closed where nobody may block.
    pub(super) engine: Weak<dyn StateStore>,
    pub(super) rows: ChangelogRows,
    pub(super) stream_time_ms: i64,
}

/// A store, and what it lacks of its changelog.
pub(super) struct Lacking {
    pub(super) task: TaskId,
    pub(super) store: Arc<str>,
    pub(super) partition: TopicPartition,
    pub(super) begin: i64,
    pub(super) end: i64,
    pub(super) load: Load,
}

/// Why a store was not loaded to the end.
#[derive(Debug)]
pub(super) enum NotLoaded {
    /// Nobody wants it any more.
    Unwanted,
    /// The changelog goes on elsewhere than where the store is.
    Lost(String),
    Store(StoreError),
    Streams(StreamsError),
}

impl<E: Into<StreamsError>> From<E> for NotLoaded {
    fn from(error: E) -> Self {
        Self::Streams(error.into())
    }
}

impl Reading {
    pub(super) fn goes_on(self) -> Result<(), NotLoaded> {
        match self {
            Self::GoesOn => Ok(()),
            Self::Lost { why, .. } => Err(NotLoaded::Lost(why)),
            Self::Fails(error) => Err(NotLoaded::Streams(error)),
        }
    }
}

/// Reads a changelog to the end, and writes the store, both at a time.
pub(super) async fn load(shared: &Shared, lacking: Lacking, wanted: Wanted) -> Result<(), NotLoaded> {
    // A closed semaphore would be one that was dropped.
    let _turn = shared.loads.acquire().await;
    let consumer = shared.client.consumer().partition_fetch_bytes(FETCH_BYTES).prefetch_bytes(PREFETCH_BYTES);
    let start = (lacking.partition.clone(), lacking.begin);
    let mut consumer = changelogs::reader(consumer, shared, vec![start]).await?;
    let mut loader = Loader::new(shared, lacking, wanted);
    loader.begin().await?;
    while loader.position.changelog_offset < loader.lacking.end {
        shared.has_room().await;
        match consumer.next_batch_within(|_| BatchRoom::UNLIMITED).await {
            Some(Ok(batch)) => loader.add(&batch),
            Some(Err(error)) => {
                tracing::warn!(task = %loader.lacking.task, %error, "reading a changelog");
                Reading::from(error).goes_on()?;
            }
            None => return Err(StreamsError::Closed.into()),
        }
        if loader.rows.held_bytes() >= PIECE_BYTES {
            loader.write().await?;
        }
    }
    consumer.close().await?;
    loader.write().await?;
    loader.written().await?;
    loader.end().await
}

struct Loader<'a> {
    shared: &'a Shared,
    lacking: Lacking,
    wanted: Wanted,
    /// What is filled, and where it leads to.
    rows: Rows,
    position: Position,
    part: Part,
    writing: Option<Blocking<Result<Written, StoreError>>>,
    spare: Rows,
    /// When the log was told last.
    told: Instant,
}

/// A piece that was written, if it was wanted.
struct Written {
    rows: Rows,
    part: Option<Part>,
}

impl<'a> Loader<'a> {
    fn new(shared: &'a Shared, lacking: Lacking, wanted: Wanted) -> Self {
        let (changelog_offset, stream_time_ms) = (lacking.begin, lacking.load.stream_time_ms);
        Self {
            shared,
            lacking,
            wanted,
            rows: Rows::new(),
            position: Position { changelog_offset, stream_time_ms },
            part: Part::default(),
            writing: None,
            spare: Rows::new(),
            told: Instant::now(),
        }
    }

    async fn begin(&self) -> Result<(), NotLoaded> {
        let (load, wanted) = (self.lacking.load.clone(), self.wanted.clone());
        let begin = move || Some(load.rows.begin(&*load.engine.upgrade()?));
        let begun = Blocking::start(move || wanted.meanwhile(begin).flatten());
        match begun.join().await {
            Some(begun) => begun.map_err(NotLoaded::Store),
            None => Err(NotLoaded::Unwanted),
        }
    }

    /// What follows from all that is written.
    async fn end(&self) -> Result<(), NotLoaded> {
        let Some(mut listing) = self.lacking.load.rows.end() else { return Ok(()) };
        loop {
            let (load, wanted) = (self.lacking.load.clone(), self.wanted.clone());
            let stepped = Blocking::start(move || {
                let step = || Some(listing.step(&*load.engine.upgrade()?));
                let done = wanted.meanwhile(step).flatten();
                (listing, done)
            });
            let (rest, done) = stepped.join().await;
            listing = rest;
            match done {
                Some(Ok(true)) => return Ok(()),
                Some(Ok(false)) => {}
                Some(Err(error)) => return Err(NotLoaded::Store(error)),
                None => return Err(NotLoaded::Unwanted),
            }
        }
    }

    fn add(&mut self, batch: &ConsumerRecords) {
        for record in &batch.records {
            self.position.stream_time_ms = self.position.stream_time_ms.max(record.timestamp_ms);
            self.part.records += 1;
            let Some(key) = &record.key else { continue };
            let value = record.value.as_ref();
            self.part.bytes += (key.len() + value.map_or(0, Bytes::len)) as u64;
            let times = (record.timestamp_ms, self.position.stream_time_ms);
            self.lacking.load.rows.add(&mut self.rows, key, value, times);
        }
        (self.position.changelog_offset, self.part.to) = (batch.next_offset, batch.next_offset);
    }

    /// Writes what there is, after what is being written.
    async fn write(&mut self) -> Result<(), NotLoaded> {
        self.written().await?;
        let mut rows = std::mem::replace(&mut self.rows, std::mem::take(&mut self.spare));
        let (engine, wanted) = (Weak::clone(&self.lacking.load.engine), self.wanted.clone());
        let (position, part) = (self.position, std::mem::take(&mut self.part));
        self.writing = Some(Blocking::start(move || {
            rows.sort();
            let load = || Some(engine.upgrade()?.load(&rows, position));
            let loaded = wanted.meanwhile(load).flatten().transpose()?;
            rows.clear();
            Ok(Written { rows, part: loaded.map(|()| part) })
        }));
        Ok(())
    }

    /// Waits for what is being written.
    async fn written(&mut self) -> Result<(), NotLoaded> {
        let Some(writing) = self.writing.take() else { return Ok(()) };
        let Written { rows, part } = writing.join().await.map_err(NotLoaded::Store)?;
        self.spare = rows;
        let part = part.ok_or(NotLoaded::Unwanted)?;
        self.shared.restored.fetch_add(part.records, Ordering::Relaxed);
        let Lacking { task, store, end, .. } = &self.lacking;
        lock(&self.shared.ledger).restored(*task, store, part, Instant::now());
        let left = (end - part.to).max(0);
        if left == 0 || self.told.elapsed() >= TELL {
            self.told = Instant::now();
            tracing::info!(%task, %store, left, "restored so far");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// The end waits for what is being written, and nothing is written after it.
    #[test]
    fn nothing_is_written_after_the_end() {
        let wanted = Wanted::default();
        assert_eq!(wanted.meanwhile(|| 1), Some(1));
        let (begun, begins) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel::<()>();
        let (writer, ended) = (wanted.clone(), Arc::new(Mutex::new(false)));
        let writing = std::thread::spawn(move || {
            writer.meanwhile(|| {
                begun.send(()).unwrap();
                goes_on.recv_timeout(Duration::from_secs(10)).unwrap();
            })
        });
        begins.recv_timeout(Duration::from_secs(10)).unwrap();
        let (ending, sees) = (wanted.clone(), Arc::clone(&ended));
        let ending = std::thread::spawn(move || {
            ending.end();
            *sees.lock().unwrap() = true;
        });
        assert!(!*ended.lock().unwrap(), "something is being written");
        go_on.send(()).unwrap();
        assert_eq!(writing.join().unwrap(), Some(()));
        ending.join().unwrap();
        assert_eq!(wanted.meanwhile(|| 1), None);
    }
}
