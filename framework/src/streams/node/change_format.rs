//! How a change of a table crosses a repartition topic: Kafka's format, so that a Java application can go on with it.
//!
//! The last byte says what is in front of it: 0 what the row was, 1 what it is, 2 both: the length of the new value as
//! a zigzag varint, the new value, the old one. KIP-904 added the third, so that a change within one group is one
//! record.

use bytes::{BufMut, Bytes, BytesMut};

const OLD_ONLY: u8 = 0;
const NEW_ONLY: u8 = 1;
const BOTH: u8 = 2;

/// The longest varint of an `i32`.
const MAX_VARINT_BYTES: usize = 5;

/// The bytes of a change; `None` where nothing changed.
pub(super) fn write_change(old: Option<&Bytes>, new: Option<&Bytes>) -> Option<Bytes> {
    let length = |value: Option<&Bytes>| value.map_or(0, Bytes::len);
    let mut bytes = BytesMut::with_capacity(MAX_VARINT_BYTES + length(old) + length(new) + 1);
    let flag = match (old, new) {
        (Some(old), Some(new)) => {
            put_varint(&mut bytes, new.len());
            bytes.put_slice(new);
            bytes.put_slice(old);
            BOTH
        }
        (Some(old), None) => {
            bytes.put_slice(old);
            OLD_ONLY
        }
        (None, Some(new)) => {
            bytes.put_slice(new);
            NEW_ONLY
        }
        (None, None) => return None,
    };
    bytes.put_u8(flag);
    Some(bytes.freeze())
}

/// The old and the new value in the bytes of a change.
pub(super) fn read_change(bytes: &Bytes) -> Result<(Option<Bytes>, Option<Bytes>), &'static str> {
    let Some((flag, values)) = bytes.split_last() else { return Err("it is empty") };
    let values = bytes.slice(..values.len());
    match *flag {
        OLD_ONLY => Ok((Some(values), None)),
        NEW_ONLY => Ok((None, Some(values))),
        BOTH => {
            let (length, begin) = varint(&values).ok_or("the new value's length is unreadable")?;
            let end = begin.checked_add(length).filter(|end| *end <= values.len());
            let end = end.ok_or("the new value's length is larger than the record")?;
            Ok((Some(values.slice(end..)), Some(values.slice(begin..end))))
        }
        _ => Err("its last byte is none of 0, 1 and 2"),
    }
}

fn put_varint(bytes: &mut BytesMut, length: usize) {
    let mut rest = (length as u64) << 1;
    while rest >= 0x80 {
        bytes.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    bytes.put_u8(rest as u8);
}

/// A length and where it ends; a negative one is none.
fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(MAX_VARINT_BYTES).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let negative = value & 1 == 1;
            return (!negative)
                .then(|| (usize::try_from(value >> 1).ok(), index + 1))
                .and_then(|(length, end)| Some((length?, end)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn s1_3_the_bytes_are_those_of_kip_904() {
        let (old, new) = (bytes("old"), bytes("n"));
        assert_eq!(write_change(Some(&old), None).unwrap(), &b"old\0"[..]);
        assert_eq!(write_change(None, Some(&new)).unwrap(), &b"n\x01"[..]);
        assert_eq!(write_change(Some(&old), Some(&new)).unwrap(), &b"\x02nold\x02"[..]);
        assert_eq!(write_change(None, None), None);
        let long = Bytes::from(vec![7; 100]);
        assert_eq!(write_change(Some(&old), Some(&long)).unwrap()[..2], [0xc8, 0x01], "zigzag");
    }

    #[test]
    fn bytes_that_are_no_change() {
        for wrong in
            [&b""[..], b"abc", b"\x02", b"\x03ab\x02", b"\x80\x80\x80\x80\x80\x80\x02", b"\x09ab\x02"]
        {
            assert!(read_change(&Bytes::from_static(wrong)).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            old in prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
            new in prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
        ) {
            let (old, new) = (old.map(Bytes::from), new.map(Bytes::from));
            match write_change(old.as_ref(), new.as_ref()) {
                Some(written) => prop_assert_eq!(read_change(&written).unwrap(), (old, new)),
                None => prop_assert!(old.is_none() && new.is_none()),
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = read_change(&Bytes::from(bytes));
        }
    }
}
