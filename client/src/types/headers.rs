//! A record's headers.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use klamm_protocol::records::RecordHeaders;

/// A record's headers: names with optional values, in order, duplicates kept. Cheap to clone.
///
/// Those of a consumed record are read from the fetched bytes on demand; nothing is decoded
/// for headers nobody looks at.
#[derive(Clone, Default)]
pub struct Headers(Repr);

#[derive(Clone)]
enum Repr {
    Wire(RecordHeaders),
    Owned(Arc<Vec<(Arc<str>, Option<Bytes>)>>),
}

impl Default for Repr {
    fn default() -> Self {
        Self::Owned(Arc::default())
    }
}

impl Headers {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn from_wire(headers: RecordHeaders) -> Self {
        Self(Repr::Wire(headers))
    }

    /// All headers in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        let (wire, owned) = match &self.0 {
            Repr::Wire(headers) => (Some(headers.iter()), None),
            Repr::Owned(headers) => (None, Some(headers.iter())),
        };
        let owned = owned.into_iter().flatten().map(|(name, value)| (&**name, value.as_deref()));
        wire.into_iter().flatten().chain(owned)
    }

    /// The value of the last header of this name: the one that counts by Kafka's convention. `Some(None)` is
    /// a header without a value.
    pub fn last(&self, name: &str) -> Option<Option<&[u8]>> {
        self.all(name).last()
    }

    /// The values of all headers of this name, in order.
    pub fn all(&self, name: &str) -> impl Iterator<Item = Option<&[u8]>> {
        self.iter().filter(move |(found, _)| *found == name).map(|(_, value)| value)
    }

    /// About how many bytes they take; of consumed records without reading them.
    pub fn size_bytes(&self) -> usize {
        match &self.0 {
            Repr::Wire(headers) => headers.encoded_bytes(),
            Repr::Owned(headers) => {
                let each =
                    headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Bytes::len));
                each.sum()
            }
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Adds a header at the end.
    pub fn push(&mut self, name: impl Into<Arc<str>>, value: Option<Bytes>) {
        if let Repr::Wire(_) = self.0 {
            self.0 = Repr::Owned(Arc::new(self.to_vec()));
        }
        if let Repr::Owned(headers) = &mut self.0 {
            Arc::make_mut(headers).push((name.into(), value));
        }
    }

    /// A copy, as [`Record::headers`](crate::Record) holds them.
    pub fn to_vec(&self) -> Vec<(Arc<str>, Option<Bytes>)> {
        match &self.0 {
            Repr::Owned(headers) => headers.as_ref().clone(),
            Repr::Wire(_) => self
                .iter()
                .map(|(name, value)| (Arc::from(name), value.map(Bytes::copy_from_slice)))
                .collect(),
        }
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(
                self.iter().map(|(name, value)| (name, value.map(|value| value.escape_ascii().to_string()))),
            )
            .finish()
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}

impl From<Vec<(Arc<str>, Option<Bytes>)>> for Headers {
    fn from(headers: Vec<(Arc<str>, Option<Bytes>)>) -> Self {
        Self(Repr::Owned(Arc::new(headers)))
    }
}

impl<N: Into<Arc<str>>, V: Into<Bytes>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        headers.into_iter().map(|(name, value)| (name.into(), Some(value.into()))).collect::<Vec<_>>().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_keep_order_and_duplicates() {
        let mut headers: Headers = [("a", "1"), ("b", "2")].into_iter().collect();
        let before = headers.clone();
        headers.push("a", None);
        assert_eq!(headers.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b", "a"]);
        assert_eq!(headers.last("a"), Some(None));
        assert_eq!(headers.last("b"), Some(Some(&b"2"[..])));
        assert_eq!(headers.last("c"), None);
        assert_eq!(headers.all("a").count(), 2);
        assert_eq!(before.iter().count(), 2, "a clone is not changed");
        assert_eq!(Headers::from(headers.to_vec()), headers);
    }
}
