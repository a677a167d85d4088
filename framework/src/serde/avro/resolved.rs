//! A writer's schema and a type's, made ready: for reading the type from what was written with the other one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ::serde::de::DeserializeOwned;
use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;

use super::record_type::Parsed;
use crate::serde::SerdeError;
use crate::serde::avro_shape::{Shape, check, reads};

/// Reads values that were written with one schema.
pub(super) struct Resolved {
    shape: Shape,
    reader: GenericDatumReader<'static>,
    /// The writer had the type's own schema: values are read straight from the bytes.
    is_own: bool,
    pub(super) writer: &'static Schema,
}

impl Resolved {
    /// What was written with the type's own schema.
    pub(super) fn own(parsed: &'static Parsed) -> Result<Self, String> {
        let reader = GenericDatumReader::builder(parsed.schema).build().map_err(|error| error.to_string())?;
        Ok(Self { shape: parsed.shape.clone(), reader, is_own: true, writer: parsed.schema })
    }

    /// What was written with this schema, read as the type's.
    pub(super) fn new(parsed: &'static Parsed, text: &str, referenced: &[Arc<str>]) -> Result<Self, String> {
        let shape = Shape::parse(text, referenced.iter().map(|text| &**text))?;
        if referenced.is_empty() && is_same_json(text, &parsed.text) {
            return Self::own(parsed);
        }
        reads(&parsed.shape, &shape)?;
        let writer = interned(text, referenced)?;
        let reader = GenericDatumReader::builder(writer).reader_schema(parsed.schema).build();
        Ok(Self { shape, reader: reader.map_err(|error| error.to_string())?, is_own: false, writer })
    }

    pub(super) fn read<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, SerdeError> {
        let wrong = |reason: String| SerdeError::deserialize::<T>("Avro", bytes.len(), reason);
        // The library believes lengths and follows any depth; what gets past this is a value of the schema.
        check(&self.shape, bytes).map_err(wrong)?;
        let mut left = bytes;
        let read = match self.is_own {
            true => self.reader.read_deser(&mut left),
            false => self.reader.read_value(&mut left).and_then(|value| apache_avro::from_value(&value)),
        };
        read.map_err(|error| wrong(error.to_string()))
    }
}

/// Registries give texts back without white space, or in another order.
fn is_same_json(one: &str, other: &str) -> bool {
    let json = |text| serde_json::from_str::<serde_json::Value>(text).ok();
    one == other || json(one).is_some_and(|one| Some(one) == json(other))
}

/// The schema of a text, parsed once in the life of the program: readers borrow it, and a program meets as many as its
/// registry has.
fn interned(text: &str, referenced: &[Arc<str>]) -> Result<&'static Schema, String> {
    type Interned = Mutex<HashMap<Vec<Arc<str>>, &'static Schema>>;
    static SCHEMAS: OnceLock<Interned> = OnceLock::new();

    let key: Vec<Arc<str>> = referenced.iter().cloned().chain([text.into()]).collect();
    let mut schemas = SCHEMAS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = schemas.get(&key) {
        return Ok(known);
    }
    let parsed = if referenced.is_empty() {
        Schema::parse_str(text)
    } else {
        // Alone it would name types that are nowhere in it.
        Schema::parse_str_with_list(text, referenced)
            .and_then(|(mut schema, others)| schema.denormalize(&others).map(|()| schema))
    };
    let leaked: &'static Schema = Box::leak(Box::new(parsed.map_err(|error| error.to_string())?));
    schemas.insert(key, leaked);
    Ok(leaked)
}
