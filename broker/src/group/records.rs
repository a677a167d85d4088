//! The records of `__consumer_offsets`, in the layout that Apache Kafka gives them, so that its tools
//! read ours and we read its.
//!
//! Written: keys of version 1 (offset) and 2 (group), group values of version 3, offset values of version 4 with the
//! topic's id in tag 0, as Kafka 4.3 writes them. Kafka from 3.5 on reads version 4, and skips the tag where it does
//! not know it (KIP-915). Read: every version of both that Kafka has written since 0.9 (values 0 to 4); other key types
//! (of groups we do not have) are skipped.

use bytes::Bytes;
use klamm_protocol::{DecodeError, Decoder, EncodeError, Encoder, Uuid};

use super::member::{Member, Protocol};
use super::offset_calls::CommittedOffset;
use crate::coordinator::StoredRecord;

const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;
const OFFSET_VALUE: i16 = 4;
const GROUP_VALUE: i16 = 3;
/// From here on values have compact lengths and tagged fields.
const FLEXIBLE_VALUE: i16 = 4;
/// The tag of the topic's id in offset values.
const TOPIC_ID_TAG: u32 = 0;
const UUID_BYTES: u32 = 16;

/// A record as read back.
#[derive(Debug, PartialEq)]
pub(super) enum Stored {
    Offset {
        group: String,
        topic: String,
        partition: i32,
        offset: Option<CommittedOffset>,
    },
    Group {
        group: String,
        stored: Option<StoredGroup>,
    },
    /// Of a kind that this coordinator does not have.
    Other,
}

/// A group as it is written down.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct StoredGroup {
    pub(super) protocol_type: String,
    pub(super) generation: i32,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    pub(super) state_since_ms: i64,
    pub(super) members: Vec<StoredMember>,
}

/// A member as it is written down.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct StoredMember {
    pub(super) id: String,
    pub(super) instance_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    pub(super) subscription: Bytes,
    pub(super) assignment: Bytes,
}

impl StoredMember {
    /// The member as it is now.
    pub(super) fn of(member: &Member, protocol: &str) -> Self {
        Self {
            id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(protocol),
            assignment: member.assignment.clone(),
        }
    }

    /// The member, with one session from now to be heard of.
    pub(super) fn to_member(&self, protocol: &str, now_ms: i64) -> Member {
        Member {
            id: self.id.clone(),
            instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            session_timeout_ms: self.session_timeout_ms,
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            protocols: vec![Protocol { name: protocol.to_owned(), metadata: self.subscription.clone() }],
            assignment: self.assignment.clone(),
            deadline_ms: now_ms + i64::from(self.session_timeout_ms),
            is_new: false,
            joining: None,
            syncing: None,
        }
    }
}

/// The record that says what a group committed for a partition.
///
/// # Errors
/// A string is too long for Kafka's layout.
pub(super) fn offset_record(
    group: &str,
    topic: &str,
    partition: i32,
    committed: &CommittedOffset,
) -> Result<StoredRecord, EncodeError> {
    let value = written(OFFSET_VALUE, |out| {
        out.put_i64(committed.offset);
        out.put_i32(committed.leader_epoch);
        out.put_string(&committed.metadata)?;
        out.put_i64(committed.committed_at_ms);
        if committed.topic_id.is_zero() {
            out.put_uvarint(0);
        } else {
            out.put_uvarint(1);
            out.put_uvarint(TOPIC_ID_TAG);
            out.put_uvarint(UUID_BYTES);
            out.put_uuid(committed.topic_id);
        }
        Ok(())
    })?;
    Ok(StoredRecord { key: offset_key(group, topic, partition)?, value: Some(value) })
}

/// The record that takes back what a group committed for a partition.
///
/// # Errors
/// A string is too long for Kafka's layout.
pub(super) fn offset_tombstone(
    group: &str,
    topic: &str,
    partition: i32,
) -> Result<StoredRecord, EncodeError> {
    Ok(StoredRecord { key: offset_key(group, topic, partition)?, value: None })
}

