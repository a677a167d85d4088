//! The messages of a document: what one record is, with the schemas of its parts.

use std::any::TypeId;
use std::collections::BTreeMap;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::Schemas;
use super::names::{name_of, short_type, unused};
use super::plain::plain;
use crate::listener::HeaderField;
use crate::serde::{Payload, kind_of};
use crate::template::request::CORRELATION_ID;

/// The version of AsyncAPI's Kafka bindings.
pub(super) const BINDING_VERSION: &str = "0.5.0";
/// Bytes that nothing is known of: the JSON Schema of a type says nothing about them.
const BYTES: &str = "application/octet-stream";

/// The messages so far, and the schemas that they refer to.
pub(super) struct Messages<'a> {
    schemas: &'a Schemas,
    generator: SchemaGenerator,
    by_name: BTreeMap<String, Value>,
}

/// What a record is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) value: Option<&'a Payload>,
    pub(super) key: Option<&'a Payload>,
    pub(super) headers: &'a [HeaderField],
    /// It asks for an answer, or is one.
    pub(super) is_correlated: bool,
}

impl<'a> Messages<'a> {
    pub(super) fn new(schemas: &'a Schemas) -> Self {
        // AsyncAPI's own schemas are a superset of draft 7.
        let settings = SchemaSettings::draft07().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
        Self { schemas, generator: settings.into_generator(), by_name: BTreeMap::new() }
    }

    /// The name of the message that is made of these parts.
    pub(super) fn name(&mut self, parts: Parts<'_>) -> String {
        let called = parts.value.map_or_else(|| "record".to_owned(), |value| short_type(value.type_name));
        let message = self.message(&called, parts);
        let wanted = name_of(&called, "record");
        let same = self.by_name.iter().find(|(_, known)| **known == message);
        if let Some((name, _)) = same {
            return name.clone();
        }
        let name = unused(wanted, &self.by_name);
        self.by_name.insert(name.clone(), message);
        name
    }

    /// The messages, and the schemas that they refer to.
    pub(super) fn into_components(mut self) -> Value {
        let mut messages: Map<_, _> = self.by_name.into_iter().collect();
        let schemas = plain(self.generator.take_definitions(true), &mut messages);
        json!({ "messages": messages, "schemas": schemas })
    }

    fn message(&mut self, called: &str, parts: Parts<'_>) -> Value {
        let mut message = Map::new();
        message.insert("name".to_owned(), called.into());
        if let Some(value) = parts.value {
            if let Some(content_type) = value.content_type {
                message.insert("contentType".to_owned(), content_type.into());
            }
            if let Some(payload) = self.payload(value) {
                message.insert("payload".to_owned(), payload);
            }
        }
        if let Some(headers) = headers(&parts) {
            message.insert("headers".to_owned(), headers);
        }
        if parts.is_correlated {
            let location = format!("$message.header#/{CORRELATION_ID}");
            message.insert("correlationId".to_owned(), json!({ "location": location }));
        }
        if let Some(key) = parts.key.and_then(|key| self.schema(key)) {
            let kafka = json!({ "key": key, "bindingVersion": BINDING_VERSION });
            message.insert("bindings".to_owned(), json!({ "kafka": kafka }));
        }
        message.into()
    }

    fn payload(&mut self, value: &Payload) -> Option<Value> {
        let Some(schema) = value.schema else { return self.schema(value) };
        let text = (schema.text)()?;
        // Schemas that are JSON stand there as such, others as texts.
        let text = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
        Some(json!({ "schemaFormat": schema.format, "schema": text }))
    }

    /// Its schema in AsyncAPI's own form.
    fn schema(&mut self, payload: &Payload) -> Option<Value> {
        if let Some(kind) = kind_of(payload.type_id) {
            let format = (kind == "integer" || kind == "number").then(|| format_of(payload));
            return Some(match format {
                Some(format) => json!({ "type": kind, "format": format }),
                None => json!({ "type": kind }),
            });
        }
        if payload.content_type == Some(BYTES) || payload.schema.is_some() {
            return None;
        }
        let mut schema = self.schemas.make(payload.type_id, &mut self.generator)?;
        self.generator.transforms_mut().for_each(|transform| transform.transform(&mut schema));
        Some(schema.into())
    }
}

/// How wide a number is, as JSON Schema's users have it.
fn format_of(payload: &Payload) -> String {
    let name = payload.type_name;
    let is = |id: TypeId| payload.type_id == id;
    match name.split_at(1) {
        _ if is(TypeId::of::<f32>()) => "float".to_owned(),
        _ if is(TypeId::of::<f64>()) => "double".to_owned(),
        ("u", bits) => format!("uint{bits}"),
        (_, bits) => format!("int{bits}"),
    }
}

fn headers(parts: &Parts<'_>) -> Option<Value> {
    let (mut properties, mut required) = (BTreeMap::new(), Vec::new());
    if let Some((header, name)) = parts.value.and_then(|value| value.tag) {
        properties.insert(header, json!({ "type": "string", "const": name }));
        required.push(header);
    }
    for HeaderField { name, kind, is_required } in parts.headers {
        properties.entry(name).or_insert_with(|| json!({ "type": kind }));
        if *is_required {
            required.push(name);
        }
    }
    if properties.is_empty() {
        return None;
    }
    required.sort_unstable();
    required.dedup();
    Some(match required.is_empty() {
        true => json!({ "type": "object", "properties": properties }),
        false => json!({ "type": "object", "properties": properties, "required": required }),
    })
}
