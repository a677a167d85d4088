//! Zstd over one compression and one decompression context a thread: making one costs more than compressing a small batch.

use std::cell::RefCell;

use ::zstd::zstd_safe::{self, CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer, ResetDirective};

use super::{Compression, CompressionError, grown};

const CODEC: Compression = Compression::Zstd;

const LEVEL: i32 = 3;

/// The window that every decoder should allow, 8 MiB (RFC 8878, 3.1.1.1.2), and zstd's own default maximum, 128 MiB. A
/// frame may declare a window above the cap though its content is small, so the cap alone would be too strict.
const MIN_WINDOW_LOG: u32 = 23;
const MAX_WINDOW_LOG: u32 = 27;

/// A context that grew above this for one large batch is given back.
const KEEP_CONTEXT_BYTES: usize = 1 << 20;

thread_local! {
    static COMPRESSOR: RefCell<Option<CCtx<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) -> Result<(), CompressionError> {
    COMPRESSOR.with_borrow_mut(|slot| {
        // After an error the context is dropped: it is taken here and put back on success only.
        let mut context = match slot.take() {
            Some(context) => context,
            None => {
                let mut context = CCtx::try_create()
                    .ok_or_else(|| CompressionError::failed(CODEC, "out of memory"))?;
                context.set_parameter(CParameter::CompressionLevel(LEVEL)).map_err(failed)?;
                context
            }
        };
        let start = out.len();
        out.reserve(zstd_safe::compress_bound(input.len()));
        let mut output = OutBuffer::around_pos(out, start);
        let mut source = InBuffer::around(input);
        // The content size is written into the frame, so that a reader can allocate once.
        context.set_pledged_src_size(Some(input.len() as u64)).map_err(failed)?;
        let left = context.end_stream_from(&mut output, &mut source)?;
        if left != 0 {
            return Err(CompressionError::failed(CODEC, "output above its bound"));
        }
        if context.sizeof() <= KEEP_CONTEXT_BYTES * 8 {
            *slot = Some(context);
        }
        Ok(())
    })
}

pub(super) fn decompress(input: &[u8], cap_bytes: usize, out: &mut Vec<u8>) -> Result<(), CompressionError> {
    if input.is_empty() {
        return Err(CompressionError::Truncated { codec: CODEC });
    }
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let mut context = match slot.take() {
            Some(context) => context,
            None => DCtx::try_create().ok_or_else(|| CompressionError::failed(CODEC, "out of memory"))?,
        };
        context.reset(ResetDirective::SessionOnly).map_err(corrupt)?;
        let window_log = cap_bytes.max(1).ilog2().saturating_add(1).clamp(MIN_WINDOW_LOG, MAX_WINDOW_LOG);
        context.set_parameter(DParameter::WindowLogMax(window_log)).map_err(corrupt)?;
        decompress_stream(&mut context, input, cap_bytes, out)?;
        if context.sizeof() <= KEEP_CONTEXT_BYTES {
            *slot = Some(context);
        }
        Ok(())
    })
}
