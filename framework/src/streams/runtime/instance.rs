//! The name that an instance has in its group, where it has one that outlives its process.

use std::sync::Arc;

use super::fingerprint::of_names;
use super::shared::Shared;

/// The group waits a session for a member that was killed, before it gives its partitions to others. An instance that
/// is started again on the same state directory is that member, and has them at once; that the one before is gone is
/// what the directory's lock says.
///
/// Where the directory is, is part of the name: a copy of it is another member. And so is what it reads: the group
/// leaves the assignment as it is when a member comes back, and one that reads other topics by now has to be given
/// those, as a new member.
pub(super) fn id(shared: &Shared) -> Option<Arc<str>> {
    let directory = shared.directory.as_ref()?;
    let mut topics: Vec<&str> = shared.readers.keys().map(|topic| &**topic).collect();
    topics.sort_unstable();
    let patterns = shared.topology.patterns().map(|(pattern, _)| &*pattern.text);
    let what = of_names([directory.place()].into_iter().chain(topics).chain(patterns));
    Some(format!("{}-{what:016x}", directory.process_id()).into())
}
