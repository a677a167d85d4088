//! Which topics the stores of a task were filled from, beside them: a changelog that was deleted and made anew has the
//! name of the one before, and what lies behind a position in it is the rest of nothing.

#![allow(clippy::disallowed_methods)] // Beside the stores, which RocksDB writes past all seams.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::Uuid;
use klamm_runtime::Blocking;

use super::changelogs::ChangelogStart;
use super::error::StreamsError;
use super::shared::Shared;
use crate::store::whole_file;
use crate::streams::task::TaskId;

/// In a task's directory, so that it goes with the stores.
const FILE: &str = "changelogs.json";

/// Between tries to ask the cluster.
const PAUSE: Duration = Duration::from_millis(100);

/// Ids of topics, by name.
type Ids = BTreeMap<String, String>;

/// A store that was filled from another topic than its changelog is now. If there is none, takes note of the topics.
///
/// # Errors
/// The cluster refuses to be asked.
pub(super) async fn foreign(
    shared: &Shared,
    task: TaskId,
    changelogs: &[ChangelogStart],
) -> Result<Option<Arc<str>>, StreamsError> {
    if shared.directory.is_none() || changelogs.is_empty() {
        return Ok(None);
    }
    let name = |changelog: &ChangelogStart| shared.names[changelog.topic.0 as usize].to_string();
    let now = ids(shared, changelogs.iter().map(name).collect()).await?;
    let filled = changelogs.iter().filter(|changelog| changelog.position > 0);
    let filled: Vec<_> = filled.map(|changelog| (Arc::clone(&changelog.store), name(changelog))).collect();
    let directory = shared.task_directory(task);
    let compared = Blocking::start(move || compare(&directory, &filled, now));
    Ok(compared.await.unwrap_or_default())
}

/// The ids of topics, as far as the cluster has and tells them.
async fn ids(shared: &Shared, names: Vec<String>) -> Result<Ids, StreamsError> {
    loop {
        match shared.client.admin().describe_topics(&names).await {
            Ok(described) => {
                let described = BTreeMap::from_iter(described).into_iter();
                let found = described.filter_map(|(name, found)| Some((name.to_string(), found.ok()?.id)));
                let known = found.filter(|(_, id)| *id != Uuid::ZERO);
                return Ok(known.map(|(name, id)| (name, id.to_string())).collect());
            }
            Err(error) if error.is_retriable() => {
                tracing::warn!(%error, "a restore waits");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn compare(directory: &Path, filled: &[(Arc<str>, String)], now: Ids) -> Option<Arc<str>> {
    let file = directory.join(FILE);
    // Of an earlier version there is none, and half of one says nothing.
    let text = std::fs::read(&file).unwrap_or_default();
    let before: Ids = serde_json::from_slice(&text).unwrap_or_default();
    let differs = |topic: &str| before.get(topic).zip(now.get(topic)).is_some_and(|(was, is)| was != is);
    if let Some((store, _)) = filled.iter().find(|(_, topic)| differs(topic)) {
        return Some(Arc::clone(store));
    }
    let mut known = before.clone();
    known.extend(now);
    // Where all stores are in memory, there is no directory, and nothing to remember.
    if known != before && directory.is_dir() {
        let text = serde_json::to_vec(&known).map_err(std::io::Error::other);
        if let Err(error) = text.and_then(|text| whole_file::replace(&file, &text)) {
            tracing::warn!(file = %file.display(), %error, "which changelogs the stores are of is not kept");
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(of: &[(&str, &str)]) -> Ids {
        of.iter().map(|(name, id)| ((*name).to_owned(), (*id).to_owned())).collect()
    }

    #[test]
    fn a_store_is_of_the_topic_that_it_was_filled_from() {
        let root = tempfile::tempdir().unwrap();
        let nowhere = root.path().join("nothing");
        let filled = [("one".into(), "a".to_owned()), ("two".into(), "b".to_owned())];
        assert_eq!(compare(&nowhere, &filled, ids(&[("a", "1")])), None);
        assert!(!nowhere.exists());
        let compare =
            |filled: &[_], now: &[_]| compare(root.path(), filled, ids(now)).map(|of| of.to_string());
        // Who knows nothing believes what there is.
        assert_eq!(compare(&filled, &[("a", "1")]), None);
        assert_eq!(compare(&filled, &[("a", "1"), ("b", "2")]), None);
        assert_eq!(compare(&filled, &[("a", "1"), ("b", "3")]).as_deref(), Some("two"));
        assert_eq!(compare(&filled, &[("a", "1"), ("b", "3")]).as_deref(), Some("two"), "and still");
        assert_eq!(compare(&filled, &[("a", "1")]), None, "what the cluster does not tell is as it was");
        // A store that has nothing yet is of whatever it is filled from.
        assert_eq!(compare(&filled[..1], &[("a", "1"), ("b", "3")]), None);
        assert_eq!(compare(&filled, &[("a", "1"), ("b", "3")]), None);
        std::fs::write(root.path().join(FILE), "{\"a\": \"9").unwrap();
        assert_eq!(compare(&filled, &[("a", "1"), ("b", "4")]), None, "half a file says nothing");
        assert_eq!(compare(&filled, &[("a", "2"), ("b", "4")]).as_deref(), Some("one"));
    }
}
