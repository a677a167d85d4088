//! Zigzag varints, and the reader of record bodies that is built on them. Both sit on the hottest path of the crate.

use super::error::RecordError;

/// The most bytes that a 32-bit and a 64-bit varint take.
const MAX_VARINT_LEN: usize = 5;
const MAX_VARLONG_LEN: usize = 10;

/// Bytes that `value` takes as a zigzag varint.
#[inline]
pub(super) const fn varint_len(value: i32) -> usize {
    unsigned_len(zigzag32(value) as u64)
}

/// Bytes that `value` takes as a zigzag varlong.
#[inline]
pub(super) const fn varlong_len(value: i64) -> usize {
    unsigned_len(zigzag64(value))
}

#[inline]
const fn unsigned_len(value: u64) -> usize {
    // ceil(significant bits / 7), and 1 for zero.
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

#[inline]
const fn zigzag32(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)) as u32
}

#[inline]
const fn zigzag64(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[inline]
pub(super) fn put_varint(out: &mut Vec<u8>, value: i32) {
    put_unsigned(out, u64::from(zigzag32(value)));
}

#[inline]
pub(super) fn put_varlong(out: &mut Vec<u8>, value: i64) {
    put_unsigned(out, zigzag64(value));
}

#[inline]
fn put_unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes varints and slices off the front of a byte slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, RecordError> {
        let (first, rest) = self.rest.split_first().ok_or(RecordError::Truncated(what))?;
        self.rest = rest;
        Ok(*first)
    }

    #[inline]
    pub(super) fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(RecordError::Truncated(what))?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub(super) fn varint(&mut self, what: &'static str) -> Result<i32, RecordError> {
        let raw = match self.rest {
            // Nearly every varint of a record is below 2^14.
            [low, rest @ ..] if *low < 0x80 => {
                self.rest = rest;
                u32::from(*low)
            }
            [low, high, rest @ ..] if *high < 0x80 => {
                self.rest = rest;
                u32::from(*low & 0x7F) | u32::from(*high) << 7
            }
            _ => self.long_unsigned(MAX_VARINT_LEN, 32, what)? as u32,
        };
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    #[inline]
    pub(super) fn varlong(&mut self, what: &'static str) -> Result<i64, RecordError> {
        let raw = match self.rest {
            [low, rest @ ..] if *low < 0x80 => {
                self.rest = rest;
                u64::from(*low)
            }
            _ => self.long_unsigned(MAX_VARLONG_LEN, 64, what)?,
        };
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    #[cold]
    fn long_unsigned(&mut self, max_len: usize, bits: u8, what: &'static str) -> Result<u64, RecordError> {
        let mut value = 0;
        for (index, byte) in self.rest.iter().take(max_len).enumerate() {
            let part = u64::from(byte & 0x7F);
            let shift = 7 * index as u32;
            // The last byte has room for fewer than 7 bits.
            if index + 1 == max_len && part >> (u32::from(bits) - shift) != 0 {
                return Err(RecordError::Varint(bits));
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        match self.rest.len() >= max_len {
            true => Err(RecordError::Varint(bits)),
            false => Err(RecordError::Truncated(what)),
        }
    }

    /// A varint length and as many bytes; a length of -1 is null.
    #[inline]
    pub(super) fn nullable_bytes(&mut self, what: &'static str) -> Result<Option<&'a [u8]>, RecordError> {
        let length = self.varint(what)?;
        if length < 0 {
            return if length == -1 { Ok(None) } else { Err(length_error(what, length)) };
        }
        match self.rest.split_at_checked(length as usize) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(Some(taken))
            }
            None => Err(length_error(what, length)),
        }
    }
}

#[cold]
pub(super) fn length_error(what: &'static str, value: i32) -> RecordError {
    RecordError::Length { what, value: i64::from(value) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trip_and_length(int: i32, long: i64, shift in 0u32..64) {
            let long = long >> shift;
            let mut out = Vec::new();
            put_varint(&mut out, int);
            prop_assert_eq!(out.len(), varint_len(int));
            put_varlong(&mut out, long);
            prop_assert_eq!(out.len(), varint_len(int) + varlong_len(long));
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint("int"), Ok(int));
            prop_assert_eq!(reader.varlong("long"), Ok(long));
            prop_assert_eq!(reader.len(), 0);
        }
    }

    #[test]
    fn limits() {
        let check = |bytes: &[u8], expect| assert_eq!(Reader::new(bytes).varint("x"), expect, "{bytes:02x?}");
        check(&[0xFF, 0xFF, 0xFF, 0xFF, 0x0F], Ok(i32::MIN));
        check(&[0xFE, 0xFF, 0xFF, 0xFF, 0x0F], Ok(i32::MAX));
        check(&[0xFF, 0xFF, 0xFF, 0xFF, 0x1F], Err(RecordError::Varint(32)));
        check(&[0xFF, 0xFF, 0xFF, 0xFF, 0x8F], Err(RecordError::Varint(32)));
        check(&[0xFF, 0xFF], Err(RecordError::Truncated("x")));
        check(&[], Err(RecordError::Truncated("x")));

        let mut nine = [0xFF; 10];
        nine[9] = 1;
        assert_eq!(Reader::new(&nine).varlong("x"), Ok(i64::MIN));
        nine[9] = 2;
        assert_eq!(Reader::new(&nine).varlong("x"), Err(RecordError::Varint(64)));
    }

    /// On both sides of each length, and cut at each byte.
    #[test]
    fn each_length_of_a_varint() {
        let cases: [(i64, &[u8]); 17] = [
            (0, &[0]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[0x7E]),
            (-64, &[0x7F]),
            (64, &[0x80, 1]),
            (-65, &[0x81, 1]),
            (8_191, &[0xFE, 0x7F]),
            (-8_192, &[0xFF, 0x7F]),
            (8_192, &[0x80, 0x80, 1]),
            (-8_193, &[0x81, 0x80, 1]),
            (1 << 20, &[0x80, 0x80, 0x80, 1]),
            (1 << 27, &[0x80, 0x80, 0x80, 0x80, 1]),
            (i64::from(i32::MIN), &[0xFF, 0xFF, 0xFF, 0xFF, 0x0F]),
            (1 << 34, &[0x80, 0x80, 0x80, 0x80, 0x80, 1]),
            (1 << 62, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1]),
            (i64::MIN, &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1]),
        ];
        for (value, bytes) in cases {
            let followed = [bytes, &[0x55]].concat();
            let mut out = Vec::new();
            put_varlong(&mut out, value);
            assert_eq!((&out[..], varlong_len(value)), (bytes, bytes.len()), "{value}");
            let mut reader = Reader::new(&followed);
            assert_eq!((reader.varlong("x"), reader.rest()), (Ok(value), &[0x55][..]));
            let cut = &bytes[..bytes.len() - 1];
            assert_eq!(Reader::new(cut).varlong("x"), Err(RecordError::Truncated("x")));
            let Ok(value) = i32::try_from(value) else { continue };
            out.clear();
            put_varint(&mut out, value);
            assert_eq!((&out[..], varint_len(value)), (bytes, bytes.len()), "{value}");
            let mut reader = Reader::new(&followed);
            assert_eq!((reader.varint("x"), reader.rest()), (Ok(value), &[0x55][..]));
            assert_eq!(Reader::new(cut).varint("x"), Err(RecordError::Truncated("x")));
        }
    }

    #[test]
    fn slices_are_taken_whole_or_not_at_all() {
        let mut reader = Reader::new(&[7, 1, 2, 3]);
        assert_eq!((reader.u8("x"), reader.len()), (Ok(7), 3));
        assert_eq!(reader.take(4, "x"), Err(RecordError::Truncated("x")));
        assert_eq!((reader.take(2, "x"), reader.rest()), (Ok(&[1, 2][..]), &[3][..]));
        assert_eq!((reader.take(1, "x"), reader.take(0, "x")), (Ok(&[3][..]), Ok(&[][..])));
        assert_eq!(reader.u8("x"), Err(RecordError::Truncated("x")));

        let nullable = |bytes: &'static [u8]| Reader::new(bytes).nullable_bytes("x");
        let length = |value| Err(RecordError::Length { what: "x", value });
        assert_eq!((nullable(&[1]), nullable(&[3]), nullable(&[2])), (Ok(None), length(-2), length(1)));
        assert_eq!((nullable(&[0]), nullable(&[4, 8, 9])), (Ok(Some(&[][..])), Ok(Some(&[8, 9][..]))));
        assert_eq!(nullable(&[6, 8, 9]), length(3));
    }
}
