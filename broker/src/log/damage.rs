//! What a damaged place in a log is: the end of what a crash left unwritten, or records that were promised and have
//! changed. `recovery.md` tells the rule and its limits.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;

use crc_fast::{CrcAlgorithm, Digest, checksum_combine};
use klamm_protocol::records::{BATCH_HEADER_LEN, BatchHeader};

use crate::disk::DiskFile;

/// How much the search reads at once.
const CHUNK_BYTES: u64 = 1 << 20;
/// The unit that a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;
/// Base offset and length: a lost piece of a batch that covers them is recognised without looking further.
const LENGTH_END: u64 = 12;
/// Where in a batch begins what its checksum covers.
const CRC_START: u64 = 21;
/// How many batches the search keeps in mind that it has seen the header and not the end of.
const MAX_OPEN: usize = 1 << 20;

/// Everything that decides over a place at which no right batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Evidence {
    /// The first offset that cannot be read.
    pub(super) offset: i64,
    /// Everything below is known to have been synced: a checkpoint, a clean shutdown or the synced end says so.
    pub(super) vouched: i64,
    /// A whole sector of the batch reads as zeros.
    pub(super) unwritten: bool,
    /// The file ends inside the batch.
    pub(super) ends_early: bool,
    /// Right batches come after it.
    pub(super) followed: Followed,
}

/// Where right batches come after a damaged one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Followed {
    Nowhere,
    InTheFile,
    InALaterSegment,
}

/// What to do about a damaged place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Nobody was told that it is safe: cut it off and go on.
    Cut,
    /// It was promised: leave everything as it is, and say so.
    Refuse,
}

impl Evidence {
    /// What was vouched for is never cut. Behind that, a crash leaves sectors unwritten and files short, in any order;
    /// if it is neither, and right batches follow, then the damage came later and may have hit what was promised.
    pub(super) fn judge(&self) -> Judgement {
        let torn = match self.followed {
            Followed::Nowhere => true,
            Followed::InTheFile => self.unwritten,
            Followed::InALaterSegment => self.unwritten || self.ends_early,
        };
        if self.offset >= self.vouched && torn { Judgement::Cut } else { Judgement::Refuse }
    }
}

/// What the bytes of a file say about the place in it where the batch of `expected` should be and is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) unwritten: bool,
    pub(super) ends_early: bool,
    pub(super) followed: bool,
}

/// Looks at the damage at `position` of a file of `size` bytes. Takes time in proportion to what comes behind it,
/// whatever that is.
pub(super) fn look_at(file: &dyn DiskFile, position: u64, size: u64, expected: i64) -> io::Result<Look> {
    let mut head = vec![0; (size - position).min(BATCH_HEADER_LEN as u64) as usize];
    file.read_exact_at(&mut head, position)?;
    let short = head.len() < BATCH_HEADER_LEN;
    // Base offset and length are not covered by the checksum. Where the one is right, the other probably is.
    let header = BatchHeader::parse(&head).ok().filter(|header| header.base_offset == expected);
    let end = header.as_ref().map(|header| position + header.total_len() as u64);
    let look = Look {
        unwritten: has_unwritten_sector(file, position, size, header.as_ref(), head.len() as u64)?,
        ends_early: short || end.is_some_and(|end| end > size),
        followed: false,
    };
    let followed = match (&header, end) {
        _ if short => false,
        // A length that was damaged shows: with another one the checksum is right, and the next batch follows there.
        (Some(header), Some(end)) => {
            has_another_length(file, position, (end + BATCH_HEADER_LEN as u64).min(size), header)?
                || (end < size && has_right_batch(file, end, size, expected)?)
        }
        _ => has_right_batch(file, position + 1, size, expected)?,
    };
    Ok(Look { followed, ..look })
}

