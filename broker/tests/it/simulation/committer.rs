//! Offsets of groups: written by members and by clients that are in no group, read by anybody.

use bytes::Bytes;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_protocol::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use klamm_protocol::messages::{OffsetCommitRequest, OffsetFetchRequest};

use super::client::{Role, Shared};
use super::connection::{Connection, decoded};
use super::known::{Known, stands};
use super::model::Place;
use super::offsets::Commit;

/// Topics are named by id.
pub(super) const COMMIT: i16 = 10;
pub(super) const FETCH: i16 = 10;

/// A commit that was sent.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) group: String,
    pub(super) place: Place,
    pub(super) commit: Commit,
}

/// A question after a committed offset, with how often it had changed.
#[derive(Debug, Clone)]
pub(super) struct Question {
    group: String,
    place: Place,
    changes: u64,
}

/// As which member an offset is committed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller<'a> {
    pub(super) id: &'a str,
    pub(super) instance: Option<&'a str>,
    pub(super) generation: i32,
}

/// One that is in no group.
pub(super) const NOBODY: Caller<'static> = Caller { id: "", instance: None, generation: -1 };

/// A commit for a partition that nobody else commits for now.
pub(super) fn commit(
    group: &str,
    place: Place,
    caller: Caller<'_>,
    shared: &mut Shared,
) -> Option<(OffsetCommitRequest, Sent)> {
    let commit = Commit::try_from(shared.number()).unwrap();
    let register = shared.model.offset(group, place);
    if register.is_being_written() {
        return None;
    }
    register.sent(commit);
    let partition = OffsetCommitRequestPartition {
        partition_index: place.1,
        committed_offset: commit,
        committed_metadata: Some(commit.to_string().into()),
        ..OffsetCommitRequestPartition::default()
    };
    let topic = OffsetCommitRequestTopic {
        topic_id: place.0,
        partitions: vec![partition],
        ..OffsetCommitRequestTopic::default()
    };
    let request = OffsetCommitRequest {
        group_id: group.into(),
        member_id: caller.id.into(),
        group_instance_id: caller.instance.map(Into::into),
        generation_id_or_member_epoch: caller.generation,
        topics: vec![topic],
        ..OffsetCommitRequest::default()
    };
    Some((request, Sent { group: group.to_owned(), place, commit }))
}

/// Takes in the answer to a commit; gives its code.
pub(super) fn committed(sent: &Sent, frame: Bytes, shared: &mut Shared) -> i16 {
    let code = decoded::<OffsetCommitRequest>(frame, COMMIT).topics[0].partitions[0].error_code;
    shared.note(format!("  commit {} of {}: {code}", sent.commit, sent.group));
    shared.check_refusal(code, Some(sent.place.0), "a commit");
    let Some(register) = shared.model.offsets.get_mut(&(sent.group.clone(), sent.place)) else { return code };
    match ErrorCode::from_code(code) {
        ErrorCode::None => register.acknowledged(sent.commit),
        ErrorCode::IllegalGeneration
        | ErrorCode::UnknownMemberId
        | ErrorCode::RebalanceInProgress
        | ErrorCode::FencedInstanceId
        | ErrorCode::UnknownTopicId
        | ErrorCode::CoordinatorLoadInProgress
        | ErrorCode::UnknownTopicOrPartition => register.refused(sent.commit),
        // It goes on at a disk that hangs.
        ErrorCode::RequestTimedOut => register.unanswered(sent.commit),
        // Its record may have been written.
        _ if stands(Known::FailedCommitsAreNotSeen) => register.failed(sent.commit),
        _ => register.unanswered(sent.commit),
    }
    code
}

pub(super) fn unanswered(sent: &Sent, shared: &mut Shared) {
    if let Some(register) = shared.model.offsets.get_mut(&(sent.group.clone(), sent.place)) {
        register.unanswered(sent.commit);
    }
}

pub(super) fn question(group: &str, place: Place, shared: &mut Shared) -> (OffsetFetchRequest, Question) {
    let changes = shared.model.offset(group, place).changes;
    let topic = OffsetFetchRequestTopics {
        topic_id: place.0,
        partition_indexes: vec![place.1],
        ..OffsetFetchRequestTopics::default()
    };
    let wanted = OffsetFetchRequestGroup {
        group_id: group.into(),
        topics: Some(vec![topic]),
        ..OffsetFetchRequestGroup::default()
    };
    let request = OffsetFetchRequest { groups: vec![wanted], ..OffsetFetchRequest::default() };
    (request, Question { group: group.to_owned(), place, changes })
}

/// Holds an answer against what is known; gives its code.
pub(super) fn told(question: &Question, frame: Bytes, shared: &mut Shared) -> i16 {
    let settled = shared.settled || stands(Known::SeenOffsetsStay);
    let answer = decoded::<OffsetFetchRequest>(frame, FETCH).groups.remove(0);
    let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
    let code = if answer.error_code == 0 {
        partition.map_or(0, |found| found.error_code)
    } else {
        answer.error_code
    };
    let found = partition.map_or(-1, |found| found.committed_offset);
    let note = partition.and_then(|found| found.metadata.as_deref()).unwrap_or_default();
    let whole = found == -1 || note == found.to_string();
    shared.note(format!("  offset of {}: {code}, {found}", question.group));
    shared.check_refusal(code, Some(question.place.0), "the question after an offset");
    let unread = shared.doubtful && found == -1 && !stands(Known::UnreadOffsetsAreNotNone);
    if code != 0 || unread {
        return code;
    }
    shared.model.check(whole, || format!("the committed offset {found} has the note {note:?}"));
    let key = (question.group.clone(), question.place);
    let Some(register) = shared.model.offsets.get_mut(&key) else { return code };
    // Between question and answer it may have changed.
    if register.changes == question.changes
        && let Err(wrong) = register.read(found, settled)
    {
        let group = &question.group;
        shared.model.fail(format!("group {group}: {wrong}"));
    }
    code
}

/// Commits for a group that has no members.
#[derive(Debug)]
pub(super) struct Committer {
    pub(super) group: String,
}

#[derive(Debug)]
pub(super) enum Asked {
    Commit(Sent),
    Question(Question),
}

impl Role for Committer {
    type Asked = Asked;

    fn act(&mut self, connection: &mut Connection<Asked>, shared: &mut Shared) {
        let places = shared.model.places();
        let Some(place) = shared.pick(&places).filter(|_| connection.waiting() < 4) else { return };
        if shared.chance(40) {
            let (request, question) = question(&self.group, place, shared);
            connection.send(&request, FETCH, Some(Asked::Question(question)));
        } else if let Some((request, sent)) = commit(&self.group, place, NOBODY, shared) {
            connection.send(&request, COMMIT, Some(Asked::Commit(sent)));
        }
    }

    fn answered(&mut self, asked: Asked, frame: Bytes, shared: &mut Shared) {
        match asked {
            Asked::Commit(sent) => drop(committed(&sent, frame, shared)),
            Asked::Question(question) => drop(told(&question, frame, shared)),
        }
    }

    fn lost(&mut self, asked: Asked, shared: &mut Shared) {
        if let Asked::Commit(sent) = asked {
            unanswered(&sent, shared);
        }
    }
}
