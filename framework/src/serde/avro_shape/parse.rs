//! A schema's JSON becomes a [`Shape`].

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::shape::{Field, Name, Part, Primitive, Shape};

/// How large a `fixed` may be: it takes that many bytes in every value.
const FIXED_BYTES_MAX: u64 = 64 * 1024 * 1024;

impl Shape {
    /// Reads a schema; `referenced` are the texts of schemas that it may name, each before the one that needs it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse<'a>(
        text: &str,
        referenced: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, String> {
        let mut reading = Reading::default();
        for text in referenced {
            let schema = json(text)?;
            reading.part(&schema, "")?;
        }
        // A bare name of a type is what some write who mean the JSON text of it.
        let schema = json(text)?;
        let root = reading.part(&schema, "")?;
        Ok(Self { parts: reading.parts, root })
    }
}

fn json(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(schema) => Ok(schema),
        Err(_) if Primitive::named(text.trim()).is_some() => Ok(Value::String(text.trim().to_owned())),
        Err(error) => Err(format!("the schema is no JSON: {error}")),
    }
}

#[derive(Default)]
struct Reading {
    parts: Vec<Part>,
    names: HashMap<String, usize>,
}

impl Reading {
    fn add(&mut self, part: Part) -> usize {
        self.parts.push(part);
        self.parts.len() - 1
    }

    fn part(&mut self, schema: &Value, namespace: &str) -> Result<usize, String> {
        match schema {
            Value::String(name) => self.named(name, namespace),
            Value::Array(branches) => {
                let branches: Vec<usize> =
                    branches.iter().map(|branch| self.part(branch, namespace)).collect::<Result<_, _>>()?;
                if branches.iter().any(|branch| matches!(self.parts.get(*branch), Some(Part::Union(_)))) {
                    return Err("a union holds a union".to_owned());
                }
                Ok(self.add(Part::Union(branches)))
            }
            Value::Object(schema) => self.complex(schema, namespace),
            other => Err(format!("`{other}` is no schema")),
        }
    }

    fn named(&mut self, name: &str, namespace: &str) -> Result<usize, String> {
        if let Some(primitive) = Primitive::named(name) {
            return Ok(self.add(Part::Primitive(primitive)));
        }
        let full = full_name(name, namespace);
        let found = self.names.get(&full).or_else(|| self.names.get(name)).copied();
        found.ok_or_else(|| format!("the type `{full}` is named and nowhere defined"))
    }

    fn complex(&mut self, schema: &Map<String, Value>, namespace: &str) -> Result<usize, String> {
        let kind = schema.get("type").ok_or("a schema has no `type`")?;
        let Value::String(kind) = kind else { return self.part(kind, namespace) };
        match kind.as_str() {
            "array" => {
                let items = self.part(schema.get("items").ok_or("an array has no `items`")?, namespace)?;
                Ok(self.add(Part::Array(items)))
            }
            "map" => {
                let values = self.part(schema.get("values").ok_or("a map has no `values`")?, namespace)?;
                Ok(self.add(Part::Map(values)))
            }
            "fixed" => {
                let name = self.define(schema, namespace)?;
                let size = schema.get("size").and_then(Value::as_u64).filter(|size| *size <= FIXED_BYTES_MAX);
                let size =
                    size.ok_or_else(|| format!("the size of the fixed `{}` is none", name.full))? as usize;
                self.fill(Part::Fixed { name, size })
            }
            "enum" => {
                let name = self.define(schema, namespace)?;
                let symbols = schema.get("symbols").and_then(Value::as_array);
                let symbols = symbols.ok_or_else(|| format!("the enum `{}` has no `symbols`", name.full))?;
                let symbols = symbols.iter().map(|symbol| symbol.as_str().map(str::to_owned)).collect();
                let symbols: Option<Vec<String>> = symbols;
                let symbols = symbols.ok_or_else(|| format!("a symbol of `{}` is no text", name.full))?;
                let default = schema.get("default").and_then(Value::as_str).map(str::to_owned);
                self.fill(Part::Enum { name, symbols, default })
            }
            "record" | "error" => self.record(schema, namespace),
            other => self.named(other, namespace),
        }
    }

