//! Aborted transactions as a log knows them, in the 34 bytes that Kafka writes for each. Pure.

use klamm_protocol::records::crc32c;

/// Bytes of an entry.
pub(crate) const ENTRY_BYTES: usize = 2 + 4 * 8;
const VERSION: i16 = 0;

/// A transaction whose records do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose it was.
    pub producer_id: i64,
    /// The offset of its first record.
    pub first_offset: i64,
    /// The offset of the marker that ended it.
    pub last_offset: i64,
    /// The first offset that was not decided when it had ended: no transaction that ended later began before.
    pub last_stable_offset: i64,
}

impl AbortedTransaction {
    pub(super) fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..2].copy_from_slice(&VERSION.to_be_bytes());
        let fields = [self.producer_id, self.first_offset, self.last_offset, self.last_stable_offset];
        for (part, field) in bytes[2..].chunks_exact_mut(8).zip(fields) {
            part.copy_from_slice(&field.to_be_bytes());
        }
        bytes
    }

    /// Nothing when it is of another version, or cannot be right.
    pub(crate) fn parse(bytes: &[u8; ENTRY_BYTES]) -> Option<Self> {
        let (version, fields) = bytes.split_first_chunk::<2>()?;
        let mut fields = fields.as_chunks::<8>().0.iter().map(|field| i64::from_be_bytes(*field));
        let found = Self {
            producer_id: fields.next()?,
            first_offset: fields.next()?,
            last_offset: fields.next()?,
            last_stable_offset: fields.next()?,
        };
        let Self { producer_id, first_offset, last_offset, last_stable_offset } = found;
        let right = producer_id >= 0
            && (0..last_offset).contains(&first_offset)
            && last_stable_offset.checked_sub(1).is_some_and(|before| before <= last_offset);
        (i16::from_be_bytes(*version) == VERSION && right).then_some(found)
    }

    /// Whether a reader of what lies from `from` up to `end` has to know of it.
    pub(crate) fn overlaps(&self, from: i64, end: i64) -> bool {
        self.last_offset >= from && self.first_offset < end
    }
}

/// What is known of the entries of an index without reading them. They are in the order of their markers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) count: u64,
    /// Over all entries, each over the checksum before.
    checksum: u32,
    /// Of all entries.
    pub(super) first_offset_min: i64,
    /// Of the last entry.
    pub(super) last_offset: i64,
    pub(super) last_stable_offset: i64,
}

impl Default for Summary {
    fn default() -> Self {
        let (first_offset_min, last_offset) = (i64::MAX, -1);
        Self { count: 0, checksum: 0, first_offset_min, last_offset, last_stable_offset: -1 }
    }
}

impl Summary {
    /// With one entry more; nothing when it does not fit behind the last: markers come one after the other, and what is
    /// decided stays decided.
    pub(super) fn with(&self, entry: &AbortedTransaction) -> Option<Self> {
        let follows =
            entry.last_offset > self.last_offset && entry.last_stable_offset >= self.last_stable_offset;
        let checksum = || {
            let mut bytes = [0; 4 + ENTRY_BYTES];
            bytes[..4].copy_from_slice(&self.checksum.to_be_bytes());
            bytes[4..].copy_from_slice(&entry.to_bytes());
            crc32c(&bytes)
        };
        follows.then(|| Self {
            count: self.count + 1,
            checksum: checksum(),
            first_offset_min: self.first_offset_min.min(entry.first_offset),
            last_offset: entry.last_offset,
            last_stable_offset: entry.last_stable_offset,
        })
    }

    /// Bytes of the entries.
    pub(super) fn len(&self) -> u64 {
        self.count * ENTRY_BYTES as u64
    }

