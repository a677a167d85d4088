//! Zstd over one compression and one decompression context a thread: making one costs more than
//! compressing a small batch.

use std::cell::RefCell;

use ::zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use ::zstd::zstd_safe::{self, CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer};

use super::growth::{GROWTH_BYTES, grown};
use super::{Compression, CompressionError};

const CODEC: Compression = Compression::Zstd;

const LEVEL: i32 = 3;

/// The window that every decoder should allow, 8 MiB (RFC 8878, 3.1.1.1.2), and zstd's own default maximum, 128 MiB. A
/// streaming encoder declares its full window though its content is small, so a window cannot be held to a smaller cap.
const MIN_WINDOW_LOG: u32 = 23;
const MAX_WINDOW_LOG: u32 = 27;

/// Contexts that grew above these for one large batch are given back.
const KEEP_COMPRESSOR_BYTES: usize = 8 << 20;
const KEEP_DECOMPRESSOR_BYTES: usize = 1 << 20;

thread_local! {
    static COMPRESSOR: RefCell<Option<CCtx<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

// In both functions the context is taken out of its slot and put back only after success: after an error it is
// dropped, in whatever state it is.

pub(super) fn compress(level: Option<i32>, input: &[u8], out: &mut Vec<u8>) -> Result<(), CompressionError> {
    COMPRESSOR.with_borrow_mut(|slot| {
        let mut context = match slot.take() {
            Some(context) => context,
            None => new_compressor()?,
        };
        // The context is everybody's on this thread.
        let level = CParameter::CompressionLevel(level.unwrap_or(LEVEL));
        context.set_parameter(level).map_err(failed)?;
        out.reserve(zstd_safe::compress_bound(input.len()));
        let start = out.len();
        let mut source = InBuffer::around(input);
        // The whole input in one call: zstd then notes the content size in the frame, and a reader can allocate once.
        let left = context
            .compress_stream2(
                &mut OutBuffer::around_pos(out, start),
                &mut source,
                ZSTD_EndDirective::ZSTD_e_end,
            )
            .map_err(failed)?;
        if left != 0 {
            return Err(CompressionError::failed(CODEC, "output above its bound"));
        }
        if context.sizeof() <= KEEP_COMPRESSOR_BYTES {
            *slot = Some(context);
        }
        Ok(())
    })
}

fn new_compressor() -> Result<CCtx<'static>, CompressionError> {
    CCtx::try_create().ok_or_else(|| CompressionError::failed(CODEC, "out of memory"))
}

pub(super) fn decompress(input: &[u8], cap_bytes: usize, out: &mut Vec<u8>) -> Result<(), CompressionError> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let mut context = match slot.take() {
            Some(context) => context,
            None => DCtx::try_create().ok_or_else(|| CompressionError::failed(CODEC, "out of memory"))?,
        };
        let window_log = cap_bytes.checked_ilog2().unwrap_or(0).clamp(MIN_WINDOW_LOG, MAX_WINDOW_LOG);
        context.set_parameter(DParameter::WindowLogMax(window_log)).map_err(corrupt)?;
        decompress_frames(&mut context, input, cap_bytes, out)?;
        if context.sizeof() <= KEEP_DECOMPRESSOR_BYTES {
            *slot = Some(context);
        }
        Ok(())
    })
}

/// Decodes frame after frame until the input ends.
fn decompress_frames(
    context: &mut DCtx<'_>,
    input: &[u8],
    cap_bytes: usize,
    out: &mut Vec<u8>,
) -> Result<(), CompressionError> {
    // The declared size, believed up to what a small multiple of the input may be: with room for the whole frame zstd
    // decodes straight into the output, without a window of its own.
    let declared = match zstd_safe::get_frame_content_size(input) {
        Ok(Some(size)) if size > cap_bytes as u64 => {
            return Err(CompressionError::TooLarge { codec: CODEC, cap_bytes });
        }
        Ok(Some(size)) => size as usize,
        _ => 0,
    };
    let believable = input.len().saturating_mul(64).max(GROWTH_BYTES);
    // One byte above the cap tells "exactly the cap" from "more".
    let limit = cap_bytes.saturating_add(1);
    out.reserve_exact(declared.clamp(GROWTH_BYTES.min(limit), believable.min(limit)));

    let mut source = InBuffer::around(input);
    loop {
        let (read, written) = (source.pos(), out.len());
        let mut output = OutBuffer::around_pos(out, written);
        let left = context.decompress_stream(&mut output, &mut source).map_err(corrupt)?;
        if out.len() > cap_bytes {
            return Err(CompressionError::TooLarge { codec: CODEC, cap_bytes });
        }
        let input_done = source.pos() == input.len();
        if left == 0 && input_done {
            return Ok(());
        }
        if out.len() == out.capacity() {
            let len = grown(out.len(), limit).unwrap_or(limit);
            out.reserve_exact(len - out.len());
        } else if input_done || (source.pos() == read && out.len() == written) {
            // Room is left, and still zstd wants more input.
            return Err(CompressionError::Truncated { codec: CODEC });
        }
    }
}

fn failed(code: usize) -> CompressionError {
    CompressionError::failed(CODEC, zstd_safe::get_error_name(code))
}

fn corrupt(code: usize) -> CompressionError {
    CompressionError::corrupt(CODEC, zstd_safe::get_error_name(code))
}
