//! Schemas under names that components may have: their authors call them what they like.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::names::{name_of, unused};

/// Where references to schemas lead.
const SCHEMAS: &str = "#/components/schemas/";

/// The schemas, each under a plain name; what refers to them is told, in the messages too.
pub(super) fn plain(schemas: Map<String, Value>, messages: &mut Map<String, Value>) -> Map<String, Value> {
    let is_plain = |name: &String| name_of(name, "schema") == **name;
    let (fine, odd): (Vec<_>, Vec<_>) = schemas.into_iter().partition(|(name, _)| is_plain(name));
    let mut by_name: BTreeMap<String, Value> = fine.into_iter().collect();
    let mut renamed = BTreeMap::new();
    for (name, schema) in odd {
        let plain = unused(name_of(&name, "schema"), &by_name);
        by_name.insert(plain.clone(), schema);
        renamed.insert(name, plain);
    }
    if !renamed.is_empty() {
        by_name.values_mut().chain(messages.values_mut()).for_each(|part| rename(part, &renamed));
    }
    by_name.into_iter().collect()
}

fn rename(part: &mut Value, renamed: &BTreeMap<String, String>) {
    match part {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get_mut("$ref")
                && let Some(plain) = reference.strip_prefix(SCHEMAS).and_then(|to| renamed.get(&decoded(to)))
            {
                *reference = format!("{SCHEMAS}{plain}");
            }
            map.values_mut().for_each(|part| rename(part, renamed));
        }
        Value::Array(all) => all.iter_mut().for_each(|part| rename(part, renamed)),
        _ => {}
    }
}

/// A part of a JSON pointer in a URL, as it was called before it was written there.
fn decoded(part: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(part.len()), part.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_pointers_are_decoded() {
        assert_eq!(decoded("a~1b~0c%20%C3%BC%2541"), "a/b~c ü%41");
        assert_eq!(decoded("~01%"), "~1%");
        assert_eq!(decoded("Plain_1.2-3"), "Plain_1.2-3");
    }
}
