//! Windows of time, and keys that carry one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use crate::serde::{DefaultSerde, Serde, SerdeError};
use crate::store::WindowLayout;

/// Windows of fixed size that follow each other without gap or overlap, aligned to the Unix epoch.
///
/// A window takes records until stream time, the largest timestamp seen, is `grace` past its end. Grace is zero unless
/// stated: records that come after the window's end are then late and dropped (see
/// [`Dropped::late`](crate::streams::Dropped)).
///
/// ```
/// use std::time::Duration;
/// use klamm::streams::TumblingWindows;
///
/// let windows = TumblingWindows::of(Duration::from_secs(60)).grace(Duration::from_secs(5));
/// assert_eq!(windows.size(), Duration::from_secs(60));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TumblingWindows {
    size: Duration,
    grace: Duration,
}

impl TumblingWindows {
    /// Windows of `size`, in whole milliseconds.
    pub fn of(size: Duration) -> Self {
        Self { size, grace: Duration::ZERO }
    }

    /// Takes out-of-order records until stream time is this much past a window's end.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// How long a window lasts.
    pub fn size(&self) -> Duration {
        self.size
    }

    pub(crate) fn size_ms(&self) -> i64 {
        millis(self.size)
    }

    pub(crate) fn grace_ms(&self) -> i64 {
        millis(self.grace)
    }

    /// How long a window changes, from its start.
    pub(crate) fn lifetime(&self) -> Duration {
        self.size.saturating_add(self.grace)
    }

    pub(crate) fn window_of(&self, timestamp_ms: i64) -> Window {
        let size_ms = self.size_ms().max(1);
        let start_ms = timestamp_ms - timestamp_ms.rem_euclid(size_ms);
        Window { start_ms, end_ms: start_ms.saturating_add(size_ms) }
    }
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A window: from its start, included, to its end, excluded. Milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window {
    /// The first millisecond.
    pub start_ms: i64,
    /// The first millisecond after it.
    pub end_ms: i64,
}

/// A key and the window that its value is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Windowed<K> {
    /// The key.
    pub key: K,
    /// The window.
    pub window: Window,
}

/// Writes windowed keys to topics as Kafka's `TimeWindowedSerde` does: the key and the window's start, 8 bytes
/// big-endian. The partition is chosen by the key alone, so that all windows of a key stay together.
///
/// The end is not written. To read such keys, say how long the windows are with [`WindowedSerde::of`]; the default
/// serde of `Windowed<K>` does not know and only writes.
#[derive(Debug, Clone, Copy, Default)]
pub struct WindowedSerde<S> {
    inner: S,
    size: Option<Duration>,
}

const START_BYTES: usize = 8;

const NO_SIZE: &str =
    "a windowed key is written without its window's end; name the windows' size with `WindowedSerde::of`";

impl<S> WindowedSerde<S> {
    /// Keys of `inner`, in windows of `size`.
    pub fn of(inner: S, size: Duration) -> Self {
        Self { inner, size: Some(size) }
    }
}

impl<K: 'static, S: Serde<K>> Serde<Windowed<K>> for WindowedSerde<S> {
    fn serialize(&self, topic: &str, value: &Windowed<K>) -> Result<Bytes, SerdeError> {
        let key = self.inner.serialize(topic, &value.key)?;
        let mut bytes = BytesMut::with_capacity(key.len() + START_BYTES);
        bytes.put_slice(&key);
        bytes.put_i64(value.window.start_ms);
        Ok(bytes.freeze())
    }

    fn deserialize(&self, topic: &str, bytes: &Bytes) -> Result<Windowed<K>, SerdeError> {
        let error = |reason: &'static str| {
            SerdeError::deserialize::<Windowed<K>>("windowed key", bytes.len(), reason)
        };
        let size = self.size.ok_or_else(|| error(NO_SIZE))?;
        let (key, start) =
            bytes.split_last_chunk::<START_BYTES>().ok_or_else(|| error("there is no window start"))?;
        let start_ms = i64::from_be_bytes(*start);
        let window = Window { start_ms, end_ms: start_ms.saturating_add(millis(size)) };
        Ok(Windowed { key: self.inner.deserialize(topic, &bytes.slice(..key.len()))?, window })
    }

    fn write_only(&self) -> Option<&'static str> {
        match self.size {
            None => Some(NO_SIZE),
            Some(_) => self.inner.write_only(),
        }
    }

    fn partition_bytes(&self, serialized: &[u8]) -> usize {
        serialized.len().saturating_sub(START_BYTES)
    }
}

impl<K: DefaultSerde> DefaultSerde for Windowed<K> {
    type Serde = WindowedSerde<K::Serde>;
}

/// Writes windowed keys as a window store's changelog has them.
pub(crate) struct WindowStoreKeySerde<K> {
    pub(crate) inner: Arc<dyn Serde<K>>,
    pub(crate) size_ms: i64,
}

impl<K> fmt::Debug for WindowStoreKeySerde<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WindowStoreKeySerde")
            .field("inner", &self.inner)
            .field("size_ms", &self.size_ms)
            .finish()
    }
}

