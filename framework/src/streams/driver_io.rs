//! What a test of a topology writes and reads: topics and stores of the driver.
#![allow(clippy::panic)] // A test tool fails the test.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use klamm_client::Headers;

use super::driver::Core;
use super::error::TaskError;
use super::incoming::Incoming;
use super::node::TopicId;
use super::options::Serdes;
use super::query::StoreReader;
use super::windows::{Window, Windowed};
use crate::serde::Serde;
use crate::store::StateStore;

/// A topic that a test writes to.
pub struct TestInput<K, V> {
    pub(super) core: Rc<RefCell<Core>>,
    pub(super) topic: String,
    pub(super) id: TopicId,
    pub(super) serdes: Serdes<K, V>,
}

impl<K: 'static, V: 'static> TestInput<K, V> {
    /// A record: processed by [`Piped::at`], or when this is dropped, at the latest time so far.
    pub fn pipe(&self, key: impl Into<K>, value: impl Into<V>) -> Piped {
        self.record(Some(key.into()), Some(value.into()))
    }

    /// A record without a key.
    pub fn pipe_keyless(&self, value: impl Into<V>) -> Piped {
        self.record(None, Some(value.into()))
    }

    /// A record without a value: a tombstone.
    pub fn pipe_tombstone(&self, key: impl Into<K>) -> Piped {
        self.record(Some(key.into()), None)
    }

    /// A record whose key and value may be null.
    pub fn pipe_nullable(&self, key: Option<K>, value: Option<V>) -> Piped {
        self.record(key, value)
    }

    fn record(&self, key: Option<K>, value: Option<V>) -> Piped {
        let key = key.and_then(|key| bytes_of(&*self.serdes.key, &self.topic, &key));
        let value = value.and_then(|value| bytes_of(&*self.serdes.value, &self.topic, &value));
        let timestamp_ms = self.core.borrow().now_ms;
        let record = Incoming { offset: 0, timestamp_ms, key, value, headers: Headers::new() };
        Piped { core: Rc::clone(&self.core), topic: self.id, record: Some(record) }
    }
}

fn bytes_of<T: 'static>(serde: &dyn Serde<T>, topic: &str, value: &T) -> Option<Bytes> {
    if serde.is_null(value) {
        return None;
    }
    Some(serde.serialize(topic, value).unwrap_or_else(|error| panic!("{error}")))
}

impl<K, V> fmt::Debug for TestInput<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestInput").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// A record on its way into the driver; processed when this is dropped, unless a method did it before.
pub struct Piped {
    core: Rc<RefCell<Core>>,
    topic: TopicId,
    record: Option<Incoming>,
}

impl Piped {
    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Bytes>) -> Self {
        if let Some(record) = &mut self.record {
            record.headers.push(name, Some(value.into()));
        }
        self
    }

    /// Processes the record at this time, in milliseconds since the Unix epoch.
    pub fn at(self, timestamp_ms: i64) {
        self.try_at(timestamp_ms).unwrap_or_else(|error| panic!("{error}"));
    }

    /// [`at`](Self::at) for tests of failures.
    ///
    /// # Errors
    /// What stops a task of an application too.
    pub fn try_at(mut self, timestamp_ms: i64) -> Result<(), TaskError> {
        let Some(record) = self.record.take() else { return Ok(()) };
        self.core.borrow_mut().pipe(self.topic, Incoming { timestamp_ms, ..record })
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let Some(record) = self.record.take() else { return };
        if std::thread::panicking() {
            return;
        }
        let piped = self.core.borrow_mut().pipe(self.topic, record);
        piped.unwrap_or_else(|error| panic!("{error}"));
    }
}

impl fmt::Debug for Piped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piped").field("record", &self.record).finish_non_exhaustive()
    }
}

/// A record that the topology wrote. Equal to `(key, value)` and to `(key, value, timestamp)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestRecord<K, V> {
    /// The key.
    pub key: K,
    /// The value.
    pub value: V,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The headers.
    pub headers: Headers,
}

impl<K: PartialEq<A>, V: PartialEq<B>, A, B> PartialEq<(A, B)> for TestRecord<K, V> {
    fn eq(&self, (key, value): &(A, B)) -> bool {
        self.key == *key && self.value == *value
    }
}

impl<K: PartialEq<A>, V: PartialEq<B>, A, B> PartialEq<(A, B, i64)> for TestRecord<K, V> {
    fn eq(&self, (key, value, timestamp_ms): &(A, B, i64)) -> bool {
        self.key == *key && self.value == *value && self.timestamp_ms == *timestamp_ms
    }
}

/// A topic that a test reads.
pub struct TestOutput<K, V> {
    pub(super) core: Rc<RefCell<Core>>,
    pub(super) topic: String,
    pub(super) serdes: Serdes<K, V>,
}

impl<K: 'static, V: 'static> TestOutput<K, V> {
    /// The next record, if there is one.
    pub fn read(&self) -> Option<TestRecord<K, V>> {
        let output = self.core.borrow_mut().written.get_mut(&self.topic)?.pop_front()?;
        Some(TestRecord {
            key: self.part("key", &*self.serdes.key, output.key.as_ref()),
            value: self.part("value", &*self.serdes.value, output.value.as_ref()),
            timestamp_ms: output.timestamp_ms,
            headers: output.headers,
        })
    }

    /// All records since the last read.
    pub fn read_all(&self) -> Vec<TestRecord<K, V>> {
        std::iter::from_fn(|| self.read()).collect()
    }

    fn part<T: 'static>(&self, part: &str, serde: &dyn Serde<T>, bytes: Option<&Bytes>) -> T {
        let read = match bytes {
            Some(bytes) => serde.deserialize(&self.topic, bytes).map_err(|error| error.to_string()),
            None => serde.null().ok_or_else(|| "it is null; type it as `Option`".to_owned()),
        };
        read.unwrap_or_else(|error| {
            panic!("the {part} of a record of `{}` cannot be read: {error}", self.topic)
        })
    }
}

impl<K, V> fmt::Debug for TestOutput<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestOutput").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// A state store of the driver.
pub struct TestStore<K, V> {
    pub(super) reader: StoreReader<K, V>,
    pub(super) engine: Arc<dyn StateStore>,
}

impl<K: 'static, V: 'static> TestStore<K, V> {
    /// The value of a key.
    pub fn get(&self, key: impl Into<K>) -> Option<V> {
        self.reader.get(&self.engine, &key.into()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// What a key was at `at_ms`, of a store that keeps versions.
    pub fn get_as_of(&self, key: impl Into<K>, at_ms: i64) -> Option<V> {
        self.reader.get_as_of(&self.engine, &key.into(), at_ms).unwrap_or_else(|error| panic!("{error}"))
    }

    /// All entries, in the order of their keys' bytes.
    pub fn all(&self) -> Vec<(K, V)> {
        self.reader.all(&self.engine).unwrap_or_else(|error| panic!("{error}"))
    }
}

impl<K: 'static, V: 'static> TestStore<Windowed<K>, V> {
    /// The windows of a key that start between `from_ms` and `to_ms`, both included.
    pub fn fetch(&self, key: impl Into<K>, from_ms: i64, to_ms: i64) -> Vec<(Window, V)> {
        let fetched = self.reader.fetch(&self.engine, key.into(), from_ms, to_ms);
        fetched.unwrap_or_else(|error| panic!("{error}"))
    }
}

impl<K, V> fmt::Debug for TestStore<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestStore").field("engine", &self.engine).finish_non_exhaustive()
    }
}