    /// Notes the name of a type that is about to be filled in, so that it can contain itself.
    fn define(&mut self, schema: &Map<String, Value>, namespace: &str) -> Result<Name, String> {
        let name = schema.get("name").and_then(Value::as_str).ok_or("a named type has no `name`")?;
        let namespace = schema.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
        let full = full_name(name, namespace);
        let own = full.rsplit_once('.').map_or("", |(namespace, _)| namespace);
        let aliases = texts(schema.get("aliases")).map(|alias| full_name(alias, own)).collect();
        let place = self.add(Part::Unfinished);
        if self.names.insert(full.clone(), place).is_some() {
            return Err(format!("the type `{full}` is defined twice"));
        }
        Ok(Name { full, aliases })
    }

    /// Fills in a type that [`define`](Self::define) has noted.
    fn fill(&mut self, part: Part) -> Result<usize, String> {
        let (Part::Fixed { name, .. } | Part::Enum { name, .. } | Part::Record { name, .. }) = &part else {
            return Err("a type without a name".to_owned());
        };
        let place = self.names.get(&name.full).copied().ok_or("a type was not noted")?;
        if let Some(slot) = self.parts.get_mut(place) {
            *slot = part;
        }
        Ok(place)
    }

    fn record(&mut self, schema: &Map<String, Value>, namespace: &str) -> Result<usize, String> {
        let name = self.define(schema, namespace)?;
        let inside = name.full.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned();
        let described = schema.get("fields").and_then(Value::as_array);
        let described = described.ok_or_else(|| format!("the record `{}` has no `fields`", name.full))?;
        let mut fields: Vec<Field> = Vec::with_capacity(described.len());
        let mut names = HashSet::with_capacity(described.len());
        for field in described {
            let field_name = field.get("name").and_then(Value::as_str);
            let field_name = field_name.ok_or_else(|| format!("a field of `{}` has no name", name.full))?;
            if !names.insert(field_name) {
                return Err(format!("the record `{}` has the field `{field_name}` twice", name.full));
            }
            let of = field.get("type").ok_or_else(|| format!("the field `{field_name}` has no `type`"))?;
            fields.push(Field {
                name: field_name.to_owned(),
                aliases: texts(field.get("aliases")).map(str::to_owned).collect(),
                part: self.part(of, &inside)?,
                default: field.get("default").cloned(),
            });
        }
        self.fill(Part::Record { name, fields })
    }
}

fn texts(list: Option<&Value>) -> impl Iterator<Item = &str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_resolved_and_records_contain_themselves() {
        let list = r#"{"type": "record", "name": "Node", "namespace": "a.b", "aliases": ["Old"], "fields": [
            {"name": "next", "type": ["null", "Node"], "default": null}, {"name": "n", "type": {"type": "int"}}]}"#;
        let shape = Shape::parse(list, []).unwrap();
        assert_eq!(shape.name(), Some("a.b.Node"));
        let Part::Record { name, fields } = shape.part(shape.root) else { panic!("{shape:?}") };
        assert_eq!((name.short(), &name.aliases[..]), ("Node", &["a.b.Old".to_owned()][..]));
        let Part::Union(branches) = shape.part(fields[0].part) else { panic!("{shape:?}") };
        assert_eq!(branches[1], shape.root);
        assert_eq!(Shape::parse("string", []).unwrap(), Shape::parse("\"string\"", []).unwrap());
    }

    #[test]
    fn other_schemas_may_be_named() {
        let inner = r#"{"type": "enum", "name": "x.Colour", "symbols": ["RED"]}"#;
        let outer = r#"{"type": "array", "items": "x.Colour"}"#;
        assert!(Shape::parse(outer, [inner]).is_ok());
        assert!(Shape::parse(outer, []).unwrap_err().contains("x.Colour"));
    }

    #[test]
    fn what_is_no_schema_says_why() {
        for (text, why) in [
            ("{", "no JSON"),
            ("7", "no schema"),
            ("{}", "no `type`"),
            (r#""Nobody""#, "nowhere defined"),
            (r#"{"type": "array"}"#, "items"),
            (r#"{"type": "fixed", "name": "f", "size": 99999999999}"#, "size"),
            (r#"{"type": "fixed", "name": "f", "size": -1}"#, "size"),
            (r#"{"type": "record", "name": "r"}"#, "fields"),
            (
                r#"{"type": "record", "name": "r", "fields":
                    [{"name": "a", "type": "int"}, {"name": "a", "type": "int"}]}"#,
                "twice",
            ),
            (r#"[["int"]]"#, "union"),
        ] {
            let said = Shape::parse(text, []).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
        let deep = format!("{}{}", r#"{"type":"array","items":"#.repeat(100_000), "1");
        assert!(Shape::parse(&deep, []).is_err());
    }
}
