//! `AvroType`: the schema of a type.

use std::fmt;

use apache_avro::rabin::Rabin;
use apache_avro::{AvroSchema, Schema};

use crate::serde::SerdeError;
use crate::serde::avro_shape::Shape;

/// A type with an Avro schema; `#[derive(Record)] #[record(avro)]` implements it.
pub trait AvroRecord: 'static {
    /// The schema, made once.
    fn avro_type() -> &'static AvroType;
}

/// The Avro schema of a type: parsed once, or why it is none.
pub struct AvroType(Result<Parsed, String>);

pub(super) struct Parsed {
    /// For ever, as types are: readers and writers borrow it.
    pub(super) schema: &'static Schema,
    pub(super) shape: Shape,
    pub(super) text: String,
    /// Avro's fingerprint of the schema, as it stands in front of single values.
    pub(super) fingerprint: [u8; 8],
    pub(super) name: String,
    /// As a registry has it.
    #[cfg(feature = "schema-registry")]
    pub(super) registered: std::sync::OnceLock<crate::serde::registry::TypeSchema>,
}

impl AvroType {
    /// The schema with this text. One that is none is an error of every value, not a panic here.
    pub fn parse(text: &str) -> Self {
        let parsed = Schema::parse_str(text).map_err(|error| error.to_string());
        Self(parsed.and_then(|schema| Parsed::new(schema, text.to_owned())))
    }

    /// The schema that a type derives for itself.
    pub fn of<T: AvroSchema>() -> Self {
        let schema = T::get_schema();
        let text = serde_json::to_string(&schema).map_err(|error| error.to_string());
        Self(text.and_then(|text| Parsed::new(schema, text)))
    }

    /// The text of the schema; `None` where it is none.
    pub fn text(&self) -> Option<&str> {
        self.0.as_ref().ok().map(|parsed| parsed.text.as_str())
    }

    pub(super) fn parsed<T>(&self) -> Result<&Parsed, SerdeError> {
        self.0.as_ref().map_err(|reason| {
            let name = std::any::type_name::<T>();
            SerdeError::Schema(format!("the Avro schema of {name} is none: {reason}").into())
        })
    }
}

impl Parsed {
    fn new(schema: Schema, text: String) -> Result<Self, String> {
        let shape = Shape::parse(&text, [])?;
        let digest = schema.fingerprint::<Rabin>().bytes;
        let fingerprint = digest.as_slice().try_into().map_err(|_| "its fingerprint has not eight bytes")?;
        // A schema without a name, as "string", has the name of its type, as in Confluent's record strategies.
        let name = shape.name().map_or_else(|| text.trim_matches('"').to_owned(), str::to_owned);
        // Each type makes its schema once.
        let schema: &'static Schema = Box::leak(Box::new(schema));
        Ok(Self {
            schema,
            shape,
            text,
            fingerprint,
            name,
            #[cfg(feature = "schema-registry")]
            registered: std::sync::OnceLock::new(),
        })
    }
}

impl fmt::Debug for AvroType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(parsed) => f.debug_tuple("AvroType").field(&parsed.name).finish(),
            Err(reason) => f.debug_tuple("AvroType").field(reason).finish(),
        }
    }
}
