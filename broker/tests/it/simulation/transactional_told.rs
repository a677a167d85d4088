//! What a transactional client makes of its answers.

use bytes::Bytes;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{AddOffsetsToTxnRequest, EndTxnRequest, InitProducerIdRequest};

use super::client::Shared;
use super::connection::decoded;
use super::ledger::Identity;
use super::transactional::{Asked, Open, Transactional, What};
use super::txn_requests::{self as requests, Told};

impl Transactional {
    /// Takes in an answer; one that was behind somebody else's is to be refused.
    pub(super) fn hear(&mut self, asked: Asked, frame: Bytes, shared: &mut Shared) {
        let Asked { what, newest, stale } = asked;
        let note = format!("  {} as {:?}: {what:?}", self.id, self.identity);
        // Only what is added or written already can be forgotten.
        let took_part = !self.second || self.open.as_ref().is_some_and(|open| open.acknowledged);
        let code = match what {
            What::Init => self.initialized(newest, frame, shared),
            What::End => self.ended(frame, shared),
            What::Write(firsts) => {
                let code = self.written(&firsts, frame, shared);
                self.heard(code, (took_part, shared));
                code
            }
            What::Add(partitions) => {
                let code = requests::added(frame);
                if let Some(open) = self.open.as_mut().filter(|_| code == 0) {
                    open.added.extend(partitions);
                }
                self.heard(code, (false, shared));
                code
            }
            What::AddGroup => {
                let code = decoded::<AddOffsetsToTxnRequest>(frame, requests::ADD_GROUP).error_code;
                if let Some(open) = self.open.as_mut().filter(|_| code == 0) {
                    open.group_added = true;
                }
                self.heard(code, (false, shared));
                code
            }
            What::Offset(commit) => {
                let code = requests::offset_committed(frame, self.versions().offset, shared);
                if let Some(open) = self.open.as_mut().filter(|_| code == 0) {
                    (open.offset, open.acknowledged) = (None, true);
                    shared.model.ledger.offset_acknowledged(commit);
                }
                self.heard(code, (took_part, shared));
                code
            }
        };
        shared.note(format!("{note}: {code}"));
        shared.model.check(!stale || code != 0, || {
            format!("{} is served, and another had a newer epoch: {newest:?}; {note}", self.id)
        });
    }

    fn initialized(&mut self, newest: Option<Identity>, frame: Bytes, shared: &mut Shared) -> i16 {
        let answer = decoded::<InitProducerIdRequest>(frame, self.versions().init);
        let identity = (answer.producer_id, answer.producer_epoch);
        match Told::of(answer.error_code) {
            Told::Done => {
                shared.model.identity_given(&self.id, newest, identity);
                self.forget(None);
                self.identity = Some(identity);
            }
            Told::Again => {}
            Told::Abort | Told::Fenced => self.forget(None),
        }
        answer.error_code
    }

    fn written(&mut self, firsts: &[u64], frame: Bytes, shared: &mut Shared) -> i16 {
        let told = requests::produced(frame, self.versions().produce);
        let Some(open) = &mut self.open else { return 0 };
        shared.model.check(told.len() == firsts.len(), || format!("{told:?} for {firsts:?}"));
        let mut worst = 0;
        for (first, (code, base_offset)) in firsts.iter().zip(told) {
            let Some(at) = open.batches.iter().position(|batch| batch.numbers[0] == *first) else { continue };
            if Told::of(code) != Told::Done {
                let topic = open.batches[at].place.0;
                shared.check_refusal(code, Some(topic), "a transactional client");
                worst = code;
                continue;
            }
            open.acknowledged = true;
            let batch = open.batches.remove(at);
            for (number, offset) in batch.numbers.into_iter().zip(base_offset..) {
                shared.model.acknowledged(number, Some(offset).filter(|_| base_offset >= 0));
            }
        }
        worst
    }

    fn ended(&mut self, frame: Bytes, shared: &mut Shared) -> i16 {
        let answer = decoded::<EndTxnRequest>(frame, self.versions().end);
        let Some(Open { txn, ending: Some((commit, tries)), acknowledged, batches, .. }) = &self.open else {
            return 0;
        };
        let (txn, commit, code) = (*txn, *commit, answer.error_code);
        let never = *tries == 1 && matches!(Told::of(code), Told::Fenced | Told::Abort);
        if code == 0 || !commit || never {
            shared.model.transaction_ended(txn, code == 0 && commit, "its client was told");
        }
        // By the second version, who asks for the end of what was aborted over its head is told the same.
        let forgotten = code == ErrorCode::InvalidTxnState.code() && *acknowledged && !self.second;
        shared.model.check(!forgotten, || format!("transaction {txn} is forgotten: it cannot be ended"));
        match Told::of(code) {
            Told::Done => {
                // What is under way may come late; who knows no second version gets a new epoch for that.
                let unsure = !batches.is_empty();
                (self.open, self.last) = (None, Some(txn));
                if self.second {
                    let identity = (answer.producer_id, answer.producer_epoch);
                    self.identity = Some(identity);
                    self.sequences.clear();
                    shared.model.ledger.told(&self.id, identity);
                } else if unsure {
                    self.forget(self.identity);
                }
            }
            Told::Again => {}
            Told::Abort | Told::Fenced => self.forget(None),
        }
        code
    }

    /// What an answer means for the transaction that is open.
    fn heard(&mut self, code: i16, (took_part, shared): (bool, &mut Shared)) {
        let Some(open) = &mut self.open else { return };
        let unknown = [ErrorCode::TransactionAbortable, ErrorCode::InvalidTxnState];
        let forgotten = took_part && unknown.contains(&ErrorCode::from_code(code));
        shared.model.check(!forgotten, || format!("transaction {} is forgotten: it is not open", open.txn));
        open.tries = if code == 0 { 0 } else { open.tries + 1 };
        match Told::of(code) {
            Told::Done | Told::Again => {}
            Told::Abort => open.must_abort = true,
            Told::Fenced => self.forget(None),
        }
    }
}
