//! Protobuf with its schemas in a registry: after the id comes which message of the file it is.

use std::sync::Arc;

use prost::Message;

use super::file::{ProtoFile, is_called};
use super::{ProtobufRecord, ProtobufSerde, ProtobufType};
use crate::serde::SerdeError;
use crate::serde::registry::{
    RegistryFormat, Schema, SchemaType, TypeSchema, message_indexes, write_message_indexes,
};

/// The messages of a writer's file.
#[derive(Debug)]
pub struct ProtobufCompiled(ProtoFile);

impl ProtobufType {
    fn found<T>(&self) -> Result<&(Vec<usize>, String), SerdeError> {
        self.found.as_ref().map_err(|reason| {
            let name = std::any::type_name::<T>();
            SerdeError::Schema(format!("the Protobuf schema of {name}: {reason}").into())
        })
    }
}

impl<T: ProtobufRecord + Message + Default> RegistryFormat<T> for ProtobufSerde {
    type Compiled = ProtobufCompiled;

    fn schema() -> Result<&'static TypeSchema, SerdeError> {
        let known = T::protobuf_type();
        let (_, name) = known.found::<T>()?;
        Ok(known.registered.get_or_init(|| TypeSchema {
            schema: Schema::new(SchemaType::Protobuf, known.text),
            name: name.clone(),
        }))
    }

    fn compile(schema: &Schema, _referenced: &[Arc<str>]) -> Result<ProtobufCompiled, String> {
        match schema.schema_type {
            SchemaType::Protobuf => ProtoFile::parse(&schema.text).map(ProtobufCompiled),
            other => Err(format!("it is {other} and not PROTOBUF")),
        }
    }

    fn write(value: &T, with: Option<&ProtobufCompiled>, out: &mut Vec<u8>) -> Result<(), SerdeError> {
        let known = T::protobuf_type();
        match with {
            // In the newest file the message may stand elsewhere.
            Some(with) => {
                let found = with.0.find(known.message());
                let (place, _) = found.map_err(|reason| SerdeError::serialize::<T>("Protobuf", reason))?;
                write_message_indexes(&place, out);
            }
            None => write_message_indexes(&known.found::<T>()?.0, out),
        }
        value.encode(out).map_err(|error| SerdeError::serialize::<T>("Protobuf", error))
    }

    fn read(written_with: &ProtobufCompiled, bytes: &[u8]) -> Result<T, SerdeError> {
        let wrong = |reason: String| SerdeError::deserialize::<T>("Protobuf", bytes.len(), reason);
        let (place, message) = message_indexes(bytes).map_err(|error| wrong(error.to_string()))?;
        let (name, wanted) = (written_with.0.at(&place), T::protobuf_type().message());
        match name {
            Some(name) if is_called(name, wanted) => {}
            Some(name) => return Err(wrong(format!("it is the message `{name}` and not `{wanted}`"))),
            None => return Err(wrong(format!("the writer's schema has no message at {place:?}"))),
        }
        T::decode(message).map_err(|error| wrong(error.to_string()))
    }
}