/// Whether a right batch with an offset of at least `min_offset` begins anywhere in `start..end`. It looks at every
/// position, because damage may have hit a length.
pub(super) fn has_right_batch(
    file: &dyn DiskFile,
    start: u64,
    end: u64,
    min_offset: i64,
) -> io::Result<bool> {
    Search::new(file, start, end).run(start, |position, header| {
        let ahead = header.base_offset.checked_sub(min_offset)?;
        let batch_end = position + header.total_len() as u64;
        let plausible = (0..=i64::from(u32::MAX)).contains(&ahead)
            && header.record_count >= 0
            && header.last_offset_delta >= 0
            && batch_end <= end;
        plausible.then_some(Sum { start: position + CRC_START, end: batch_end, crc: header.crc })
    })
}

/// Whether the batch at `position` is whole and only its length is wrong: its checksum holds up to where a batch with
/// the next offset begins, within `end`.
fn has_another_length(
    file: &dyn DiskFile,
    position: u64,
    end: u64,
    header: &BatchHeader,
) -> io::Result<bool> {
    let from = position + CRC_START;
    if end <= from {
        return Ok(false);
    }
    let (next_offset, crc) = (header.next_offset(), header.crc);
    Search::new(file, from, end).run(position + BATCH_HEADER_LEN as u64, |position, header| {
        (header.base_offset == next_offset).then_some(Sum { start: from, end: position, crc })
    })
}

/// Whether a piece of the batch was never written: some whole sector of it reads as zeros. That is what a power cut
/// leaves of bytes that were not synced; a flipped bit does not look like it.
fn has_unwritten_sector(
    file: &dyn DiskFile,
    position: u64,
    size: u64,
    header: Option<&BatchHeader>,
    head_bytes: u64,
) -> io::Result<bool> {
    let end = match header {
        Some(header) => (position + header.total_len() as u64).min(size),
        None => position + head_bytes,
    };
    let mut chunk_start = position - position % SECTOR_BYTES;
    while chunk_start < end {
        let chunk_end = (chunk_start + CHUNK_BYTES).min(end.next_multiple_of(SECTOR_BYTES)).min(size);
        let start = chunk_start.max(position);
        let mut bytes = vec![0; (chunk_end - start) as usize];
        file.read_exact_at(&mut bytes, start)?;
        let mut sector = chunk_start;
        while sector < chunk_end {
            let from = sector.max(position);
            let to = (sector + SECTOR_BYTES).min(chunk_end);
            // A short piece in front of the length may be zeros by right, unless the header shows that it is not.
            let telling = from == sector || to - from >= LENGTH_END || header.is_none();
            let piece = &bytes[(from - start) as usize..(to - start) as usize];
            if telling && piece.iter().all(|byte| *byte == 0) {
                return Ok(true);
            }
            sector += SECTOR_BYTES;
        }
        chunk_start += CHUNK_BYTES;
    }
    Ok(false)
}

/// A checksum to be compared.
#[derive(Debug, Clone, Copy)]
struct Sum {
    start: u64,
    end: u64,
    crc: u32,
}

/// Goes once through a part of a file and compares checksums of any pieces of it, overlapping ones too: the checksum of
/// a piece follows from those of everything up to its start and up to its end. Checking each candidate by reading it
/// would take quadratic time where somebody sent records full of headers.
struct Search<'a> {
    file: &'a dyn DiskFile,
    start: u64,
    end: u64,
    /// What is due where, the nearest first.
    due: BinaryHeap<Reverse<(u64, Due)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Begin { end: u64, crc: u32 },
    Compare { start: u64, start_crc: u32, crc: u32 },
}

impl<'a> Search<'a> {
    fn new(file: &'a dyn DiskFile, start: u64, end: u64) -> Self {
        Self { file, start, end, due: BinaryHeap::new() }
    }

