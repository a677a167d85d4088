//! From the ledger, and from what the parts of the application say of themselves, to the recorder.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use klamm_runtime::Blocking;
use klamm_runtime::metrics::SharedString;

use super::super::engines::memory_held;
use super::super::shared::{Shared, lock};
use super::super::space_guard::Room;
use super::super::state::AppState;
use super::engines::{self, OfEngines};
use super::ledger::{COMMIT_RESULTS, Ledger, TaskLine, ThreadLine};
use super::meters::Handles;
use super::metric::names;
use crate::streams::node::{Dropped, Happened};
use crate::streams::task::TaskId;

/// Between looks at the ledger.
const LOOK: Duration = Duration::from_secs(1);

/// Tells about every second, until the application is gone.
pub(in super::super) async fn serve(shared: Arc<Shared>) {
    if !shared.meters.is_on() {
        return;
    }
    loop {
        tokio::time::sleep(LOOK).await;
        let asked = Arc::clone(&shared);
        let engines = Blocking::start(move || engines::ask(&asked)).await.unwrap_or_default();
        shared.meters.tell(|handles| handles.look(&shared, &engines));
    }
}

/// Tells what happened up to the end.
pub(in super::super) fn tell_last(shared: &Shared) {
    shared.meters.tell(|handles| handles.look(shared, &OfEngines::new()));
}

impl Handles {
    fn look(&mut self, shared: &Shared, engines: &OfEngines) {
        self.of_application(shared);
        self.of_buffers(shared);
        let mut ledger = lock(&shared.ledger);
        let Ledger { tasks, threads, operators } = &mut *ledger;
        for (index, thread) in threads {
            self.of_thread(*index, thread);
        }
        let mut states = [0_u32; 2];
        for (id, task) in tasks {
            if task.thread.is_some() {
                states[usize::from(task.is_restoring)] += 1;
            }
            self.of_task(*id, task, engines);
        }
        for (state, count) in ["running", "restoring"].into_iter().zip(states) {
            self.gauge(&names::TASKS, &[state.into()], f64::from(count));
        }
        for ((operator, happened), times) in operators {
            let operator = SharedString::from(Arc::clone(operator));
            match outcome(*happened) {
                Some(outcome) => self.counter(&names::FAILURES, &[operator, outcome.into()], *times),
                None => self.counter(&names::PUNCTUATIONS, &[operator], *times),
            }
        }
    }

    fn of_application(&mut self, shared: &Shared) {
        let now = *shared.state.borrow();
        for state in AppState::ALL {
            self.gauge(&names::STATE, &[state.name().into()], f64::from(u8::from(state == now)));
        }
        let asked = shared.paused.load(Ordering::Acquire);
        self.gauge(&names::PAUSED, &["asked".into()], f64::from(u8::from(asked)));
        let Room { free_bytes, short_of_bytes } = *shared.room.borrow();
        self.gauge(&names::PAUSED, &["disk".into()], f64::from(u8::from(short_of_bytes.is_some())));
        if let Some(free_bytes) = free_bytes {
            self.gauge(&names::FREE_BYTES, &[], free_bytes as f64);
        }
        self.gauge(&names::FAILING_TASKS, &[], lock(&shared.failing).all().len() as f64);
        self.gauge(&names::THREADS, &[], shared.workers.staying().len() as f64);
        self.gauge(&names::CACHE_BYTES, &[], shared.cache.held_bytes() as f64);
        if let Some((cached, write_buffers)) = memory_held(&shared.config) {
            self.gauge(&names::BLOCK_CACHE_BYTES, &[], cached as f64);
            self.gauge(&names::WRITE_BUFFER_BYTES, &[], write_buffers as f64);
        }
    }

    fn of_buffers(&mut self, shared: &Shared) {
        let mut buffered: BTreeMap<TaskId, usize> = BTreeMap::new();
        for flow in shared.routes().flows.values() {
            *buffered.entry(flow.task).or_default() += flow.queued.load(Ordering::Relaxed);
        }
        for (task, records) in buffered {
            self.gauge(&names::BUFFERED, &[task.to_string().into()], records as f64);
        }
    }

    fn of_thread(&mut self, index: usize, line: &mut ThreadLine) {
        let thread = SharedString::from(index.to_string());
        for (result, commits) in COMMIT_RESULTS.into_iter().zip(line.commits) {
            self.counter(&names::COMMITS, &[thread.clone(), result.into()], commits);
        }
        self.observe(&names::COMMIT_SECONDS, std::slice::from_ref(&thread), line.commit_seconds.take());
        let before = self.busy.insert(index, line.busy).unwrap_or_default();
        if !line.has_ended {
            let passed = self.looked.elapsed().as_secs_f64();
            let busy = line.busy.saturating_sub(before).as_secs_f64();
            let ratio = if passed > 0.0 { (busy / passed).min(1.0) } else { 0.0 };
            self.gauge(&names::BUSY_RATIO, &[thread], ratio);
        }
    }

    fn of_task(&mut self, id: TaskId, line: &mut TaskLine, engines: &OfEngines) {
        let task = SharedString::from(id.to_string());
        let counts = line.counts();
        self.counter(&names::PROCESSED, std::slice::from_ref(&task), counts.processed);
        for (reason, records) in reasons(counts.dropped) {
            // Most never happen: they are there from their first record on.
            if records > 0 {
                self.counter(&names::DROPPED, &[task.clone(), reason.into()], records);
            }
        }
        self.observe(&names::PROCESS_SECONDS, std::slice::from_ref(&task), line.seconds.take());
        self.observe(&names::RECORD_AGE_SECONDS, std::slice::from_ref(&task), line.ages.take());
        for store in &line.stores {
            let place = [task.clone(), SharedString::from(Arc::clone(&store.name))];
            let cache = store.cache();
            for (metric, total) in [
                (&names::RESTORED, store.restored),
                (&names::RESTORED_BYTES, store.restored_bytes),
                (&names::CACHE_HITS, cache.hits),
                (&names::CACHE_MISSES, cache.misses),
                (&names::CACHE_EVICTIONS, cache.evictions),
            ] {
                self.counter(metric, &place, total);
            }
            if line.thread.is_none() {
                continue;
            }
            self.gauge(&names::RESTORE_LEFT, &place, store.left() as f64);
            self.gauge(&names::STORE_CACHE_BYTES, &place, cache.held_bytes as f64);
            let Some(engine) = engines.get(&(id, Arc::clone(&store.name))) else { continue };
            if let Some(rows) = engine.rows {
                self.gauge(&names::STORE_ROWS, &place, rows as f64);
            }
            self.gauge(&names::STORE_DISK_BYTES, &place, engine.disk_bytes as f64);
            self.gauge(&names::STORE_MEMTABLE_BYTES, &place, engine.memtable_bytes as f64);
        }
    }
}

/// What became of a record; `None` for what is no failure.
fn outcome(happened: Happened) -> Option<&'static str> {
    match happened {
        Happened::Unreadable => Some("unreadable"),
        Happened::Skipped => Some("skipped"),
        Happened::DeadLetter => Some("dead_letter"),
        Happened::Punctuated => None,
    }
}

fn reasons(dropped: Dropped) -> [(&'static str, u64); 7] {
    let Dropped { null_key, null_value, late, negative_timestamp, unreadable, failed, dead_lettered } =
        dropped;
    [
        ("null_key", null_key),
        ("null_value", null_value),
        ("late", late),
        ("negative_timestamp", negative_timestamp),
        ("unreadable", unreadable),
        ("failed", failed),
        ("dead_lettered", dead_lettered),
    ]
}
