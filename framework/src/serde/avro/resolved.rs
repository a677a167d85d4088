//! A writer's schema and a type's, made ready: for reading the type from what was written with the other one.

use std::borrow::Cow;
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
    written: Cow<'static, Shape>,
    /// Its text and what it refers to: only who writes with it needs more, and the library's reading of a schema has no
    /// bounds.
    text: Arc<str>,
    referenced: Vec<Arc<str>>,
    writer: OnceLock<Result<&'static Schema, String>>,
}

impl Resolved {
    /// What was written with the type's own schema.
    pub(super) fn own(parsed: &'static Parsed) -> Self {
        Self {
            reader: &parsed.shape,
            written: Cow::Borrowed(&parsed.shape),
            text: "".into(),
            referenced: Vec::new(),
            writer: OnceLock::from(Ok(parsed.schema)),
        }
    }

    /// What was written with this schema, read as the type's.
    pub(super) fn new(parsed: &'static Parsed, text: &str, referenced: &[Arc<str>]) -> Result<Self, String> {
        let written = Shape::parse(text, referenced.iter().map(|text| &**text))?;
        if referenced.is_empty() && is_same_json(text, &parsed.text) {
            return Ok(Self::own(parsed));
        }
        reads(&parsed.shape, &written)?;
        let referenced = referenced.to_vec();
        Ok(Self {
            reader: &parsed.shape,
            written: Cow::Owned(written),
            text: text.into(),
            referenced,
            writer: OnceLock::new(),
        })
    }

    /// For writing with it.
    pub(super) fn writer(&self) -> Result<&'static Schema, String> {
        self.writer.get_or_init(|| interned(&self.text, &self.referenced)).clone()
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
