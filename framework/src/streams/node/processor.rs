//! The step that runs a user's processor.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::Headers;

use super::connected::{Connected, ConnectedRows, OpenStores, StoreHandle};
use super::context::Happened;
use super::record_context::negative;
use super::wiring::{Flush, Punctuates, remembering_node};
use super::{Boundary, Children, Context, NodeFactory, Processor, Record};
use crate::store::StoreError;
use crate::streams::error::TaskError;
use crate::streams::processor::{
    InRecord, Processor as UserProcessor, Punctuation, PunctuationType, PunctuatorId, next_due_ms,
};
use crate::streams::store_refs::StoreName;
use crate::streams::topology::GlobalTable;

/// A user's processor in a task.
pub(crate) struct ProcessorStep<K, V, P: UserProcessor<K, V>>(Rc<RefCell<Inner<K, V, P>>>);

struct Inner<K, V, P: UserProcessor<K, V>> {
    processor: P,
    parts: Parts<P::Key, P::Value>,
    types: PhantomData<fn(K, V)>,
}

/// What a processor reaches through its context.
struct Parts<K2, V2> {
    boundary: Boundary,
    stores: BTreeMap<Arc<str>, Connected>,
    globals: BTreeMap<String, GlobalTable>,
    schedules: Vec<Schedule>,
    next_id: u64,
    children: Children<K2, V2>,
    /// Those of them that have a name.
    named: BTreeMap<String, Children<K2, V2>>,
}

struct Schedule {
    id: PunctuatorId,
    kind: PunctuationType,
    interval: Duration,
    due_ms: i64,
}

impl<K: 'static, V: 'static, P: UserProcessor<K, V>> ProcessorStep<K, V, P> {
    pub(crate) fn factory(
        make: impl Fn() -> P + Send + Sync + 'static,
        stores: Vec<StoreName>,
    ) -> NodeFactory {
        remembering_node::<K, V, _>(move |wiring, id| {
            let children = wiring.children(id)?;
            let named = wiring.named_children(id)?;
            let named = named.into_iter().map(|(name, children)| (name.to_owned(), children)).collect();
            let mut connected = BTreeMap::new();
            for StoreName(name) in &stores {
                connected.insert(Arc::clone(name), Connected::wire(wiring, name)?);
            }
            let (boundary, globals) = (wiring.boundary(id), wiring.globals().clone());
            let (schedules, next_id) = (Vec::new(), 0);
            let parts = Parts { boundary, stores: connected, globals, schedules, next_id, children, named };
            let inner = Rc::new(RefCell::new(Inner { processor: make(), parts, types: PhantomData }));
            wiring.punctuates(Rc::clone(&inner) as Rc<RefCell<dyn Punctuates>>);
            wiring.flush_at_commit(Rc::clone(&inner) as Rc<RefCell<dyn Flush>>);
            Ok(Self(inner))
        })
    }
}

impl<K: 'static, V: 'static, P: UserProcessor<K, V>> Processor<K, V> for ProcessorStep<K, V, P> {
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        let inner = &mut *self.0.borrow_mut();
        let Record { key, value, timestamp_ms } = record;
        let mut seen = ProcessorContext { context, parts: &mut inner.parts, timestamp_ms };
        let done = inner.processor.process(&mut seen, InRecord { key, value, timestamp_ms });
        done.map_err(TaskError::of_a_processor)
    }
}

impl<K: 'static, V: 'static, P: UserProcessor<K, V>> Inner<K, V, P> {
    fn punctuate(
        &mut self,
        context: &mut Context,
        kind: PunctuationType,
        now_ms: i64,
    ) -> Result<(), TaskError> {
        let mut due = Vec::new();
        for schedule in &mut self.parts.schedules {
            if schedule.kind == kind && schedule.due_ms <= now_ms {
                schedule.due_ms = next_due_ms(schedule.due_ms, schedule.interval, now_ms);
                due.push(schedule.id);
            }
        }
        for id in due {
            // One may have been cancelled by the one before.
            if !self.parts.schedules.iter().any(|schedule| schedule.id == id) {
                continue;
            }
            // It belongs to no record.
            context.headers = Headers::new();
            context.place = None;
            context.punctuated = true;
            context.happened(self.parts.boundary.index, Happened::Punctuated);
            let Self { processor, parts, .. } = self;
            let boundary = parts.boundary.clone();
            let punctuation = Punctuation { id, kind, timestamp_ms: now_ms };
            boundary.call(context, |context| {
                let mut seen = ProcessorContext { context, parts, timestamp_ms: now_ms };
                processor.punctuate(&mut seen, punctuation)
            })?;
        }
        Ok(())
    }
}

