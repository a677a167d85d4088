//! What group members tell each other through the coordinator, which does not look inside: the "consumer" protocol.
//!
//! A subscription (versions 0 to 3) says what a member wants and owns; an assignment what it gets. Written
//! as version 3, which older members read as far as they know it; read in any version, also a later one,
//! whose additions are ignored.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::types::TopicPartition;

const SUBSCRIPTION_VERSION: i16 = 3;
const ASSIGNMENT_VERSION: i16 = 1;

/// What a member gets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberShare {
    /// The partitions that it reads from now on.
    pub partitions: Vec<TopicPartition>,
    /// What the leader's assignor tells it beyond these.
    pub user_data: Option<Bytes>,
}

impl From<Vec<TopicPartition>> for MemberShare {
    fn from(partitions: Vec<TopicPartition>) -> Self {
        Self { partitions, user_data: None }
    }
}

/// What a member wants and has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct MemberSubscription {
    pub(crate) topics: Vec<Arc<str>>,
    /// What the member's assignor tells the leader's.
    pub(crate) user_data: Option<Bytes>,
    /// From version 1: what it owned when it joined.
    pub(crate) owned: Vec<TopicPartition>,
    /// From version 2: the generation in which it owned that; -1 when it does not tell.
    pub(crate) generation: i32,
    /// From version 3: the rack that the member is in.
    pub(crate) rack: Option<Arc<str>>,
}

/// Bytes that are not of the consumer protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("group member data is not of the consumer protocol: {0}")]
pub(crate) struct Malformed(&'static str);

impl MemberSubscription {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_i16(SUBSCRIPTION_VERSION);
        put_count(&mut out, self.topics.len());
        self.topics.iter().for_each(|topic| put_string(&mut out, topic));
        put_nullable_bytes(&mut out, self.user_data.as_deref());
        put_partitions(&mut out, &self.owned);
        out.put_i32(self.generation);
        match &self.rack {
            Some(rack) => put_string(&mut out, rack),
            None => out.put_i16(-1),
        }
        out.freeze()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        let version = reader.i16()?;
        if version < 0 {
            return Err(Malformed("negative version"));
        }
        let count = reader.count(2)?;
        let topics = (0..count).map(|_| reader.string().map(Arc::from)).collect::<Result<_, _>>()?;
        let user_data = reader.nullable_bytes()?.map(Bytes::copy_from_slice);
        let owned = if version >= 1 { reader.partitions()? } else { Vec::new() };
        let generation = match version {
            // Cooperative members of that time tell it as their assignor's data.
            ..=1 => user_data
                .as_ref()
                .and_then(|data| data.first_chunk())
                .map_or(-1, |data| i32::from_be_bytes(*data)),
            _ => reader.i32()?,
        };
        let rack = if version >= 3 { reader.nullable_string()?.map(Arc::from) } else { None };
        Ok(Self { topics, user_data, owned, generation, rack })
    }
}

/// Writes what a member gets.
pub(crate) fn encode_assignment(share: &MemberShare) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(ASSIGNMENT_VERSION);
    put_partitions(&mut out, &share.partitions);
    put_nullable_bytes(&mut out, share.user_data.as_deref());
    out.freeze()
}

/// Reads what a member gets. No bytes at all mean nothing: members that joined too late get that.
pub(crate) fn decode_assignment(bytes: &[u8]) -> Result<MemberShare, Malformed> {
    if bytes.is_empty() {
        return Ok(MemberShare::default());
    }
    let mut reader = Reader(bytes);
    if reader.i16()? < 0 {
        return Err(Malformed("negative version"));
    }
    let partitions = reader.partitions()?;
    let user_data = reader.nullable_bytes()?.map(Bytes::copy_from_slice);
    Ok(MemberShare { partitions, user_data })
}

/// What members of the assignor `sticky` tell each other, byte for byte as the Java client has it: what they got last
/// and in which generation. Without a version.
pub(crate) fn encode_sticky(partitions: &[TopicPartition], generation: i32) -> Bytes {
    let mut out = BytesMut::new();
    put_partitions(&mut out, partitions);
    out.put_i32(generation);
    out.freeze()
}

/// Reads that; the generation is missing in the oldest form. `None` for anything else.
pub(crate) fn decode_sticky(bytes: &[u8]) -> Option<(Vec<TopicPartition>, i32)> {
    let mut reader = Reader(bytes);
    let partitions = reader.partitions().ok()?;
    Some((partitions, reader.i32().unwrap_or(-1)))
}

fn put_count(out: &mut BytesMut, count: usize) {
    // A group with 2^31 topics does not exist: they would not fit a request.
    out.put_i32(i32::try_from(count).unwrap_or(i32::MAX));
}

fn put_string(out: &mut BytesMut, text: &str) {
    // Topic names have at most 249 bytes.
    out.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
    out.put_slice(text.as_bytes());
}

fn put_nullable_bytes(out: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_count(out, bytes.len());
            out.put_slice(bytes);
        }
        None => out.put_i32(-1),
    }
}

fn put_partitions(out: &mut BytesMut, partitions: &[TopicPartition]) {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        topics.entry(&partition.topic).or_default().push(partition.partition);
    }
    put_count(out, topics.len());
    for (topic, mut numbers) in topics {
        numbers.sort_unstable();
        put_string(out, topic);
        put_count(out, numbers.len());
        numbers.into_iter().for_each(|number| out.put_i32(number));
    }
}

