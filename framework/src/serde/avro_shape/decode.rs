//! Bytes become a value of a schema. Ours, because the library's decoder believes lengths before it has the bytes, and
//! uses forty kilobytes of stack for each level in a build without optimisation: fifteen would end the process.

use apache_avro::types::Value;

use super::defaults::default_of;
use super::pairs::places;
use super::reads::branch_for;
use super::shape::{Field, Part, Primitive, Shape};

/// How deep a value may be nested: lists, maps and records inside of one another.
const DEPTH_MAX: usize = 64;
/// How many elements of no size (null, an empty record) a value may have: they take no bytes, but memory.
const EMPTY_ELEMENTS_MAX: usize = 1 << 16;
/// How many parts of no size a value may have beside those that its bytes make: records of records of nothing.
const EMPTY_PARTS_MAX: usize = 1 << 20;

/// The one value of the writer's schema that the bytes are, and nothing else, in the form of the reader's. The reader
/// must be able to read the writer ([`reads`](super::reads)). What is behind a logical type stays in its plain form.
///
/// # Errors
/// What the bytes are instead.
pub(crate) fn decode(reader: &Shape, writer: &Shape, bytes: &[u8]) -> Result<Value, String> {
    let parts_left = bytes.len().saturating_mul(DEPTH_MAX).saturating_add(EMPTY_PARTS_MAX);
    let mut walk = Walk { writer, left: bytes, empty_elements: 0, parts_left };
    let value = walk.value(reader, reader.root, writer.root, 0)?;
    match walk.left.len() {
        0 => Ok(value),
        left => Err(format!("{left} bytes are left over")),
    }
}

struct Walk<'a> {
    writer: &'a Shape,
    left: &'a [u8],
    empty_elements: usize,
    parts_left: usize,
}

impl<'a> Walk<'a> {
    /// A part of the writer's schema, in the form of one of the reader's. Small, because it calls itself: what takes
    /// room is done in functions of its own.
    fn value(&mut self, reader: &'a Shape, into: usize, from: usize, depth: usize) -> Result<Value, String> {
        self.parts_left = self.parts_left.checked_sub(1).ok_or("it has too many parts of no size")?;
        let written: &'a Part = self.writer.part(from);
        match (reader.part(into), written) {
            (_, Part::Union(branches)) => self.branch(reader, into, branches, depth),
            (Part::Union(branches), _) => self.chosen_branch(reader, branches, from, depth),
            (Part::Primitive(into), Part::Primitive(from)) => {
                self.primitive(*from).and_then(|value| promoted(value, *into))
            }
            (_, Part::Fixed { size, .. }) => Ok(Value::Fixed(*size, self.take(*size)?.to_vec())),
            (Part::Enum { symbols, default, .. }, Part::Enum { symbols: written, name, .. }) => {
                self.symbol(symbols, default.as_deref(), written, &name.full)
            }
            (Part::Array(into), Part::Array(from)) => self.array(reader, *into, *from, deeper(depth)?),
            (Part::Map(into), Part::Map(from)) => self.map(reader, *into, *from, deeper(depth)?),
            (Part::Record { fields, .. }, Part::Record { fields: written, .. }) => {
                self.record(reader, fields, written, deeper(depth)?)
            }
            _ => Err("the type does not read what was written".to_owned()),
        }
    }

    fn primitive(&mut self, primitive: Primitive) -> Result<Value, String> {
        Ok(match primitive {
            Primitive::Null => Value::Null,
            Primitive::Boolean => match self.take(1)? {
                [0] => Value::Boolean(false),
                [1] => Value::Boolean(true),
                other => return Err(format!("{other:?} is no boolean")),
            },
            Primitive::Int => Value::Int(self.int()?),
            Primitive::Long => Value::Long(self.long()?),
            Primitive::Float => Value::Float(f32::from_le_bytes(self.array_of()?)),
            Primitive::Double => Value::Double(f64::from_le_bytes(self.array_of()?)),
            Primitive::Bytes => Value::Bytes(self.prefixed()?.to_vec()),
            Primitive::String => Value::String(self.text()?),
        })
    }

