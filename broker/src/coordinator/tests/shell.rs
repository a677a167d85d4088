//! The shell on a paused clock, over a log that the test holds in its hands.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm_protocol::ErrorCode;
use klamm_runtime::TokioClock;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::super::core::StoredBatch;
use super::super::durable_log::{Chunk, DurableLog};
use super::super::engine::AppendFailure;
use super::super::runtime::Runtime;
use super::registers::{Ask, CLOCK, Registers};
use crate::log::StorageError;

/// A log whose every call waits until the test lets it go on.
#[derive(Debug, Clone, Default)]
struct Held {
    shared: Arc<Shared>,
    directory: PathBuf,
}

#[derive(Debug, Default)]
struct Shared {
    /// Each with one record.
    log: Mutex<Vec<StoredBatch>>,
    batches: Mutex<Vec<usize>>,
    appends: Gate,
    flushes: Gate,
    reads: Gate,
    /// How appends end from now on.
    failure: Mutex<Option<AppendFailure>>,
    flush_fails: Mutex<bool>,
    panics: Mutex<bool>,
    unopened: Mutex<bool>,
    comes_back: Mutex<bool>,
}

#[derive(Debug)]
struct Gate {
    open: watch::Sender<bool>,
    reached: Notify,
}

impl Default for Gate {
    fn default() -> Self {
        Self { open: watch::Sender::new(true), reached: Notify::new() }
    }
}

impl Gate {
    async fn pass(&self) {
        self.reached.notify_one();
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
    }

    fn set(&self, open: bool) {
        self.open.send_replace(open);
    }
}

impl DurableLog for Held {
    fn name(&self) -> String {
        "held".into()
    }

    fn directory(&self) -> &Path {
        &self.directory
    }

    fn max_batch_bytes(&self) -> usize {
        1 << 20
    }

    fn offsets(&self) -> Result<Range<i64>, StorageError> {
        if *self.shared.unopened.lock().unwrap() {
            return Err(StorageError::new("not open"));
        }
        Ok(0..self.shared.log.lock().unwrap().len() as i64)
    }

    fn comes_back(&self) -> bool {
        *self.shared.comes_back.lock().unwrap()
    }

    async fn append(&self, batch: StoredBatch, _: i64) -> Result<i64, AppendFailure> {
        self.shared.appends.pass().await;
        assert!(!*self.shared.panics.lock().unwrap(), "as the test wants");
        if let Some(failure) = self.shared.failure.lock().unwrap().clone() {
            return Err(failure);
        }
        self.shared.batches.lock().unwrap().push(batch.records.len());
        let mut log = self.shared.log.lock().unwrap();
        let one = |record| StoredBatch { kind: batch.kind, records: vec![record] };
        log.extend(batch.records.into_iter().map(one));
        Ok(log.len() as i64 - 1)
    }

    async fn wait_durable(&self, _: i64) -> Result<(), StorageError> {
        self.shared.flushes.pass().await;
        if *self.shared.flush_fails.lock().unwrap() { Err(StorageError::new("flush")) } else { Ok(()) }
    }

    async fn read(&self, offset: i64) -> Result<Chunk, StorageError> {
        self.shared.reads.pass().await;
        let log = self.shared.log.lock().unwrap();
        let batches = vec![log[usize::try_from(offset).unwrap()].clone()];
        Ok(Chunk { batches, next_offset: offset + 1 })
    }
}

type Runtimes = Runtime<Registers, Held>;

fn runtime(log: &Held, first: Option<Ask>) -> Runtimes {
    let runtime = Runtime::new(Arc::new(TokioClock::starting_at(0)));
    runtime.open([Some(log.clone())], Registers::default, move || first.clone());
    runtime
}

async fn ask(runtime: &Runtimes, command: Ask) -> Result<u64, ErrorCode> {
    let receiver = runtime.shard("k").unwrap().submit(command).await;
    timeout(Duration::from_secs(60), receiver).await.expect("no answer").unwrap()
}

fn values(runtime: &Runtimes) -> Vec<(u8, u64)> {
    runtime.shard("k").unwrap().ask(|core| core.values.clone()).unwrap().into_iter().collect()
}

#[tokio::test(start_paused = true)]
async fn an_answer_comes_when_it_is_durable_and_the_caller_may_go_away() {
    let log = Held::default();
    let runtime = runtime(&log, None);
    assert_eq!(ask(&runtime, Ask::Set(1, 10)).await, Ok(10));
    log.shared.flushes.set(false);
    let shard = runtime.shard("k").unwrap();
    let (kept, dropped) = (shard.submit(Ask::Set(1, 20)).await, shard.submit(Ask::Set(2, 30)).await);
    drop(dropped);
    let mut kept = Box::pin(kept);
    assert!(timeout(Duration::from_secs(5), &mut kept).await.is_err(), "before it is durable");
    log.shared.flushes.set(true);
    assert_eq!(kept.await.unwrap(), Ok(20));
    assert_eq!(ask(&runtime, Ask::Get(2)).await, Ok(30), "done for the one who went away, too");
}

