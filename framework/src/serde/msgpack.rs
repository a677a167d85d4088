//! MessagePack: compact, self-describing, known in every language.

use ::serde::Serialize;
use ::serde::de::DeserializeOwned;
use bytes::Bytes;

use super::depth::DEPTH_MAX;
use super::{Serde, SerdeError};

/// Writes any serde type as MessagePack, structs as maps with the names of their fields: a reader in another language
/// needs no more than that, and a field can be added.
#[derive(Debug, Clone, Copy, Default)]
pub struct MsgpackSerde;

impl<T: Serialize + DeserializeOwned> Serde<T> for MsgpackSerde {
    fn content_type(&self) -> Option<&'static str> {
        Some("application/vnd.msgpack")
    }

    fn serialize(&self, _topic: &str, value: &T) -> Result<Bytes, SerdeError> {
        let written = rmp_serde::to_vec_named(value)
            .map_err(|error| SerdeError::serialize::<T>("MessagePack", error))?;
        Ok(written.into())
    }

    fn deserialize(&self, _topic: &str, bytes: &Bytes) -> Result<T, SerdeError> {
        let wrong = |error| SerdeError::deserialize::<T>("MessagePack", bytes.len(), error);
        let mut from = rmp_serde::Deserializer::new(&bytes[..]);
        from.set_max_depth(DEPTH_MAX);
        let value = T::deserialize(&mut from).map_err(wrong)?;
        match from.get_ref().len() {
            0 => Ok(value),
            left => {
                let reason = format!("{left} bytes are left over");
                Err(SerdeError::deserialize::<T>("MessagePack", bytes.len(), reason))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, ::serde::Deserialize)]
    struct Order {
        id: u64,
        name: Option<String>,
    }

    #[test]
    fn structs_are_maps_by_name() {
        let order = Order { id: 7, name: None };
        let bytes = MsgpackSerde.serialize("t", &order).unwrap();
        assert_eq!(&bytes[..], b"\x82\xa2id\x07\xa4name\xc0");
        assert_eq!(Serde::<Order>::deserialize(&MsgpackSerde, "t", &bytes).unwrap(), order);
        let map: BTreeMap<String, Option<u64>> = MsgpackSerde.deserialize("t", &bytes).unwrap();
        assert_eq!(map["id"], Some(7));
    }

    #[test]
    fn what_is_left_over_nested_or_lying_is_refused() {
        let read = |bytes: &[u8]| -> Result<Vec<u8>, SerdeError> {
            MsgpackSerde.deserialize("t", &Bytes::copy_from_slice(bytes))
        };
        assert_eq!(read(&[0x91, 7]).unwrap(), [7]);
        assert!(read(&[0x91, 7, 7]).unwrap_err().to_string().contains("left over"));
        assert!(read(&[0xdd, 0xff, 0xff, 0xff, 0xff]).is_err());
    }
}
