//! How records that wait lie in a buffer: keys and values as their serdes wrote them, some of them absent, and headers.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use klamm_client::Headers;

use crate::store::StoreError;

/// What a length is where there is nothing.
const ABSENT: u32 = u32::MAX;

/// What waits: some parts, in an order that its operator knows, and the headers that it came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Buffered<const N: usize> {
    pub(super) parts: [Option<Bytes>; N],
    pub(super) headers: Headers,
}

impl<const N: usize> Buffered<N> {
    pub(super) fn encode(&self) -> Bytes {
        let parts = self.parts.iter().flatten().map(Bytes::len).sum::<usize>();
        let mut bytes = BytesMut::with_capacity(parts + 4 * N + 4 + self.headers.size_bytes() + 16);
        self.parts.iter().for_each(|part| put(&mut bytes, part.as_deref()));
        for (name, value) in self.headers.iter() {
            put(&mut bytes, Some(name.as_bytes()));
            put(&mut bytes, value);
        }
        bytes.freeze()
    }

    pub(super) fn decode(mut bytes: Bytes) -> Result<Self, StoreError> {
        let mut parts = [const { None }; N];
        for part in &mut parts {
            *part = take(&mut bytes)?;
        }
        let mut headers = Headers::new();
        while bytes.has_remaining() {
            let name = take(&mut bytes)?.ok_or_else(corrupt)?;
            let name = std::str::from_utf8(&name).map_err(|_| corrupt())?.to_owned();
            headers.push(name, take(&mut bytes)?);
        }
        Ok(Self { parts, headers })
    }
}

fn put(bytes: &mut BytesMut, part: Option<&[u8]>) {
    match part {
        Some(part) => {
            bytes.put_u32(u32::try_from(part.len()).unwrap_or(ABSENT));
            bytes.put_slice(part);
        }
        None => bytes.put_u32(ABSENT),
    }
}

fn take(bytes: &mut Bytes) -> Result<Option<Bytes>, StoreError> {
    let length = bytes.try_get_u32().map_err(|_| corrupt())?;
    if length == ABSENT {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| corrupt())?;
    match length <= bytes.remaining() {
        true => Ok(Some(bytes.split_to(length))),
        false => Err(corrupt()),
    }
}

fn corrupt() -> StoreError {
    StoreError::Corrupt { what: "a record in a buffer" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_read_back_and_damage_is_noticed() {
        let mut headers = Headers::new();
        headers.push("trace", Some(Bytes::from_static(b"1")));
        headers.push("empty", Some(Bytes::new()));
        headers.push("null", None);
        let parts = [Some(Bytes::from_static(b"key")), None, Some(Bytes::new())];
        for headers in [headers, Headers::new()] {
            let buffered = Buffered { parts: parts.clone(), headers };
            let bytes = buffered.encode();
            assert_eq!(Buffered::<3>::decode(bytes.clone()).unwrap(), buffered);
            for length in 0..15 {
                assert!(Buffered::<3>::decode(bytes.slice(..length)).is_err(), "{length}");
            }
        }
        assert!(Buffered::<1>::decode(Bytes::from_static(&[0, 0, 1, 0, 7])).is_err());
    }
}
