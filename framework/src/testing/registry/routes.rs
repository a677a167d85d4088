//! Which request means what: the REST API of Confluent's schema registry. Pure.

use serde_json::{Value, json};

use super::fault::Fault;
use super::store::{Store, Which};
use crate::serde::registry::{Schema, SchemaBody, decoded};

/// Answers one request.
///
/// # Errors
/// What the registry says no with.
pub(super) fn answer(store: &mut Store, method: &str, target: &str, body: &[u8]) -> Result<Value, Fault> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let segments: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(decoded).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let asked = Asked { query, body };
    match (method, segments.as_slice()) {
        ("GET", []) => Ok(json!({})),
        ("GET", ["contexts"]) => Ok(json!(["."])),
        (_, ["schemas", rest @ ..]) => schemas(store, method, rest),
        (_, ["subjects", rest @ ..]) => subjects(store, method, rest, &asked),
        (_, ["compatibility", "subjects", subject, "versions", rest @ ..]) if method == "POST" => {
            let which = match rest {
                [] => None,
                [version] => Some(version_of(version)?),
                _ => return Err(Fault::no_such_place()),
            };
            let faults = store.faults(subject, which, &asked.schema()?)?;
            Ok(json!({ "is_compatible": faults.is_empty(), "messages": faults }))
        }
        (_, ["config", rest @ ..]) => config(store, method, rest.first().copied(), &asked),
        (_, ["mode", rest @ ..]) => mode(store, method, rest.first().copied(), &asked),
        _ => Err(Fault::no_such_place()),
    }
}

struct Asked<'a> {
    query: &'a str,
    body: &'a [u8],
}

impl Asked<'_> {
    fn value(&self, name: &str) -> Option<String> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(found, _)| *found == name).map(|(_, value)| decoded(value)).next_back()
    }

    fn is_set(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    fn json(&self) -> Result<Value, Fault> {
        serde_json::from_slice(self.body).map_err(|error| Fault::new(422, error.to_string()))
    }

    fn schema(&self) -> Result<Schema, Fault> {
        let body: SchemaBody = serde_json::from_slice(self.body)
            .map_err(|error| Fault::new(422, format!("the body is no schema: {error}")))?;
        Ok(body.into())
    }
}

fn version_of(text: &str) -> Result<Which, Fault> {
    match text {
        "latest" | "-1" => Ok(Which::Latest),
        number => match number.parse() {
            Ok(number) if number > 0 => Ok(Which::Number(number)),
            _ => {
                let message = format!("The specified version '{text}' is not a valid version id.");
                Err(Fault::new(42_202, message))
            }
        },
    }
}

fn schemas(store: &Store, method: &str, rest: &[&str]) -> Result<Value, Fault> {
    let (id, detail) = match (method, rest) {
        ("GET", ["types"]) => return Ok(json!(["JSON", "PROTOBUF", "AVRO"])),
        ("GET", ["ids", id]) => (id, None),
        ("GET", ["ids", id, detail]) => (id, Some(*detail)),
        _ => return Err(Fault::no_such_place()),
    };
    let id: i32 = id.parse().map_err(|_| Fault::no_such_place())?;
    let schema = store.by_id(id)?;
    match detail {
        None => Ok(described(schema)),
        Some("schema") => Ok(raw(schema)),
        Some("subjects") => {
            let mut subjects: Vec<_> = store.places_of(id).map(|(subject, _)| subject).collect();
            subjects.dedup();
            Ok(json!(subjects))
        }
        Some("versions") => {
            let places = store.places_of(id);
            Ok(places.map(|(subject, version)| json!({ "subject": subject, "version": version })).collect())
        }
        Some(_) => Err(Fault::no_such_place()),
    }
}

