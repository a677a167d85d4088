//! How output buffers grow: with what was really decoded, under the cap.

/// The least an output buffer grows by, so that small steps do not dominate.
pub(super) const GROWTH_BYTES: usize = 64 << 10;

/// The next size of an output buffer that is full at `len` bytes: twice as large, but never above the cap.
/// `None` when the cap is reached.
pub(super) fn grown(len: usize, cap_bytes: usize) -> Option<usize> {
    (len < cap_bytes).then(|| len.saturating_mul(2).max(GROWTH_BYTES).min(cap_bytes))
}

/// Makes an output buffer this long, which is at most the cap. A vector that grows by itself doubles, and may take
/// twice the cap.
pub(super) fn lengthen(out: &mut Vec<u8>, len: usize, cap_bytes: usize) {
    if len > out.capacity() {
        let doubled = out.capacity().saturating_mul(2).min(cap_bytes);
        out.reserve_exact(len.max(doubled) - out.len());
    }
    out.resize(len, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_takes_no_more_than_the_cap_and_is_moved_seldom() {
        let (mut out, mut capacities) = (Vec::new(), Vec::new());
        for len in 1..=1_000 {
            lengthen(&mut out, len, 1_000);
            assert_eq!(out.len(), len);
            capacities.push(out.capacity());
        }
        capacities.dedup();
        assert!(capacities.len() < 20 && capacities.ends_with(&[1_000]), "{capacities:?}");
    }
}
