//! What the files of a segment are called.

use std::path::{Path, PathBuf};

/// The records.
pub(crate) const LOG: &str = ".log";
/// Where offsets are.
pub(crate) const INDEX: &str = ".index";
/// Where times are.
pub(crate) const TIME_INDEX: &str = ".timeindex";
/// Which transactions were aborted.
pub(crate) const TXN_INDEX: &str = ".txnindex";
/// What vouches for the one before.
pub(crate) const TXN_SUM: &str = ".txnsum";

/// What the files of a compaction that is not finished end with, and of one that is but for the renames.
pub(crate) const CLEANED: &str = ".cleaned";
pub(crate) const SWAP: &str = ".swap";

/// What may lie beside the records.
pub(crate) const BESIDE: [&str; 4] = [INDEX, TIME_INDEX, TXN_INDEX, TXN_SUM];
/// All of it, the records first.
pub(crate) const ALL: [&str; 5] = [LOG, INDEX, TIME_INDEX, TXN_INDEX, TXN_SUM];

/// `<base offset as 20 digits><suffix>` in `dir`.
pub(crate) fn segment_path(dir: &Path, base_offset: i64, suffix: &str) -> PathBuf {
    dir.join(format!("{base_offset:020}{suffix}"))
}

/// The base offset that a file name of a segment begins with.
pub(crate) fn base_offset_of(name: &str, suffix: &str) -> Option<i64> {
    let digits = name.strip_suffix(suffix)?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}