    /// The line that vouches for the entries.
    pub(super) fn print(&self) -> String {
        let text = format!("0 {} {:08x}", self.count, self.checksum);
        format!("{text} {:08x}\n", crc32c(text.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: AbortedTransaction =
        AbortedTransaction { producer_id: 7, first_offset: 10, last_offset: 12, last_stable_offset: 13 };

    #[test]
    fn an_entry_is_laid_out_as_in_kafka() {
        let entry = AbortedTransaction {
            producer_id: 0x0102,
            first_offset: 3,
            last_offset: 0x0400_0000_0005,
            last_stable_offset: 6,
        };
        let mut expected = [0; ENTRY_BYTES];
        (expected[8], expected[9], expected[17], expected[20], expected[25], expected[33]) =
            (1, 2, 3, 4, 5, 6);
        assert_eq!(entry.to_bytes(), expected);
        assert_eq!(AbortedTransaction::parse(&expected), Some(entry));
        expected[1] = 1;
        assert_eq!(AbortedTransaction::parse(&expected), None, "another version");
    }

    #[test]
    fn what_cannot_be_right_is_no_entry() {
        let right = |entry: AbortedTransaction| AbortedTransaction::parse(&entry.to_bytes()).is_some();
        assert!(right(ONE) && right(AbortedTransaction { producer_id: 0, ..ONE }));
        assert!(right(AbortedTransaction { first_offset: 0, last_stable_offset: 0, ..ONE }));
        assert!(right(AbortedTransaction { first_offset: 11, ..ONE }));
        for wrong in [
            AbortedTransaction { producer_id: -1, ..ONE },
            AbortedTransaction { first_offset: -1, ..ONE },
            AbortedTransaction { first_offset: 12, ..ONE },
            AbortedTransaction { last_stable_offset: 14, ..ONE },
            AbortedTransaction { last_stable_offset: i64::MIN, ..ONE },
        ] {
            assert!(!right(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn readers_have_to_know_of_what_overlaps_with_what_they_read() {
        for (from, end, overlaps) in
            [(0, 10, false), (0, 11, true), (12, 13, true), (13, 20, false), (11, 12, true)]
        {
            assert_eq!(ONE.overlaps(from, end), overlaps, "{from} {end}");
        }
    }

    #[test]
    fn a_summary_takes_entries_in_their_order() {
        let none = Summary::default();
        let one = none.with(&ONE).unwrap();
        assert_eq!(
            (one.count, one.first_offset_min, one.last_offset, one.last_stable_offset),
            (1, 10, 12, 13)
        );
        assert_eq!(one.with(&ONE), None, "the same marker");
        let next =
            AbortedTransaction { producer_id: 8, first_offset: 11, last_offset: 13, last_stable_offset: 13 };
        let two = one.with(&next).unwrap();
        assert_eq!((two.count, two.first_offset_min, two.last_offset, two.len()), (2, 10, 13, 68));
        assert_eq!(one.with(&AbortedTransaction { last_stable_offset: 12, ..next }), None);
        let long = AbortedTransaction { first_offset: 2, last_offset: 20, last_stable_offset: 21, ..ONE };
        assert_eq!(two.with(&long).unwrap().first_offset_min, 2);
    }

    #[test]
    fn the_line_tells_any_two_indexes_apart() {
        let one = Summary::default().with(&ONE).unwrap();
        let other = Summary::default().with(&AbortedTransaction { producer_id: 8, ..ONE }).unwrap();
        let next = AbortedTransaction { first_offset: 14, last_offset: 20, last_stable_offset: 21, ..ONE };
        let lines = [Summary::default(), one, other, one.with(&next).unwrap(), other.with(&next).unwrap()]
            .map(|summary| summary.print());
        for (at, line) in lines.iter().enumerate() {
            assert!(lines[..at].iter().all(|before| before != line), "{line}");
        }
        assert!(lines[0].starts_with("0 0 00000000 ") && lines[0].ends_with('\n'), "{}", lines[0]);
        assert!(lines[3].starts_with("0 2 "), "{}", lines[3]);
    }
}