    /// Shows every header from `headers_from` on; whether one of the sums that are asked for is right.
    fn run(
        mut self,
        headers_from: u64,
        mut ask: impl FnMut(u64, &BatchHeader) -> Option<Sum>,
    ) -> io::Result<bool> {
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        let mut summed = self.start;
        let mut window_start = self.start;
        while window_start < self.end {
            let mut window = vec![0; (self.end - window_start).min(CHUNK_BYTES) as usize];
            self.file.read_exact_at(&mut window, window_start)?;
            let window_end = window_start + window.len() as u64;
            for at in 0..(window.len() + 1).saturating_sub(BATCH_HEADER_LEN) {
                let position = window_start + at as u64;
                if position < headers_from || self.due.len() >= MAX_OPEN {
                    continue;
                }
                let Ok(header) = BatchHeader::parse(&window[at..]) else { continue };
                if let Some(sum) = ask(position, &header) {
                    self.ask(sum);
                }
            }
            // The last bytes of a window may be the beginning of a header; they are seen again with the next.
            let next_start = match window_end < self.end {
                true => window_end - (BATCH_HEADER_LEN as u64 - 1),
                false => self.end,
            };
            loop {
                let due = self.due.peek().map(|Reverse((at, _))| *at).filter(|at| *at <= next_start);
                let to = due.unwrap_or(next_start);
                digest.update(&window[(summed - window_start) as usize..(to - window_start) as usize]);
                summed = to;
                if due.is_none() {
                    break;
                }
                if self.compare(summed, digest.finalize() as u32) {
                    return Ok(true);
                }
            }
            window_start = next_start;
        }
        Ok(false)
    }

    fn ask(&mut self, Sum { start, end, crc }: Sum) {
        let due = if start == self.start {
            (end, Due::Compare { start, start_crc: 0, crc })
        } else {
            (start, Due::Begin { end, crc })
        };
        self.due.push(Reverse(due));
    }

