//! DescribeTransactions, key 65: version 0. What is durable of each transactional id; an id that nobody has is
//! TRANSACTIONAL_ID_NOT_FOUND.

use std::ops::RangeInclusive;
use std::sync::Arc;

use futures::future::join_all;
use klamm_protocol::messages::describe_transactions::{TopicData, TransactionState};
use klamm_protocol::messages::{DescribeTransactionsRequest, DescribeTransactionsResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes};

use super::context::each_once;
use super::{Answer, Call, Context, Refusal};
use crate::txn::Description;

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=0;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: DescribeTransactionsRequest = call.decode()?;
    let reply = call.reply();
    let ids = each_once(request.transactional_ids, Clone::clone);
    // Copies: the answers may wait for long, and would keep the request's frame.
    let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
    let held_bytes = ids.iter().map(|id| size_of::<TransactionState>() + 2 * id.len()).sum();
    let context = context.clone();
    Ok(Answer::later(held_bytes, async move {
        let transaction_states = join_all(ids.into_iter().map(|id| describe(&context, id))).await;
        reply.encode(&DescribeTransactionsResponse { transaction_states, ..Default::default() }).map(Some)
    }))
}

async fn describe(context: &Context, id: String) -> TransactionState {
    let found = match id.as_str() {
        "" => Err(ErrorCode::InvalidRequest),
        id => context.transactions().describe(id).await,
    };
    match found.and_then(|found| found.ok_or(ErrorCode::TransactionalIdNotFound)) {
        Ok(found) => state(found),
        Err(error) => TransactionState {
            error_code: error.code(),
            transactional_id: id.into(),
            ..TransactionState::default()
        },
    }
}

fn state(found: Description) -> TransactionState {
    let topic = |(topic, indexes): (String, std::collections::BTreeSet<i32>)| TopicData {
        topic: topic.into(),
        partitions: indexes.into_iter().collect(),
        ..TopicData::default()
    };
    TransactionState {
        transactional_id: found.id.into(),
        transaction_state: Utf8Bytes::from_static(found.state.name()),
        transaction_timeout_ms: found.timeout_ms,
        transaction_start_time_ms: found.started_at_ms,
        producer_id: found.producer.id,
        producer_epoch: found.producer.epoch,
        topics: found.partitions.into_iter().map(topic).collect(),
        ..TransactionState::default()
    }
}
