//! What has to be done on disk so that a topic's directories are what the image says. Pure.

use std::collections::BTreeSet;

use klamm_protocol::Uuid;

use super::image::{Image, Topic};

/// A partition that is on disk under some name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) index: i32,
    /// Whose it says it is; zero when it does not say.
    pub(super) topic_id: Uuid,
    /// It never held anything that was acknowledged: what a crash leaves that comes before a log's first flush.
    pub(super) empty: bool,
}

/// What to do with one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// It is as it should be.
    Keep(i32),
    /// It belongs to a topic that is gone, or was begun and never finished.
    Remove(i32),
    /// It is missing.
    Create(i32),
    /// No record ever spoke of it: it is left alone, and not served.
    Leave(i32, Uuid),
    /// It is missing, and cannot be made because of one that is left alone.
    Blocked(i32),
}

/// What to do about the partitions of one name, removals first.
pub(super) fn plan(name: &str, image: &Image, found: &[Found]) -> Vec<Action> {
    let wanted = image.topic(name).map(|topic| &**topic);
    let mut actions: Vec<Action> = found.iter().map(|found| judge(name, image, wanted, found)).collect();
    actions.sort_by_key(|action| !matches!(action, Action::Remove(_)));
    let (mut kept, mut left) = (BTreeSet::new(), BTreeSet::new());
    for action in &actions {
        match action {
            Action::Keep(index) => drop(kept.insert(*index)),
            Action::Leave(index, _) => drop(left.insert(*index)),
            _ => {}
        }
    }
    let missing = (0..wanted.map_or(0, |topic| topic.partitions)).filter(|index| !kept.contains(index));
    actions.extend(missing.map(|index| match left.contains(&index) {
        true => Action::Blocked(index),
        false => Action::Create(index),
    }));
    actions
}

fn judge(name: &str, image: &Image, wanted: Option<&Topic>, found: &Found) -> Action {
    let index = found.index;
    if wanted.is_some_and(|topic| topic.id == found.topic_id && index < topic.partitions) {
        return Action::Keep(index);
    }
    let unfinished = found.topic_id.is_zero() && found.empty && image.was_spoken_of(name);
    if unfinished || image.was_deleted(found.topic_id) {
        return Action::Remove(index);
    }
    Action::Leave(index, found.topic_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::record::MetadataRecord;

    const GONE: Uuid = Uuid::from_u128(1);
    const HERE: Uuid = Uuid::from_u128(2);
    const STRANGE: Uuid = Uuid::from_u128(3);

    /// `t` was there with one id, and is there with another and three partitions.
    fn image() -> Image {
        let topic = |id| MetadataRecord::Topic { name: "t".into(), id };
        let mut image = Image::default();
        let removed = MetadataRecord::RemoveTopic { id: GONE };
        let partitions = (0..3).map(|index| MetadataRecord::Partition { topic_id: HERE, index });
        [topic(GONE), removed, topic(HERE)]
            .into_iter()
            .chain(partitions)
            .for_each(|record| image.apply(&record));
        image
    }

    fn found(index: i32, topic_id: Uuid, empty: bool) -> Found {
        Found { index, topic_id, empty }
    }

    #[test]
    fn what_is_missing_is_made_and_what_is_gone_is_removed_first() {
        use Action::{Create, Keep, Remove};
        assert_eq!(plan("t", &image(), &[]), [Create(0), Create(1), Create(2)]);
        let all = [found(0, HERE, false), found(1, HERE, true), found(2, HERE, false)];
        assert_eq!(plan("t", &image(), &all), [Keep(0), Keep(1), Keep(2)]);
        let mixed = [found(0, HERE, false), found(1, GONE, false), found(7, GONE, true)];
        assert_eq!(plan("t", &image(), &mixed), [Remove(1), Remove(7), Keep(0), Create(1), Create(2)]);
        let unfinished = [found(0, Uuid::ZERO, true), found(4, Uuid::ZERO, true)];
        assert_eq!(plan("t", &image(), &unfinished), [Remove(0), Remove(4), Create(0), Create(1), Create(2)]);
    }

    #[test]
    fn of_a_topic_that_is_gone_nothing_stays() {
        let mut image = image();
        image.apply(&MetadataRecord::RemoveTopic { id: HERE });
        let left = [found(0, HERE, false), found(1, GONE, false), found(2, Uuid::ZERO, true)];
        assert_eq!(plan("t", &image, &left), [Action::Remove(0), Action::Remove(1), Action::Remove(2)]);
        assert_eq!(plan("t", &image, &[]), []);
    }

    #[test]
    fn what_no_record_ever_spoke_of_is_left_alone_and_in_the_way() {
        use Action::{Blocked, Create, Keep, Leave};
        let strange = [found(0, STRANGE, true), found(1, HERE, false)];
        assert_eq!(plan("t", &image(), &strange), [Leave(0, STRANGE), Keep(1), Blocked(0), Create(2)]);
        let nameless = [found(2, Uuid::ZERO, false)];
        assert_eq!(plan("t", &image(), &nameless), [Leave(2, Uuid::ZERO), Create(0), Create(1), Blocked(2)]);
        // Its own, but more than it has: a part of the metadata may be missing.
        assert_eq!(plan("t", &image(), &[found(3, HERE, true)])[0], Leave(3, HERE));
        // An empty directory under a name that was never a topic's is somebody else's.
        assert_eq!(plan("notes", &image(), &[found(1, Uuid::ZERO, true)]), [Leave(1, Uuid::ZERO)]);
    }
}