#[tokio::test(start_paused = true)]
async fn commands_that_come_during_a_slow_append_share_the_next() {
    let log = Held::default();
    let runtime = runtime(&log, None);
    log.shared.appends.set(false);
    let shard = runtime.shard("k").unwrap();
    let first = shard.submit(Ask::Set(0, 1)).await;
    log.shared.appends.reached.notified().await;
    let mut others = Vec::new();
    for value in 2..100 {
        others.push(shard.submit(Ask::Set(1, value)).await);
    }
    log.shared.appends.set(true);
    assert_eq!(first.await.unwrap(), Ok(1));
    for (other, value) in others.into_iter().zip(2..) {
        assert_eq!(other.await.unwrap(), Ok(value));
    }
    assert_eq!(*log.shared.batches.lock().unwrap(), [1, 98]);
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_is_bounded_and_who_only_asks_does_not_wait() {
    let log = Held::default();
    let runtime = runtime(&log, None);
    log.shared.flushes.set(false);
    let shard = runtime.shard("k").unwrap();
    let mut waiting = Vec::new();
    for value in 0..1_024 {
        waiting.push(shard.submit(Ask::Set(1, value)).await);
    }
    let mut next = Box::pin(shard.submit(Ask::Set(1, 5_000)));
    assert!(timeout(Duration::from_secs(1), &mut next).await.is_err(), "there is no room for one more");
    assert_eq!(values(&runtime), [(1, 1_023)], "it has not been done");
    assert_eq!(shard.submit_now(Ask::Get(9)).await.unwrap(), Ok(0));
    log.shared.flushes.set(true);
    assert_eq!(next.await.await.unwrap(), Ok(5_000));
    // What was refused gives its room back, too.
    *log.shared.failure.lock().unwrap() = Some(AppendFailure::Refused("no space".into()));
    for value in 0..3_000 {
        let told = ask(&runtime, Ask::Set(1, value)).await;
        assert_eq!(told, Err(ErrorCode::CoordinatorNotAvailable));
    }
    *log.shared.failure.lock().unwrap() = None;
    assert_eq!(ask(&runtime, Ask::Get(1)).await, Ok(5_000));
}

/// Set while the task sleeps without end, and while it sleeps until later.
#[tokio::test(start_paused = true)]
async fn a_deadline_that_is_set_while_the_task_sleeps_wakes_it() {
    let log = Held::default();
    let runtime = runtime(&log, None);
    for round in 0..200 {
        sleep(Duration::from_secs(50)).await;
        let now_ms = tokio::time::Instant::now();
        let shard = runtime.shard("k").unwrap();
        let started_ms = shard.now_ms();
        // A later one first, every other time.
        if round % 2 == 0 {
            shard.submit(Ask::SetAt(started_ms + 10_000, 1)).await.await.unwrap().unwrap();
        }
        let waiter = shard.submit(Ask::Wait(CLOCK)).await;
        shard.submit(Ask::SetAt(started_ms + 20, round)).await.await.unwrap().unwrap();
        let woken = timeout(Duration::from_secs(60), waiter).await.expect("the task sleeps on");
        assert_eq!(woken.unwrap(), Ok(round));
        assert!(now_ms.elapsed() <= Duration::from_millis(22), "late: {:?}", now_ms.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_loading_is_refused_or_done_later() {
    let log = Held::default();
    assert_eq!(ask(&runtime(&log, None), Ask::Set(1, 10)).await, Ok(10));
    log.shared.reads.set(false);
    let runtime = runtime(&log, Some(Ask::Set(2, 1)));
    log.shared.reads.reached.notified().await;
    assert_eq!(ask(&runtime, Ask::Get(1)).await, Err(ErrorCode::CoordinatorLoadInProgress));
    runtime.inform_all(|| Ask::Set(2, 5));
    log.shared.reads.set(true);
    while runtime.shard("k").unwrap().ask(|_| ()).is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(values(&runtime), [(1, 10), (2, 5)]);
    assert_eq!(ask(&runtime, Ask::Get(2)).await, Ok(5));
}

/// What a crash left in the log was perhaps never durable.
#[tokio::test(start_paused = true)]
async fn nobody_is_served_before_what_was_loaded_is_durable() {
    for fails in [false, true] {
        let log = Held::default();
        assert_eq!(ask(&runtime(&log, None), Ask::Set(1, 10)).await, Ok(10));
        log.shared.flushes.set(false);
        let runtime = runtime(&log, None);
        log.shared.flushes.reached.notified().await;
        log.shared.flushes.reached.notified().await;
        let loading = Err(ErrorCode::CoordinatorLoadInProgress);
        assert_eq!(ask(&runtime, Ask::Get(1)).await, loading);
        sleep(Duration::from_secs(100)).await;
        assert_eq!(ask(&runtime, Ask::Get(1)).await, loading);
        *log.shared.flush_fails.lock().unwrap() = fails;
        log.shared.flushes.set(true);
        sleep(Duration::from_secs(1)).await;
        let expected = if fails { Err(ErrorCode::CoordinatorNotAvailable) } else { Ok(10) };
        assert_eq!(ask(&runtime, Ask::Get(1)).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_flush_that_fails_ends_the_shard() {
    let log = Held::default();
    let runtime = runtime(&log, None);
    let shard = runtime.shard("k").unwrap();
    let waiting = shard.submit(Ask::Wait(7)).await;
    *log.shared.flush_fails.lock().unwrap() = true;
    let unavailable = Err(ErrorCode::CoordinatorNotAvailable);
    assert_eq!(ask(&runtime, Ask::Set(1, 10)).await, unavailable);
    assert_eq!(waiting.await.unwrap(), unavailable);
    assert_eq!(ask(&runtime, Ask::Get(1)).await, unavailable);
}

/// Neither a core nor a log that panics leaves anybody waiting, or serves from what is half done.
#[tokio::test(start_paused = true)]
async fn a_panic_ends_the_shard_and_not_the_callers() {
    let unavailable = Err(ErrorCode::CoordinatorNotAvailable);
    for in_log in [false, true] {
        let log = Held::default();
        let runtime = runtime(&log, None);
        let shard = runtime.shard("k").unwrap();
        let waiting = shard.submit(Ask::Wait(7)).await;
        log.shared.appends.set(false);
        let written = shard.submit(Ask::Set(1, 10)).await;
        log.shared.appends.reached.notified().await;
        if in_log {
            *log.shared.panics.lock().unwrap() = true;
            log.shared.appends.set(true);
        } else {
            let caller = shard.clone();
            let tasks = klamm_runtime::Tasks::new();
            tasks.spawn("caller", async move { drop(caller.submit(Ask::Panic).await) });
            tasks.join().await;
            assert!(shard.ask(|_| ()).is_err());
        }
        for receiver in [waiting, written] {
            let told = timeout(Duration::from_secs(60), receiver).await.expect("nobody is told");
            assert_eq!(told.unwrap(), unavailable);
        }
        assert_eq!(ask(&runtime, Ask::Get(1)).await, unavailable);
    }
}

#[tokio::test(start_paused = true)]
async fn a_runtime_opens_the_logs_that_appear_and_keeps_those_it_has() {
    let log = Held::default();
    let runtime: Runtimes = Runtime::new(Arc::new(TokioClock::starting_at(0)));
    assert!(runtime.is_empty() && !runtime.is_open() && runtime.shard("k").is_none());
    runtime.open([None], Registers::default, || None);
    assert!(!runtime.is_empty() && !runtime.is_open() && runtime.shard("k").is_none());
    runtime.open([Some(log.clone())], Registers::default, || None);
    assert!(runtime.is_open());
    let shard = runtime.shard("k").unwrap();
    assert_eq!(ask(&runtime, Ask::Set(1, 10)).await, Ok(10));
    runtime.open([Some(Held::default())], Registers::default, || None);
    assert!(Arc::ptr_eq(&shard, &runtime.shard("k").unwrap()));
    runtime.stop();
    let waiting = shard.submit(Ask::Wait(1)).await;
    assert_eq!(waiting.await.unwrap(), Err(ErrorCode::CoordinatorNotAvailable));
    runtime.close().await;
}

/// A log that was not open was lost until the broker started again.
#[tokio::test(start_paused = true)]
async fn a_log_that_comes_back_is_loaded_then_and_another_is_lost() {
    for comes_back in [true, false] {
        let log = Held::default();
        let set = |flag: &Mutex<bool>, value: bool| *flag.lock().unwrap() = value;
        set(&log.shared.unopened, true);
        set(&log.shared.comes_back, comes_back);
        let runtime = runtime(&log, None);
        assert_eq!(ask(&runtime, Ask::Set(1, 10)).await, Err(ErrorCode::CoordinatorLoadInProgress));
        sleep(Duration::from_secs(100)).await;
        let meanwhile = match comes_back {
            true => ErrorCode::CoordinatorLoadInProgress,
            false => ErrorCode::CoordinatorNotAvailable,
        };
        assert_eq!(ask(&runtime, Ask::Set(1, 11)).await, Err(meanwhile));
        set(&log.shared.unopened, false);
        sleep(Duration::from_secs(31)).await;
        let expected = if comes_back { Ok(12) } else { Err(ErrorCode::CoordinatorNotAvailable) };
        assert_eq!(ask(&runtime, Ask::Set(1, 12)).await, expected);
    }
}