fn offset_key(group: &str, topic: &str, partition: i32) -> Result<Bytes, EncodeError> {
    written(OFFSET_KEY, |out| {
        out.put_string(group)?;
        out.put_string(topic)?;
        out.put_i32(partition);
        Ok(())
    })
}

/// The record that says what a group is now.
///
/// # Errors
/// A string is too long for Kafka's layout.
pub(super) fn group_record(id: &str, group: &StoredGroup) -> Result<StoredRecord, EncodeError> {
    let value = written(GROUP_VALUE, |out| {
        out.put_string(&group.protocol_type)?;
        out.put_i32(group.generation);
        out.put_nullable_string(group.protocol.as_deref())?;
        out.put_nullable_string(group.leader.as_deref())?;
        out.put_i64(group.state_since_ms);
        out.put_array_len(Some(group.members.len()))?;
        for member in &group.members {
            out.put_string(&member.id)?;
            out.put_nullable_string(member.instance_id.as_deref())?;
            out.put_string(&member.client_id)?;
            out.put_string(&member.client_host)?;
            out.put_i32(member.rebalance_timeout_ms);
            out.put_i32(member.session_timeout_ms);
            out.put_bytes(&member.subscription)?;
            out.put_bytes(&member.assignment)?;
        }
        Ok(())
    })?;
    Ok(StoredRecord { key: group_key(id)?, value: Some(value) })
}

/// The record that takes a group back.
///
/// # Errors
/// A string is too long for Kafka's layout.
pub(super) fn group_tombstone(group: &str) -> Result<StoredRecord, EncodeError> {
    Ok(StoredRecord { key: group_key(group)?, value: None })
}

fn group_key(group: &str) -> Result<Bytes, EncodeError> {
    written(GROUP_KEY, |out| out.put_string(group))
}

fn written(
    version: i16,
    fields: impl FnOnce(&mut Encoder) -> Result<(), EncodeError>,
) -> Result<Bytes, EncodeError> {
    let mut out = Encoder::new(version, version >= FLEXIBLE_VALUE);
    out.put_i16(version);
    fields(&mut out)?;
    Ok(out.finish().bytes)
}

/// Reads a record.
pub(super) fn read(key: &Bytes, value: Option<&Bytes>) -> Result<Stored, DecodeError> {
    let mut input = Decoder::new(key.clone());
    match input.take_i16()? {
        0 | OFFSET_KEY => Ok(Stored::Offset {
            group: input.take_string()?.to_string(),
            topic: input.take_string()?.to_string(),
            partition: input.take_i32()?,
            offset: value.map(read_offset).transpose()?,
        }),
        GROUP_KEY => Ok(Stored::Group {
            group: input.take_string()?.to_string(),
            stored: value.map(read_group).transpose()?,
        }),
        _ => Ok(Stored::Other),
    }
}

fn versioned(value: &Bytes) -> Result<(i16, Decoder), DecodeError> {
    let mut input = Decoder::new(value.clone());
    let version = input.take_i16()?;
    input.set_version(version, version >= FLEXIBLE_VALUE);
    Ok((version, input))
}

fn read_offset(value: &Bytes) -> Result<CommittedOffset, DecodeError> {
    let (version, mut input) = versioned(value)?;
    let mut committed = CommittedOffset {
        topic_id: Uuid::ZERO,
        offset: input.take_i64()?,
        leader_epoch: if version >= 3 { input.take_i32()? } else { -1 },
        metadata: input.take_string()?.to_string(),
        committed_at_ms: input.take_i64()?,
    };
    if version >= FLEXIBLE_VALUE {
        for _ in 0..input.take_uvarint()? {
            let (tag, bytes) = (input.take_uvarint()?, input.take_uvarint()?);
            let field = input.take_raw(usize::try_from(bytes).unwrap_or(usize::MAX))?;
            if tag == TOPIC_ID_TAG {
                committed.topic_id = Decoder::new(field).take_uuid()?;
            }
        }
    }
    Ok(committed)
}

