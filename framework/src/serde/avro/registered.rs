//! Avro with its schemas in a registry.

use std::fmt;
use std::sync::Arc;

use ::serde::Serialize;
use ::serde::de::DeserializeOwned;

use super::record_type::{AvroRecord, AvroType};
use super::resolved::Resolved;
use super::single::{AvroSerde, write};
use crate::serde::SerdeError;
use crate::serde::registry::{RegistryFormat, Schema, SchemaType, TypeSchema};

/// A writer's schema, ready for one type.
pub struct AvroCompiled(Resolved);

impl fmt::Debug for AvroCompiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AvroCompiled")
    }
}

impl AvroType {
    fn registered<T>(&'static self) -> Result<&'static TypeSchema, SerdeError> {
        let parsed = self.parsed::<T>()?;
        Ok(parsed.registered.get_or_init(|| TypeSchema {
            schema: Schema::new(SchemaType::Avro, parsed.text.as_str()),
            name: parsed.name.clone(),
        }))
    }
}

impl<T: AvroRecord + Serialize + DeserializeOwned> RegistryFormat<T> for AvroSerde {
    type Compiled = AvroCompiled;

    fn schema() -> Result<&'static TypeSchema, SerdeError> {
        T::avro_type().registered::<T>()
    }

    fn compile(schema: &Schema, referenced: &[Arc<str>]) -> Result<AvroCompiled, String> {
        if schema.schema_type != SchemaType::Avro {
            return Err(format!("it is {} and not AVRO", schema.schema_type));
        }
        let parsed = T::avro_type().parsed::<T>().map_err(|error| error.to_string())?;
        Resolved::new(parsed, &schema.text, referenced).map(AvroCompiled)
    }

    fn write(value: &T, with: Option<&AvroCompiled>, out: &mut Vec<u8>) -> Result<(), SerdeError> {
        write(T::avro_type().parsed::<T>()?, with.map(|with| &with.0), value, out)
    }

    fn read(written_with: &AvroCompiled, bytes: &[u8]) -> Result<T, SerdeError> {
        written_with.0.read(bytes)
    }
}
