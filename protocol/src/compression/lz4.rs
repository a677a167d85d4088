//! LZ4 frames over lz4_flex's block functions.
//!
//! The frame is read here and not by lz4_flex's reader for three reasons: blocks are decoded straight into the final
//! buffer, which is then also the window of linked blocks; a frame without its end mark is an error instead of a short
//! result; and no buffer of the declared block size (up to 4 MiB, twice) is made for an input of a few bytes.

use std::cell::RefCell;

use lz4_flex::block::{self, CompressTable, DecompressError};

use super::growth::lengthen;
use super::xxh32::xxh32;
use super::{Compression, CompressionError};

const CODEC: Compression = Compression::Lz4;

const MAGIC: u32 = 0x184D_2204;
/// Skippable frames have any of 16 magic numbers from here.
const SKIPPABLE_MAGIC: u32 = 0x184D_2A50;

const VERSION_MASK: u8 = 0xC0;
const VERSION_1: u8 = 0x40;
const FLAG_INDEPENDENT: u8 = 0x20;
const FLAG_BLOCK_CHECKSUMS: u8 = 0x10;
const FLAG_CONTENT_SIZE: u8 = 0x08;
const FLAG_CONTENT_CHECKSUM: u8 = 0x04;
const FLAG_DICTIONARY: u8 = 0x01;
/// Bit 1 of the flags and bits 7 and 0 to 3 of the block descriptor are reserved.
const RESERVED_FLAGS: u8 = 0x02;
const RESERVED_DESCRIPTOR: u8 = 0x8F;

/// The high bit of a block's size says that the block is stored uncompressed.
const STORED: u32 = 1 << 31;

/// How far back a match may reach: the window of linked blocks.
const WINDOW_BYTES: usize = 64 << 10;
/// No LZ4 block expands by more than this factor.
const MAX_RATIO: usize = 255;

/// Input bytes per block that we write; the Java client's default, and what `OUR_HEADER` says.
const BLOCK_BYTES: usize = 64 << 10;
/// Magic, version 1 with independent blocks and no checksums, blocks of 64 KiB, and the header's checksum byte.
const OUR_HEADER: [u8; 7] = [0x04, 0x22, 0x4D, 0x18, VERSION_1 | FLAG_INDEPENDENT, 0x40, 0x82];

thread_local! {
    /// The encoder's hash table, allocated once a thread.
    static TABLE: RefCell<CompressTable> = RefCell::new(CompressTable::small());
}

pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) -> Result<(), CompressionError> {
    out.extend_from_slice(&OUR_HEADER);
    TABLE.with_borrow_mut(|table| {
        for chunk in input.chunks(BLOCK_BYTES) {
            let size_at = out.len();
            let block_at = size_at + 4;
            out.resize(block_at + block::get_maximum_output_size(chunk.len()), 0);
            let written = block::compress_into_with_table(chunk, &mut out[block_at..], table)
                .map_err(|error| CompressionError::failed(CODEC, error))?;
            // Both sizes are at most BLOCK_BYTES.
            let size = if written < chunk.len() {
                out.truncate(block_at + written);
                written as u32
            } else {
                out.truncate(block_at);
                out.extend_from_slice(chunk);
                chunk.len() as u32 | STORED
            };
            out[size_at..block_at].copy_from_slice(&size.to_le_bytes());
        }
        Ok(())
    })?;
    out.extend_from_slice(&0u32.to_le_bytes());
    Ok(())
}

/// Frames may follow each other and skippable frames may lie between them.
pub(super) fn decompress(input: &[u8], cap_bytes: usize, out: &mut Vec<u8>) -> Result<(), CompressionError> {
    let mut frames = FrameReader { rest: input };
    let mut output = Output { buffer: out, filled: 0, cap_bytes };
    loop {
        let magic = frames.u32()?;
        if magic & !0xF == SKIPPABLE_MAGIC {
            let size = frames.u32()? as usize;
            frames.take(size)?;
        } else if magic == MAGIC {
            frames.frame(&mut output)?;
        } else {
            return Err(CompressionError::corrupt(CODEC, format!("unknown magic {magic:#010x}")));
        }
        if frames.rest.is_empty() {
            let filled = output.filled;
            out.truncate(filled);
            return Ok(());
        }
    }
}

struct FrameReader<'a> {
    rest: &'a [u8],
}

