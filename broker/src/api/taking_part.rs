//! How the partitions of a transactional Produce request take part in the transaction before their batches are appended
//! (KIP-890): clients of transaction version 2 add them so, those before have added them by AddPartitionsToTxn.
//!
//! The coordinator is asked for partitions in which the producer has no transaction open, all of them together. Where
//! they are added, the answer may have waited for the transaction before to be marked, which makes guards of before
//! worthless: so guards are taken then, and the coordinator is asked once more, which costs nothing but its lock.

use std::collections::BTreeMap;

use klamm_protocol::messages::produce::TopicProduceData;
use klamm_protocol::records::BatchHeader;
use klamm_protocol::{ErrorCode, Records};

use super::Context;
use super::context::named;
use crate::controller::View;
use crate::partition::{Guard, Partition};
use crate::txn::{Partitions, ProducerIdAndEpoch};

/// From here on a client adds partitions by what it writes into them.
const ADDS: i16 = 12;
/// From here on a client understands TRANSACTION_ABORTABLE.
const ABORTABLE: i16 = 11;

/// Where a batch is in its request: its topic and its partition, counted.
pub(super) type Place = (usize, usize);

/// For each transactional batch, what it takes to be appended, if it needs anything; or why it is not.
pub(super) type Admissions = BTreeMap<Place, Result<Option<Guard>, ErrorCode>>;

/// A batch that would begin a transaction in its partition.
struct Beginning<'a> {
    place: Place,
    producer: ProducerIdAndEpoch,
    topic: &'a str,
    index: i32,
    log: &'a Partition,
}

/// Lets the partitions of a request take part. Batches that cannot be read, and partitions that are not there, are left
/// to those who look at them.
pub(super) async fn take_part(
    context: &Context,
    view: &View,
    transactional_id: &str,
    topics: &[TopicProduceData],
    (version, by_id): (i16, bool),
) -> Admissions {
    let mut admissions = Admissions::new();
    let beginnings = beginnings(view, topics, by_id, &mut admissions);
    if version >= ADDS {
        ask(context, transactional_id, &beginnings, true, &mut admissions).await;
    }
    let left = beginnings.into_iter().filter(|beginning| !admissions.contains_key(&beginning.place));
    let left: Vec<Beginning<'_>> = left.collect();
    for Beginning { place, producer, log, .. } in &left {
        let guard = log.transaction_guard(producer.id, producer.epoch);
        let guard = if version >= ADDS { guard.map(Guard::of_new_epoch) } else { guard };
        admissions.insert(*place, Ok(guard));
    }
    ask(context, transactional_id, &left, false, &mut admissions).await;
    for admission in admissions.values_mut() {
        *admission = admission.map_err(|error| told(error, version));
    }
    admissions
}

/// The batches for which the coordinator has to be asked. The others are admitted.
fn beginnings<'a>(
    view: &'a View,
    topics: &[TopicProduceData],
    by_id: bool,
    admissions: &mut Admissions,
) -> Vec<Beginning<'a>> {
    let mut beginnings = Vec::new();
    for (number, data) in topics.iter().enumerate() {
        let Ok(topic) = named(view, by_id, data.topic_id, &data.name) else { continue };
        if topic.is_internal() {
            continue;
        }
        for (position, partition) in data.partition_data.iter().enumerate() {
            let (place, index) = ((number, position), partition.index);
            let (Some(producer), Ok(log)) = (producer(partition.records.as_ref()), view.log(topic, index))
            else {
                continue;
            };
            match log.transaction_guard(producer.id, producer.epoch) {
                None => drop(admissions.insert(place, Ok(None))),
                Some(_) => {
                    beginnings.push(Beginning { place, producer, topic: &topic.name, index, log });
                }
            }
        }
    }
    beginnings
}

/// Whose transaction a batch is of.
fn producer(records: Option<&Records>) -> Option<ProducerIdAndEpoch> {
    let Some(Records::Bytes(bytes)) = records else { return None };
    let header = BatchHeader::parse(bytes).ok()?;
    header
        .is_transactional()
        .then_some(ProducerIdAndEpoch { id: header.producer_id, epoch: header.producer_epoch })
}

/// Asks the coordinator, once for each producer: a client has one. Notes who is refused.
async fn ask(
    context: &Context,
    transactional_id: &str,
    beginnings: &[Beginning<'_>],
    adds: bool,
    admissions: &mut Admissions,
) {
    let mut by_producer: BTreeMap<ProducerIdAndEpoch, Vec<&Beginning<'_>>> = BTreeMap::new();
    for beginning in beginnings {
        by_producer.entry(beginning.producer).or_default().push(beginning);
    }
    for (producer, beginnings) in by_producer {
        let mut partitions = Partitions::new();
        for Beginning { topic, index, .. } in &beginnings {
            partitions.entry((*topic).to_owned()).or_default().insert(*index);
        }
        let transactions = context.transactions();
        let asked = transactions.take_all_part(transactional_id, producer, partitions, adds).await;
        let asked = asked.map(|refused| {
            let by_name = |(topic, index, code)| ((topic, index), code);
            refused.into_iter().map(by_name).collect::<BTreeMap<(String, i32), ErrorCode>>()
        });
        for Beginning { place, topic, index, .. } in beginnings {
            let error = match &asked {
                Ok(refused) => refused.get(&((*topic).to_owned(), *index)).copied(),
                Err(error) => Some(*error),
            };
            if let Some(error) = error {
                admissions.insert(*place, Err(error));
            }
        }
    }
}

/// What a client is told, by what it understands. Where it may come again, old ones know one word for that which does
/// not make them ask for metadata.
fn told(error: ErrorCode, version: i16) -> ErrorCode {
    match error {
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        ErrorCode::TransactionAbortable if version < ABORTABLE => ErrorCode::InvalidTxnState,
        ErrorCode::CoordinatorLoadInProgress
        | ErrorCode::CoordinatorNotAvailable
        | ErrorCode::NotCoordinator => ErrorCode::NotEnoughReplicas,
        ErrorCode::ConcurrentTransactions if version < ADDS => ErrorCode::NotEnoughReplicas,
        told => told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_told_what_it_understands() {
        use ErrorCode::*;
        for (error, told_9, told_11, told_12) in [
            (ProducerFenced, InvalidProducerEpoch, InvalidProducerEpoch, InvalidProducerEpoch),
            (TransactionAbortable, InvalidTxnState, TransactionAbortable, TransactionAbortable),
            (ConcurrentTransactions, NotEnoughReplicas, NotEnoughReplicas, ConcurrentTransactions),
            (CoordinatorLoadInProgress, NotEnoughReplicas, NotEnoughReplicas, NotEnoughReplicas),
            (CoordinatorNotAvailable, NotEnoughReplicas, NotEnoughReplicas, NotEnoughReplicas),
            (
                InvalidProducerIdMapping,
                InvalidProducerIdMapping,
                InvalidProducerIdMapping,
                InvalidProducerIdMapping,
            ),
        ] {
            let all = [9, 10, 11, 12, 13].map(|version| told(error, version));
            assert_eq!(all, [told_9, told_9, told_11, told_12, told_12], "{error}");
        }
    }
}
