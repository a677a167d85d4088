//! EndTxn, key 26: versions 0 to 5. Answered as soon as the decision is durable; who writes or reads next waits for the
//! markers. From version 5 on the client knows transactions of version 2 (KIP-890): the answer says who it is from now
//! on.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::messages::{EndTxnRequest, EndTxnResponse};

use super::context::told_of_fencing;
use super::{Answer, Call, Context, Refusal};
use crate::txn::{EndTransaction, ProducerIdAndEpoch, TransactionVersion};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=5;
/// From here on a client understands PRODUCER_FENCED.
const FENCED: i16 = 2;
/// From here on a client knows transactions of version 2.
const VERSION_2: i16 = 5;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: EndTxnRequest = call.decode()?;
    let (reply, version) = (call.reply(), call.version);
    let end = EndTransaction {
        id: request.transactional_id.to_string(),
        producer: ProducerIdAndEpoch { id: request.producer_id, epoch: request.producer_epoch },
        commit: request.committed,
        version: if version >= VERSION_2 { TransactionVersion::V2 } else { TransactionVersion::V1 },
        fresh_producer_id: None,
    };
    let context = context.clone();
    Answer::begun(size_of::<EndTransaction>() + 2 * end.id.len(), async move {
        let mut response = EndTxnResponse::default();
        match context.transactions().end(end).await {
            Ok(producer) if version >= VERSION_2 => {
                (response.producer_id, response.producer_epoch) = (producer.id, producer.epoch);
            }
            Ok(_) => {}
            Err(error) => response.error_code = told_of_fencing(error, version >= FENCED).code(),
        }
        reply.encode(&response).map(Some)
    })
    .await
}
