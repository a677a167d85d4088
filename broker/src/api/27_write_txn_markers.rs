//! WriteTxnMarkers, key 27: version 1. For brokers, and for `kafka-transactions.sh abort`, by which an operator ends a
//! transaction that its coordinator does not know of and that keeps readers of committed records waiting.
//!
//! The markers go the way that the coordinator's own go, and are durable when they are answered.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use futures::future::join_all;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerPartitionResult, WritableTxnMarkerResult,
    WritableTxnMarkerTopicResult,
};
use klamm_protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};

use super::{Answer, Call, Context, Refusal};
use crate::partition::Marker;
use crate::txn::{Partitions, TRANSACTIONS_TOPIC};

pub(super) const VERSIONS: RangeInclusive<i16> = 1..=1;
/// What the markers of this version of the request are: nothing says whether they raise the epoch.
const TRANSACTION_VERSION: i16 = 1;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: WriteTxnMarkersRequest = call.decode()?;
    let reply = call.reply();
    let asked: Vec<(Marker, Partitions)> = request.markers.iter().map(asked).collect();
    let held_bytes = asked.iter().map(|(_, partitions)| held_bytes(partitions)).sum();
    let context = context.clone();
    Answer::begun(held_bytes, async move {
        let answers = asked.iter().map(|(marker, partitions)| answer(&context, *marker, partitions));
        let response = WriteTxnMarkersResponse { markers: join_all(answers).await, ..Default::default() };
        reply.encode(&response).map(Some)
    })
    .await
}

/// What is asked, with nothing of the frame.
fn asked(asked: &WritableTxnMarker) -> (Marker, Partitions) {
    let mut partitions = Partitions::new();
    for topic in &asked.topics {
        partitions.entry(topic.name.to_string()).or_default().extend(&topic.partition_indexes);
    }
    let marker = Marker {
        producer_id: asked.producer_id,
        producer_epoch: asked.producer_epoch,
        commit: asked.transaction_result,
        coordinator_epoch: asked.coordinator_epoch,
        transaction_version: TRANSACTION_VERSION,
    };
    (marker, partitions)
}

/// What the work takes: for each partition there is a log to wait for.
fn held_bytes(partitions: &Partitions) -> usize {
    const WAIT: usize = 512;
    let topics = partitions.iter();
    let topics = topics.map(|(topic, indexes)| WAIT + 2 * topic.len() + WAIT * indexes.len());
    size_of::<WritableTxnMarkerResult>() + topics.sum::<usize>()
}

async fn answer(context: &Context, marker: Marker, partitions: &Partitions) -> WritableTxnMarkerResult {
    let topics = partitions.iter().map(|(topic, indexes)| write(context, marker, topic, indexes));
    WritableTxnMarkerResult {
        producer_id: marker.producer_id,
        topics: join_all(topics).await,
        ..WritableTxnMarkerResult::default()
    }
}

async fn write(
    context: &Context,
    marker: Marker,
    topic: &str,
    indexes: &BTreeSet<i32>,
) -> WritableTxnMarkerTopicResult {
    let one = async |index: &i32| {
        // What is kept there is not a transaction's.
        let written = match topic {
            TRANSACTIONS_TOPIC => Err(ErrorCode::InvalidTopicException),
            // No producer has such an id or epoch: a marker of it would end nothing, and be read for ever.
            _ if marker.producer_id < 0 || marker.producer_epoch < 0 => Err(ErrorCode::InvalidRequest),
            _ => context.transactions().write_marker(topic, *index, marker).await,
        };
        WritableTxnMarkerPartitionResult {
            partition_index: *index,
            error_code: written.err().unwrap_or(ErrorCode::None).code(),
            ..WritableTxnMarkerPartitionResult::default()
        }
    };
    WritableTxnMarkerTopicResult {
        name: topic.to_owned().into(),
        partitions: join_all(indexes.iter().map(one)).await,
        ..WritableTxnMarkerTopicResult::default()
    }
}