/// Reads big-endian fields, and never more than there is.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed("it ends too early"))
    }

    fn i16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    /// A count of things that take at least `least_bytes` each.
    fn count(&mut self, least_bytes: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(self.i32()?).map_err(|_| Malformed("negative count"))?;
        match count.checked_mul(least_bytes) {
            Some(bytes) if bytes <= self.0.len() => Ok(count),
            _ => Err(Malformed("a count beyond the end")),
        }
    }

    fn string(&mut self) -> Result<&'a str, Malformed> {
        let len = usize::try_from(self.i16()?).map_err(|_| Malformed("negative length"))?;
        std::str::from_utf8(self.take(len)?).map_err(|_| Malformed("text that is not UTF-8"))
    }

    /// Null is -1.
    fn nullable_bytes(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        usize::try_from(self.i32()?).ok().map(|len| self.take(len)).transpose()
    }

    fn nullable_string(&mut self) -> Result<Option<&'a str>, Malformed> {
        let Ok(len) = usize::try_from(self.i16()?) else { return Ok(None) };
        std::str::from_utf8(self.take(len)?).map(Some).map_err(|_| Malformed("text that is not UTF-8"))
    }

    fn partitions(&mut self) -> Result<Vec<TopicPartition>, Malformed> {
        let mut partitions = Vec::new();
        for _ in 0..self.count(6)? {
            let topic: Arc<str> = Arc::from(self.string()?);
            for _ in 0..self.count(4)? {
                partitions.push(TopicPartition { topic: Arc::clone(&topic), partition: self.i32()? });
            }
        }
        Ok(partitions)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Laid out by hand from the published schema of ConsumerProtocolSubscription.
    #[test]
    fn subscription_bytes_are_the_published_ones() {
        let subscription = MemberSubscription {
            topics: vec!["ab".into(), "c".into()],
            owned: vec![("ab", 2).into(), ("ab", 0).into()],
            generation: 7,
            ..Default::default()
        };
        let golden: &[u8] = &[
            0, 3, // version
            0, 0, 0, 2, 0, 2, b'a', b'b', 0, 1, b'c', // topics
            255, 255, 255, 255, // user data: null
            0, 0, 0, 1, 0, 2, b'a', b'b', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2, // owned
            0, 0, 0, 7, // generation
            255, 255, // rack: null
        ];
        assert_eq!(subscription.encode(), golden);
        let read = MemberSubscription::decode(golden).unwrap();
        assert_eq!(read.owned, [("ab", 0).into(), ("ab", 2).into()]);
        assert_eq!(read.generation, 7);
    }

    #[test]
    fn old_and_later_versions_are_read() {
        let version_0 = [0, 0, 0, 0, 0, 1, 0, 1, b'c', 0, 0, 0, 2, 9, 9];
        let read = MemberSubscription::decode(&version_0).unwrap();
        let user_data = Some(Bytes::from_static(&[9, 9]));
        let expected =
            MemberSubscription { topics: vec!["c".into()], user_data, generation: -1, ..Default::default() };
        assert_eq!(read, expected);
        let mut later = MemberSubscription::default().encode().to_vec();
        later[1] = 9;
        later.extend([1, 2, 3]);
        assert_eq!(MemberSubscription::decode(&later).unwrap(), MemberSubscription::default());
    }

    #[test]
    fn assignment_bytes_are_the_published_ones() {
        let partitions = [("t", 1).into(), ("t", 3).into()];
        let golden: &[u8] =
            &[0, 1, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 255, 255, 255, 255];
        let share = MemberShare::from(partitions.to_vec());
        assert_eq!(encode_assignment(&share), golden);
        assert_eq!(decode_assignment(golden).unwrap(), share);
        assert_eq!(decode_assignment(&[]).unwrap(), MemberShare::default());
        let told = MemberShare { user_data: Some(Bytes::from_static(&[7, 8])), ..share };
        let golden = [&golden[..golden.len() - 4], &[0, 0, 0, 2, 7, 8]].concat();
        assert_eq!(encode_assignment(&told), golden);
        assert_eq!(decode_assignment(&golden).unwrap(), told);
    }

    proptest! {
        #[test]
        fn decoding_is_total(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = MemberSubscription::decode(&bytes);
            let _ = decode_assignment(&bytes);
        }

        #[test]
        fn what_is_written_is_read(topics in prop::collection::btree_set("[a-z]{1,9}", 0..9), count in 0..9_i32) {
            let topics: Vec<Arc<str>> = topics.into_iter().map(Arc::from).collect();
            let owned: Vec<TopicPartition> = topics
                .iter()
                .flat_map(|topic| (0..count).map(|at| TopicPartition::new(Arc::clone(topic), at)))
                .collect();
            let subscription = MemberSubscription {
                topics,
                owned: owned.clone(),
                generation: count,
                rack: (count > 3).then(|| Arc::from("r")),
                user_data: (count > 5).then(|| Bytes::from_static(b"data")),
            };
            prop_assert_eq!(MemberSubscription::decode(&subscription.encode()).unwrap(), subscription);
            let share = MemberShare::from(owned);
            prop_assert_eq!(decode_assignment(&encode_assignment(&share)).unwrap(), share);
        }
    }
}
