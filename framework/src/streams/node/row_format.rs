//! A row of a table as it lies in the cache of its store: the value with its time, and what waits with it.

use bytes::Bytes;
use klamm_client::Headers;

use crate::store::Stamped;

const VALUE: u8 = 1;
const SENT_SAME: u8 = 2;
const SENT_OTHER: u8 = 4;
const HEADERS: u8 = 8;

/// What was forwarded last of a row, in a store that remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Sent {
    #[default]
    Nothing,
    /// What the row is.
    Same,
    Other(Box<Stamped>),
}

/// A row whose value is bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CachedRow<'a> {
    pub(super) value: Option<&'a [u8]>,
    pub(super) timestamp_ms: i64,
    pub(super) sent: Sent,
    /// Of the record that changed it last, while it waits to be forwarded.
    pub(super) headers: Option<Headers>,
}

/// Flags, time, what was sent, headers, value: without the two in the middle, time and value are together as the
/// engine keeps them.
pub(super) fn write(
    into: &mut Vec<u8>,
    value: Option<&[u8]>,
    timestamp_ms: i64,
    sent: &Sent,
    headers: Option<&Headers>,
) {
    into.clear();
    let sent_flag = match sent {
        Sent::Nothing => 0,
        Sent::Same => SENT_SAME,
        Sent::Other(_) => SENT_OTHER,
    };
    into.push(value.map_or(0, |_| VALUE) | sent_flag | headers.map_or(0, |_| HEADERS));
    into.extend_from_slice(&timestamp_ms.to_be_bytes());
    if let Sent::Other(sent) = sent {
        into.extend_from_slice(&sent.timestamp_ms.to_be_bytes());
        write_bytes(into, &sent.value);
    }
    if let Some(headers) = headers {
        write_length(into, headers.iter().count());
        for (name, value) in headers.iter() {
            write_bytes(into, name.as_bytes());
            into.push(u8::from(value.is_some()));
            write_bytes(into, value.unwrap_or_default());
        }
    }
    into.extend_from_slice(value.unwrap_or_default());
}

pub(super) fn read(row: &[u8]) -> CachedRow<'_> {
    let mut rest = Rest(row);
    let flags = rest.take(1).first().copied().unwrap_or_default();
    let timestamp_ms = rest.number();
    let sent = match flags & (SENT_SAME | SENT_OTHER) {
        SENT_SAME => Sent::Same,
        SENT_OTHER => {
            let timestamp_ms = rest.number();
            Sent::Other(Box::new(Stamped { timestamp_ms, value: Bytes::copy_from_slice(rest.bytes()) }))
        }
        _ => Sent::Nothing,
    };
    let headers = (flags & HEADERS != 0).then(|| rest.headers());
    CachedRow { value: (flags & VALUE != 0).then_some(rest.0), timestamp_ms, sent, headers }
}

/// The value of a row with its time, as the engine keeps it; `None` for a row that is deleted.
pub(super) fn stored(row: &[u8]) -> Option<Bytes> {
    match row.split_first() {
        Some((flags, stored)) if flags & (SENT_OTHER | HEADERS) == 0 => {
            (flags & VALUE != 0).then(|| Bytes::copy_from_slice(stored))
        }
        _ => {
            let CachedRow { value, timestamp_ms, .. } = read(row);
            value.map(|value| Stamped { timestamp_ms, value: Bytes::copy_from_slice(value) }.encode())
        }
    }
}

/// Headers that point into nothing larger than themselves; `None` where there are none.
pub(super) fn own_headers(headers: &Headers) -> Option<Headers> {
    let own = |(name, value): (&str, Option<&[u8]>)| (name.into(), value.map(Bytes::copy_from_slice));
    (!headers.is_empty()).then(|| headers.iter().map(own).collect::<Vec<_>>().into())
}

fn write_length(into: &mut Vec<u8>, length: usize) {
    into.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

fn write_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    write_length(into, bytes.len());
    into.extend_from_slice(bytes);
}

/// What is left to read. Rows are written here and nowhere else, so one that is too short cannot be; it reads as zeros.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, bytes: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at_checked(bytes).unwrap_or((self.0, &[]));
        self.0 = rest;
        taken
    }

    fn number(&mut self) -> i64 {
        self.take(8).try_into().map_or(0, i64::from_be_bytes)
    }

    fn length(&mut self) -> usize {
        self.take(4).try_into().map_or(0, |length| u32::from_le_bytes(length) as usize)
    }

    fn bytes(&mut self) -> &'a [u8] {
        let length = self.length();
        self.take(length)
    }

    fn headers(&mut self) -> Headers {
        let count = self.length();
        let mut headers = Headers::new();
        for _ in 0..count {
            let name = String::from_utf8_lossy(self.bytes()).into_owned();
            let has_value = self.take(1) == [1];
            let value = Bytes::copy_from_slice(self.bytes());
            headers.push(name, has_value.then_some(value));
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let mut with_headers = Headers::new();
        with_headers.push("a", Some(Bytes::from_static(b"1")));
        with_headers.push("b", None);
        let other = Sent::Other(Box::new(Stamped { timestamp_ms: -3, value: Bytes::from_static(b"before") }));
        let mut row = Vec::new();
        for value in [None, Some(&b""[..]), Some(&b"now"[..])] {
            for sent in [Sent::Nothing, Sent::Same, other.clone()] {
                for headers in [None, Some(with_headers.clone())] {
                    write(&mut row, value, 17, &sent, headers.as_ref());
                    let expected = CachedRow { value, timestamp_ms: 17, sent: sent.clone(), headers };
                    assert_eq!(read(&row), expected);
                    let stamped = |value| Stamped { timestamp_ms: 17, value: Bytes::copy_from_slice(value) };
                    assert_eq!(stored(&row), value.map(|value| stamped(value).encode()));
                }
            }
        }
    }

    #[test]
    fn headers_are_copied_and_none_are_none() {
        let large = Bytes::from(vec![b'x'; 1_000]);
        let headers: Headers = [("a", large.slice(..3))].into_iter().collect();
        let own = own_headers(&headers).unwrap();
        assert_eq!(own, headers);
        let (own, slice) = (own.to_vec(), headers.to_vec());
        assert_ne!(own[0].1.as_ref().unwrap().as_ptr(), slice[0].1.as_ref().unwrap().as_ptr());
        assert_eq!(own_headers(&Headers::new()), None);
    }
}