impl<K: 'static, V: 'static, P: UserProcessor<K, V>> Punctuates for Inner<K, V, P> {
    fn init(&mut self, context: &mut Context) -> Result<(), TaskError> {
        let timestamp_ms = context.now_ms;
        let Self { processor, parts, .. } = self;
        let boundary = parts.boundary.clone();
        let begin = |context: &mut Context| {
            let mut seen = ProcessorContext { context, parts, timestamp_ms };
            processor.init(&mut seen)
        };
        boundary.call(context, begin).map(drop)
    }

    fn on_stream_time(&mut self, context: &mut Context) -> Result<(), TaskError> {
        let now_ms = context.stream_time_ms;
        if now_ms < 0 {
            return Ok(());
        }
        self.punctuate(context, PunctuationType::StreamTime, now_ms)
    }

    fn on_wall_clock(&mut self, context: &mut Context) -> Result<(), TaskError> {
        let now_ms = context.now_ms;
        self.punctuate(context, PunctuationType::WallClock, now_ms)
    }

    fn next_wall_clock_ms(&self) -> Option<i64> {
        let wall_clock = |schedule: &&Schedule| schedule.kind == PunctuationType::WallClock;
        self.parts.schedules.iter().filter(wall_clock).map(|schedule| schedule.due_ms).min()
    }

    fn close(&mut self) {
        self.processor.close();
    }
}

impl<K: 'static, V: 'static, P: UserProcessor<K, V>> Flush for Inner<K, V, P> {
    fn flush(&mut self, context: &mut Context) -> Result<(), TaskError> {
        for connected in self.parts.stores.values() {
            // Nobody hears of changes but the changelog.
            if let ConnectedRows::Ordered(store, _) = &connected.rows {
                store.borrow_mut().release(context);
            }
        }
        Ok(())
    }
}

/// What a [`Processor`](crate::streams::Processor) can do: forward, use its stores, ask the time, schedule.
pub struct ProcessorContext<'a, K2, V2> {
    context: &'a mut Context,
    parts: &'a mut Parts<K2, V2>,
    timestamp_ms: i64,
}

impl<K2, V2> std::fmt::Debug for ProcessorContext<'_, K2, V2> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessorContext")
            .field("operator", &self.parts.boundary.operator)
            .field("timestamp_ms", &self.timestamp_ms)
            .finish_non_exhaustive()
    }
}

