//! The records of `__transaction_state`, in the layout that Apache Kafka gives them, so that its tools read ours and we
//! read its.
//!
//! Written: keys of version 0, values of version 1 with tagged fields, as Kafka 4 writes them. Read: values of versions
//! 0 and 1; keys of other versions are skipped.

use bytes::Bytes;
use klamm_protocol::{DecodeError, DecodeErrorKind, Decoder, EncodeError, Encoder};

use super::transaction::{NO_EPOCH, NONE, Partitions, State, Transaction, TransactionVersion};
use crate::coordinator::StoredRecord;

const KEY: i16 = 0;
const VALUE: i16 = 1;
/// From here on values have compact lengths and tagged fields.
const FLEXIBLE_VALUE: i16 = 1;

const PREVIOUS_PRODUCER_ID: u32 = 0;
const NEXT_PRODUCER_ID: u32 = 1;
const CLIENT_VERSION: u32 = 2;

/// Kafka's number of what a client knows that knows transactions of version 2.
const VERSION_2: i16 = 2;

/// Kafka knows two more, which it does not write any more than we do: of an id that is being forgotten, and of one that
/// is being fenced.
const DEAD: i8 = 6;
const PREPARE_EPOCH_FENCE: i8 = 7;

/// The record that says what a transactional id is now.
///
/// # Errors
/// A string is too long for Kafka's layout.
pub(super) fn record(id: &str, transaction: &Transaction) -> Result<StoredRecord, EncodeError> {
    Ok(StoredRecord { key: key(id)?, value: Some(value(transaction)?) })
}

/// The record that takes a transactional id back.
///
/// # Errors
/// A string is too long for Kafka's layout.
pub(super) fn tombstone(id: &str) -> Result<StoredRecord, EncodeError> {
    Ok(StoredRecord { key: key(id)?, value: None })
}

fn key(id: &str) -> Result<Bytes, EncodeError> {
    let mut out = Encoder::new(KEY, false);
    out.put_i16(KEY);
    out.put_string(id)?;
    Ok(out.finish().bytes)
}

fn value(transaction: &Transaction) -> Result<Bytes, EncodeError> {
    let mut out = Encoder::new(VALUE, true);
    out.put_i16(VALUE);
    out.put_i64(transaction.producer_id);
    out.put_i16(transaction.epoch);
    out.put_i32(transaction.timeout_ms);
    out.put_i8(transaction.state as i8);
    if transaction.state == State::Empty {
        out.put_array_len(None)?;
    } else {
        out.put_array_len(Some(transaction.partitions.len()))?;
        for (topic, indexes) in &transaction.partitions {
            out.put_string(topic)?;
            out.put_array_len(Some(indexes.len()))?;
            indexes.iter().for_each(|index| out.put_i32(*index));
            out.put_uvarint(0);
        }
    }
    out.put_i64(transaction.updated_at_ms);
    out.put_i64(transaction.started_at_ms);
    let long = |tag: u32, value: i64| (tag, value.to_be_bytes().to_vec());
    let version = transaction.version.number();
    let mut tags = Vec::new();
    if transaction.previous_producer_id != NONE {
        tags.push(long(PREVIOUS_PRODUCER_ID, transaction.previous_producer_id));
    }
    if transaction.next_producer_id != NONE {
        tags.push(long(NEXT_PRODUCER_ID, transaction.next_producer_id));
    }
    tags.push((CLIENT_VERSION, version.to_be_bytes().to_vec()));
    out.put_uvarint(u32::try_from(tags.len()).unwrap_or(0));
    for (tag, bytes) in tags {
        out.put_uvarint(tag);
        out.put_uvarint(u32::try_from(bytes.len()).unwrap_or(0));
        out.put_raw(&bytes);
    }
    Ok(out.finish().bytes)
}

/// Reads a record: the transactional id, and what it is now. Nothing for a record of another kind.
pub(super) fn read(record: &StoredRecord) -> Result<Option<(String, Option<Transaction>)>, DecodeError> {
    let mut input = Decoder::new(record.key.clone());
    if input.take_i16()? != KEY {
        return Ok(None);
    }
    let id = input.take_string()?.to_string();
    let transaction = record.value.as_ref().map(read_value).transpose()?;
    Ok(Some((id, transaction.flatten())))
}

/// Nothing of an id that was being forgotten.
fn read_value(value: &Bytes) -> Result<Option<Transaction>, DecodeError> {
    let mut input = Decoder::new(value.clone());
    let version = input.take_i16()?;
    let flexible = version >= FLEXIBLE_VALUE;
    input.set_version(version, flexible);
    let mut transaction = Transaction::new(input.take_i64()?, 0, 0);
    transaction.epoch = input.take_i16()?;
    transaction.timeout_ms = input.take_i32()?;
    let number = input.take_i8()?;
    // A topic has at least a length of its name and one of its partitions.
    let topics = input.take_array_len(if flexible { 3 } else { 6 })?.unwrap_or(0);
    for _ in 0..topics {
        let topic = input.take_string()?.to_string();
        let indexes = transaction.partitions.entry(topic).or_default();
        for _ in 0..input.take_array_len(4)?.unwrap_or(0) {
            indexes.insert(input.take_i32()?);
        }
        if flexible {
            input.take_unknown_tags()?;
        }
    }
    transaction.updated_at_ms = input.take_i64()?;
    transaction.started_at_ms = input.take_i64()?;
    if flexible {
        read_tags(&mut input, &mut transaction)?;
    }
    let state = State::ALL.into_iter().find(|state| *state as i8 == number);
    transaction.state = match (state, number) {
        (Some(state), _) => state,
        (None, DEAD) => return Ok(None),
        // Decided by an older broker: it ends as an abort.
        (None, PREPARE_EPOCH_FENCE) => State::PrepareAbort,
        (None, _) => return Err(input.error(DecodeErrorKind::InvalidMarker(number))),
    };
    if transaction.state == State::Empty {
        transaction.partitions = Partitions::new();
    }
    Ok(Some(Transaction { last_epoch: NO_EPOCH, ..transaction }))
}

fn read_tags(input: &mut Decoder, transaction: &mut Transaction) -> Result<(), DecodeError> {
    for _ in 0..input.take_uvarint()? {
        let (tag, bytes) = (input.take_uvarint()?, input.take_uvarint()?);
        let mut field = Decoder::new(input.take_raw(usize::try_from(bytes).unwrap_or(usize::MAX))?);
        match tag {
            PREVIOUS_PRODUCER_ID => transaction.previous_producer_id = field.take_i64()?,
            NEXT_PRODUCER_ID => transaction.next_producer_id = field.take_i64()?,
            CLIENT_VERSION if field.take_i16()? >= VERSION_2 => transaction.version = TransactionVersion::V2,
            _ => {}
        }
    }
    Ok(())
}