    fn symbol(
        &mut self,
        known: &[String],
        default: Option<&str>,
        written: &[String],
        name: &str,
    ) -> Result<Value, String> {
        let index = self.int()?;
        let symbol = usize::try_from(index).ok().and_then(|index| written.get(index));
        let symbol = symbol.ok_or_else(|| format!("the enum {name} has no symbol {index}"))?;
        let place = |wanted: &str| known.iter().position(|known| *known == wanted);
        let found = place(symbol).or_else(|| place(default?));
        let found = found.ok_or_else(|| format!("the enum {name} has no symbol {symbol} here"))?;
        Ok(Value::Enum(found as u32, known[found].clone()))
    }

    /// The branch that the writer chose.
    fn branch(
        &mut self,
        reader: &'a Shape,
        into: usize,
        from: &[usize],
        depth: usize,
    ) -> Result<Value, String> {
        let index = self.long()?;
        let branch = usize::try_from(index).ok().and_then(|index| from.get(index).copied());
        self.value(reader, into, branch.ok_or_else(|| format!("a union has no branch {index}"))?, depth)
    }

    fn chosen_branch(
        &mut self,
        reader: &'a Shape,
        into: &[usize],
        from: usize,
        depth: usize,
    ) -> Result<Value, String> {
        let chosen = branch_for(reader, into, self.writer.part(from)).ok_or("no branch of a union fits")?;
        let value = self.value(reader, into[chosen], from, depth)?;
        Ok(Value::Union(chosen as u32, Box::new(value)))
    }

    /// The fields in the reader's order; those that it does not have are left out, those that were not written have
    /// their defaults.
    fn record(
        &mut self,
        reader: &'a Shape,
        fields: &'a [Field],
        written: &'a [Field],
        depth: usize,
    ) -> Result<Value, String> {
        let mut values: Vec<Option<Value>> = vec![None; fields.len()];
        for (from, place) in written.iter().zip(places(fields, written)) {
            if let Some(place) = place {
                values[place] = Some(self.value(reader, fields[place].part, from.part, depth)?);
            } else {
                self.value(self.writer, from.part, from.part, depth)?;
            }
        }
        let named = |(field, value): (&'a Field, Option<Value>)| {
            let value = value.map_or_else(|| default_of(reader, field), Ok)?;
            Ok((field.name.clone(), value))
        };
        fields.iter().zip(values).map(named).collect::<Result<_, String>>().map(Value::Record)
    }

    fn array(&mut self, reader: &'a Shape, into: usize, from: usize, depth: usize) -> Result<Value, String> {
        let mut values = Vec::new();
        while let Some(count) = self.block()? {
            for _ in 0..count {
                let before = self.left.len();
                values.push(self.value(reader, into, from, depth)?);
                self.count_if_empty(before)?;
            }
        }
        Ok(Value::Array(values))
    }

    fn map(&mut self, reader: &'a Shape, into: usize, from: usize, depth: usize) -> Result<Value, String> {
        let mut values = std::collections::HashMap::new();
        while let Some(count) = self.block()? {
            for _ in 0..count {
                let key = self.text()?;
                values.insert(key, self.value(reader, into, from, depth)?);
            }
        }
        Ok(Value::Map(values))
    }

    /// How many elements the next block of an array or a map has; `None` after the last.
    fn block(&mut self) -> Result<Option<i64>, String> {
        let mut count = self.long()?;
        if count < 0 {
            // With the length of the block, for those who skip it.
            count = count.checked_neg().ok_or("a number of elements is none")?;
            let length = self.long()?;
            if usize::try_from(length).map_or(true, |length| length > self.left.len()) {
                return Err(cut_off());
            }
        }
        Ok((count > 0).then_some(count))
    }

