//! The transactions of one partition as the runtime knows them: which command is which call.

use klamm_protocol::DecodeError;

use super::calls::{Command, Reply};
use super::coordinator::Coordinator;
use crate::coordinator::{Core, Effects, Now, Step, StoredRecord, Ticket};

impl Core for Coordinator {
    type Command = Command;
    type Reply = Reply;

    fn on(&mut self, now: Now, ticket: Ticket, command: Command, effects: &mut Effects<Reply>) {
        match command {
            Command::Init(call) => self.init(now, ticket, call, effects),
            Command::Add(call) => self.add(now, ticket, call, effects),
            Command::Verify(call) => self.verify(ticket, &call, effects),
            Command::End(call) => self.end(now, ticket, &call, effects),
            Command::NextMarkers { under_way } => self.next_markers(ticket, under_way, effects),
            Command::Marked { id, decision } => self.marked(now, ticket, &id, decision, effects),
            Command::Describe { id } => self.describe(ticket, &id, effects),
            Command::List => self.list(ticket, effects),
            Command::Expire => self.expire(now, effects),
        }
    }

    fn on_time(&mut self, now: Now, effects: &mut Effects<Reply>) {
        Coordinator::on_time(self, now, effects);
    }

    fn next_deadline(&self) -> Option<i64> {
        Coordinator::next_deadline(self)
    }

    fn replay(&mut self, _now: Now, record: &StoredRecord) -> Result<(), DecodeError> {
        Coordinator::replay(self, record)
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
