//! Whether bytes are a value of a schema. Looks at every length before anybody allocates for it.

use super::shape::{Part, Primitive, Shape};

/// How deep a value may be nested.
const DEPTH_MAX: usize = 128;
/// How many elements of no size (null, an empty record) a value may have: they take no bytes, but memory.
const EMPTY_ELEMENTS_MAX: usize = 1 << 16;
/// How many parts of no size a value may have beside those that its bytes make: records of records of nothing.
const EMPTY_PARTS_MAX: usize = 1 << 20;

/// Whether the bytes are one value of the schema, and nothing else.
///
/// # Errors
/// What they are instead.
pub(crate) fn check(shape: &Shape, bytes: &[u8]) -> Result<(), String> {
    let parts_left = bytes.len().saturating_mul(DEPTH_MAX).saturating_add(EMPTY_PARTS_MAX);
    let mut walk = Walk { shape, left: bytes, empty_elements: 0, parts_left };
    walk.value(shape.root, 0)?;
    match walk.left.len() {
        0 => Ok(()),
        left => Err(format!("{left} bytes are left over")),
    }
}

struct Walk<'a> {
    shape: &'a Shape,
    left: &'a [u8],
    empty_elements: usize,
    parts_left: usize,
}

impl Walk<'_> {
    fn value(&mut self, part: usize, depth: usize) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!("it is nested deeper than {DEPTH_MAX} levels"));
        }
        self.parts_left = self.parts_left.checked_sub(1).ok_or("it has too many parts of no size")?;
        match self.shape.part(part) {
            Part::Primitive(primitive) => self.primitive(*primitive),
            Part::Fixed { size, .. } => self.skip(*size),
            Part::Enum { symbols, name, .. } => {
                let index = self.int()?;
                let known = usize::try_from(index).is_ok_and(|index| index < symbols.len());
                if known { Ok(()) } else { Err(format!("the enum {} has no symbol {index}", name.full)) }
            }
            Part::Array(items) => self.blocks(*items, false, depth),
            Part::Map(values) => self.blocks(*values, true, depth),
            Part::Union(branches) => {
                let index = self.long()?;
                let branch = usize::try_from(index).ok().and_then(|index| branches.get(index));
                let branch = branch.ok_or_else(|| format!("a union has no branch {index}"))?;
                self.value(*branch, depth + 1)
            }
            Part::Record { fields, .. } => {
                fields.iter().try_for_each(|field| self.value(field.part, depth + 1))
            }
            Part::Unfinished => Err("the schema is not finished".to_owned()),
        }
    }

    fn primitive(&mut self, primitive: Primitive) -> Result<(), String> {
        match primitive {
            Primitive::Null => Ok(()),
            Primitive::Boolean => match self.left.split_first() {
                Some((0 | 1, left)) => {
                    self.left = left;
                    Ok(())
                }
                Some((other, _)) => Err(format!("{other} is no boolean")),
                None => Err(cut_off()),
            },
            Primitive::Int => self.int().map(drop),
            Primitive::Long => self.long().map(drop),
            Primitive::Float => self.skip(4),
            Primitive::Double => self.skip(8),
            Primitive::Bytes => self.prefixed().map(drop),
            Primitive::String => self.text(),
        }
    }

    fn text(&mut self) -> Result<(), String> {
        let bytes = self.prefixed()?;
        std::str::from_utf8(bytes).map(drop).map_err(|error| error.to_string())
    }

    /// Bytes after their length.
    fn prefixed(&mut self) -> Result<&[u8], String> {
        let length = self.long()?;
        let length = usize::try_from(length).map_err(|_| format!("{length} is no length"))?;
        let (bytes, left) = self.left.split_at_checked(length).ok_or_else(cut_off)?;
        self.left = left;
        Ok(bytes)
    }

    /// An array or a map: blocks of elements, each with their number, the last with none.
    fn blocks(&mut self, of: usize, has_keys: bool, depth: usize) -> Result<(), String> {
        loop {
            let mut count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                // With the length of the block, for those who skip it.
                count = count.checked_neg().ok_or("a number of elements is none")?;
                let length = self.long()?;
                if usize::try_from(length).is_ok_and(|length| length > self.left.len()) || length < 0 {
                    return Err(cut_off());
                }
            }
            for _ in 0..count {
                let before = self.left.len();
                if has_keys {
                    self.text()?;
                }
                self.value(of, depth + 1)?;
                if self.left.len() == before {
                    self.empty_elements += 1;
                    if self.empty_elements > EMPTY_ELEMENTS_MAX {
                        return Err(format!("it has more than {EMPTY_ELEMENTS_MAX} elements of no size"));
                    }
                }
            }
        }
    }

    fn skip(&mut self, bytes: usize) -> Result<(), String> {
        self.left = self.left.get(bytes..).ok_or_else(cut_off)?;
        Ok(())
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

fn cut_off() -> String {
    "it is cut off".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(schema: &str, bytes: &[u8]) -> Result<(), String> {
        check(&Shape::parse(schema, []).unwrap(), bytes)
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
