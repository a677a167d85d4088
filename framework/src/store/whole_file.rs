//! Small files beside the state that are there whole or not at all, whatever crashes meanwhile.

use std::io::Write;
use std::path::Path;

/// Puts a file in the place of what was there: whoever opens it later finds the one or the other.
// Beside the state, where RocksDB's files are no business of the Disk seam either.
#[expect(clippy::disallowed_methods, reason = "the state directory is outside of the seam")]
pub(crate) fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let mut fresh = std::fs::File::create(&name)?;
    fresh.write_all(content)?;
    // Before it has the name: after a power cut the name would lead to nothing.
    fresh.sync_all()?;
    std::fs::rename(&name, path)
}