impl<K2: 'static, V2: 'static> ProcessorContext<'_, K2, V2> {
    /// Hands a record to all that follows, at the time of the record in work or of the punctuation. All that comes of
    /// it is done when this returns.
    ///
    /// # Errors
    /// What follows failed: hand the error on.
    pub fn forward(&mut self, key: &K2, value: &V2) -> Result<(), TaskError> {
        self.forward_at(key, value, self.timestamp_ms)
    }

    /// [`forward`](Self::forward) at another time, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// As [`forward`](Self::forward); or the time is negative.
    pub fn forward_at(&mut self, key: &K2, value: &V2, timestamp_ms: i64) -> Result<(), TaskError> {
        if timestamp_ms < 0 {
            return Err(TaskError::User(negative(timestamp_ms)));
        }
        self.parts.children.forward(self.context, Record { key, value, timestamp_ms })
    }

    /// Hands a record to one child: the one that was made with [`KStream::child`](crate::streams::KStream::child) under
    /// this name, one of those that [`children`](crate::streams::Processor::children) gives. Otherwise as
    /// [`forward`](Self::forward).
    ///
    /// # Errors
    /// As [`forward`](Self::forward); or there is no such child.
    pub fn forward_to(&mut self, child: &str, key: &K2, value: &V2) -> Result<(), TaskError> {
        self.forward_to_at(child, key, value, self.timestamp_ms)
    }

    /// [`forward_to`](Self::forward_to) at another time, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// As [`forward_to`](Self::forward_to); or the time is negative.
    pub fn forward_to_at(
        &mut self,
        child: &str,
        key: &K2,
        value: &V2,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        if timestamp_ms < 0 {
            return Err(TaskError::User(negative(timestamp_ms)));
        }
        let Some(children) = self.parts.named.get(child) else {
            let why = format!("it forwards to `{child}`, which `Processor::children` does not name");
            return Err(TaskError::User(why.into()));
        };
        children.forward(self.context, Record { key, value, timestamp_ms })
    }

    /// A store that the processor named in [`stores`](crate::streams::Processor::stores), or a global table, which need
    /// not be named.
    ///
    /// # Errors
    /// It did not name it.
    pub fn store<S: StoreHandle>(&mut self, store: &S) -> Result<S::Store<'_>, StoreError> {
        store.open(OpenStores {
            context: self.context,
            connected: &self.parts.stores,
            globals: &self.parts.globals,
            operator: &self.parts.boundary.operator,
            timestamp_ms: self.timestamp_ms,
        })
    }

    /// Calls [`punctuate`](crate::streams::Processor::punctuate) every `interval`, as `kind` says.
    pub fn schedule(&mut self, interval: Duration, kind: PunctuationType) -> PunctuatorId {
        let due_ms = match kind {
            // With the first record.
            PunctuationType::StreamTime => 0,
            PunctuationType::WallClock => next_due_ms(self.context.now_ms, interval, self.context.now_ms),
        };
        self.schedule_at(due_ms, interval, kind)
    }

    /// [`schedule`](Self::schedule) with slots counted from `start_ms`, in milliseconds since the Unix epoch: with an
    /// hour and 0, at every full hour (KIP-1146). A start in the past is the next of its slots.
    pub fn schedule_from(
        &mut self,
        start_ms: i64,
        interval: Duration,
        kind: PunctuationType,
    ) -> PunctuatorId {
        let now_ms = match kind {
            PunctuationType::StreamTime => self.context.stream_time_ms,
            PunctuationType::WallClock => self.context.now_ms,
        };
        let due_ms = if start_ms > now_ms { start_ms } else { next_due_ms(start_ms, interval, now_ms) };
        self.schedule_at(due_ms, interval, kind)
    }

    fn schedule_at(&mut self, due_ms: i64, interval: Duration, kind: PunctuationType) -> PunctuatorId {
        let id = PunctuatorId(self.parts.next_id);
        self.parts.next_id += 1;
        self.parts.schedules.push(Schedule { id, kind, interval, due_ms });
        id
    }

    /// Ends a schedule.
    pub fn cancel(&mut self, id: PunctuatorId) {
        self.parts.schedules.retain(|schedule| schedule.id != id);
    }

    /// The largest timestamp that the task has seen, in milliseconds since the Unix epoch; -1 before the first record.
    pub fn stream_time_ms(&self) -> i64 {
        self.context.stream_time_ms
    }

    /// The machine's clock, in milliseconds since the Unix epoch, as it was when the task's turn began; in the test
    /// driver the driver's.
    pub fn wall_clock_ms(&self) -> i64 {
        self.context.now_ms
    }

    /// The headers of the record in work, which follow what is forwarded; none in a punctuation.
    pub fn headers(&self) -> &Headers {
        &self.context.headers
    }

    /// Sets the headers of what is forwarded from now on for this record.
    pub fn set_headers(&mut self, headers: Headers) {
        self.context.headers = headers;
    }

    /// Asks for a commit soon, in place of at the end of the interval.
    pub fn request_commit(&mut self) {
        self.context.commit_requested = true;
    }
}
