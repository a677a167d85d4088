//! Whether one schema reads what another wrote, by the rules of schema resolution.

use std::collections::HashSet;

use super::pairs::places;
use super::shape::{Field, Name, Part, Primitive, Shape};

/// How deep two schemas may be nested inside of one another.
const DEPTH_MAX: usize = 256;

/// Whether `reader` reads every value that was written with `writer`.
///
/// # Errors
/// The first thing that it cannot read, with the way there.
pub(crate) fn reads(reader: &Shape, writer: &Shape) -> Result<(), String> {
    let mut comparing = Comparing { reader, writer, assumed: HashSet::new() };
    comparing.parts(reader.root, writer.root, &mut Vec::new()).map_err(|(way, reason)| {
        if way.is_empty() { reason } else { format!("at `{}`: {reason}", way.join(".")) }
    })
}

struct Comparing<'a> {
    reader: &'a Shape,
    writer: &'a Shape,
    /// Pairs that are being compared, or were: what contains itself is readable if the rest is.
    assumed: HashSet<(usize, usize)>,
}

type Unreadable = (Vec<String>, String);

impl<'a> Comparing<'a> {
    fn parts(&mut self, reader: usize, writer: usize, way: &mut Vec<String>) -> Result<(), Unreadable> {
        if !self.assumed.insert((reader, writer)) {
            return Ok(());
        }
        let (read, written) = (self.reader.part(reader), self.writer.part(writer));
        let refused = |way: &[String], reason: String| Err((way.to_vec(), reason));
        if way.len() > DEPTH_MAX {
            return refused(way, "it is nested too deep".to_owned());
        }
        match (read, written) {
            // Whatever the writer may have chosen must be readable ...
            (_, Part::Union(branches)) => {
                branches.iter().try_for_each(|branch| self.parts(reader, *branch, way))
            }
            // ... and one choice of the reader is enough.
            (Part::Union(branches), _) => self.one_of(branches, writer, way),
            (Part::Primitive(read), Part::Primitive(written)) => {
                if primitive_reads(*read, *written) {
                    return Ok(());
                }
                refused(way, format!("{read:?} does not read {written:?}").to_lowercase())
            }
            (Part::Array(read), Part::Array(written)) => self.inside("[]", *read, *written, way),
            (Part::Map(read), Part::Map(written)) => self.inside("{}", *read, *written, way),
            (Part::Fixed { name, size }, Part::Fixed { name: other, size: other_size }) => {
                named_the_same(name, other).map_err(|reason| (way.clone(), reason))?;
                if size == other_size {
                    return Ok(());
                }
                refused(way, format!("{} has {size} bytes and had {other_size}", name.full))
            }
            (
                Part::Enum { name, symbols, default },
                Part::Enum { name: other, symbols: other_symbols, .. },
            ) => {
                named_the_same(name, other).map_err(|reason| (way.clone(), reason))?;
                match other_symbols.iter().find(|symbol| !symbols.contains(symbol)) {
                    Some(missing) if default.is_none() => {
                        refused(way, format!("{} has no symbol {missing} and no default", name.full))
                    }
                    _ => Ok(()),
                }
            }
            (Part::Record { name, fields }, Part::Record { name: other, fields: other_fields }) => {
                named_the_same(name, other).map_err(|reason| (way.clone(), reason))?;
                self.fields(fields, other_fields, way)
            }
            (read, written) => refused(way, format!("{} does not read {}", kind(read), kind(written))),
        }
    }

    fn one_of(&mut self, branches: &'a [usize], writer: usize, way: &mut [String]) -> Result<(), Unreadable> {
        for branch in branches {
            // What was only assumed for a branch that does not fit must not count for the next.
            let before = self.assumed.clone();
            if self.parts(*branch, writer, &mut way.to_vec()).is_ok() {
                return Ok(());
            }
            self.assumed = before;
        }
        let written = kind(self.writer.part(writer));
        Err((way.to_vec(), format!("no branch of the union reads {written}")))
    }

    fn inside(
        &mut self,
        step: &str,
        reader: usize,
        writer: usize,
        way: &mut Vec<String>,
    ) -> Result<(), Unreadable> {
        way.push(step.to_owned());
        self.parts(reader, writer, way)?;
        way.pop();
        Ok(())
    }

    fn fields(
        &mut self,
        fields: &'a [Field],
        written: &'a [Field],
        way: &mut Vec<String>,
    ) -> Result<(), Unreadable> {
        let mut taken: Vec<Option<&Field>> = vec![None; fields.len()];
        for (other, place) in written.iter().zip(places(fields, written)) {
            if let Some(place) = place {
                taken[place] = Some(other);
            }
        }
        for (field, taken) in fields.iter().zip(taken) {
            match taken {
                Some(other) => self.inside(&field.name, field.part, other.part, way)?,
                None if field.default.is_some() => {}
                None => {
                    let reason = format!("the field `{}` was not written and has no default", field.name);
                    return Err((way.clone(), reason));
                }
            }
        }
        Ok(())
    }
}

/// The branch of a reader's union that a value goes into: one of the same name or kind before one that only reads it.
#[cfg(feature = "avro")]
pub(super) fn branch_for(reader: &Shape, branches: &[usize], written: &Part) -> Option<usize> {
    let fits = |branch: &usize| match (reader.part(*branch), written) {
        (Part::Primitive(read), Part::Primitive(written)) if read == written => 2,
        (Part::Primitive(read), Part::Primitive(written)) => u8::from(primitive_reads(*read, *written)),
        (Part::Array(_), Part::Array(_)) | (Part::Map(_), Part::Map(_)) => 2,
        (Part::Fixed { name, size }, Part::Fixed { name: other, size: other_size }) if size == other_size => {
            same_name(name, other)
        }
        (Part::Enum { name, .. }, Part::Enum { name: other, .. })
        | (Part::Record { name, .. }, Part::Record { name: other, .. }) => same_name(name, other),
        _ => 0,
    };
    let best = branches.iter().map(fits).max().filter(|best| *best > 0)?;
    branches.iter().position(|branch| fits(branch) == best)
}