fn read_group(value: &Bytes) -> Result<StoredGroup, DecodeError> {
    let (version, mut input) = versioned(value)?;
    let text = |input: &mut Decoder| Ok(input.take_nullable_string()?.map(|text| text.to_string()));
    let mut group = StoredGroup {
        protocol_type: input.take_string()?.to_string(),
        generation: input.take_i32()?,
        protocol: text(&mut input)?,
        leader: text(&mut input)?,
        state_since_ms: if version >= 2 { input.take_i64()? } else { -1 },
        members: Vec::new(),
    };
    // The smallest member: four empty strings, a timeout and two empty byte fields.
    for _ in 0..input.take_array_len(10)?.unwrap_or(0) {
        let id = input.take_string()?.to_string();
        let instance_id = if version >= 3 { text(&mut input)? } else { None };
        let client_id = input.take_string()?.to_string();
        let client_host = input.take_string()?.to_string();
        let rebalance_timeout_ms = if version >= 1 { Some(input.take_i32()?) } else { None };
        let session_timeout_ms = input.take_i32()?;
        group.members.push(StoredMember {
            id,
            instance_id,
            client_id,
            client_host,
            rebalance_timeout_ms: rebalance_timeout_ms.unwrap_or(session_timeout_ms),
            session_timeout_ms,
            subscription: Bytes::copy_from_slice(&input.take_bytes()?),
            assignment: Bytes::copy_from_slice(&input.take_bytes()?),
        });
        if version >= FLEXIBLE_VALUE {
            input.take_unknown_tags()?;
        }
    }
    Ok(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn an_offset_is_written_as_kafka_writes_it() {
        let mut committed = CommittedOffset {
            topic_id: Uuid::from_u128(0x1112_1314_1516_1718_191a_1b1c_1d1e_1f20),
            offset: 42,
            leader_epoch: 7,
            metadata: "m".into(),
            committed_at_ms: 0x0102_0304,
        };
        let record = offset_record("grp", "topic", 3, &committed).unwrap();
        // version 1, "grp", "topic", partition 3
        assert_eq!(hex(&record.key), "0001".to_owned() + "0003677270" + "0005746f706963" + "00000003");
        // version 4, offset, leader epoch, metadata, commit time, one tag: 0 of 16 bytes
        let value = "0004".to_owned() + "000000000000002a" + "00000007" + "026d" + "0000000001020304";
        let tag = "01".to_owned() + "00" + "10" + "1112131415161718191a1b1c1d1e1f20";
        assert_eq!(hex(record.value.as_ref().unwrap()), value.clone() + &tag);
        let expected = |committed: &CommittedOffset| Stored::Offset {
            group: "grp".into(),
            topic: "topic".into(),
            partition: 3,
            offset: Some(committed.clone()),
        };
        assert_eq!(read(&record.key, record.value.as_ref()).unwrap(), expected(&committed));
        assert_eq!(
            offset_tombstone("grp", "topic", 3).unwrap(),
            StoredRecord { key: record.key, value: None }
        );
        committed.topic_id = Uuid::ZERO;
        let record = offset_record("grp", "topic", 3, &committed).unwrap();
        assert_eq!(hex(record.value.as_ref().unwrap()), value + "00", "an id that is not known is left out");
        assert_eq!(read(&record.key, record.value.as_ref()).unwrap(), expected(&committed));
    }

    #[test]
    fn a_group_is_written_as_kafka_writes_it_and_read_back() {
        let group = StoredGroup {
            protocol_type: "consumer".into(),
            generation: 9,
            protocol: Some("range".into()),
            leader: Some("m1".into()),
            state_since_ms: 5,
            members: vec![StoredMember {
                id: "m1".into(),
                instance_id: None,
                client_id: "c".into(),
                client_host: "/h".into(),
                rebalance_timeout_ms: 300,
                session_timeout_ms: 45,
                subscription: Bytes::from_static(b"\x01"),
                assignment: Bytes::from_static(b"\x02\x03"),
            }],
        };
        let record = group_record("g", &group).unwrap();
        assert_eq!(hex(&record.key), "0002".to_owned() + "000167");
        let value = [
            "0003",
            "0008636f6e73756d6572",
            "00000009",
            "000572616e6765",
            "00026d31",
            "0000000000000005",
            "00000001",
            "00026d31",
            "ffff",
            "000163",
            "00022f68",
            "0000012c",
            "0000002d",
            "0000000101",
            "000000020203",
        ];
        assert_eq!(hex(record.value.as_ref().unwrap()), value.concat());
        let read_back = read(&record.key, record.value.as_ref()).unwrap();
        assert_eq!(read_back, Stored::Group { group: "g".into(), stored: Some(group) });
        assert_eq!(group_tombstone("g").unwrap(), StoredRecord { key: record.key, value: None });
    }

    /// A string of a peer that is too long for the layout is its error, not the end of the broker.
    #[test]
    fn what_does_not_fit_is_refused() {
        let long = "x".repeat(i16::MAX as usize + 1);
        let fits = &long[1..];
        assert!(group_tombstone(fits).is_ok() && group_tombstone(&long).is_err());
        assert!(offset_tombstone("g", fits, 0).is_ok() && offset_tombstone("g", &long, 0).is_err());
        let with = |id: &str| StoredGroup {
            members: vec![StoredMember { id: id.into(), ..StoredMember::default() }],
            ..StoredGroup::default()
        };
        assert!(group_record("g", &with(fits)).is_ok() && group_record("g", &with(&long)).is_err());
    }

    #[test]
    fn older_and_newer_values_of_kafka_are_read() {
        let key = offset_tombstone("g", "t", 0).unwrap().key;
        let offset = |bytes: &'static [u8]| match read(&key, Some(&Bytes::from_static(bytes))).unwrap() {
            Stored::Offset { offset: Some(offset), .. } => {
                (offset.offset, offset.leader_epoch, offset.metadata)
            }
            other => panic!("{other:?}"),
        };
        // Version 1 (an explicit expiry follows the commit time), then version 4 (compact strings and tags).
        assert_eq!(
            offset(b"\x00\x01\0\0\0\0\0\0\0\x05\x00\x01x\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02"),
            (5, -1, "x".into())
        );
        assert_eq!(
            offset(b"\x00\x04\0\0\0\0\0\0\0\x06\0\0\0\x02\x02y\0\0\0\0\0\0\0\x01\0"),
            (6, 2, "y".into())
        );
        // A tag of a later Kafka beside the topic's id, and a length that the value does not have.
        let id = "\x00\x10AAAAAAAAAAAAAAAA";
        let value = |tags: String| {
            Bytes::from(format!("\0\x04\0\0\0\0\0\0\0\x06\0\0\0\x02\x02y\0\0\0\0\0\0\0\x01{tags}"))
        };
        match read(&key, Some(&value(format!("\x02{id}\x07\x02zz")))).unwrap() {
            Stored::Offset { offset: Some(offset), .. } => {
                assert_eq!(offset.topic_id, Uuid::from_u128(0x4141_4141_4141_4141_4141_4141_4141_4141));
            }
            other => panic!("{other:?}"),
        }
        assert!(read(&key, Some(&value("\x01\x00\x10AAAA".to_owned()))).is_err());
        assert_eq!(read(&Bytes::from_static(b"\x00\x05..."), None).unwrap(), Stored::Other);
        assert!(read(&Bytes::from_static(b"\x00\x01\x00\x09"), None).is_err());
    }
}
