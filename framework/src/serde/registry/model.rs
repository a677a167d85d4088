//! What a registry keeps.

use std::fmt;
use std::sync::Arc;

use ::serde::{Deserialize, Serialize};

/// The language of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum SchemaType {
    /// Avro, which is meant where nothing is said.
    #[serde(rename = "AVRO")]
    Avro,
    /// Protobuf.
    #[serde(rename = "PROTOBUF")]
    Protobuf,
    /// JSON Schema.
    #[serde(rename = "JSON")]
    Json,
}

impl SchemaType {
    /// As the registry writes it: `AVRO`, `PROTOBUF`, `JSON`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avro => "AVRO",
            Self::Protobuf => "PROTOBUF",
            Self::Json => "JSON",
        }
    }
}

impl fmt::Display for SchemaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A schema, and where the schemas lie that it uses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Schema {
    /// Its language.
    pub schema_type: SchemaType,
    /// Its text.
    pub text: Arc<str>,
    /// Other schemas that the text names.
    pub references: Vec<SchemaReference>,
}

impl Schema {
    /// A schema that stands alone.
    pub fn new(schema_type: SchemaType, text: impl Into<Arc<str>>) -> Self {
        Self { schema_type, text: text.into(), references: Vec::new() }
    }
}

/// A schema that another one uses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SchemaReference {
    /// By which name it is used.
    pub name: String,
    /// The subject that it lies under.
    pub subject: String,
    /// The version there.
    pub version: i32,
}

/// A schema under a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectVersion {
    /// The subject.
    pub subject: String,
    /// The version under the subject, from 1.
    pub version: i32,
    /// The schema's id, which is one for all subjects that have it.
    pub id: i32,
    /// The schema.
    pub schema: Schema,
}

/// Which version of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// The newest.
    Latest,
    /// This one.
    Number(i32),
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// Which schemas may follow one another under a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum Compatibility {
    /// Any.
    None,
    /// The new one reads what was written with the last.
    Backward,
    /// The new one reads what was written with any before.
    BackwardTransitive,
    /// The last one reads what is written with the new.
    Forward,
    /// All before read what is written with the new.
    ForwardTransitive,
    /// Both ways with the last.
    Full,
    /// Both ways with all before.
    FullTransitive,
}

/// A schema in the JSON of requests and answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SchemaBody {
    pub(crate) schema: String,
    #[serde(rename = "schemaType", default, skip_serializing_if = "Option::is_none")]
    pub(crate) schema_type: Option<SchemaType>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) references: Vec<SchemaReference>,
}

/// A schema as a registry has it, of whatever language.
#[derive(Debug, Deserialize)]
pub(super) struct FoundBody {
    schema: String,
    #[serde(rename = "schemaType")]
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<SchemaReference>,
}

impl FoundBody {
    /// The schema.
    ///
    /// # Errors
    /// Its language is none of ours.
    pub(super) fn schema(self) -> Result<Schema, String> {
        let ours = [SchemaType::Avro, SchemaType::Protobuf, SchemaType::Json];
        let named = self.schema_type.as_deref().unwrap_or(SchemaType::Avro.name());
        let schema_type = ours.into_iter().find(|known| known.name() == named);
        let schema_type =
            schema_type.ok_or_else(|| format!("it is {named} and not AVRO, PROTOBUF or JSON"))?;
        Ok(Schema { schema_type, text: self.schema.into(), references: self.references })
    }
}

impl From<&Schema> for SchemaBody {
    fn from(schema: &Schema) -> Self {
        Self {
            schema: schema.text.to_string(),
            // Registries from before Protobuf take no `schemaType`.
            schema_type: Some(schema.schema_type).filter(|named| *named != SchemaType::Avro),
            references: schema.references.clone(),
        }
    }
}

impl From<SchemaBody> for Schema {
    fn from(body: SchemaBody) -> Self {
        Self {
            schema_type: body.schema_type.unwrap_or(SchemaType::Avro),
            text: body.schema.into(),
            references: body.references,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct IdBody {
    pub(super) id: i32,
}

#[derive(Debug, Deserialize)]
pub(super) struct SubjectVersionBody {
    pub(super) subject: String,
    pub(super) version: i32,
    pub(super) id: i32,
    #[serde(flatten)]
    pub(super) schema: SchemaBody,
}

impl From<SubjectVersionBody> for SubjectVersion {
    fn from(body: SubjectVersionBody) -> Self {
        let SubjectVersionBody { subject, version, id, schema } = body;
        Self { subject, version, id, schema: schema.into() }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct CompatibilityBody {
    /// `compatibilityLevel` where it is asked for, `compatibility` where it was set.
    #[serde(rename = "compatibilityLevel", alias = "compatibility")]
    pub(super) level: Compatibility,
}

#[derive(Debug, Deserialize)]
pub(super) struct IsCompatibleBody {
    pub(super) is_compatible: bool,
    #[serde(default)]
    pub(super) messages: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct ErrorBody {
    #[serde(default)]
    pub(super) error_code: i64,
    #[serde(default)]
    pub(super) message: String,
}
