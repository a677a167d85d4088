//! `Tx` as an argument.

use super::{BatchDelivery, Delivery, FromBatch, FromRecord, Needs, Rejection};
use crate::template::Tx;

impl FromRecord for Tx {
    type Rejection = Rejection;

    fn from_record(delivery: &Delivery<'_>) -> Result<Self, Rejection> {
        delivery.tx.cloned().ok_or(Rejection::NoTx)
    }

    fn needs(needs: &mut Needs) {
        needs.tx = true;
    }
}

impl FromBatch for Tx {
    fn from_batch(delivery: &BatchDelivery<'_>) -> Result<Self, Rejection> {
        delivery.tx.cloned().ok_or(Rejection::NoTx)
    }

    fn needs(needs: &mut Needs) {
        needs.tx = true;
    }
}