fn subjects(store: &mut Store, method: &str, rest: &[&str], asked: &Asked<'_>) -> Result<Value, Fault> {
    let (deleted, permanent) = (asked.is_set("deleted"), asked.is_set("permanent"));
    match (method, rest) {
        ("GET", []) => {
            let prefix = asked.value("subjectPrefix").unwrap_or_default();
            Ok(json!(store.subjects(&prefix, deleted)))
        }
        ("POST", [subject]) => {
            let (id, version, schema) = store.find(subject, &asked.schema()?, deleted)?;
            Ok(placed(subject, version, id, schema))
        }
        ("DELETE", [subject]) => store.delete_subject(subject, permanent).map(|versions| json!(versions)),
        ("GET", [subject, "versions"]) => store.versions(subject, deleted).map(|versions| json!(versions)),
        ("POST", [subject, "versions"]) => {
            store.register(subject, asked.schema()?).map(|id| json!({ "id": id }))
        }
        ("GET", [subject, "versions", version]) => {
            let (id, version, schema) = store.version(subject, version_of(version)?, deleted)?;
            Ok(placed(subject, version, id, schema))
        }
        ("DELETE", [subject, "versions", version]) => {
            store.delete_version(subject, version_of(version)?, permanent).map(|version| json!(version))
        }
        ("GET", [subject, "versions", version, "schema"]) => {
            store.version(subject, version_of(version)?, deleted).map(|(_, _, schema)| raw(schema))
        }
        ("GET", [subject, "versions", version, "referencedby"]) => {
            let (_, version, _) = store.version(subject, version_of(version)?, true)?;
            Ok(json!(store.referenced_by(subject, version)))
        }
        _ => Err(Fault::no_such_place()),
    }
}

fn config(store: &mut Store, method: &str, subject: Option<&str>, asked: &Asked<'_>) -> Result<Value, Fault> {
    match method {
        "GET" => {
            let to_global = asked.is_set("defaultToGlobal");
            Ok(json!({ "compatibilityLevel": store.compatibility(subject, to_global)? }))
        }
        "PUT" => {
            let wanted = asked.json()?.get("compatibility").cloned().unwrap_or_default();
            let level = serde_json::from_value(wanted).map_err(|_| {
                let message = "Invalid compatibility level. Valid values are none, backward, forward, full, \
                               backward_transitive, forward_transitive, and full_transitive";
                Fault::new(42_203, message)
            })?;
            store.set_compatibility(subject, level);
            Ok(json!({ "compatibility": level }))
        }
        "DELETE" => Ok(json!({ "compatibilityLevel": store.unset_compatibility(subject)? })),
        _ => Err(Fault::new(405, "HTTP 405 Method Not Allowed")),
    }
}

fn mode(store: &mut Store, method: &str, subject: Option<&str>, asked: &Asked<'_>) -> Result<Value, Fault> {
    match method {
        "GET" => Ok(json!({ "mode": store.mode(subject, asked.is_set("defaultToGlobal"))? })),
        "PUT" => {
            let wanted = asked.json()?.get("mode").and_then(Value::as_str).map(str::to_owned);
            let known = wanted.filter(|mode| ["READWRITE", "READONLY", "IMPORT"].contains(&mode.as_str()));
            let mode = known.ok_or_else(|| {
                Fault::new(42_204, "Invalid mode. Valid values are READWRITE, READONLY and IMPORT")
            })?;
            store.set_mode(subject, &mode);
            Ok(json!({ "mode": mode }))
        }
        _ => Err(Fault::new(405, "HTTP 405 Method Not Allowed")),
    }
}

fn described(schema: &Schema) -> Value {
    serde_json::to_value(SchemaBody::from(schema)).unwrap_or_default()
}

fn placed(subject: &str, version: i32, id: i32, schema: &Schema) -> Value {
    let mut described = described(schema);
    if let Some(fields) = described.as_object_mut() {
        fields.insert("subject".to_owned(), json!(subject));
        fields.insert("version".to_owned(), json!(version));
        fields.insert("id".to_owned(), json!(id));
    }
    described
}

