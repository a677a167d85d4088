//! The records of `__consumer_offsets`, in the layout that Apache Kafka gives them, so that its tools
//! read ours and we read its.
//!
//! Written: keys of version 1 (offset) and 2 (group), values of version 3. Read: every version of both that Kafka has
//! written since 0.9 (values 0 to 4); other key types (of groups we do not have) are skipped.

use bytes::Bytes;
use klamm_protocol::{DecodeError, Decoder, EncodeError, Encoder};

use super::calls::{CommittedOffset, StoredRecord};
use super::member::{Member, Protocol};
use super::state::{Group, State};

const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;
const OFFSET_VALUE: i16 = 3;
const GROUP_VALUE: i16 = 3;
/// From here on values have compact lengths and tagged fields.
const FLEXIBLE_VALUE: i16 = 4;

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
#[derive(Debug, Default, PartialEq)]
pub(super) struct StoredGroup {
    pub(super) protocol_type: String,
    pub(super) generation: i32,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    pub(super) state_since_ms: i64,
    pub(super) members: Vec<StoredMember>,
}

/// A member as it is written down.
#[derive(Debug, Default, PartialEq)]
pub(super) struct StoredMember {
    id: String,
    instance_id: Option<String>,
    client_id: String,
    client_host: String,
    rebalance_timeout_ms: i32,
    session_timeout_ms: i32,
    subscription: Bytes,
    assignment: Bytes,
}

impl StoredMember {
    /// The member, with one session from now to be heard of.
    pub(super) fn into_member(self, protocol: String, now_ms: i64) -> Member {
        Member {
            id: self.id,
            instance_id: self.instance_id,
            client_id: self.client_id,
            client_host: self.client_host,
            session_timeout_ms: self.session_timeout_ms,
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            protocols: vec![Protocol { name: protocol, metadata: self.subscription }],
            assignment: self.assignment,
            deadline_ms: now_ms + i64::from(self.session_timeout_ms),
            is_new: false,
            joining: None,
            syncing: None,
        }
    }
}

/// The record that says what a group committed for a partition; without `offset`, the one that takes it back.
pub(super) fn offset_record(
    group: &str,
    topic: &str,
    partition: i32,
    offset: Option<&CommittedOffset>,
) -> StoredRecord {
    let key = written(OFFSET_KEY, |out| {
        out.put_string(group)?;
        out.put_string(topic)?;
        out.put_i32(partition);
        Ok(())
    });
    let value = offset.map(|committed| {
        written(OFFSET_VALUE, |out| {
            out.put_i64(committed.offset);
            out.put_i32(committed.leader_epoch);
            out.put_string(&committed.metadata)?;
            out.put_i64(committed.committed_at_ms);
            Ok(())
        })
    });
    StoredRecord { key, value }
}

/// The record that says what a group is now.
pub(super) fn group_record(group: &Group) -> StoredRecord {
    let protocol = group.protocol.as_deref();
    let value = written(GROUP_VALUE, |out| {
        out.put_string(group.protocol_type.as_deref().unwrap_or_default())?;
        out.put_i32(group.generation);
        out.put_nullable_string(protocol)?;
        out.put_nullable_string(group.leader.as_deref().filter(|_| group.state != State::Empty))?;
        out.put_i64(group.state_since_ms);
        out.put_array_len(Some(group.members.len()))?;
        for member in group.members.values() {
            out.put_string(&member.id)?;
            out.put_nullable_string(member.instance_id.as_deref())?;
            out.put_string(&member.client_id)?;
            out.put_string(&member.client_host)?;
            out.put_i32(member.rebalance_timeout_ms);
            out.put_i32(member.session_timeout_ms);
            out.put_bytes(&member.metadata(protocol.unwrap_or_default()))?;
            out.put_bytes(&member.assignment)?;
        }
        Ok(())
    });
    StoredRecord { key: group_key(&group.id), value: Some(value) }
}

/// The record that takes a group back.
pub(super) fn group_tombstone(group: &str) -> StoredRecord {
    StoredRecord { key: group_key(group), value: None }
}

fn group_key(group: &str) -> Bytes {
    written(GROUP_KEY, |out| out.put_string(group))
}

fn written(version: i16, fields: impl FnOnce(&mut Encoder) -> Result<(), EncodeError>) -> Bytes {
    let mut out = Encoder::new(version, false);
    out.put_i16(version);
    // Every string here came over the wire, whose strings are no longer than what can be written.
    fields(&mut out).expect("strings from the wire fit into a record");
    out.finish().bytes
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
    Ok(CommittedOffset {
        offset: input.take_i64()?,
        leader_epoch: if version >= 3 { input.take_i32()? } else { -1 },
        metadata: input.take_string()?.to_string(),
        committed_at_ms: input.take_i64()?,
    })
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
    use super::super::calls::Now;
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn an_offset_is_written_as_kafka_writes_it() {
        let committed = CommittedOffset {
            offset: 42,
            leader_epoch: 7,
            metadata: "m".into(),
            committed_at_ms: 0x0102_0304,
        };
        let record = offset_record("grp", "topic", 3, Some(&committed));
        // version 1, "grp", "topic", partition 3
        assert_eq!(hex(&record.key), "0001".to_owned() + "0003677270" + "0005746f706963" + "00000003");
        // version 3, offset, leader epoch, metadata, commit time
        let value = "0003".to_owned() + "000000000000002a" + "00000007" + "00016d" + "0000000001020304";
        assert_eq!(hex(record.value.as_ref().unwrap()), value);
        let read_back = read(&record.key, record.value.as_ref()).unwrap();
        let expected = Stored::Offset {
            group: "grp".into(),
            topic: "topic".into(),
            partition: 3,
            offset: Some(committed),
        };
        assert_eq!(read_back, expected);
        assert_eq!(offset_record("grp", "topic", 3, None).value, None);
    }

    #[test]
    fn a_group_is_written_as_kafka_writes_it_and_read_back() {
        let now = Now { ms: 10, wall_ms: 5 };
        let mut group = Group::new("g", now);
        group.restore(
            StoredGroup {
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
            },
            now,
        );
        let record = group_record(&group);
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
        let Stored::Group { group: name, stored: Some(stored) } =
            read(&record.key, record.value.as_ref()).unwrap()
        else {
            panic!("not a group")
        };
        assert_eq!((name.as_str(), stored.generation, stored.members.len()), ("g", 9, 1));
    }

    #[test]
    fn older_and_newer_values_of_kafka_are_read() {
        let key = offset_record("g", "t", 0, None).key;
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
        assert_eq!(read(&Bytes::from_static(b"\x00\x05..."), None).unwrap(), Stored::Other);
        assert!(read(&Bytes::from_static(b"\x00\x01\x00\x09"), None).is_err());
    }
}
