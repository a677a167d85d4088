//! bincode 2, standard configuration: compact, little-endian with variable-length integers, not self-describing.

use ::serde::Serialize;
use ::serde::de::DeserializeOwned;
use bytes::Bytes;

use super::depth::Bounded;
use super::{Serde, SerdeError};

/// How many bytes a decoder may claim for one value, so that a lying length costs nothing. Above any sensible record.
const READ_LIMIT_BYTES: usize = 64 * 1024 * 1024;

/// Writes any serde type with bincode. Both sides must have the same type: a field cannot be added
/// later without a new topic.
#[derive(Debug, Clone, Copy, Default)]
pub struct BincodeSerde;

impl<T: Serialize + DeserializeOwned> Serde<T> for BincodeSerde {
    fn content_type(&self) -> Option<&'static str> {
        Some("application/x-bincode")
    }

    fn serialize(&self, _topic: &str, value: &T) -> Result<Bytes, SerdeError> {
        let written = bincode::serde::encode_to_vec(value, bincode::config::standard())
            .map_err(|error| SerdeError::serialize::<T>("bincode", error))?;
        Ok(written.into())
    }

    fn deserialize(&self, _topic: &str, bytes: &Bytes) -> Result<T, SerdeError> {
        let config = bincode::config::standard().with_limit::<READ_LIMIT_BYTES>();
        let (Bounded(value), read_bytes) = bincode::serde::decode_from_slice(bytes, config)
            .map_err(|error| SerdeError::deserialize::<T>("bincode", bytes.len(), error))?;
        match bytes.len() - read_bytes {
            0 => Ok(value),
            left => {
                let reason = format!("{left} bytes are left over");
                Err(SerdeError::deserialize::<T>("bincode", bytes.len(), reason))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_refusals() {
        let value = ("a".to_owned(), 300_u32);
        let bytes = BincodeSerde.serialize("t", &value).unwrap();
        assert_eq!(Serde::<(String, u32)>::deserialize(&BincodeSerde, "t", &bytes).unwrap(), value);
        // Left-over bytes mean that the writer had another type.
        let read: Result<String, _> = BincodeSerde.deserialize("t", &bytes);
        assert!(read.unwrap_err().to_string().contains("left over"));
        // A length of 2^62 must not be allocated.
        let lying = Bytes::from_static(&[253, 0, 0, 0, 0, 0, 0, 0, 0x40]);
        let read: Result<Vec<u8>, _> = BincodeSerde.deserialize("t", &lying);
        assert!(read.is_err());
    }
}
