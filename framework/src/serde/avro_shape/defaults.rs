//! Defaults of fields: what stands for a field that was not written.

use apache_avro::types::Value;
use serde_json::Value as Json;

use super::shape::{Field, Part, Primitive, Shape};

/// The default of a field that was not written.
///
/// # Errors
/// There is none, or it is no value of the field's type.
pub(super) fn default_of(shape: &Shape, field: &Field) -> Result<Value, String> {
    let default = field.default.as_ref();
    let default =
        default.ok_or_else(|| format!("the field `{}` was not written and has no default", field.name))?;
    // The depth of a default is that of the schema's JSON, which has a bound.
    value(shape, field.part, default)
        .ok_or_else(|| format!("the default of `{}` is no value of its type", field.name))
}

fn value(shape: &Shape, part: usize, json: &Json) -> Option<Value> {
    Some(match (shape.part(part), json) {
        (Part::Primitive(primitive), json) => primitive_value(*primitive, json)?,
        (Part::Fixed { size, .. }, Json::String(text)) => {
            let bytes = bytes_of(text)?;
            (bytes.len() == *size).then_some(Value::Fixed(*size, bytes))?
        }
        (Part::Enum { symbols, .. }, Json::String(symbol)) => {
            let place = symbols.iter().position(|known| known == symbol)?;
            Value::Enum(place as u32, symbol.clone())
        }
        (Part::Array(items), Json::Array(list)) => {
            Value::Array(list.iter().map(|json| value(shape, *items, json)).collect::<Option<_>>()?)
        }
        (Part::Map(values), Json::Object(map)) => {
            let pair = |(key, json): (&String, &Json)| Some((key.clone(), value(shape, *values, json)?));
            Value::Map(map.iter().map(pair).collect::<Option<_>>()?)
        }
        // By the letter of the specification the first branch; others are written all the same.
        (Part::Union(branches), json) => {
            let found = |(place, branch): (usize, &usize)| Some((place, value(shape, *branch, json)?));
            let (place, value) = branches.iter().enumerate().find_map(found)?;
            Value::Union(place as u32, Box::new(value))
        }
        (Part::Record { fields, .. }, Json::Object(map)) => {
            let pair = |field: &Field| {
                let json = map.get(&field.name).or(field.default.as_ref())?;
                Some((field.name.clone(), value(shape, field.part, json)?))
            };
            Value::Record(fields.iter().map(pair).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

fn primitive_value(primitive: Primitive, json: &Json) -> Option<Value> {
    Some(match primitive {
        Primitive::Null => json.is_null().then_some(Value::Null)?,
        Primitive::Boolean => Value::Boolean(json.as_bool()?),
        Primitive::Int => Value::Int(json.as_i64()?.try_into().ok()?),
        Primitive::Long => Value::Long(json.as_i64()?),
        Primitive::Float => Value::Float(json.as_f64()? as f32),
        Primitive::Double => Value::Double(json.as_f64()?),
        Primitive::Bytes => Value::Bytes(bytes_of(json.as_str()?)?),
        Primitive::String => Value::String(json.as_str()?.to_owned()),
    })
}

/// Bytes are written as the characters of their numbers.
fn bytes_of(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}
