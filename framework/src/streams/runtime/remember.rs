//! The topology's fingerprint beside the state: read before an application starts, written when it may.

use std::path::Path;

use klamm_runtime::Blocking;
use serde_json::Value;

use super::config::StreamsConfig;
use super::error::StreamsError;
use crate::store::whole_file;
use crate::streams::node::StoreSpec;
use crate::streams::topology::{Fingerprint, TopologyInner};

/// Its name in the application's folder of the state directory.
const FILE: &str = "topology.json";

/// Refuses a topology that would orphan state of the one that ran here before; otherwise takes note of it.
pub(super) async fn remember(topology: &TopologyInner, config: &StreamsConfig) -> Result<(), StreamsError> {
    let folder = config.state_dir.join(&*config.application_id);
    let (now, migration) = (Fingerprint::of(topology), config.migration.clone());
    let path = folder.join(FILE);
    let file = path.clone();
    let mut stores = topology.graph.stores.values();
    let is_on_disk = stores.any(StoreSpec::is_on_disk);
    let compared = Blocking::start(move || {
        let before = match read(&file)? {
            Some(before) => before,
            // Nothing lies beside it: an application in memory leaves no files.
            None if !is_on_disk => return Ok(Vec::new()),
            None => Fingerprint::default(),
        };
        let orphans = before.orphans(&now, &migration);
        if orphans.is_empty() && before != now {
            write(&folder, &file, &now)?;
        }
        Ok(orphans)
    });
    let failed =
        |source: std::io::Error| StreamsError::Fingerprint { path: path.display().to_string(), source };
    let orphans = compared.await.map_err(|error| failed(std::io::Error::other(error)))?.map_err(failed)?;
    if orphans.is_empty() {
        return Ok(());
    }
    let list = orphans.iter().map(|orphan| format!("\n- {orphan}")).collect();
    Err(StreamsError::Orphans { path: path.display().to_string(), list })
}

// Beside the state, where RocksDB's files are no business of the Disk seam either.
#[expect(clippy::disallowed_methods, reason = "the state directory is outside of the seam")]
fn read(file: &Path) -> std::io::Result<Option<Fingerprint>> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let document: Result<Value, _> = serde_json::from_str(&text);
    let found = document.ok().as_ref().and_then(Fingerprint::from_json);
    found.map(Some).ok_or_else(|| std::io::Error::other("it is no fingerprint that this version can read"))
}

/// Whole or not at all: an application that dies meanwhile must find the old one or the new one.
#[expect(clippy::disallowed_methods, reason = "the state directory is outside of the seam")]
fn write(folder: &Path, file: &Path, fingerprint: &Fingerprint) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    whole_file::replace(file, format!("{:#}\n", fingerprint.to_json()).as_bytes())
}
