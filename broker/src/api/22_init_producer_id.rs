//! InitProducerId, key 22: versions 0 to 5 (6 prepares two-phase commits, which Kafka does not announce either).
//!
//! An idempotent producer gets an id that nobody ever had, whatever it says it had before. A transactional one gets the
//! id and the next epoch of its transactional id, when what the last one left open is aborted.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};

use super::context::told_of_fencing;
use super::{Answer, Call, Context, Refusal};
use crate::txn::{InitProducer, ProducerIdAndEpoch};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=5;
/// From here on a client understands PRODUCER_FENCED.
const FENCED: i16 = 4;
/// What a client says that has had no id, or no epoch.
const NONE: i64 = -1;
const NO_EPOCH: i16 = -1;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: InitProducerIdRequest = call.decode()?;
    let (reply, knows_fencing) = (call.reply(), call.version >= FENCED);
    let expected = match (request.producer_id, request.producer_epoch) {
        (NONE, NO_EPOCH) => Ok(None),
        (NONE, _) | (_, NO_EPOCH) => Err(ErrorCode::InvalidRequest),
        (id, epoch) => Ok(Some(ProducerIdAndEpoch { id, epoch })),
    };
    let Some(id) = request.transactional_id.as_deref() else {
        return match expected {
            Ok(_) => call.answer(&response(idempotent(context).await)),
            Err(error) => call.answer(&response(Err(error))),
        };
    };
    let init = expected.map(|expected| InitProducer {
        id: id.to_owned(),
        timeout_ms: request.transaction_timeout_ms,
        expected,
        fresh_producer_id: None,
    });
    let (held_bytes, context) = (size_of::<InitProducer>() + id.len(), context.clone());
    Answer::begun(held_bytes, async move {
        let given = match init {
            Ok(init) => context.transactions().init(init).await,
            Err(error) => Err(error),
        };
        reply.encode(&response(given.map_err(|error| told_of_fencing(error, knows_fencing)))).map(Some)
    })
    .await
}

async fn idempotent(context: &Context) -> Result<ProducerIdAndEpoch, ErrorCode> {
    let given = context.controller().next_producer_id().await;
    given.map(|id| ProducerIdAndEpoch { id, epoch: 0 }).map_err(|error| {
        tracing::error!(%error, "no producer ids");
        // Retriable: a client may come again, perhaps to a broker that was restarted.
        ErrorCode::CoordinatorNotAvailable
    })
}

fn response(given: Result<ProducerIdAndEpoch, ErrorCode>) -> InitProducerIdResponse {
    match given {
        Ok(ProducerIdAndEpoch { id, epoch }) => {
            InitProducerIdResponse { producer_id: id, producer_epoch: epoch, ..Default::default() }
        }
        Err(error) => InitProducerIdResponse {
            error_code: error.code(),
            producer_epoch: NO_EPOCH,
            ..InitProducerIdResponse::default()
        },
    }
}
