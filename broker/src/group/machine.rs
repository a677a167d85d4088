//! The groups of one partition as the runtime knows them: which command is which call, and what its answer rests on.

use klamm_protocol::DecodeError;

use super::calls::{Command, Reply};
use super::coordinator::Coordinator;
use crate::coordinator::{Core, Effects, Now, Producer, Step, StoredRecord, Ticket};

impl Core for Coordinator {
    type Command = Command;
    type Reply = Reply;

    fn on(&mut self, now: Now, ticket: Ticket, command: Command, effects: &mut Effects<Reply>) {
        match command {
            Command::Join(join) => self.join(now, ticket, join, effects),
            Command::Sync(sync) => self.sync(now, ticket, sync, effects),
            Command::Heartbeat { group, caller } => {
                let code = self.heartbeat(now, &group, &caller);
                effects.answer(ticket, Reply::Codes(vec![code]), self.rests_on(&group));
            }
            Command::Leave { group, callers } => {
                let codes = self.leave(now, &group, &callers, effects);
                effects.answer(ticket, Reply::Codes(codes), self.rests_on(&group));
            }
            Command::Commit { group, caller, commits } => {
                let codes = self.commit(now, &group, &caller, commits, effects);
                let rests_on = if effects.has_written() { effects.step } else { self.rests_on(&group) };
                effects.answer(ticket, Reply::Codes(codes), rests_on);
            }
            Command::CommitInTransaction { group, caller, producer, marker, commits } => {
                let by = (&caller, producer, marker);
                let codes = self.commit_in_transaction(now, &group, by, commits, effects);
                let rests_on = if effects.has_written() { effects.step } else { self.rests_on(&group) };
                effects.answer(ticket, Reply::Codes(codes), rests_on);
            }
            Command::EndTransaction { producer, commit } => {
                let code = self.end_transaction(now, producer, commit, effects);
                effects.answer(ticket, Reply::Codes(vec![code]), effects.step);
            }
            Command::Fetch(fetch) => {
                let (found, rests_on) = self.fetch(&fetch);
                effects.answer(ticket, Reply::Offsets(found), rests_on);
            }
            Command::DeleteGroup { group } => {
                let code = self.delete_group(&group, effects);
                let rests_on =
                    if effects.has_written() { effects.step } else { self.existence_rests_on(&group) };
                effects.answer(ticket, Reply::Codes(vec![code]), rests_on);
            }
            Command::DeleteOffsets { group, topics } => {
                let deleted = self.delete_offsets(&group, &topics, effects);
                let rests_on =
                    if effects.has_written() { effects.step } else { self.existence_rests_on(&group) };
                effects.answer(ticket, Reply::Deleted(deleted), rests_on);
            }
            Command::TopicDeleted { id, name } => self.topic_deleted(id, &name, effects),
            Command::Loaded(view) => {
                self.adopt_topics(|name| view.image.topic(name).map(|topic| topic.id), effects);
            }
            Command::Expire(view) => {
                self.expire(now, effects);
                self.sweep_topics(|name| view.image.topic(name).map(|topic| topic.id), effects);
            }
        }
    }

    fn begin(&mut self, command: &Command, effects: &mut Effects<Reply>) {
        match command {
            Command::DeleteGroup { group } => self.begin_to_delete(group, effects),
            Command::DeleteOffsets { group, topics } => {
                self.begin_to_delete_offsets(group, topics, effects);
            }
            _ => {}
        }
    }

    fn on_time(&mut self, now: Now, effects: &mut Effects<Reply>) {
        Coordinator::on_time(self, now, effects);
    }

    fn next_deadline(&self) -> Option<i64> {
        Coordinator::next_deadline(self)
    }

    fn replay(&mut self, now: Now, record: &StoredRecord) -> Result<(), DecodeError> {
        Coordinator::replay(self, now, None, record)
    }

    fn replay_as(&mut self, now: Now, producer: Producer, record: &StoredRecord) -> Result<(), DecodeError> {
        Coordinator::replay(self, now, Some(producer), record)
    }

    fn replay_marker(&mut self, now: Now, producer: Producer, commit: bool) {
        Coordinator::replay_marker(self, now, producer, commit);
    }

    fn replayed(&mut self, now: Now) {
        Coordinator::replayed(self, now);
    }

    fn durable(&mut self, step: Step) {
        Coordinator::durable(self, step);
    }

    fn roll_back(&mut self, now: Now, to: Step, effects: &mut Effects<Reply>) {
        Coordinator::roll_back(self, now, to, effects);
    }
}
