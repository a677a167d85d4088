//! Looks at what transactions have left: that is decided alike wherever it is seen, and in the end nothing is open.

use std::time::Duration;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::InitProducerIdRequest;
use tokio::time::{Instant, sleep};

use super::check::{Checker, EARLIEST};
use super::model::Place;
use super::reader;
use super::txn_requests::{self as requests, SECOND, STABLE_FETCH};

/// In this time after its timeout a transaction that its client has left has to be ended everywhere.
const PATIENCE: Duration = Duration::from_secs(30);

impl Checker<'_> {
    /// What is committed, and what not. Once everything has been well for long enough, nothing is open.
    pub(super) async fn transactions(&mut self, all_ended: bool) -> Option<()> {
        if self.shared.transaction_timeout.is_zero() {
            return Some(());
        }
        let until = Instant::now() + self.shared.transaction_timeout + PATIENCE;
        for place in self.shared.model.places() {
            self.committed(place, all_ended.then_some(until)).await?;
        }
        for (group, place) in self.shared.model.ledger.places_of_offsets() {
            self.committed_offset(&group, place, all_ended.then_some(until)).await?;
        }
        if all_ended {
            self.until = Instant::now() + Duration::from_secs(60);
            for id in self.shared.model.ledger.ids() {
                self.begins_anew(&id).await?;
            }
        }
        Some(())
    }

    /// Reads what is committed of a partition, up to its end if there is a time until when that has to be possible.
    async fn committed(&mut self, place: Place, until: Option<Instant>) -> Option<()> {
        let mut offset = self.shared.model.known_ends(place).0;
        loop {
            let asked = reader::asked(place, offset, true, self.shared);
            let request = reader::of_committed(reader::fetch(place, offset, 0, 1 << 20));
            let frame = self.ask(&request, reader::FETCH).await?;
            let (found, next) = reader::fetched(asked, frame, self.shared);
            if found.error_code == ErrorCode::OffsetOutOfRange.code() {
                // Retention may take what is being read.
                let start = self.list_offset(place, EARLIEST).await?;
                self.shared.model.check(start > offset, || format!("{offset} cannot be read behind {start}"));
                offset = start;
                continue;
            }
            let code = ErrorCode::from_code(found.error_code);
            self.shared.model.check(code.is_none(), || format!("{offset} cannot be read: {code}"));
            let waits = next == offset && next < found.high_watermark;
            if self.is_broken() || (next == offset && !waits) || (waits && until.is_none()) {
                return (!self.is_broken()).then_some(());
            }
            if waits {
                let high_watermark = found.high_watermark;
                self.shared.model.check(until.is_some_and(|until| Instant::now() < until), || {
                    format!("readers of committed records wait at {offset} of {high_watermark} for too long")
                });
                sleep(Duration::from_millis(100)).await;
            }
            offset = next;
        }
    }

    async fn committed_offset(&mut self, group: &str, place: Place, until: Option<Instant>) -> Option<()> {
        loop {
            let question = self.shared.model.ledger.question(group, place);
            let frame = self.ask(&requests::stable_offset(&question), STABLE_FETCH).await?;
            let (code, found) = requests::stable_offset_told(frame);
            if code == 0 {
                self.shared.model.offset_is(&question, found);
                return (!self.is_broken()).then_some(());
            }
            if code != ErrorCode::UnstableOffsetCommit.code() {
                self.retries(code, "the question after a stable offset").await;
            } else if until.is_none() {
                return Some(());
            }
            self.shared.model.check(until.is_none_or(|until| Instant::now() < until), || {
                format!("offsets of {group} are not stable: {}", ErrorCode::from_code(code))
            });
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Whoever comes with a transactional id gets an epoch that nobody had.
    async fn begins_anew(&mut self, id: &str) -> Option<()> {
        loop {
            let newest = self.shared.model.ledger.newest(id);
            let request = requests::init(id, 1_000, None);
            let frame = self.ask(&request, SECOND.init).await?;
            let answer = super::connection::decoded::<InitProducerIdRequest>(frame, SECOND.init);
            if !self.retries(answer.error_code, "an epoch").await {
                let given = (answer.producer_id, answer.producer_epoch);
                self.shared.model.identity_given(id, newest, given);
                return (!self.is_broken()).then_some(());
            }
        }
    }
}
