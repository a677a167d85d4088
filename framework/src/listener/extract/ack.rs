//! `Ack` as an argument.

use super::{Delivery, FromRecord, Needs, Rejection};
use crate::listener::ack::Ack;

impl FromRecord for Ack {
    type Rejection = Rejection;

    fn from_record(delivery: &Delivery<'_>) -> Result<Self, Rejection> {
        delivery.ack.map(Self::share).ok_or(Rejection::NoAck)
    }

    fn needs(needs: &mut Needs) {
        needs.ack();
    }
}
