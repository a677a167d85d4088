//! Room for bytes that leave a task: neighbours share memory, so that most of them cost no allocation of their own, and
//! no freeing on another thread.

use bytes::{Bytes, BytesMut};

const PAGE_BYTES: usize = 16 * 1024;
/// What is larger has memory of its own: it would leave much of a page empty.
const SHARED_BYTES: usize = PAGE_BYTES / 8;

/// Where bytes are copied to. A page is freed when nobody has any of its bytes: not for what is kept for long.
#[derive(Debug, Default)]
pub(crate) struct Room(BytesMut);

impl Room {
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> Bytes {
        if bytes.is_empty() || bytes.len() > SHARED_BYTES {
            return Bytes::copy_from_slice(bytes);
        }
        if self.0.capacity() < bytes.len() {
            self.0 = BytesMut::with_capacity(PAGE_BYTES);
        }
        self.0.extend_from_slice(bytes);
        self.0.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_copied_stays_whatever_is_copied_after_it() {
        let mut room = Room::default();
        let lengths = [0, 1, SHARED_BYTES, SHARED_BYTES + 1, 3, PAGE_BYTES, 700];
        let texts: Vec<Vec<u8>> =
            (0..500_usize).map(|number| vec![number as u8; lengths[number % lengths.len()]]).collect();
        let copies: Vec<Bytes> = texts.iter().map(|text| room.copy(text)).collect();
        assert_eq!(copies, texts);
    }
}