/// The schema alone: JSON as it is, other texts as text.
fn raw(schema: &Schema) -> Value {
    serde_json::from_str(&schema.text).unwrap_or_else(|_| json!(&*schema.text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(store: &mut Store, request: &str, body: Value) -> Result<Value, i64> {
        let (method, target) = request.split_once(' ').unwrap();
        answer(store, method, target, body.to_string().as_bytes()).map_err(|fault| fault.code)
    }

    fn order(fields: &str) -> Value {
        json!({ "schema": format!(r#"{{"type": "record", "name": "Order", "fields": [{fields}]}}"#) })
    }

    const ID: &str = r#"{"name": "id", "type": "long"}"#;

    #[test]
    fn a_schema_has_one_id_and_a_version_under_each_subject() {
        let mut store = Store::default();
        let mut asked = |request: &str, body| ask(&mut store, request, body);
        assert_eq!(asked("POST /subjects/a/versions", order(ID)), Ok(json!({ "id": 1 })));
        assert_eq!(asked("POST /subjects/a/versions", order(&format!(" {ID} "))), Ok(json!({ "id": 1 })));
        assert_eq!(asked("POST /subjects/b%2Fc/versions", order(ID)), Ok(json!({ "id": 1 })));
        assert_eq!(asked("GET /subjects", json!(null)), Ok(json!(["a", "b/c"])));
        assert_eq!(asked("GET /subjects?subjectPrefix=b", json!(null)), Ok(json!(["b/c"])));
        assert_eq!(asked("GET /subjects/a/versions", json!(null)), Ok(json!([1])));
        assert_eq!(asked("GET /schemas/ids/1/subjects", json!(null)), Ok(json!(["a", "b/c"])));
        let found = asked("POST /subjects/a", order(ID)).unwrap();
        assert_eq!((&found["id"], &found["version"], &found["subject"]), (&json!(1), &json!(1), &json!("a")));
        assert_eq!(asked("GET /schemas/ids/1", json!(null)).unwrap()["schema"], order(ID)["schema"]);
        assert_eq!(asked("GET /schemas/ids/1/schema", json!(null)).unwrap()["name"], "Order");
        assert_eq!(asked("GET /subjects/a/versions/latest/schema", json!(null)).unwrap()["name"], "Order");
    }

    #[test]
    fn what_is_not_there_has_its_code() {
        let mut store = Store::default();
        let mut code = |request: &str, body| ask(&mut store, request, body).unwrap_err();
        assert_eq!(code("GET /schemas/ids/1", json!(null)), 40_403);
        assert_eq!(code("GET /subjects/a/versions", json!(null)), 40_401);
        assert_eq!(code("POST /subjects/a", order(ID)), 40_401);
        assert_eq!(code("GET /config/a", json!(null)), 40_408);
        assert_eq!(code("GET /mode/a", json!(null)), 40_409);
        assert_eq!(code("PUT /config", json!({ "compatibility": "SOMETIMES" })), 42_203);
        assert_eq!(code("PUT /mode", json!({ "mode": "SOMETIMES" })), 42_204);
        assert_eq!(code("POST /subjects/a/versions", json!({ "schema": "{" })), 42_201);
        assert_eq!(code("POST /subjects/a/versions", json!({})), 422);
        assert_eq!(code("GET /nothing", json!(null)), 404);
        assert_eq!(code("GET /subjects/a/versions/0", json!(null)), 42_202);
        ask(&mut store, "POST /subjects/a/versions", order(ID)).unwrap();
        assert_eq!(ask(&mut store, "GET /subjects/a/versions/2", json!(null)), Err(40_402));
        let other = json!({ "schema": "\"int\"" });
        assert_eq!(ask(&mut store, "POST /subjects/a", other), Err(40_403));
    }

    #[test]
    fn compatibility_is_checked_as_the_level_says() {
        let more = format!(r#"{ID}, {{"name": "n", "type": "int"}}"#);
        let with_default = format!(r#"{ID}, {{"name": "n", "type": "int", "default": 0}}"#);
        for (level, first, second, fits) in [
            ("BACKWARD", ID, more.as_str(), false),
            ("BACKWARD", ID, &with_default, true),
            ("BACKWARD", &more, ID, true),
            ("FORWARD", ID, &more, true),
            ("FORWARD", &more, ID, false),
            ("FULL", ID, &more, false),
            ("FULL", ID, &with_default, true),
            ("NONE", ID, r#"{"name": "id", "type": "string"}"#, true),
        ] {
            let mut store = Store::default();
            ask(&mut store, "PUT /config/a", json!({ "compatibility": level })).unwrap();
            ask(&mut store, "POST /subjects/a/versions", order(first)).unwrap();
            let path = "POST /compatibility/subjects/a/versions/latest?verbose=true";
            let checked = ask(&mut store, path, order(second)).unwrap();
            assert_eq!(checked["is_compatible"], fits, "{level} {first} {second}: {checked}");
            let registered = ask(&mut store, "POST /subjects/a/versions", order(second));
            assert_eq!(registered, if fits { Ok(json!({ "id": 2 })) } else { Err(409) }, "{level}");
        }
    }

    #[test]
    fn transitive_levels_look_at_all_versions() {
        let (with, without) = (format!(r#"{ID}, {{"name": "n", "type": "int", "default": 0}}"#), ID);
        let text = format!(r#"{ID}, {{"name": "n", "type": "string", "default": ""}}"#);
        for (level, fits) in [("BACKWARD", true), ("BACKWARD_TRANSITIVE", false)] {
            let mut store = Store::default();
            ask(&mut store, "PUT /config", json!({ "compatibility": level })).unwrap();
            for fields in [&with, without] {
                ask(&mut store, "POST /subjects/a/versions", order(fields)).unwrap();
            }
            // Readable from the last version, in which there is no `n`, and not from the first, where it is a number.
            let registered = ask(&mut store, "POST /subjects/a/versions", order(&text));
            assert_eq!(registered.is_ok(), fits, "{level}: {registered:?}");
        }
    }

    #[test]
    fn deletion_is_soft_then_hard() {
        let mut store = Store::default();
        let mut asked = |request: &str| ask(&mut store, request, order(ID));
        asked("POST /subjects/a/versions").unwrap();
        assert_eq!(asked("DELETE /subjects/a?permanent=true"), Err(40_405));
        assert_eq!(asked("DELETE /subjects/a"), Ok(json!([1])));
        assert_eq!(asked("DELETE /subjects/a"), Err(40_404));
        assert_eq!(asked("GET /subjects"), Ok(json!([])));
        assert_eq!(asked("GET /subjects?deleted=true"), Ok(json!(["a"])));
        assert!(asked("GET /schemas/ids/1").is_ok(), "records with the id stay readable");
        assert_eq!(asked("POST /subjects/a/versions"), Ok(json!({ "id": 1 })));
        assert_eq!(asked("GET /subjects/a/versions"), Ok(json!([2])), "a version never comes back");
        assert_eq!(asked("DELETE /subjects/a/versions/2?permanent=true"), Err(40_407));
        assert_eq!(asked("DELETE /subjects/a/versions/2"), Ok(json!(2)));
        assert_eq!(asked("DELETE /subjects/a/versions/2"), Err(40_406));
        assert_eq!(asked("DELETE /subjects/a?permanent=true"), Ok(json!([1, 2])));
        assert_eq!(asked("GET /schemas/ids/1"), Err(40_403));
    }

    #[test]
    fn references_hold_what_they_name() {
        let mut store = Store::default();
        let colour = json!({ "schema": r#"{"type": "enum", "name": "Colour", "symbols": ["RED"]}"# });
        ask(&mut store, "POST /subjects/colour/versions", colour).unwrap();
        let references = json!([{ "name": "Colour", "subject": "colour", "version": 1 }]);
        let list = json!({ "schema": r#"{"type": "array", "items": "Colour"}"#, "references": references });
        let alone = json!({ "schema": list["schema"] });
        assert_eq!(ask(&mut store, "POST /subjects/list/versions", alone), Err(42_201));
        assert_eq!(ask(&mut store, "POST /subjects/list/versions", list), Ok(json!({ "id": 2 })));
        let by = ask(&mut store, "GET /subjects/colour/versions/1/referencedby", json!(null));
        assert_eq!(by, Ok(json!([2])));
        assert_eq!(ask(&mut store, "DELETE /subjects/colour", json!(null)), Err(42_206));
    }

    #[test]
    fn a_registry_that_is_read_only_registers_nothing() {
        let mut store = Store::default();
        ask(&mut store, "PUT /mode/a", json!({ "mode": "READONLY" })).unwrap();
        assert_eq!(ask(&mut store, "POST /subjects/a/versions", order(ID)), Err(42_205));
        assert!(ask(&mut store, "POST /subjects/b/versions", order(ID)).is_ok());
        assert_eq!(
            ask(&mut store, "GET /mode/b?defaultToGlobal=true", json!(null)),
            Ok(json!({ "mode": "READWRITE" }))
        );
    }
}
