//! How far a log was synced: a line that is written beside the segments after every flush, and never synced itself.
//!
//! It is true whenever it is read: it is written when the sync that it speaks of is over, and says that everything in
//! front of an offset is on disk. After the death of the process it is exact. After a power cut it may be as old as
//! what the kernel had not written back by itself, about half a minute; then it says less than it could, but nothing
//! wrong.

use klamm_protocol::records::crc32c;

/// File name in a partition's directory. Kafka has no such file and leaves it alone.
pub(crate) const SYNCED_END: &str = "synced-end-checkpoint";

/// The end of what was synced, and the youngest record of its last segment up to there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SyncedEnd {
    /// The first offset behind.
    pub(crate) offset: i64,
    /// The base offset of the segment that it lies in.
    pub(crate) segment: i64,
    /// The position in that segment's file.
    pub(crate) position: u64,
    /// The largest timestamp of the segment in front of the position, or -1.
    pub(crate) max_timestamp: i64,
    /// The last offset of the batch that has it.
    pub(crate) max_timestamp_offset: i64,
}

impl SyncedEnd {
    /// Nothing is known to be synced.
    pub(crate) const NOTHING: Self =
        Self { offset: 0, segment: 0, position: 0, max_timestamp: -1, max_timestamp_offset: 0 };

    /// A line of always the same length, so that it can be written over the one before.
    pub(crate) fn print(&self) -> String {
        let Self { offset, segment, position, max_timestamp, max_timestamp_offset } = self;
        let text = format!(
            "0 {offset:020} {segment:020} {position:020} {max_timestamp:020} {max_timestamp_offset:020}"
        );
        format!("{text} {:08x}\n", crc32c(text.as_bytes()))
    }

    /// What a line says; nothing when it is damaged.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (text, crc) = line.strip_suffix('\n')?.rsplit_once(' ')?;
        if u32::from_str_radix(crc, 16).ok()? != crc32c(text.as_bytes()) {
            return None;
        }
        let mut words = text.strip_prefix("0 ")?.split(' ');
        let mut number = || words.next()?.parse::<i64>().ok();
        let found = Self {
            offset: number()?,
            segment: number()?,
            position: u64::try_from(number()?).ok()?,
            max_timestamp: number()?,
            max_timestamp_offset: number()?,
        };
        words.next().is_none().then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: SyncedEnd = SyncedEnd {
        offset: 1_234,
        segment: 1_000,
        position: 77_000,
        max_timestamp: 1_700_000_000_000,
        max_timestamp_offset: 1_230,
    };

    #[test]
    fn lines_round_trip_and_are_equally_long() {
        let none =
            SyncedEnd { offset: 0, segment: 0, position: 0, max_timestamp: -1, max_timestamp_offset: 0 };
        for end in [END, none] {
            assert_eq!(SyncedEnd::parse(&end.print()), Some(end));
            assert_eq!(end.print().len(), 116);
        }
    }

    #[test]
    fn a_damaged_line_says_nothing() {
        let line = END.print();
        for at in 0..line.len() {
            let mut bytes = line.clone().into_bytes();
            bytes[at] ^= 1;
            assert_eq!(SyncedEnd::parse(std::str::from_utf8(&bytes).unwrap()), None, "byte {at}");
            assert_eq!(SyncedEnd::parse(&line[..at]), None, "cut to {at}");
        }
        let text = "1 0 0 0 0 0";
        assert_eq!(
            SyncedEnd::parse(&format!("{text} {:08x}\n", crc32c(text.as_bytes()))),
            None,
            "another version"
        );
    }
}
