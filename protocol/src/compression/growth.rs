//! How output buffers grow: with what was really decoded, under the cap.

/// The least an output buffer grows by, so that small steps do not dominate.
pub(super) const GROWTH_BYTES: usize = 64 << 10;

/// The next size of an output buffer that is full at `len` bytes: twice as large, but never above the cap.
/// `None` when the cap is reached.
pub(super) fn grown(len: usize, cap_bytes: usize) -> Option<usize> {
    (len < cap_bytes).then(|| len.saturating_mul(2).max(GROWTH_BYTES).min(cap_bytes))
}
