//! Tables of windows that are read in order: sessions, sliding windows, and all that is emitted when it closes.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::list_entries::ListTime;
use super::ordered_store::{Held, OrderedStore, Row};
use super::store_spec::TaskStore;
use super::wiring::{Flush, FollowsTime};
use super::{Boundary, Change, Context, StoreCodec, TableChildren, Wiring};
use crate::store::StoreError;
use crate::streams::error::TaskError;
use crate::streams::topology::NodeId;
use crate::streams::windows::Windowed;

/// When a windowed table tells of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Emit {
    /// With each change, or with the last of them before a commit.
    OnUpdate,
    /// Once, when it can change no more.
    OnClose,
}

/// A table of windows and those who hear of its changes.
pub(crate) struct WindowTable<K, A> {
    pub(super) store: Rc<RefCell<OrderedStore>>,
    codec: Arc<StoreCodec<Windowed<K>, A>>,
    children: TableChildren<Windowed<K>, A>,
    emit: Emit,
    /// How much later than the time by which it is listed a window closes.
    closes_after_ms: i64,
    boundary: Boundary,
}

/// What a window's value is to be.
pub(super) struct WindowChange<K, A> {
    key: Windowed<K>,
    key_bytes: Bytes,
    old: Option<Bytes>,
    new: Option<A>,
    written: Option<Bytes>,
    timestamp_ms: i64,
}

impl<K: 'static, A: 'static> WindowTable<K, A> {
    /// The table in store `name` with the children of `node`. What is emitted on close is listed by `time`, and closes
    /// so much later.
    pub(crate) fn wire(
        wiring: &mut Wiring<'_>,
        node: NodeId,
        name: &str,
        emit: Emit,
        (time, closes_after_ms): (ListTime, i64),
    ) -> Result<Rc<RefCell<Self>>, TaskError> {
        let children = wiring.table_children(node)?;
        let listed = (emit == Emit::OnClose).then_some(time);
        let (store, codec) = wiring.ordered_store::<Windowed<K>, A>(name, listed)?;
        let boundary = wiring.boundary(node);
        let table = Self { store, codec, children, emit, closes_after_ms, boundary };
        let table = Rc::new(RefCell::new(table));
        wiring.flush_at_commit(Rc::clone(&table) as Rc<RefCell<dyn Flush>>);
        wiring.follows_time(Rc::clone(&table) as Rc<RefCell<dyn FollowsTime>>);
        Ok(table)
    }

    /// Takes note of a time and emits what that closes; gives the largest so far.
    pub(super) fn observe(&self, context: &mut Context, at_ms: i64) -> Result<i64, TaskError> {
        let stream_time_ms = {
            let mut store = self.store.borrow_mut();
            store.forget_taken(context, |stream_time_ms| self.due_ms(stream_time_ms))?;
            store.observe(at_ms)
        };
        self.close(context, self.due_ms(stream_time_ms))?;
        // What is closed is closed, whatever becomes of the record that moved the time.
        context.so_far_so_good();
        Ok(stream_time_ms)
    }

    /// Up to where windows are closed at a stream time.
    fn due_ms(&self, stream_time_ms: i64) -> i64 {
        stream_time_ms.saturating_sub(self.closes_after_ms)
    }

    /// Whether windows are told of once, when they close.
    pub(super) fn is_final(&self) -> bool {
        self.emit == Emit::OnClose
    }

    /// The bytes of a window's key.
    pub(super) fn key_bytes(&self, context: &Context, key: &Windowed<K>) -> Result<Bytes, TaskError> {
        let topic = context.topic(self.store.borrow().topic());
        self.codec.key.serialize(topic, key).map_err(|source| TaskError::unwritable(topic, source))
    }

    pub(super) fn value(&self, context: &Context, row: &Row) -> Result<A, TaskError> {
        let store = self.store.borrow();
        let value = self.codec.value.deserialize(context.topic(store.topic()), &row.value);
        value.map_err(|source| TaskError::unreadable_row(store.name(), &row.key, source))
    }

    /// A value that has been read before, or written here.
    fn known(&self, context: &Context, bytes: &Bytes) -> Result<A, TaskError> {
        let topic = context.topic(self.store.borrow().topic());
        Ok(self.codec.value.deserialize(topic, bytes).map_err(StoreError::Serde)?)
    }

