//! What the two sides of a foreign-key join send each other, in Kafka's bytes.
//!
//! The left side subscribes a row to a foreign key: a byte of version 1, whose highest bit says that there is no hash,
//! the instruction, the hash of the left value, the row's key, and the row's partition. The right side answers: a byte
//! of version 0 with the same bit, the hash, and the right value. Kafka takes an answer without further bytes as one
//! without a value; a value that has no bytes says so with version 1.

use bytes::{BufMut, Bytes, BytesMut};

use crate::store::{KeyRange, prefix_end};

/// The hash of a value.
pub(super) type Hash = [u8; 16];

const NO_HASH: u8 = 0x80;
const VERSION: u8 = 0x7f;
const EMPTY_VALUE: u8 = 1;
const PARTITION_BYTES: usize = 4;
const LENGTH_BYTES: usize = 4;

/// What the right side does with a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instruction {
    /// Forgets it.
    Delete,
    /// Forgets it and answers that there is no right value.
    DeleteAndAnswer,
    /// Keeps it and answers in any case.
    Answer,
    /// Keeps it and answers if there is a right value.
    AnswerIfFound,
}

/// A row of the left side and the foreign key it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subscription {
    /// Of the left value; `None` where the row is gone.
    pub(super) hash: Option<Hash>,
    pub(super) instruction: Instruction,
    pub(super) primary_key: Bytes,
    /// The partition that the answer belongs in; applications before Kafka 3.2 do not say it.
    pub(super) partition: Option<i32>,
}

impl Subscription {
    pub(super) fn write(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(2 + 16 + self.primary_key.len() + PARTITION_BYTES);
        put_head(&mut bytes, u8::from(self.partition.is_some()), self.hash.as_ref());
        // The hash goes behind the instruction.
        let hash = bytes.split_off(1);
        bytes.put_u8(self.instruction as u8);
        bytes.unsplit(hash);
        bytes.put_slice(&self.primary_key);
        if let Some(partition) = self.partition {
            bytes.put_i32(partition);
        }
        bytes.freeze()
    }

    pub(super) fn read(bytes: &Bytes) -> Result<Self, &'static str> {
        let [head, instruction, ..] = **bytes else { return Err("it is shorter than its head") };
        let instruction = match instruction {
            0 => Instruction::Delete,
            1 => Instruction::DeleteAndAnswer,
            2 => Instruction::Answer,
            3 => Instruction::AnswerIfFound,
            _ => return Err("its instruction is none of 0 to 3"),
        };
        let (hash, rest) = take_hash(head, bytes.slice(2..))?;
        let (primary_key, partition) = match head & VERSION {
            0 => (rest, None),
            1 => {
                let (key, last) =
                    rest.split_last_chunk::<PARTITION_BYTES>().ok_or("there is no partition")?;
                (rest.slice(..key.len()), Some(i32::from_be_bytes(*last)))
            }
            _ => return Err("its version is neither 0 nor 1"),
        };
        Ok(Self { hash, instruction, primary_key, partition })
    }
}

/// What the right side answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// The subscription's.
    pub(super) hash: Option<Hash>,
    /// The right value.
    pub(super) value: Option<Bytes>,
}

impl Answer {
    pub(super) fn write(&self) -> Bytes {
        let value = self.value.as_deref();
        let mut bytes = BytesMut::with_capacity(1 + 16 + value.map_or(0, <[u8]>::len));
        let version = if value.is_some_and(<[u8]>::is_empty) { EMPTY_VALUE } else { 0 };
        put_head(&mut bytes, version, self.hash.as_ref());
        bytes.put_slice(value.unwrap_or_default());
        bytes.freeze()
    }

    pub(super) fn read(bytes: &Bytes) -> Result<Self, &'static str> {
        let Some(head) = bytes.first().copied() else { return Err("it is empty") };
        let (hash, rest) = take_hash(head, bytes.slice(1..))?;
        let value = match head & VERSION {
            0 => Some(rest).filter(|rest| !rest.is_empty()),
            EMPTY_VALUE => Some(rest),
            _ => return Err("its version is neither 0 nor 1"),
        };
        Ok(Self { hash, value })
    }
}