impl<K: 'static> Serde<Windowed<K>> for WindowStoreKeySerde<K> {
    fn serialize(&self, topic: &str, value: &Windowed<K>) -> Result<Bytes, SerdeError> {
        Ok(WindowLayout::changelog_key(&self.inner.serialize(topic, &value.key)?, value.window.start_ms))
    }

    fn deserialize(&self, topic: &str, bytes: &Bytes) -> Result<Windowed<K>, SerdeError> {
        let (key, start_ms) = WindowLayout::split_changelog_key(bytes).ok_or_else(|| {
            SerdeError::deserialize::<Windowed<K>>(
                "window store key",
                bytes.len(),
                "there is no window start",
            )
        })?;
        let window = Window { start_ms, end_ms: start_ms.saturating_add(self.size_ms) };
        Ok(Windowed { key: self.inner.deserialize(topic, &key)?, window })
    }

    fn is_null(&self, value: &Windowed<K>) -> bool {
        self.inner.is_null(&value.key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::serde::{NullableSerde, StringSerde};

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn windows_are_aligned_to_the_epoch() {
        let windows = TumblingWindows::of(ms(10));
        assert_eq!(windows.window_of(0), Window { start_ms: 0, end_ms: 10 });
        assert_eq!(windows.window_of(9), Window { start_ms: 0, end_ms: 10 });
        assert_eq!(windows.window_of(10), Window { start_ms: 10, end_ms: 20 });
        assert_eq!(windows.window_of(-1), Window { start_ms: -10, end_ms: 0 });
    }

    proptest! {
        #[test]
        fn a_time_lies_in_exactly_one_window(timestamp_ms in 0..i64::MAX, size_ms in 1..u64::MAX) {
            let windows = TumblingWindows::of(ms(size_ms));
            let window = windows.window_of(timestamp_ms);
            prop_assert!(window.start_ms <= timestamp_ms && timestamp_ms < window.end_ms);
            prop_assert_eq!(window.start_ms % windows.size_ms(), 0);
            let size_ms = i64::try_from(size_ms).unwrap_or(i64::MAX);
            prop_assert_eq!(window.end_ms, window.start_ms.saturating_add(size_ms), "the last one may be cut short");
        }
    }

    #[test]
    fn size_and_grace_are_whole_milliseconds() {
        let windows = TumblingWindows::of(Duration::from_micros(10_999)).grace(ms(5));
        assert_eq!(
            (windows.size(), windows.size_ms(), windows.grace_ms()),
            (Duration::from_micros(10_999), 10, 5)
        );
        assert_eq!(windows.lifetime(), Duration::from_micros(15_999));
        assert_eq!(TumblingWindows::of(ms(10)).grace_ms(), 0, "none unless stated");
        let forever = TumblingWindows::of(Duration::MAX).grace(Duration::MAX);
        assert_eq!(
            (forever.size_ms(), forever.grace_ms(), forever.lifetime()),
            (i64::MAX, i64::MAX, Duration::MAX)
        );
        assert_eq!(forever.window_of(7), Window { start_ms: 0, end_ms: i64::MAX });
    }

    fn ab(start_ms: i64) -> Windowed<String> {
        Windowed { key: "ab".to_owned(), window: Window { start_ms, end_ms: start_ms + 10 } }
    }

    #[test]
    fn a_windowed_key_is_the_key_and_the_start() {
        let serde = WindowedSerde::of(StringSerde, ms(10));
        let bytes = serde.serialize("t", &ab(258)).unwrap();
        assert_eq!(&bytes[..], b"ab\0\0\0\0\0\0\x01\x02");
        assert_eq!(Serde::<Windowed<String>>::partition_bytes(&serde, &bytes), 2);
        assert_eq!(serde.deserialize("t", &bytes).unwrap(), ab(258));
        assert!(Serde::<Windowed<String>>::deserialize(&serde, "t", &bytes.slice(..7)).is_err());
        let unsized_windows = WindowedSerde::<StringSerde>::default();
        assert!(Serde::<Windowed<String>>::deserialize(&unsized_windows, "t", &bytes).is_err());
    }

    #[test]
    fn a_window_store_writes_key_start_and_a_number_that_is_always_0() {
        let serde = WindowStoreKeySerde { inner: Arc::new(StringSerde), size_ms: 10 };
        let bytes = serde.serialize("t", &ab(258)).unwrap();
        assert_eq!(&bytes[..], b"ab\0\0\0\0\0\0\x01\x02\0\0\0\0");
        assert_eq!(serde.deserialize("t", &bytes).unwrap(), ab(258));
        assert!(serde.deserialize("t", &bytes.slice(..11)).is_err());
        assert!(!serde.is_null(&ab(0)));
        assert_eq!(format!("{serde:?}"), "WindowStoreKeySerde { inner: StringSerde, size_ms: 10 }");

        let nullable = WindowStoreKeySerde { inner: Arc::new(NullableSerde(StringSerde)), size_ms: 10 };
        let window = Window { start_ms: 0, end_ms: 10 };
        assert!(nullable.is_null(&Windowed { key: None::<String>, window }));
        assert!(!nullable.is_null(&Windowed { key: Some(String::new()), window }));
    }
}
