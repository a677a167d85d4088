//! `Records`: the content of a records field, in memory or somewhere else.

use bytes::Bytes;

/// Record batches inside a message (Produce requests and Fetch responses).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Records {
    /// The batches themselves. What decoding gives.
    Bytes(Bytes),
    /// Batches that the sender puts on the wire by another way (such as `sendfile`).
    ///
    /// The encoder writes their length only, and notes in
    /// [`Encoded::splices`](crate::Encoded::splices) where they belong.
    External {
        /// Length in bytes.
        len: usize,
        /// Whatever the sender needs to find them again; the encoder only passes it on.
        token: u64,
    },
}

impl Records {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::External { len, .. } => *len,
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, if they are here.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::External { .. } => None,
        }
    }

    /// The bytes, if they are here.
    pub fn into_bytes(self) -> Option<Bytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::External { .. } => None,
        }
    }
}

impl Default for Records {
    fn default() -> Self {
        Self::Bytes(Bytes::new())
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}
