//! JSON Schema with its schemas in a registry. A value is held against the reader's own schema: the writer held it
//! against the registered one.

use std::sync::Arc;

use ::serde::Serialize;
use ::serde::de::DeserializeOwned;

use super::{JsonSchemaRecord, JsonSchemaSerde};
use crate::serde::SerdeError;
use crate::serde::registry::{RegistryFormat, Schema, SchemaType, TypeSchema};

impl<T: JsonSchemaRecord + Serialize + DeserializeOwned> RegistryFormat<T> for JsonSchemaSerde {
    type Compiled = ();

    fn schema() -> Result<&'static TypeSchema, SerdeError> {
        let parsed = T::json_schema_type().parsed::<T>()?;
        Ok(parsed.registered.get_or_init(|| TypeSchema {
            schema: Schema::new(SchemaType::Json, parsed.text.as_str()),
            name: parsed.name.clone(),
        }))
    }

    fn compile(schema: &Schema, _referenced: &[Arc<str>]) -> Result<(), String> {
        match schema.schema_type {
            SchemaType::Json => Ok(()),
            other => Err(format!("it is {other} and not JSON")),
        }
    }

    fn write(value: &T, _with: Option<&()>, out: &mut Vec<u8>) -> Result<(), SerdeError> {
        out.extend(T::json_schema_type().parsed::<T>()?.write(value)?);
        Ok(())
    }

    fn read(_written_with: &(), bytes: &[u8]) -> Result<T, SerdeError> {
        T::json_schema_type().parsed::<T>()?.read(bytes)
    }
}
