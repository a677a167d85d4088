//! `Option<T>`: `None` is null, a record without key or a tombstone; `Some` is written as `T` is.

use bytes::Bytes;
use klamm_client::Headers;

use super::{DefaultSerde, HeaderList, Payload, Serde, SerdeError};

/// Adds null to another serde. The default serde of `Option<T>`.
#[derive(Debug, Clone, Copy, Default)]
pub struct NullableSerde<S>(pub S);

impl<T: 'static, S: Serde<T>> Serde<Option<T>> for NullableSerde<S> {
    fn content_type(&self) -> Option<&'static str> {
        self.0.content_type()
    }

    fn serialize(&self, topic: &str, value: &Option<T>) -> Result<Bytes, SerdeError> {
        match value {
            Some(value) => self.0.serialize(topic, value),
            None => Err(no_bytes::<T>()),
        }
    }

    fn deserialize(&self, topic: &str, bytes: &Bytes) -> Result<Option<T>, SerdeError> {
        self.0.deserialize(topic, bytes).map(Some)
    }

    fn serialize_record(
        &self,
        topic: &str,
        headers: &mut HeaderList,
        value: &Option<T>,
    ) -> Result<Bytes, SerdeError> {
        match value {
            Some(value) => self.0.serialize_record(topic, headers, value),
            None => Err(no_bytes::<T>()),
        }
    }

    fn deserialize_record(
        &self,
        topic: &str,
        headers: &Headers,
        bytes: &Bytes,
    ) -> Result<Option<T>, SerdeError> {
        self.0.deserialize_record(topic, headers, bytes).map(Some)
    }

    fn null(&self) -> Option<Option<T>> {
        Some(None)
    }

    fn is_null(&self, value: &Option<T>) -> bool {
        value.as_ref().is_none_or(|value| self.0.is_null(value))
    }

    fn write_only(&self) -> Option<&'static str> {
        self.0.write_only()
    }

    fn partition_bytes(&self, serialized: &[u8]) -> usize {
        self.0.partition_bytes(serialized)
    }
}

impl<T: DefaultSerde> DefaultSerde for Option<T> {
    type Serde = NullableSerde<T::Serde>;

    #[cfg(feature = "schema-registry")]
    const NEEDS_REGISTRY: bool = T::NEEDS_REGISTRY;

    #[cfg(feature = "schema-registry")]
    fn serde_with(registry: Option<&super::SchemaRegistry>, is_key: bool) -> Self::Serde {
        NullableSerde(T::serde_with(registry, is_key))
    }

    fn payloads() -> Vec<Payload> {
        T::payloads()
    }
}

fn no_bytes<T>() -> SerdeError {
    SerdeError::serialize::<Option<T>>("bytes", "null has no bytes; ask `is_null` first")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serde::StringSerde;

    #[test]
    fn none_is_null_and_some_is_the_bytes_of_the_value() {
        let serde = NullableSerde(StringSerde);
        assert!(serde.is_null(&None::<String>));
        assert!(!serde.is_null(&Some("a".to_owned())));
        assert_eq!(serde.serialize("t", &Some("a".to_owned())).unwrap(), "a");
        assert!(serde.serialize("t", &None::<String>).is_err());
        assert_eq!(serde.null(), Some(None::<String>));
        assert_eq!(serde.deserialize("t", &Bytes::from_static(b"")).unwrap(), Some(String::new()));
        assert_eq!(Serde::<String>::null(&StringSerde), None);
    }
}