impl<'a> FrameReader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], CompressionError> {
        let (taken, rest) =
            self.rest.split_at_checked(len).ok_or(CompressionError::Truncated { codec: CODEC })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CompressionError> {
        let (taken, rest) =
            self.rest.split_first_chunk::<N>().ok_or(CompressionError::Truncated { codec: CODEC })?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u32(&mut self) -> Result<u32, CompressionError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn checksum(&mut self, of: &[u8], what: &str) -> Result<(), CompressionError> {
        if self.u32()? == xxh32(of) {
            return Ok(());
        }
        Err(CompressionError::corrupt(CODEC, format!("wrong {what} checksum")))
    }

    /// One frame, from behind its magic to its end mark and content checksum.
    fn frame(&mut self, output: &mut Output<'_>) -> Result<(), CompressionError> {
        let start = output.filled;
        let header = self.frame_header()?;
        loop {
            let size = self.u32()?;
            if size == 0 {
                break;
            }
            let block = self.take((size & !STORED) as usize)?;
            if block.len() > header.block_max {
                return Err(CompressionError::corrupt(CODEC, "block above the frame's block size"));
            }
            if header.flags & FLAG_BLOCK_CHECKSUMS != 0 {
                self.checksum(block, "block")?;
            }
            if size & STORED != 0 {
                output.store(block)?;
            } else {
                let window_start = match header.flags & FLAG_INDEPENDENT {
                    0 => start.max(output.filled.saturating_sub(WINDOW_BYTES)),
                    _ => output.filled,
                };
                output.decode(block, header.block_max, window_start)?;
            }
        }
        let content = output.since(start);
        if header.flags & FLAG_CONTENT_CHECKSUM != 0 {
            self.checksum(content, "content")?;
        }
        if header.content_size.is_some_and(|size| size != content.len() as u64) {
            return Err(CompressionError::corrupt(CODEC, "content is not of the size the frame says"));
        }
        Ok(())
    }

    fn frame_header(&mut self) -> Result<FrameHeader, CompressionError> {
        let whole = self.rest;
        let [flags, descriptor] = self.array()?;
        if flags & VERSION_MASK != VERSION_1 {
            return Err(CompressionError::corrupt(CODEC, "unknown frame version"));
        }
        if flags & RESERVED_FLAGS != 0 || descriptor & RESERVED_DESCRIPTOR != 0 {
            return Err(CompressionError::corrupt(CODEC, "reserved bits are set"));
        }
        if flags & FLAG_DICTIONARY != 0 {
            return Err(CompressionError::corrupt(CODEC, "needs a dictionary"));
        }
        let block_max = match descriptor >> 4 {
            4 => 64 << 10,
            5 => 256 << 10,
            6 => 1 << 20,
            7 => 4 << 20,
            other => return Err(CompressionError::corrupt(CODEC, format!("unknown block size {other}"))),
        };
        let content_size = match flags & FLAG_CONTENT_SIZE {
            0 => None,
            _ => Some(u64::from_le_bytes(self.array()?)),
        };
        let described = &whole[..whole.len() - self.rest.len()];
        let [checksum] = self.array()?;
        // The second byte of the hash. Clients of message formats 0 and 1 hashed the magic too; in batches nobody does.
        if checksum != (xxh32(described) >> 8) as u8 {
            return Err(CompressionError::corrupt(CODEC, "wrong header checksum"));
        }
        Ok(FrameHeader { flags, block_max, content_size })
    }
}

struct FrameHeader {
    flags: u8,
    block_max: usize,
    content_size: Option<u64>,
}

/// The growing output. The buffer may be longer than what is filled: bytes are zeroed once, not again for each block.
struct Output<'a> {
    buffer: &'a mut Vec<u8>,
    filled: usize,
    cap_bytes: usize,
}

impl Output<'_> {
    fn since(&self, start: usize) -> &[u8] {
        &self.buffer[start..self.filled]
    }

    fn store(&mut self, block: &[u8]) -> Result<(), CompressionError> {
        if block.len() > self.cap_bytes - self.filled {
            return Err(self.too_large());
        }
        let end = self.filled + block.len();
        self.ensure(end);
        self.buffer[self.filled..end].copy_from_slice(block);
        self.filled = end;
        Ok(())
    }

    /// Decodes one block of at most `block_max` bytes of output, which may refer back as far as `window_start`.
    fn decode(
        &mut self,
        block: &[u8],
        block_max: usize,
        window_start: usize,
    ) -> Result<(), CompressionError> {
        let room = block_max.min(block.len().saturating_mul(MAX_RATIO));
        let end = self.filled.saturating_add(room).min(self.cap_bytes);
        self.ensure(end);
        let (before, target) = self.buffer.split_at_mut(self.filled);
        let target = &mut target[..end - self.filled];
        let decoded = match &before[window_start..] {
            [] => block::decompress_into(block, target),
            window => block::decompress_into_with_dict(block, target, window),
        };
        match decoded {
            Ok(len) => {
                self.filled += len;
                Ok(())
            }
            Err(DecompressError::OutputTooSmall { .. }) if end == self.cap_bytes => Err(self.too_large()),
            Err(error) => Err(CompressionError::corrupt(CODEC, error)),
        }
    }

    fn ensure(&mut self, len: usize) {
        if self.buffer.len() < len {
            lengthen(self.buffer, len, self.cap_bytes);
        }
    }

    fn too_large(&self) -> CompressionError {
        CompressionError::TooLarge { codec: CODEC, cap_bytes: self.cap_bytes }
    }
}
