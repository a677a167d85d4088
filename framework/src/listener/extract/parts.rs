//! Extractors of a record's parts: key, value, headers, where it is.

use std::any::TypeId;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::Bytes;
use klamm_client::{ConsumerRecord, Headers, TimestampType};

use super::lookup::{needs_of, serde_of};
use super::{Delivery, FromRecord, Needs, Rejection};
use crate::serde::{DefaultSerde, Serde, kind_of};
use crate::trace::TraceContext;

/// The key, as its type says it is written: `Key<String>`, `Key<i64>`, `Key<CustomerId>`.
/// `Option<Key<K>>` where it may be missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key<K>(pub K);

/// The value, as its type says it is written: `Value<String>`, `Value<Order>` with `#[derive(Record)]`.
/// `Option<Value<T>>` where there may be tombstones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value<T>(pub T);

macro_rules! transparent {
    ($($wrapper:ident),*) => {$(
        impl<T> Deref for $wrapper<T> {
            type Target = T;

            fn deref(&self) -> &T {
                &self.0
            }
        }

        impl<T> DerefMut for $wrapper<T> {
            fn deref_mut(&mut self) -> &mut T {
                &mut self.0
            }
        }
    )*};
}

transparent!(Key, Value);

impl<K: DefaultSerde> FromRecord for Key<K> {
    type Rejection = Rejection;

    fn from_record(delivery: &Delivery<'_>) -> Result<Self, Rejection> {
        let (record, serde) = (delivery.record, serde_of::<K>(delivery));
        match &record.key {
            Some(bytes) => serde
                .deserialize_record(delivery.source_topic(), &record.headers, bytes)
                .map(Self)
                .map_err(Rejection::Key),
            None => serde.null().map(Self).ok_or(Rejection::NoKey),
        }
    }

    fn needs(needs: &mut Needs) {
        needs_of::<K>(needs);
        K::payloads().into_iter().for_each(|payload| needs.key(payload));
    }
}

impl<T: DefaultSerde> FromRecord for Value<T> {
    type Rejection = Rejection;

    fn from_record(delivery: &Delivery<'_>) -> Result<Self, Rejection> {
        let (record, serde) = (delivery.record, serde_of::<T>(delivery));
        match &record.value {
            Some(bytes) => serde
                .deserialize_record(delivery.source_topic(), &record.headers, bytes)
                .map(Self)
                .map_err(Rejection::Value),
            None => serde.null().map(Self).ok_or(Rejection::NoValue),
        }
    }

    fn needs(needs: &mut Needs) {
        needs_of::<T>(needs);
        T::payloads().into_iter().for_each(|payload| needs.value(payload));
    }
}

#[cfg(feature = "json")]
impl<T: ::serde::de::DeserializeOwned + Send + 'static> FromRecord for crate::serde::Json<T> {
    type Rejection = Rejection;

    fn from_record(delivery: &Delivery<'_>) -> Result<Self, Rejection> {
        let bytes = delivery.record.value.as_ref().ok_or(Rejection::NoValue)?;
        crate::serde::from_json(bytes).map(Self).map_err(Rejection::Value)
    }

    fn needs(needs: &mut Needs) {
        needs.value(crate::serde::Payload::of::<T>(Some("application/json")));
    }
}

impl FromRecord for Headers {
    type Rejection = Rejection;

    fn from_record(delivery: &Delivery<'_>) -> Result<Self, Rejection> {
        Ok(delivery.record.headers.clone())
    }
}

/// What the record came with. Of a batch, [`TraceContext::of`] says it of each record.
impl FromRecord for TraceContext {
    type Rejection = Rejection;

    fn from_record(delivery: &Delivery<'_>) -> Result<Self, Rejection> {
        Ok(Self::of(&delivery.record.headers))
    }
}

impl FromRecord for ConsumerRecord {
    type Rejection = Rejection;

    fn from_record(delivery: &Delivery<'_>) -> Result<Self, Rejection> {
        Ok(delivery.record.clone())
    }
}

/// The last header of one name, decoded as its type says it is written.
///
/// Under `#[kafka_listener]` the name is written in place: `Header<"trace-id", String>`, and taken apart as
/// `Header(trace)`. Without the macro a type stands for the name:
///
/// ```
/// use klamm::listener::{Header, HeaderName};
///
/// struct TraceId;
/// impl HeaderName for TraceId {
///     const NAME: &'static str = "trace-id";
/// }
///
/// async fn handle(Header(trace, ..): Header<TraceId, String>) {
///     println!("{trace}");
/// }
/// # let _ = handle;
/// ```
pub struct Header<N, T>(pub T, #[doc(hidden)] pub PhantomData<fn() -> N>);

/// The name of a header, as a type.
pub trait HeaderName: 'static {
    /// The name.
    const NAME: &'static str;
}

impl<N, T> Header<N, T> {
    /// A header of this value, for calling a handler directly.
    pub fn new(value: T) -> Self {
        Self(value, PhantomData)
    }
}

impl<N, T> Deref for Header<N, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<N: HeaderName, T: fmt::Debug> fmt::Debug for Header<N, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Header").field(&N::NAME).field(&self.0).finish()
    }
}

impl<N: HeaderName, T: DefaultSerde> FromRecord for Header<N, T> {
    type Rejection = Rejection;

    fn from_record(delivery: &Delivery<'_>) -> Result<Self, Rejection> {
        let name = N::NAME;
        let record = delivery.record;
        let bytes = record.headers.last(name).flatten().ok_or(Rejection::NoHeader { name })?;
        serde_of::<T>(delivery)
            .deserialize(delivery.source_topic(), &Bytes::copy_from_slice(bytes))
            .map(Self::new)
            .map_err(|source| Rejection::Header { name, source })
    }

    fn needs(needs: &mut Needs) {
        needs_of::<T>(needs);
        needs.header(N::NAME, kind_of(TypeId::of::<T>()).unwrap_or("string"), true);
    }
}

/// Where a record is and how it got here.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordMeta {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Who set the timestamp.
    pub timestamp_type: TimestampType,
    /// 1 when the record is delivered for the first time since its partition was assigned, 2 at
    /// the first retry, and so on; deliveries before it went to a retry topic count.
    pub attempt: u32,
    /// The listener's id.
    pub listener: Arc<str>,
    /// The listener's group.
    pub group: Arc<str>,
}

impl RecordMeta {
    /// First delivery of a record at this place, for calling a handler directly.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32, offset: i64) -> Self {
        Self {
            topic: topic.into(),
            partition,
            offset,
            timestamp_ms: 0,
            timestamp_type: TimestampType::CreateTime,
            attempt: 1,
            listener: "".into(),
            group: "".into(),
        }
    }
}

impl FromRecord for RecordMeta {
    type Rejection = Rejection;

    fn from_record(delivery: &Delivery<'_>) -> Result<Self, Rejection> {
        let record = delivery.record;
        Ok(Self {
            topic: Arc::clone(&record.topic),
            partition: record.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            timestamp_type: record.timestamp_type,
            attempt: delivery.attempt,
            listener: Arc::clone(&delivery.scope.id),
            group: Arc::clone(&delivery.scope.group),
        })
    }
}
