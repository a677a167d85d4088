//! AddOffsetsToTxn, key 25: versions 0 to 4. The partition of `__consumer_offsets` in which a group lives takes part in
//! the transaction. Clients that know transactions of version 2 do not send it: TxnOffsetCommit implies it for them.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};

use super::context::told_of_fencing;
use super::{Answer, Call, Context, Refusal};
use crate::group::OFFSETS_TOPIC;
use crate::txn::{AddPartitions, Partitions, ProducerIdAndEpoch, TransactionVersion};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=4;
/// From here on a client understands PRODUCER_FENCED.
const FENCED: i16 = 2;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: AddOffsetsToTxnRequest = call.decode()?;
    let (reply, knows_fencing) = (call.reply(), call.version >= FENCED);
    let (id, group) = (request.transactional_id.to_string(), request.group_id.to_string());
    let producer = ProducerIdAndEpoch { id: request.producer_id, epoch: request.producer_epoch };
    let context = context.clone();
    Answer::begun(size_of::<AddPartitions>() + 2 * id.len() + group.len(), async move {
        let added = add(&context, id, producer, &group).await;
        let error = told_of_fencing(added.err().unwrap_or(ErrorCode::None), knows_fencing);
        reply.encode(&AddOffsetsToTxnResponse { error_code: error.code(), ..Default::default() }).map(Some)
    })
    .await
}

async fn add(
    context: &Context,
    id: String,
    producer: ProducerIdAndEpoch,
    group: &str,
) -> Result<(), ErrorCode> {
    let index = context.groups().partition_of(group).await?;
    let partitions = Partitions::from([(OFFSETS_TOPIC.to_owned(), [index].into())]);
    let version = TransactionVersion::V1;
    context.transactions().add_partitions(AddPartitions { id, producer, partitions, version }).await
}
