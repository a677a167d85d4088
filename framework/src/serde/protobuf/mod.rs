//! Protobuf, by `prost`.

mod file;
#[cfg(feature = "schema-registry")]
mod registered;

use std::fmt;

use bytes::Bytes;
use prost::Message;

use super::{Serde, SerdeError};
use file::ProtoFile;

/// A type that is a Protobuf message; `#[derive(Record)] #[record(protobuf)]` implements it.
pub trait ProtobufRecord: 'static {
    /// What is known of its schema, made once.
    fn protobuf_type() -> &'static ProtobufType;
}

/// The `.proto` file of a type and which message in it is the type's. Only a registry needs the file.
pub struct ProtobufType {
    text: &'static str,
    message: &'static str,
    /// The place of the message and its full name; why there is none.
    found: Result<(Vec<usize>, String), String>,
    #[cfg(feature = "schema-registry")]
    registered: std::sync::OnceLock<super::registry::TypeSchema>,
}

impl ProtobufType {
    /// The message of this name in the text of a `.proto` file. An empty text is no file.
    pub fn new(text: &'static str, message: &'static str) -> Self {
        let found =
            match text.is_empty() {
                true => Err("it has no `.proto` file: `#[record(protobuf, schema_file = \"order.proto\")]`"
                    .to_owned()),
                false => ProtoFile::parse(text).and_then(|file| file.find(message)),
            };
        Self {
            text,
            message,
            found,
            #[cfg(feature = "schema-registry")]
            registered: std::sync::OnceLock::new(),
        }
    }

    /// The text of the `.proto` file; empty where there is none.
    pub fn text(&self) -> &'static str {
        self.text
    }

    /// The message's full name, with the file's package; as it was given where there is no file.
    pub fn message(&self) -> &str {
        self.found.as_ref().map_or(self.message, |(_, name)| name)
    }
}

/// Writes and reads Protobuf messages. Fields that are not known are left out, as Protobuf has it.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProtobufSerde;

impl<T: Message + Default + 'static> Serde<T> for ProtobufSerde {
    fn content_type(&self) -> Option<&'static str> {
        Some("application/protobuf")
    }

    fn serialize(&self, _topic: &str, value: &T) -> Result<Bytes, SerdeError> {
        Ok(value.encode_to_vec().into())
    }

    fn deserialize(&self, _topic: &str, bytes: &Bytes) -> Result<T, SerdeError> {
        T::decode(&bytes[..]).map_err(|error| SerdeError::deserialize::<T>("Protobuf", bytes.len(), error))
    }
}

impl fmt::Debug for ProtobufType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProtobufType").field("message", &self.message()).field("found", &self.found).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Order {
        #[prost(uint64, tag = "1")]
        id: u64,
        #[prost(string, tag = "2")]
        name: String,
    }

    #[test]
    fn round_trip_and_refusals() {
        let order = Order { id: 300, name: "ä".to_owned() };
        let bytes = ProtobufSerde.serialize("t", &order).unwrap();
        assert_eq!(&bytes[..], &[8, 0xac, 2, 18, 2, 0xc3, 0xa4]);
        assert_eq!(Serde::<Order>::deserialize(&ProtobufSerde, "t", &bytes).unwrap(), order);
        let cut: Result<Order, _> = ProtobufSerde.deserialize("t", &bytes.slice(..4));
        assert!(cut.unwrap_err().to_string().contains("in Protobuf"));
    }

    #[test]
    fn a_type_without_a_file_says_what_to_add() {
        let alone = ProtobufType::new("", "Order");
        assert_eq!(alone.message(), "Order");
        assert!(alone.found.as_ref().unwrap_err().contains("schema_file"));
    }
}