    fn count_if_empty(&mut self, before: usize) -> Result<(), String> {
        if self.left.len() == before {
            self.empty_elements += 1;
            if self.empty_elements > EMPTY_ELEMENTS_MAX {
                return Err(format!("it has more than {EMPTY_ELEMENTS_MAX} elements of no size"));
            }
        }
        Ok(())
    }

    fn text(&mut self) -> Result<String, String> {
        let bytes = self.prefixed()?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|error| error.to_string())
    }

    /// Bytes after their length.
    fn prefixed(&mut self) -> Result<&'a [u8], String> {
        let length = self.long()?;
        self.take(usize::try_from(length).map_err(|_| format!("{length} is no length"))?)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, left) = self.left.split_at_checked(count).ok_or_else(cut_off)?;
        self.left = left;
        Ok(taken)
    }

    fn array_of<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N)?.try_into().map_err(|_| cut_off())
    }

    fn int(&mut self) -> Result<i32, String> {
        let number = self.long()?;
        i32::try_from(number).map_err(|_| format!("{number} is no int"))
    }

    fn long(&mut self) -> Result<i64, String> {
        let mut number = 0_u64;
        for (place, byte) in self.left.iter().enumerate() {
            if place == 9 && *byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                self.left = &self.left[place + 1..];
                return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
            }
        }
        Err(if self.left.len() < 10 { cut_off() } else { "a number is longer than 64 bits".to_owned() })
    }
}

/// A value that was written in a narrower type.
fn promoted(value: Value, into: Primitive) -> Result<Value, String> {
    Ok(match (value, into) {
        (Value::Int(number), Primitive::Long) => Value::Long(number.into()),
        (Value::Int(number), Primitive::Float) => Value::Float(number as f32),
        (Value::Int(number), Primitive::Double) => Value::Double(number.into()),
        (Value::Long(number), Primitive::Float) => Value::Float(number as f32),
        (Value::Long(number), Primitive::Double) => Value::Double(number as f64),
        (Value::Float(number), Primitive::Double) => Value::Double(number.into()),
        (Value::String(text), Primitive::Bytes) => Value::Bytes(text.into_bytes()),
        (Value::Bytes(bytes), Primitive::String) => {
            Value::String(String::from_utf8(bytes).map_err(|error| error.to_string())?)
        }
        (value, _) => value,
    })
}

fn deeper(depth: usize) -> Result<usize, String> {
    if depth < DEPTH_MAX {
        Ok(depth + 1)
    } else {
        Err(format!("it is nested deeper than {DEPTH_MAX} levels"))
    }
}

