//! A writer's schema and a type's, made ready: for reading the type from what was written with the other one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ::serde::de::DeserializeOwned;
use apache_avro::Schema;

use super::record_type::Parsed;
use crate::serde::SerdeError;
use crate::serde::avro_shape::{Shape, decode, reads};

/// Reads values that were written with one schema.
pub(super) struct Resolved {
    reader: &'static Shape,
    written: Shape,
    pub(super) writer: &'static Schema,
}

impl Resolved {
    /// What was written with the type's own schema.
    pub(super) fn own(parsed: &'static Parsed) -> Self {
        Self { reader: &parsed.shape, written: parsed.shape.clone(), writer: parsed.schema }
    }

    /// What was written with this schema, read as the type's.
    pub(super) fn new(parsed: &'static Parsed, text: &str, referenced: &[Arc<str>]) -> Result<Self, String> {
        let written = Shape::parse(text, referenced.iter().map(|text| &**text))?;
        if referenced.is_empty() && is_same_json(text, &parsed.text) {
            return Ok(Self::own(parsed));
        }
        reads(&parsed.shape, &written)?;
        Ok(Self { reader: &parsed.shape, written, writer: interned(text, referenced)? })
    }

    pub(super) fn read<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, SerdeError> {
        let read = decode(self.reader, &self.written, bytes);
        let read = read.and_then(|value| apache_avro::from_value(&value).map_err(|error| error.to_string()));
        read.map_err(|reason| SerdeError::deserialize::<T>("Avro", bytes.len(), reason))
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