fn put_head(bytes: &mut BytesMut, version: u8, hash: Option<&Hash>) {
    match hash {
        Some(hash) => {
            bytes.put_u8(version);
            bytes.put_slice(hash);
        }
        None => bytes.put_u8(version | NO_HASH),
    }
}

fn take_hash(head: u8, rest: Bytes) -> Result<(Option<Hash>, Bytes), &'static str> {
    if head & NO_HASH != 0 {
        return Ok((None, rest));
    }
    let hash = *rest.first_chunk().ok_or("its hash is cut off")?;
    Ok((Some(hash), rest.slice(16..)))
}

/// The key of a subscription in the right side's store: the foreign key's length, the foreign key, the row's key.
pub(super) fn combined_key(foreign_key: &[u8], primary_key: &[u8]) -> Bytes {
    let mut key = foreign_prefix(foreign_key);
    key.put_slice(primary_key);
    key.freeze()
}

fn foreign_prefix(foreign_key: &[u8]) -> BytesMut {
    let mut key = BytesMut::with_capacity(LENGTH_BYTES + 2 * foreign_key.len());
    // A record's key is never longer than an `i32` tells.
    key.put_i32(i32::try_from(foreign_key.len()).unwrap_or(i32::MAX));
    key.put_slice(foreign_key);
    key
}

/// Calls `with` with the range of the subscriptions to a foreign key.
pub(super) fn with_subscriptions_of<R>(foreign_key: &[u8], with: impl FnOnce(KeyRange<'_>) -> R) -> R {
    let from = foreign_prefix(foreign_key);
    let to = prefix_end(&from);
    with(KeyRange { from: &from, to: to.as_deref() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    #[test]
    fn s1_6_the_bytes_are_kafkas() {
        let mut subscription = Subscription {
            hash: Some([7; 16]),
            instruction: Instruction::Answer,
            primary_key: Bytes::from_static(b"pk"),
            partition: Some(3),
        };
        assert_eq!(subscription.write(), [&[1, 2][..], &[7; 16], b"pk\0\0\0\x03"].concat());
        subscription.hash = None;
        assert_eq!(subscription.write(), &b"\x81\x02pk\0\0\0\x03"[..]);
        subscription.partition = None;
        assert_eq!(subscription.write(), &b"\x80\x02pk"[..]);
        let answer = |value: Option<&'static str>| {
            Answer { hash: None, value: value.map(|value| Bytes::from_static(value.as_bytes())) }.write()
        };
        assert_eq!(answer(Some("v")), &b"\x80v"[..]);
        assert_eq!(answer(None), &b"\x80"[..]);
        assert_eq!(answer(Some("")), &b"\x81"[..], "a value without bytes is a value");
        assert_eq!(combined_key(b"fk", b"pk"), &b"\0\0\0\x02fkpk"[..]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            hash in prop::option::of(any::<[u8; 16]>()), key in bytes(), partition in prop::option::of(any::<i32>()),
            value in prop::option::of(bytes()), which in 0..4_usize,
        ) {
            use Instruction::*;
            let instruction = [Delete, DeleteAndAnswer, Answer, AnswerIfFound][which];
            let subscription = Subscription { hash, instruction, primary_key: key, partition };
            prop_assert_eq!(Subscription::read(&subscription.write()), Ok(subscription));
            let answer = super::Answer { hash, value };
            prop_assert_eq!(super::Answer::read(&answer.write()), Ok(answer));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in bytes()) {
            let _ = (Subscription::read(&bytes), Answer::read(&bytes));
        }

        #[test]
        fn only_subscriptions_to_a_key_lie_in_its_range(a in bytes(), b in bytes(), key in bytes()) {
            let inside = with_subscriptions_of(&a, |range| {
                let key = combined_key(&b, &key);
                range.from <= &key[..] && range.to.is_none_or(|to| &key[..] < to)
            });
            prop_assert_eq!(inside, a == b);
        }
    }
}