    /// Handles what is due at `position`, where the checksum of everything before is `sum`.
    fn compare(&mut self, position: u64, sum: u32) -> bool {
        while let Some(Reverse((at, due))) = self.due.peek().copied()
            && at <= position
        {
            self.due.pop();
            match due {
                Due::Begin { end, crc } => {
                    self.due.push(Reverse((end, Due::Compare { start: position, start_crc: sum, crc })));
                }
                Due::Compare { start, start_crc, crc } => {
                    let algorithm = CrcAlgorithm::Crc32Iscsi;
                    let expected =
                        checksum_combine(algorithm, start_crc.into(), crc.into(), position - start) as u32;
                    if expected == sum {
                        return true;
                    }
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use klamm_protocol::records::{BatchBuilder, BatchOptions, RecordBatch};
    use klamm_runtime::{Rng, SeededRng};

    use super::*;
    use crate::disk::{Disk, MemoryDisk};

    /// A file of these bytes that counts what is read of it.
    #[derive(Debug)]
    struct Counted {
        file: Arc<dyn DiskFile>,
        read: AtomicU64,
    }

    impl DiskFile for Counted {
        fn size(&self) -> io::Result<u64> {
            self.file.size()
        }

        fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
            self.read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
            self.file.read_at(buffer, position)
        }

        fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
            self.file.write_all_at(bytes, position)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.file.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.file.sync_data()
        }
    }

    fn file_of(bytes: &[u8]) -> Counted {
        let file = MemoryDisk::new().create(Path::new("/log")).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        Counted { file, read: AtomicU64::new(0) }
    }

    fn batch(base_offset: i64, value: &[u8]) -> Vec<u8> {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.append(7, None, Some(value), []).unwrap();
        let mut bytes = builder.build().unwrap().to_vec();
        bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
        bytes
    }

    /// Values without a byte of zero.
    fn value(rng: &SeededRng, len: usize) -> Vec<u8> {
        (0..len).map(|_| rng.below(255) as u8 + 1).collect()
    }

    fn look(bytes: &[u8], position: usize, expected: i64) -> Look {
        look_at(&file_of(bytes), position as u64, bytes.len() as u64, expected).unwrap()
    }

    const LOST: Evidence = Evidence {
        offset: 10,
        vouched: 10,
        unwritten: false,
        ends_early: false,
        followed: Followed::Nowhere,
    };

    #[test]
    fn what_was_vouched_for_is_refused_whatever_it_looks_like() {
        for unwritten in [false, true] {
            for ends_early in [false, true] {
                for followed in [Followed::Nowhere, Followed::InTheFile, Followed::InALaterSegment] {
                    let evidence = Evidence { vouched: 11, unwritten, ends_early, followed, ..LOST };
                    assert_eq!(evidence.judge(), Judgement::Refuse, "{evidence:?}");
                }
            }
        }
    }

    #[test]
    fn behind_that_a_torn_end_is_cut_and_damage_in_the_middle_refused() {
        use Followed::{InALaterSegment, InTheFile, Nowhere};
        for (unwritten, ends_early, followed, expected) in [
            (false, false, Nowhere, Judgement::Cut),
            (false, true, Nowhere, Judgement::Cut),
            (true, false, Nowhere, Judgement::Cut),
            (false, false, InTheFile, Judgement::Refuse),
            (false, true, InTheFile, Judgement::Refuse),
            (true, false, InTheFile, Judgement::Cut),
            (false, false, InALaterSegment, Judgement::Refuse),
            (false, true, InALaterSegment, Judgement::Cut),
            (true, false, InALaterSegment, Judgement::Cut),
        ] {
            let evidence = Evidence { unwritten, ends_early, followed, ..LOST };
            assert_eq!(evidence.judge(), expected, "{evidence:?}");
        }
    }

    /// Any one bit of a batch that others follow: never looks like something that a crash does.
    #[test]
    fn a_flipped_bit_is_no_torn_end() {
        let rng = SeededRng::new(7);
        let whole: Vec<Vec<u8>> = (0..3).map(|at| batch(at, &value(&rng, 900))).collect();
        let bytes = whole.concat();
        for at in 0..whole[0].len() {
            for bit in [0, 3, 7] {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                let right = RecordBatch::parse(damaged[..whole[0].len()].to_vec().into())
                    .is_ok_and(|batch| batch.verify_crc().is_ok() && batch.header().base_offset == 0);
                if right {
                    // The leader epoch is not covered by the checksum.
                    assert!((12..16).contains(&at), "byte {at}");
                    continue;
                }
                let look = look(&damaged, 0, 0);
                assert!(look.followed && !look.unwritten, "byte {at} bit {bit}: {look:?}");
            }
        }
    }

    /// A file that ends anywhere in its last batch, and sectors of it that were not written.
    #[test]
    fn a_torn_end_is_seen() {
        for seed in 0..2_000 {
            let rng = SeededRng::new(seed);
            let before = value(&rng, rng.below(600) as usize);
            let inner = batch(rng.below(5) as i64, &value(&rng, 300));
            let filling = value(&rng, rng.below(2_000) as usize);
            let torn = batch(3, &[filling, inner].concat());
            let start = before.len();
            let bytes = [before, torn].concat();
            if seed % 2 == 0 {
                let end = start + 1 + rng.below((bytes.len() - start - 1) as u64) as usize;
                let look = look(&bytes[..end], start, 3);
                assert_eq!((look.ends_early, look.followed), (true, false), "seed {seed}");
                continue;
            }
            let sectors = (start as u64 / SECTOR_BYTES, (bytes.len() as u64 - 1) / SECTOR_BYTES);
            let lost = sectors.0 + rng.below(sectors.1 - sectors.0 + 1);
            let mut holed = bytes.clone();
            let from = (lost * SECTOR_BYTES) as usize;
            let to = (from + SECTOR_BYTES as usize).min(holed.len());
            holed[from.max(start)..to].fill(0);
            if from < start && to - start < LENGTH_END as usize {
                continue; // Only a piece of the base offset, which is zeros by right.
            }
            assert!(look(&holed, start, 3).unwritten, "seed {seed}");
        }
    }

    /// A length that points behind the file's end made everything behind the batch look torn off with it.
    #[test]
    fn a_damaged_length_does_not_hide_what_follows() {
        let rng = SeededRng::new(3);
        let first = batch(5, &value(&rng, 700));
        let bytes = [first.clone(), batch(6, &value(&rng, 100))].concat();
        for length in [10_000_000_i32, first.len() as i32 + 3, 60, bytes.len() as i32 - 12] {
            let mut damaged = bytes.clone();
            damaged[8..12].copy_from_slice(&length.to_be_bytes());
            assert!(look(&damaged, 0, 5).followed, "length {length}");
        }
        // Nothing follows: it may have been the last write.
        let mut alone = first;
        alone[8..12].copy_from_slice(&10_000_000_i32.to_be_bytes());
        assert!(!look(&alone, 0, 5).followed);
    }

    #[test]
    fn right_batches_are_found_wherever_they_begin_and_only_those() {
        for seed in 0..500 {
            let rng = SeededRng::new(seed);
            let before = value(&rng, rng.below(300) as usize);
            let found = batch(9, &value(&rng, rng.below(400) as usize));
            let bytes = [before.clone(), found.clone(), value(&rng, rng.below(100) as usize)].concat();
            let search = |bytes: &[u8], start: usize, end: usize, offset: i64| {
                has_right_batch(&file_of(bytes), start as u64, end as u64, offset).unwrap()
            };
            let (start, end) = (before.len(), before.len() + found.len());
            assert!(search(&bytes, 0, bytes.len(), 9) && search(&bytes, start, end, 9), "seed {seed}");
            assert!(!search(&bytes, start + 1, bytes.len(), 9), "seed {seed}: it begins before");
            assert!(!search(&bytes, 0, end - 1, 9), "seed {seed}: it ends behind");
            assert!(!search(&bytes, 0, bytes.len(), 10), "seed {seed}: it is an older one");
            let mut damaged = bytes.clone();
            damaged[start + 21 + rng.below((found.len() - 21) as u64) as usize] ^= 4;
            assert!(!search(&damaged, 0, bytes.len(), 9), "seed {seed}");
        }
    }

    #[test]
    fn a_batch_across_the_border_of_what_is_read_at_once_is_found() {
        let found = batch(9, &[b'x'; 5_000]);
        for overlap in [0, 1, 20, 21, 60, 61, 62, 3_000, found.len()] {
            let mut bytes = vec![b'-'; CHUNK_BYTES as usize - overlap];
            bytes.extend_from_slice(&found);
            bytes.extend_from_slice(&[b'-'; 10]);
            assert!(
                has_right_batch(&file_of(&bytes), 0, bytes.len() as u64, 9).unwrap(),
                "overlap {overlap}"
            );
        }
    }

    /// Records full of headers, each of which claims the whole rest: checking each by reading it took quadratic time.
    #[test]
    fn looking_takes_linear_time_whatever_was_sent() {
        let mut headers = Vec::new();
        let count = 20_000_usize;
        for number in 0..count {
            let mut header = batch(4, b"")[..BATCH_HEADER_LEN].to_vec();
            let rest = ((count - number) * BATCH_HEADER_LEN - 12) as i32;
            header[8..12].copy_from_slice(&rest.to_be_bytes());
            headers.extend(header);
        }
        let torn = batch(3, &headers);
        let mut wrong_offset = torn.clone();
        wrong_offset[7] = 2;
        for bytes in [&torn[..torn.len() - 9], &wrong_offset] {
            let file = file_of(bytes);
            look_at(&file, 0, bytes.len() as u64, 3).unwrap();
            let read = file.read.load(Ordering::Relaxed);
            assert!(read <= 4 * bytes.len() as u64, "{read} bytes read of {}", bytes.len());
        }
    }
}
