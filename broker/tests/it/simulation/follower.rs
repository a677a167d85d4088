//! Asks what is committed for good of the offsets that transactions commit.

use bytes::Bytes;
use klamm_protocol::ErrorCode;

use super::client::{Role, Shared};
use super::connection::Connection;
use super::ledger::Pending;
use super::txn_requests::{self as requests, STABLE_FETCH};

#[derive(Debug, Default)]
pub(super) struct Follower;

impl Role for Follower {
    type Asked = Pending;

    fn act(&mut self, connection: &mut Connection<Pending>, shared: &mut Shared) {
        let places = shared.model.ledger.places_of_offsets();
        let Some((group, place)) = shared.pick(&places).filter(|_| connection.waiting() < 3) else { return };
        let asked = shared.model.ledger.question(&group, place);
        connection.send(&requests::stable_offset(&asked), STABLE_FETCH, Some(asked));
    }

    fn answered(&mut self, asked: Pending, frame: Bytes, shared: &mut Shared) {
        let (code, found) = requests::stable_offset_told(frame);
        shared.note(format!("  stable offset of {}: {code}, {found}", asked.group));
        if code == 0 {
            shared.model.offset_is(&asked, found);
        } else if code != ErrorCode::UnstableOffsetCommit.code() {
            shared.check_refusal(code, None, "the question after a stable offset");
        }
    }

    fn lost(&mut self, _: Pending, _: &mut Shared) {}
}
