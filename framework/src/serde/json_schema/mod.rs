//! JSON that is held against a schema, when it is written and when it is read.

#[cfg(feature = "schema-registry")]
mod registered;

use std::fmt;

use ::serde::Serialize;
use ::serde::de::DeserializeOwned;
use bytes::Bytes;
use jsonschema::Validator;
pub use schemars::JsonSchema;
use serde_json::Value;

use super::{Serde, SerdeError};

/// How many faults of a value a message names.
const FAULTS_MAX: usize = 3;
/// How much of one fault a message shows: faults quote the value.
const FAULT_BYTES_MAX: usize = 300;

/// A type with a JSON Schema; `#[derive(Record)] #[record(json_schema)]` implements it.
pub trait JsonSchemaRecord: 'static {
    /// The schema, made once.
    fn json_schema_type() -> &'static JsonSchemaType;
}

/// The JSON Schema of a type: parsed once, or why it is none.
pub struct JsonSchemaType(Result<Parsed, String>);

struct Parsed {
    validator: Validator,
    text: String,
    /// The schema's `title`.
    name: String,
    #[cfg(feature = "schema-registry")]
    registered: std::sync::OnceLock<super::registry::TypeSchema>,
}

impl JsonSchemaType {
    /// The schema with this text. One that is none is an error of every value, not a panic here. What it refers to must
    /// be in it: nothing is fetched.
    pub fn parse(text: &str) -> Self {
        let schema: Result<Value, _> = serde_json::from_str(text);
        let schema = schema.map_err(|error| format!("it is no JSON: {error}"));
        Self(schema.and_then(|schema| Parsed::new(&schema, text.to_owned())))
    }

    /// The schema that a type derives for itself.
    pub fn of<T: JsonSchema>() -> Self {
        let schema = schemars::SchemaGenerator::default().into_root_schema_for::<T>().to_value();
        Self(Parsed::new(&schema, schema.to_string()))
    }

    /// The text of the schema; `None` where it is none.
    pub fn text(&self) -> Option<&str> {
        self.0.as_ref().ok().map(|parsed| parsed.text.as_str())
    }

    fn parsed<T>(&self) -> Result<&Parsed, SerdeError> {
        self.0.as_ref().map_err(|reason| {
            let name = std::any::type_name::<T>();
            SerdeError::Schema(format!("the JSON Schema of {name} is none: {reason}").into())
        })
    }
}

impl Parsed {
    fn new(schema: &Value, text: String) -> Result<Self, String> {
        let validator = jsonschema::validator_for(schema).map_err(|error| error.to_string())?;
        let name = schema.get("title").and_then(Value::as_str).unwrap_or("unnamed").to_owned();
        Ok(Self {
            validator,
            text,
            name,
            #[cfg(feature = "schema-registry")]
            registered: std::sync::OnceLock::new(),
        })
    }

    /// Whether a value is one of the schema.
    fn check(&self, value: &Value) -> Result<(), String> {
        let mut faults = self.validator.iter_errors(value).peekable();
        if faults.peek().is_none() {
            return Ok(());
        }
        let shown = faults.take(FAULTS_MAX).map(|fault| {
            let mut text = format!("{fault} at `{}`", fault.instance_path());
            text.truncate(text.floor_char_boundary(FAULT_BYTES_MAX));
            text
        });
        Err(shown.collect::<Vec<_>>().join("; "))
    }

    fn write<T: Serialize>(&self, value: &T) -> Result<Vec<u8>, SerdeError> {
        let wrong = |reason: String| SerdeError::serialize::<T>("JSON of its schema", reason);
        let value = serde_json::to_value(value).map_err(|error| wrong(error.to_string()))?;
        self.check(&value).map_err(wrong)?;
        serde_json::to_vec(&value).map_err(|error| wrong(error.to_string()))
    }

    fn read<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, SerdeError> {
        let wrong = |reason: String| SerdeError::deserialize::<T>("JSON of its schema", bytes.len(), reason);
        let value: Value = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        self.check(&value).map_err(wrong)?;
        serde_json::from_value(value).map_err(|error| wrong(error.to_string()))
    }
}

/// Writes and reads JSON that the type's schema allows, and no other.
#[derive(Debug, Clone, Copy, Default)]
pub struct JsonSchemaSerde;

impl<T: JsonSchemaRecord + Serialize + DeserializeOwned> Serde<T> for JsonSchemaSerde {
    fn content_type(&self) -> Option<&'static str> {
        Some("application/json")
    }

    fn serialize(&self, _topic: &str, value: &T) -> Result<Bytes, SerdeError> {
        T::json_schema_type().parsed::<T>()?.write(value).map(Bytes::from)
    }

    fn deserialize(&self, _topic: &str, bytes: &Bytes) -> Result<T, SerdeError> {
        T::json_schema_type().parsed::<T>()?.read(bytes)
    }
}

impl fmt::Debug for JsonSchemaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(parsed) => f.debug_tuple("JsonSchemaType").field(&parsed.name).finish(),
            Err(reason) => f.debug_tuple("JsonSchemaType").field(reason).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use ::serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    struct Order {
        id: u64,
        #[schemars(length(min = 2))]
        name: String,
    }

    impl JsonSchemaRecord for Order {
        fn json_schema_type() -> &'static JsonSchemaType {
            static TYPE: LazyLock<JsonSchemaType> = LazyLock::new(JsonSchemaType::of::<Order>);
            &TYPE
        }
    }

    #[test]
    fn what_the_schema_does_not_allow_is_neither_written_nor_read() {
        let order = Order { id: 7, name: "ab".to_owned() };
        let bytes = JsonSchemaSerde.serialize("t", &order).unwrap();
        assert_eq!(Serde::<Order>::deserialize(&JsonSchemaSerde, "t", &bytes).unwrap(), order);
        let said =
            JsonSchemaSerde.serialize("t", &Order { id: 7, name: "a".to_owned() }).unwrap_err().to_string();
        assert!(said.contains("/name"), "{said}");
        let read = |text: &'static str| -> String {
            let read: Result<Order, _> =
                JsonSchemaSerde.deserialize("t", &Bytes::from_static(text.as_bytes()));
            read.unwrap_err().to_string()
        };
        assert!(read(r#"{"id": 7, "name": "a"}"#).contains("/name"));
        assert!(read(r#"{"name": "ab"}"#).contains("id"));
        assert!(read("{").contains("EOF"));
    }

    #[test]
    fn a_schema_that_is_none_says_so() {
        for text in ["{", r#"{"type": "nothing"}"#, r#"{"$ref": "http://other.example/x.json"}"#] {
            let said = JsonSchemaType::parse(text).parsed::<Order>().err().unwrap().to_string();
            assert!(said.contains("the JSON Schema of") && said.contains("is none"), "{said}");
        }
    }
}