fn cut_off() -> String {
    "it is cut off".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(schema: &str, bytes: &[u8]) -> Result<Value, String> {
        let shape = Shape::parse(schema, []).unwrap();
        decode(&shape, &shape, bytes)
    }

    #[test]
    fn values_are_values() {
        for (schema, bytes) in [
            (r#""long""#, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01][..]),
            (r#""string""#, &[4, b'a', b'b']),
            (r#"["null", "int"]"#, &[2, 7]),
            (r#"["null", "int"]"#, &[0]),
            (r#"{"type": "array", "items": "int"}"#, &[4, 1, 2, 0]),
            (r#"{"type": "array", "items": "int"}"#, &[3, 4, 1, 2, 0]),
            (r#"{"type": "map", "values": "boolean"}"#, &[2, 2, b'k', 1, 0]),
            (r#"{"type": "fixed", "name": "f", "size": 2}"#, &[9, 9]),
            (r#"{"type": "enum", "name": "e", "symbols": ["A", "B"]}"#, &[2]),
            (r#""double""#, &[0; 8]),
        ] {
            checked(schema, bytes).unwrap_or_else(|error| panic!("{schema}: {error}"));
            assert!(checked(schema, &[bytes, &[0]].concat()).is_err(), "{schema}: left over");
            assert!(checked(schema, &bytes[..bytes.len() - 1]).is_err(), "{schema}: cut off");
        }
    }

    #[test]
    fn what_another_schema_wrote_takes_the_readers_form() {
        let read = |reader: &str, writer: &str, bytes: &[u8]| {
            decode(&Shape::parse(reader, []).unwrap(), &Shape::parse(writer, []).unwrap(), bytes).unwrap()
        };
        assert_eq!(read(r#""double""#, r#""int""#, &[3]), Value::Double(-2.0));
        assert_eq!(read(r#"["null", "long"]"#, r#""int""#, &[2]), Value::Union(1, Box::new(Value::Long(1))));
        assert_eq!(
            read(r#"["string", "null"]"#, r#"["null", "string"]"#, &[0]),
            Value::Union(1, Box::new(Value::Null))
        );
        assert_eq!(read(r#""long""#, r#"["int", "long"]"#, &[2, 4]), Value::Long(2));
        let of = |fields: &str| format!(r#"{{"type": "record", "name": "R", "fields": [{fields}]}}"#);
        // A field that was renamed, and another one that got the old name: its own schema did not read it.
        let both =
            of(r#"{"name": "full", "aliases": ["name"], "type": "int"}, {"name": "name", "type": "int"}"#);
        let pair = |full, name| {
            let named = |(name, number): (&str, i32)| (name.to_owned(), Value::Int(number));
            Value::Record(vec![named(("full", full)), named(("name", name))])
        };
        assert_eq!(read(&both, &both, &[2, 4]), pair(1, 2));
        let other_way = of(r#"{"name": "name", "type": "int"}, {"name": "full", "type": "int"}"#);
        assert_eq!(read(&both, &other_way, &[2, 4]), pair(2, 1));
        let (a, b) = (r#"{"name": "a", "type": "int"}"#, r#"{"name": "b", "type": "string"}"#);
        let c = r#"{"name": "c", "type": ["null", {"type": "array", "items": "int"}], "default": null}"#;
        let renamed = r#"{"name": "bb", "aliases": ["b"], "type": "string"}"#;
        let value = read(&of(&format!("{c}, {renamed}")), &of(&format!("{a}, {b}")), &[2, 2, b'x']);
        let null = Value::Union(0, Box::new(Value::Null));
        let text = Value::String("x".to_owned());
        assert_eq!(value, Value::Record(vec![("c".to_owned(), null), ("bb".to_owned(), text)]));
        let colours = |symbols: &str, more: &str| {
            format!(r#"{{"type": "enum", "name": "E", "symbols": [{symbols}]{more}}}"#)
        };
        let reader = colours(r#""B", "A""#, r#", "default": "B""#);
        let writer = colours(r#""A", "C""#, "");
        assert_eq!(read(&reader, &writer, &[0]), Value::Enum(1, "A".to_owned()));
        assert_eq!(read(&reader, &writer, &[2]), Value::Enum(0, "B".to_owned()));
    }

    #[test]
    fn bombs_are_small() {
        let nulls = r#"{"type": "array", "items": "null"}"#;
        assert!(checked(nulls, &[200, 1, 0]).is_ok());
        // 2^40 nulls in seven bytes.
        assert!(checked(nulls, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x40, 0]).unwrap_err().contains("no size"));
        assert!(checked(r#""bytes""#, &[0xfe, 0xff, 0xff, 0xff, 0x0f]).is_err());
        assert!(checked(r#""bytes""#, &[1]).unwrap_err().contains("-1 is no length"));
        let least = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert!(checked(nulls, &least).is_err());
        assert!(checked(r#""long""#, &[0xff; 11]).unwrap_err().contains("longer than 64 bits"));
        let node = r#"{"type": "record", "name": "N", "fields": [{"name": "n", "type": ["null", "N"]}]}"#;
        let mut nested = vec![2; 50];
        nested.push(0);
        assert!(checked(node, &nested).is_ok());
        assert!(checked(node, &vec![2; 1_000_000]).unwrap_err().contains("deeper"));
        // A record that contains itself without a way out never ends.
        let endless = r#"{"type": "record", "name": "N", "fields": [{"name": "n", "type": "N"}]}"#;
        assert!(checked(endless, &[]).unwrap_err().contains("deeper"));
    }
}