#[cfg(feature = "avro")]
fn same_name(reader: &Name, writer: &Name) -> u8 {
    if reader.full == writer.full { 2 } else { u8::from(named_the_same(reader, writer).is_ok()) }
}

fn named_the_same(reader: &Name, writer: &Name) -> Result<(), String> {
    if reader.short() == writer.short() || reader.aliases.contains(&writer.full) {
        return Ok(());
    }
    Err(format!("{} is another type than {}", reader.full, writer.full))
}

fn primitive_reads(reader: Primitive, writer: Primitive) -> bool {
    use Primitive::{Bytes, Double, Float, Int, Long, String};
    reader == writer
        || matches!(
            (reader, writer),
            (Long, Int)
                | (Float, Int | Long)
                | (Double, Int | Long | Float)
                | (String, Bytes)
                | (Bytes, String)
        )
}

fn kind(part: &Part) -> String {
    match part {
        Part::Primitive(primitive) => format!("{primitive:?}").to_lowercase(),
        Part::Fixed { name, .. } => format!("the fixed {}", name.full),
        Part::Enum { name, .. } => format!("the enum {}", name.full),
        Part::Array(_) => "an array".to_owned(),
        Part::Map(_) => "a map".to_owned(),
        Part::Union(_) => "a union".to_owned(),
        Part::Record { name, .. } => format!("the record {}", name.full),
        Part::Unfinished => "an unfinished type".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn can_read(reader: &str, writer: &str) -> Result<(), String> {
        reads(&Shape::parse(reader, []).unwrap(), &Shape::parse(writer, []).unwrap())
    }

    #[track_caller]
    fn one_way(reader: &str, writer: &str, why_not_back: &str) {
        assert_eq!(can_read(reader, writer), Ok(()));
        let said = can_read(writer, reader).unwrap_err();
        assert!(said.contains(why_not_back), "{said}");
    }

    fn record(fields: &str) -> String {
        format!(r#"{{"type": "record", "name": "shop.Order", "fields": [{fields}]}}"#)
    }

    #[test]
    fn fields_come_and_go_with_defaults() {
        let id = r#"{"name": "id", "type": "long"}"#;
        let with = |more: &str| record(&format!("{id}, {more}"));
        let plain = record(id);
        assert!(can_read(&with(r#"{"name": "n", "type": "int", "default": 0}"#), &plain).is_ok());
        one_way(&plain, &with(r#"{"name": "n", "type": "int"}"#), "`n` was not written and has no default");
        one_way(
            &record(r#"{"name": "key", "aliases": ["id"], "type": "long"}"#),
            &plain,
            "`id` was not written",
        );
        one_way(&plain, &record(r#"{"name": "id", "type": "int"}"#), "at `id`: int does not read long");
        let null = r#"{"name": "n", "type": "int", "default": null}"#;
        assert!(can_read(&with(null), &plain).is_ok(), "a default of null is one");
    }

    #[test]
    fn numbers_grow_and_text_is_bytes() {
        one_way("double", "float", "float does not read double");
        one_way("long", "int", "int does not read long");
        one_way("float", "long", "long does not read float");
        assert!(can_read("string", "bytes").is_ok() && can_read("bytes", "string").is_ok());
        assert!(can_read("boolean", "int").is_err());
    }

    #[test]
    fn unions_enums_and_fixed() {
        one_way(r#"["null", "long"]"#, r#""int""#, "int does not read");
        one_way(r#"["null", "int", "string"]"#, r#"["null", "int"]"#, "no branch");
        let of = |symbols: &str, more: &str| {
            format!(r#"{{"type": "enum", "name": "e", "symbols": [{symbols}]{more}}}"#)
        };
        one_way(&of(r#""A", "B""#, ""), &of(r#""A""#, ""), "no symbol B");
        assert!(can_read(&of(r#""A""#, r#", "default": "A""#), &of(r#""A", "B""#, "")).is_ok());
        let fixed =
            |name: &str, size: u32| format!(r#"{{"type": "fixed", "name": "{name}", "size": {size}}}"#);
        assert!(can_read(&fixed("a.f", 2), &fixed("b.f", 2)).is_ok(), "the namespace does not count");
        assert!(can_read(&fixed("f", 2), &fixed("f", 3)).is_err());
        assert!(can_read(&fixed("f", 2), &fixed("g", 2)).is_err());
        assert!(
            can_read(r#"{"type": "array", "items": "long"}"#, r#"{"type": "map", "values": "long"}"#)
                .is_err()
        );
    }

    #[test]
    fn what_contains_itself_is_compared_once() {
        let node = |value: &str| {
            format!(
                r#"{{"type": "record", "name": "N", "fields": [
                    {{"name": "next", "type": ["null", "N"]}}, {{"name": "v", "type": "{value}"}}]}}"#
            )
        };
        assert!(can_read(&node("int"), &node("int")).is_ok());
        assert!(can_read(&node("long"), &node("int")).is_ok());
        let said = can_read(&node("int"), &node("long")).unwrap_err();
        assert!(said.contains("no branch") || said.contains("int does not read long"), "{said}");
    }
}
