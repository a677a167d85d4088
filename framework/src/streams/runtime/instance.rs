//! The name that an instance has in its group, where it has one that outlives its process.

use std::sync::Arc;

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
    let what = fingerprint([directory.place()].into_iter().chain(topics).chain(patterns));
    Some(format!("{}-{what:016x}", directory.process_id()).into())
}

/// FNV-1a, which stays what it is from version to version.
fn fingerprint<'a>(names: impl Iterator<Item = &'a str>) -> u64 {
    // A zero between names: no name has one.
    let bytes = names.flat_map(|name| name.bytes().chain([0]));
    bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_changes_the_fingerprint_and_nothing_else_does() {
        let of = |names: &[&str]| fingerprint(names.iter().copied());
        assert_eq!(of(&["orders"]), of(&["orders"]));
        assert_eq!(of(&["orders"]), 0xDDC0_4B9F_33C6_B224, "it stays what it is");
        let different = [of(&[]), of(&["a"]), of(&["a", "b"]), of(&["ab"]), of(&["b", "a"])];
        for (place, one) in different.iter().enumerate() {
            assert!(!different[..place].contains(one));
        }
    }
}