    /// What the value of a window is to be, written: nothing is changed before all that a record changes can be.
    pub(super) fn plan(
        &self,
        context: &Context,
        key: Windowed<K>,
        key_bytes: Bytes,
        old: Option<Row>,
        new: Option<A>,
        timestamp_ms: i64,
    ) -> Result<WindowChange<K, A>, TaskError> {
        let topic = context.topic(self.store.borrow().topic());
        let written = match &new {
            Some(new) if !self.codec.value.is_null(new) => {
                let written = self.codec.value.serialize(topic, new);
                Some(written.map_err(|source| TaskError::unwritable(topic, source))?)
            }
            _ => None,
        };
        let (new, old) = (new.filter(|_| written.is_some()), old.map(|row| row.value));
        Ok(WindowChange { key, key_bytes, old, new, written, timestamp_ms })
    }

    /// Sets or deletes the values of windows, and forwards each unless it waits for the commit or for its close.
    pub(super) fn carry_out(
        &self,
        context: &mut Context,
        changes: Vec<WindowChange<K, A>>,
    ) -> Result<(), TaskError> {
        for WindowChange { key, key_bytes, old, new, written, timestamp_ms } in changes {
            if context.deduplicate {
                self.store.borrow_mut().hold(context, &key_bytes, old, written, timestamp_ms);
                continue;
            }
            self.store.borrow_mut().put(context, &key_bytes, written, timestamp_ms);
            if self.emit == Emit::OnUpdate {
                self.forward(context, &key, old, &new, timestamp_ms)?;
            }
        }
        Ok(())
    }

    /// Emits what closed: everything that is listed up to this time.
    fn close(&self, context: &mut Context, until_ms: i64) -> Result<(), TaskError> {
        if self.emit == Emit::OnUpdate {
            return Ok(());
        }
        let due = self.store.borrow_mut().take_due(context, until_ms)?;
        for row in due {
            let read = |context: &Context| {
                Ok::<_, TaskError>((self.key(context, &row.key)?, self.value(context, &row)?))
            };
            match read(context) {
                Ok((key, value)) => self.forward(context, &key, None, &Some(value), row.timestamp_ms)?,
                // It is not the fault of the record that moved the time, which goes on.
                Err(unreadable) => {
                    let place = context.place.take();
                    self.boundary.judge(context, unreadable.into())?;
                    context.place = place;
                }
            }
        }
        Ok(())
    }

    fn forward(
        &self,
        context: &mut Context,
        key: &Windowed<K>,
        old: Option<Bytes>,
        new: &Option<A>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        let old = match old.filter(|_| self.children.want_old) {
            Some(old) => Some(self.known(context, &old)?),
            None => None,
        };
        self.children.update(context, key, Change { old: &old, new }, timestamp_ms)
    }

    fn key(&self, context: &Context, bytes: &Bytes) -> Result<Windowed<K>, TaskError> {
        let store = self.store.borrow();
        let key = self.codec.key.deserialize(context.topic(store.topic()), bytes);
        key.map_err(|source| TaskError::unreadable_row(store.name(), bytes, source))
    }
}

impl<K: 'static, A: 'static> FollowsTime for WindowTable<K, A> {
    fn note(&mut self, at_ms: i64) {
        self.store.borrow_mut().observe(at_ms);
    }

    fn go_on(&mut self, context: &mut Context, at_ms: i64) -> Result<(), TaskError> {
        self.observe(context, at_ms).map(drop)
    }
}

impl<K: 'static, A: 'static> Flush for WindowTable<K, A> {
    fn flush(&mut self, context: &mut Context) -> Result<(), TaskError> {
        self.boundary.blame(context, |context| self.tell(context))
    }
}

impl<K: 'static, A: 'static> WindowTable<K, A> {
    /// Tells of what was held back.
    fn tell(&self, context: &mut Context) -> Result<(), TaskError> {
        let released = self.store.borrow_mut().release(context);
        if self.emit == Emit::OnClose {
            return Ok(());
        }
        for Held { key, old, new, timestamp_ms, headers } in released {
            // It came and went between two commits: nobody heard of it.
            if old.is_none() && new.is_none() {
                continue;
            }
            let key = self.key(context, &key)?;
            let new = new.map(|new| self.known(context, &new)).transpose()?;
            context.headers = headers;
            self.forward(context, &key, old, &new, timestamp_ms)?;
        }
        Ok(())
    }
}
