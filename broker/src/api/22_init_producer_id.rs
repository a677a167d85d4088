//! InitProducerId, key 22: versions 0 to 5 (6 prepares two-phase commits, which Kafka does not announce either).
//!
//! An idempotent producer gets an id that nobody ever had, whatever it says it had before. Not there yet: transactions
//! (see [`NO_TRANSACTIONS`]).

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};

use super::context::NO_TRANSACTIONS;
use super::{Answer, Call, Context, Refusal};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=5;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: InitProducerIdRequest = call.decode()?;
    let refused = |error: ErrorCode| InitProducerIdResponse {
        error_code: error.code(),
        producer_epoch: -1,
        ..InitProducerIdResponse::default()
    };
    let response = match request.transactional_id.as_deref() {
        Some("") => refused(ErrorCode::InvalidRequest),
        Some(_) => refused(NO_TRANSACTIONS.0),
        None => match context.controller().next_producer_id().await {
            Ok(producer_id) => {
                InitProducerIdResponse { producer_id, producer_epoch: 0, ..InitProducerIdResponse::default() }
            }
            Err(error) => {
                tracing::error!(%error, "no producer ids");
                // Retriable: a client may come again, perhaps to a broker that was restarted.
                refused(ErrorCode::CoordinatorNotAvailable)
            }
        },
    };
    call.answer(&response)
}
