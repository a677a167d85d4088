//! Bytes become a value of a schema. Ours, because the library's decoder believes lengths before it has the bytes, and
//! uses forty kilobytes of stack for each level in a build without optimisation: fifteen would end the process.

use apache_avro::types::Value;

use super::shape::{Field, Part, Primitive, Shape};

/// How deep a value may be nested: lists, maps and records inside of one another.
const DEPTH_MAX: usize = 64;
/// How many elements of no size (null, an empty record) a value may have: they take no bytes, but memory.
const EMPTY_ELEMENTS_MAX: usize = 1 << 16;
/// How many parts of no size a value may have beside those that its bytes make: records of records of nothing.
const EMPTY_PARTS_MAX: usize = 1 << 20;

/// The one value of the schema that the bytes are, and nothing else.
///
/// # Errors
/// What they are instead.
pub(crate) fn decode(shape: &Shape, bytes: &[u8]) -> Result<Value, String> {
    let parts_left = bytes.len().saturating_mul(DEPTH_MAX).saturating_add(EMPTY_PARTS_MAX);
    let mut walk = Walk { shape, left: bytes, empty_elements: 0, parts_left };
    let value = walk.value(shape.root, 0)?;
    match walk.left.len() {
        0 => Ok(value),
        left => Err(format!("{left} bytes are left over")),
    }
}

struct Walk<'a> {
    shape: &'a Shape,
    left: &'a [u8],
    empty_elements: usize,
    parts_left: usize,
}

impl<'a> Walk<'a> {
    /// Small, because it calls itself: what takes room is done in functions of its own.
    fn value(&mut self, part: usize, depth: usize) -> Result<Value, String> {
        self.parts_left = self.parts_left.checked_sub(1).ok_or("it has too many parts of no size")?;
        let shape: &'a Shape = self.shape;
        match shape.part(part) {
            Part::Primitive(primitive) => self.primitive(*primitive),
            Part::Fixed { size, .. } => Ok(Value::Fixed(*size, self.take(*size)?.to_vec())),
            Part::Enum { symbols, name, .. } => self.symbol(symbols, &name.full),
            Part::Array(items) => self.array(*items, deeper(depth)?),
            Part::Map(values) => self.map(*values, deeper(depth)?),
            Part::Union(branches) => self.branch(branches, depth),
            Part::Record { fields, .. } => self.record(fields, deeper(depth)?),
            Part::Unfinished => Err("the schema is not finished".to_owned()),
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

    fn symbol(&mut self, symbols: &[String], name: &str) -> Result<Value, String> {
        let index = self.int()?;
        let found = u32::try_from(index).ok().and_then(|index| Some((index, symbols.get(index as usize)?)));
        let (index, symbol) = found.ok_or_else(|| format!("the enum {name} has no symbol {index}"))?;
        Ok(Value::Enum(index, symbol.clone()))
    }

    fn branch(&mut self, branches: &[usize], depth: usize) -> Result<Value, String> {
        let index = self.long()?;
        let found = u32::try_from(index).ok().and_then(|index| Some((index, *branches.get(index as usize)?)));
        let (index, branch) = found.ok_or_else(|| format!("a union has no branch {index}"))?;
        Ok(Value::Union(index, Box::new(self.value(branch, depth)?)))
    }

    fn record(&mut self, fields: &[Field], depth: usize) -> Result<Value, String> {
        let mut values = Vec::with_capacity(fields.len());
        for field in fields {
            values.push((field.name.clone(), self.value(field.part, depth)?));
        }
        Ok(Value::Record(values))
    }

    fn array(&mut self, of: usize, depth: usize) -> Result<Value, String> {
        let mut values = Vec::new();
        while let Some(count) = self.block()? {
            for _ in 0..count {
                let before = self.left.len();
                values.push(self.value(of, depth)?);
                self.count_if_empty(before)?;
            }
        }
        Ok(Value::Array(values))
    }

    fn map(&mut self, of: usize, depth: usize) -> Result<Value, String> {
        let mut values = std::collections::HashMap::new();
        while let Some(count) = self.block()? {
            for _ in 0..count {
                let key = self.text()?;
                values.insert(key, self.value(of, depth)?);
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
        decode(&Shape::parse(schema, []).unwrap(), bytes)
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
