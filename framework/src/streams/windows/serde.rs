//! How windowed keys are written: to topics as Kafka does, to stores as their changelogs have them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Window, Windowed, millis};
use crate::serde::{DefaultSerde, Serde, SerdeError};
use crate::store::WindowLayout;

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

/// Writes the keys of sessions to topics as Kafka's `SessionWindowedSerde` does: the key, the session's end and its
/// start, 8 bytes each, big-endian. The partition is chosen by the key alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct SessionWindowedSerde<S>(pub S);

impl<K: 'static, S: Serde<K>> Serde<Windowed<K>> for SessionWindowedSerde<S> {
    fn serialize(&self, topic: &str, value: &Windowed<K>) -> Result<Bytes, SerdeError> {
        let Window { start_ms, end_ms } = value.window;
        Ok(WindowLayout::session_key(&self.0.serialize(topic, &value.key)?, start_ms, end_ms))
    }

    fn deserialize(&self, topic: &str, bytes: &Bytes) -> Result<Windowed<K>, SerdeError> {
        let (key, window) = session_of::<K>(bytes)?;
        Ok(Windowed { key: self.0.deserialize(topic, &key)?, window })
    }

    fn partition_bytes(&self, serialized: &[u8]) -> usize {
        serialized.len().saturating_sub(2 * START_BYTES)
    }
}

fn session_of<K>(bytes: &Bytes) -> Result<(Bytes, Window), SerdeError> {
    let (key, start_ms, end_ms) = WindowLayout::split_session_key(bytes).ok_or_else(|| {
        SerdeError::deserialize::<Windowed<K>>("session key", bytes.len(), "there is no start and end")
    })?;
    Ok((key, Window { start_ms, end_ms }))
}

/// Writes the keys of sessions as their store's changelog has them.
pub(crate) struct SessionStoreKeySerde<K>(pub(crate) Arc<dyn Serde<K>>);

impl<K> fmt::Debug for SessionStoreKeySerde<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionStoreKeySerde").field(&self.0).finish()
    }
}

impl<K: 'static> Serde<Windowed<K>> for SessionStoreKeySerde<K> {
    fn serialize(&self, topic: &str, value: &Windowed<K>) -> Result<Bytes, SerdeError> {
        let Window { start_ms, end_ms } = value.window;
        Ok(WindowLayout::session_key(&self.0.serialize(topic, &value.key)?, start_ms, end_ms))
    }

    fn deserialize(&self, topic: &str, bytes: &Bytes) -> Result<Windowed<K>, SerdeError> {
        let (key, window) = session_of::<K>(bytes)?;
        Ok(Windowed { key: self.0.deserialize(topic, &key)?, window })
    }

    fn is_null(&self, value: &Windowed<K>) -> bool {
        self.0.is_null(&value.key)
    }
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
    use super::*;
    use crate::serde::{NullableSerde, StringSerde};

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
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
