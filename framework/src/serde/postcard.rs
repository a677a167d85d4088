//! postcard: compact, stable wire format, not self-describing.

use ::serde::Serialize;
use ::serde::de::DeserializeOwned;
use bytes::Bytes;

use super::depth::Bounded;
use super::{Serde, SerdeError};

/// Writes any serde type with postcard. Both sides must have the same type.
#[derive(Debug, Clone, Copy, Default)]
pub struct PostcardSerde;

impl<T: Serialize + DeserializeOwned> Serde<T> for PostcardSerde {
    fn content_type(&self) -> Option<&'static str> {
        Some("application/x-postcard")
    }

    fn serialize(&self, _topic: &str, value: &T) -> Result<Bytes, SerdeError> {
        let written =
            postcard::to_stdvec(value).map_err(|error| SerdeError::serialize::<T>("postcard", error))?;
        Ok(written.into())
    }

    fn deserialize(&self, _topic: &str, bytes: &Bytes) -> Result<T, SerdeError> {
        let (Bounded(value), left) = postcard::take_from_bytes(bytes)
            .map_err(|error| SerdeError::deserialize::<T>("postcard", bytes.len(), error))?;
        if left.is_empty() {
            return Ok(value);
        }
        let reason = format!("{} bytes are left over", left.len());
        Err(SerdeError::deserialize::<T>("postcard", bytes.len(), reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_refusals() {
        let value = ("a".to_owned(), 300_u32);
        let bytes = PostcardSerde.serialize("t", &value).unwrap();
        assert_eq!(Serde::<(String, u32)>::deserialize(&PostcardSerde, "t", &bytes).unwrap(), value);
        let read: Result<String, _> = PostcardSerde.deserialize("t", &bytes);
        assert!(read.unwrap_err().to_string().contains("left over"));
        let read: Result<Vec<u8>, _> = PostcardSerde.deserialize("t", &Bytes::from_static(&[255; 9]));
        assert!(read.is_err());
    }
}
