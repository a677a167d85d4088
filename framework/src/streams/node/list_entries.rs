//! The list in which an ordered store has rows by a time, until they are taken from it: how entries look, beside rows.

use bytes::{BufMut, Bytes, BytesMut};

use crate::store::{Batch, KeyRange, Stamped, StateStore, StoreError};

/// How many entries are looked at together.
const PAGE_ROWS: usize = 256;

/// The first byte of the engine keys of the list of what waits for its time. Those of rows begin with a segment, which
/// is not negative, or, in plain layouts with a list, with [`ROW`].
pub(super) const WAITING: u8 = 0xFF;
pub(super) const ROW: u8 = 0;

/// In the place of a time in a list entry that another task may have taken: the changelog does not tell of that.
pub(super) const IN_DOUBT: i64 = 1;

/// The time by which a changelog key is listed.
pub(crate) type ListTime = fn(&Bytes) -> Option<i64>;

/// Marks what is listed. A page at a time, and before anything is restored: done twice, it is as if done once.
pub(super) fn doubt_list(engine: &dyn StateStore) -> Result<(), StoreError> {
    let mut from = Bytes::from_static(&[WAITING]);
    loop {
        let page = engine.scan(KeyRange { from: &from, to: None }, PAGE_ROWS)?;
        let is_last = page.len() < PAGE_ROWS;
        let mut batch = Batch::new();
        for (entry, _) in page {
            from = after(&entry);
            batch.put(entry, in_doubt());
        }
        engine.apply(&batch)?;
        if is_last {
            return Ok(());
        }
    }
}

/// The value of a list entry that may be taken already.
pub(super) fn in_doubt() -> Bytes {
    Stamped { timestamp_ms: IN_DOUBT, value: Bytes::new() }.encode()
}

pub(super) fn list_key(time_ms: i64, key: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(9 + key.len());
    bytes.put_u8(WAITING);
    bytes.put_i64(time_ms.max(0));
    bytes.put_slice(key);
    bytes.freeze()
}

/// The smallest key after `key`.
pub(super) fn after(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}
