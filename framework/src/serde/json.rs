//! JSON, by `serde_json`.

use std::ops::{Deref, DerefMut};

use ::serde::de::DeserializeOwned;
use ::serde::{Deserialize, Serialize};
use bytes::Bytes;

use super::{DefaultSerde, Payload, Serde, SerdeError};

/// Writes any serde type as JSON. No type names go on the wire: the reader's type decides.
#[derive(Debug, Clone, Copy, Default)]
pub struct JsonSerde;

impl<T: Serialize + DeserializeOwned> Serde<T> for JsonSerde {
    fn content_type(&self) -> Option<&'static str> {
        Some("application/json")
    }

    fn serialize(&self, _topic: &str, value: &T) -> Result<Bytes, SerdeError> {
        let written = serde_json::to_vec(value).map_err(|error| SerdeError::serialize::<T>("JSON", error))?;
        Ok(written.into())
    }

    fn deserialize(&self, _topic: &str, bytes: &Bytes) -> Result<T, SerdeError> {
        from_json(bytes)
    }
}

/// Reads JSON; alone, because a listener's payload need not be writable.
pub(crate) fn from_json<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, SerdeError> {
    serde_json::from_slice(bytes).map_err(|error| SerdeError::deserialize::<T>("JSON", bytes.len(), error))
}

/// A value that is written as JSON: as a listener's argument, in a template, in a stream.
///
/// ```
/// # use klamm::serde::{DefaultSerde, Json, Serde};
/// let serde = <Json<Vec<i32>> as DefaultSerde>::Serde::default();
/// assert_eq!(serde.serialize("numbers", &Json(vec![1, 2]))?, "[1,2]");
/// # Ok::<(), klamm::serde::SerdeError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json<T>(pub T);

impl<T> Deref for Json<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Json<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> From<T> for Json<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T: Serialize + DeserializeOwned + Send + 'static> DefaultSerde for Json<T> {
    type Serde = JsonSerde;

    fn payloads() -> Vec<Payload> {
        vec![Payload::of::<T>(Some("application/json"))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Order {
        id: u64,
    }

    #[test]
    fn wrapped_and_bare_are_the_same_bytes() {
        let wrapped = JsonSerde.serialize("t", &Json(Order { id: 7 })).unwrap();
        assert_eq!(wrapped, JsonSerde.serialize("t", &Order { id: 7 }).unwrap());
        let read: Json<Order> = JsonSerde.deserialize("t", &wrapped).unwrap();
        assert_eq!(*read, Order { id: 7 });
    }

    #[test]
    fn an_error_says_where() {
        let read: Result<Order, _> = JsonSerde.deserialize("t", &Bytes::from_static(b"{\"id\":}"));
        let said = read.unwrap_err().to_string();
        assert!(said.contains("7 bytes") && said.contains("Order") && said.contains("column 7"), "{said}");
    }
}
