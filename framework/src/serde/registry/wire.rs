//! Confluent's wire format: a zero byte, the schema's id in four bytes, and for Protobuf which message of the schema
//! follows. Pure.

use thiserror::Error;

/// The first byte of every value that a registry's serde wrote.
const MAGIC: u8 = 0;
/// The magic byte and the id.
pub(super) const PREFIX_BYTES: usize = 5;
/// How deep messages may be declared inside of one another.
const INDEXES_MAX: usize = 64;

/// Why bytes are not of a registry's serde.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WireError {
    /// They are too few.
    #[error(
        "{0} bytes cannot begin with a schema id, which takes five: it was not written by a registry's serde"
    )]
    TooShort(usize),
    /// They begin with something else.
    #[error("it begins with {0:#04x} and not with 0x00: it was not written by a registry's serde")]
    NoMagic(u8),
    /// The indexes of the Protobuf message end early, or are none.
    #[error("the indexes of the Protobuf message are cut off, negative or too many")]
    Indexes,
}

/// The schema's id, and what follows it. The bytes come from outside; any are taken.
///
/// # Errors
/// They do not begin as the format does.
pub fn split(bytes: &[u8]) -> Result<(i32, &[u8]), WireError> {
    let Some((prefix, payload)) = bytes.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(WireError::TooShort(bytes.len()));
    };
    match prefix {
        [MAGIC, a, b, c, d] => Ok((i32::from_be_bytes([*a, *b, *c, *d]), payload)),
        [other, ..] => Err(WireError::NoMagic(*other)),
    }
}

/// The beginning of a value with the schema of this id.
pub(super) fn begin(id: i32) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.push(MAGIC);
    out.extend_from_slice(&id.to_be_bytes());
    out
}

/// Which message of a Protobuf schema follows: the place of each message inside of the one around it. And the rest.
///
/// # Errors
/// They are cut off, negative or too many.
pub fn message_indexes(bytes: &[u8]) -> Result<(Vec<usize>, &[u8]), WireError> {
    let (count, mut rest) = zigzag(bytes)?;
    if count == 0 {
        // The short form of `[0]`, the first message of the file, which nearly all are.
        return Ok((vec![0], rest));
    }
    if count > INDEXES_MAX {
        return Err(WireError::Indexes);
    }
    let mut indexes = Vec::with_capacity(count);
    for _ in 0..count {
        let (index, left) = zigzag(rest)?;
        indexes.push(index);
        rest = left;
    }
    Ok((indexes, rest))
}

/// Writes them, `[0]` in its short form.
pub fn write_message_indexes(indexes: &[usize], out: &mut Vec<u8>) {
    if indexes == [0] {
        out.push(0);
        return;
    }
    for number in std::iter::once(indexes.len()).chain(indexes.iter().copied()) {
        let mut left = (number as u64) << 1;
        while left >= 0x80 {
            out.push(left as u8 | 0x80);
            left >>= 7;
        }
        out.push(left as u8);
    }
}

/// A zigzag varint that is not negative.
fn zigzag(bytes: &[u8]) -> Result<(usize, &[u8]), WireError> {
    let mut number = 0_u64;
    for (place, byte) in bytes.iter().enumerate().take(5) {
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return match number & 1 {
                0 => Ok(((number >> 1) as usize, &bytes[place + 1..])),
                _ => Err(WireError::Indexes),
            };
        }
    }
    Err(WireError::Indexes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back() {
        let mut bytes = begin(0x0102_0304);
        assert_eq!(bytes, [0, 1, 2, 3, 4]);
        bytes.push(9);
        assert_eq!(split(&bytes), Ok((0x0102_0304, &[9][..])));
        assert_eq!(split(&[0, 0, 0, 1]), Err(WireError::TooShort(4)));
        assert_eq!(split(b"{\"id\":1}"), Err(WireError::NoMagic(b'{')));
    }

    #[test]
    fn message_indexes_have_a_short_form() {
        let round_trip = |indexes: &[usize], written: &[u8]| {
            let mut out = Vec::new();
            write_message_indexes(indexes, &mut out);
            assert_eq!(out, written);
            out.push(7);
            assert_eq!(message_indexes(&out), Ok((indexes.to_vec(), &[7][..])));
        };
        round_trip(&[0], &[0]);
        round_trip(&[1], &[2, 2]);
        round_trip(&[1, 0], &[4, 2, 0]);
        round_trip(&[64], &[2, 0x80, 1]);
    }

    #[test]
    fn indexes_that_are_none_are_refused() {
        for bytes in [&[][..], &[1], &[2], &[0x80], &[0xff; 9], &[0xfe, 0xff, 0xff, 0xff, 0x0f], &[4, 2]] {
            assert_eq!(message_indexes(bytes), Err(WireError::Indexes), "{bytes:?}");
        }
    }
}
