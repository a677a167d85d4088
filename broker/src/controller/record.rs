//! The records of the metadata log. Each is framed and laid out like the record of the same name in
//! Apache Kafka's metadata log (version 0 of it), so that its tools can print ours; replication fields
//! hold the one node that there is.

use bytes::Bytes;
use klamm_protocol::{DecodeError, Decoder, EncodeError, Encoder, Uuid};

use crate::quota::Entity;

/// Kafka's frame around a metadata record: this version, the record's type, the record's version.
const FRAME_VERSION: u32 = 1;
const TOPIC: u32 = 2;
const PARTITION: u32 = 3;
const CONFIG: u32 = 4;
const REMOVE_TOPIC: u32 = 9;
const CLIENT_QUOTA: u32 = 14;
const PRODUCER_IDS: u32 = 15;
/// Kafka's number for a topic as the owner of a setting.
const TOPIC_RESOURCE: i8 = 2;
/// Its number for a broker.
const BROKER_RESOURCE: i8 = 4;

/// A change of the cluster's metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum MetadataRecord {
    /// There is a topic.
    Topic {
        /// Its name.
        name: String,
        /// Its id.
        id: Uuid,
    },
    /// A topic has a partition.
    Partition {
        /// The topic's id.
        topic_id: Uuid,
        /// The partition's number.
        index: i32,
    },
    /// A topic has a setting, or no longer has it.
    TopicSetting {
        /// The topic's name.
        topic: String,
        /// The setting's name.
        key: String,
        /// Its value; none takes it away.
        value: Option<String>,
    },
    /// A broker has a setting that was altered while it ran, or no longer has it.
    BrokerSetting {
        /// Its number; empty for all brokers.
        broker: String,
        /// The setting's name.
        key: String,
        /// Its value; none takes it away.
        value: Option<String>,
    },
    /// Somebody has a quota, or no longer has it.
    ClientQuota {
        /// Whose it is.
        entity: Entity,
        /// Its name.
        key: String,
        /// Its value; none takes it away.
        value: Option<f64>,
    },
    /// A topic is gone.
    RemoveTopic {
        /// Its id.
        id: Uuid,
    },
    /// Producer ids below this one have been given to a broker to hand out.
    ProducerIds {
        /// The first that has not.
        next: i64,
    },
}

impl MetadataRecord {
    /// The value of the record in the log.
    ///
    /// # Errors
    /// When a name or value is longer than a string of the protocol may be.
    pub fn encode(&self, node_id: i32) -> Result<Bytes, EncodeError> {
        let mut out = Encoder::new(0, true);
        let begin = |out: &mut Encoder, kind| {
            out.put_uvarint(FRAME_VERSION);
            out.put_uvarint(kind);
            out.put_uvarint(0);
        };
        match self {
            Self::Topic { name, id } => {
                begin(&mut out, TOPIC);
                out.put_string(name)?;
                out.put_uuid(*id);
            }
            Self::Partition { topic_id, index } => {
                begin(&mut out, PARTITION);
                out.put_i32(*index);
                out.put_uuid(*topic_id);
                // Replicas, in-sync replicas, removing, adding.
                for nodes in [&[node_id][..], &[node_id], &[], &[]] {
                    out.put_array_len(Some(nodes.len()))?;
                    nodes.iter().for_each(|node| out.put_i32(*node));
                }
                // Leader, leader epoch, partition epoch.
                out.put_i32(node_id);
                out.put_i32(0);
                out.put_i32(0);
            }
            Self::TopicSetting { topic, key, value } => {
                begin(&mut out, CONFIG);
                put_setting(&mut out, TOPIC_RESOURCE, (topic, key, value.as_deref()))?;
            }
            Self::BrokerSetting { broker, key, value } => {
                begin(&mut out, CONFIG);
                put_setting(&mut out, BROKER_RESOURCE, (broker, key, value.as_deref()))?;
            }
            Self::ClientQuota { entity, key, value } => {
                begin(&mut out, CLIENT_QUOTA);
                put_quota(&mut out, entity, key, *value)?;
            }
            Self::RemoveTopic { id } => {
                begin(&mut out, REMOVE_TOPIC);
                out.put_uuid(*id);
            }
            Self::ProducerIds { next } => {
                begin(&mut out, PRODUCER_IDS);
                out.put_i32(node_id);
                out.put_i64(0);
                out.put_i64(*next);
            }
        }
        // No tagged fields.
        out.put_uvarint(0);
        Ok(out.finish().bytes)
    }

    /// Reads the value of a record; `None` for kinds that mean nothing here.
    ///
    /// # Errors
    /// When it is not laid out like that.
    pub fn decode(value: Bytes) -> Result<Option<Self>, DecodeError> {
        let mut input = Decoder::new(value);
        input.set_version(0, true);
        let (_frame, kind, _version) = (input.take_uvarint()?, input.take_uvarint()?, input.take_uvarint()?);
        Ok(Some(match kind {
            TOPIC => Self::Topic { name: input.take_string()?.to_string(), id: input.take_uuid()? },
            PARTITION => {
                let index = input.take_i32()?;
                Self::Partition { topic_id: input.take_uuid()?, index }
            }
            CONFIG => {
                let resource = input.take_i8()?;
                let (owner, key) = (input.take_string()?.to_string(), input.take_string()?.to_string());
                let value = input.take_nullable_string()?.map(|value| value.to_string());
                match resource {
                    TOPIC_RESOURCE => Self::TopicSetting { topic: owner, key, value },
                    BROKER_RESOURCE => Self::BrokerSetting { broker: owner, key, value },
                    _ => return Ok(None),
                }
            }
            CLIENT_QUOTA => take_quota(&mut input)?,
            REMOVE_TOPIC => Self::RemoveTopic { id: input.take_uuid()? },
            PRODUCER_IDS => {
                input.take_i32()?;
                input.take_i64()?;
                Self::ProducerIds { next: input.take_i64()? }
            }
            _ => return Ok(None),
        }))
    }
}

fn put_setting(
    out: &mut Encoder,
    resource: i8,
    (owner, key, value): (&str, &str, Option<&str>),
) -> Result<(), EncodeError> {
    out.put_i8(resource);
    out.put_string(owner)?;
    out.put_string(key)?;
    out.put_nullable_string(value)
}

fn put_quota(out: &mut Encoder, entity: &Entity, key: &str, value: Option<f64>) -> Result<(), EncodeError> {
    out.put_array_len(Some(entity.len()))?;
    for (kind, name) in entity {
        out.put_string(kind)?;
        out.put_nullable_string(name.as_deref())?;
        // No tagged fields.
        out.put_uvarint(0);
    }
    out.put_string(key)?;
    out.put_f64(value.unwrap_or(0.0));
    out.put_bool(value.is_none());
    Ok(())
}

fn take_quota(input: &mut Decoder) -> Result<MetadataRecord, DecodeError> {
    let mut entity = Entity::new();
    for _ in 0..input.take_array_len(1)?.unwrap_or(0) {
        let kind = input.take_string()?.to_string();
        entity.insert(kind, input.take_nullable_string()?.map(|name| name.to_string()));
        input.take_unknown_tags()?;
    }
    let (key, value) = (input.take_string()?.to_string(), input.take_f64()?);
    let value = (!input.take_bool()?).then_some(value);
    Ok(MetadataRecord::ClientQuota { entity, key, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(value: Option<f64>) -> MetadataRecord {
        let entity =
            Entity::from([("client-id".to_owned(), Some("me".to_owned())), ("user".to_owned(), None)]);
        MetadataRecord::ClientQuota { entity, key: "producer_byte_rate".into(), value }
    }

    #[test]
    fn a_quota_is_laid_out_as_in_kafka() {
        let MetadataRecord::ClientQuota { entity, .. } = quota(None) else { panic!("a quota") };
        let record = MetadataRecord::ClientQuota { entity, key: "k".into(), value: Some(1.0) };
        let head = [1, 14, 0, 3, 10];
        let parts = [&b"client-id"[..], &[3], b"me", &[0, 5], b"user", &[0, 0]].concat();
        let tail = [2, b'k', 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(record.encode(1).unwrap(), [&head[..], &parts, &tail].concat());
    }

    #[test]
    fn what_is_written_is_read() {
        let id = Uuid::from_u128(77);
        let records = [
            MetadataRecord::Topic { name: "clicks".into(), id },
            MetadataRecord::Partition { topic_id: id, index: 5 },
            MetadataRecord::TopicSetting { topic: "clicks".into(), key: "k".into(), value: Some("v".into()) },
            MetadataRecord::TopicSetting { topic: "clicks".into(), key: "k".into(), value: None },
            MetadataRecord::BrokerSetting { broker: "1".into(), key: "k".into(), value: Some("v".into()) },
            MetadataRecord::BrokerSetting { broker: String::new(), key: "k".into(), value: None },
            quota(Some(5.0)),
            quota(None),
            MetadataRecord::RemoveTopic { id },
            MetadataRecord::ProducerIds { next: 3_000 },
        ];
        for record in records {
            assert_eq!(MetadataRecord::decode(record.encode(1).unwrap()).unwrap(), Some(record));
        }
        assert!(MetadataRecord::decode(Bytes::from_static(b"\x01\x02")).is_err());
        assert_eq!(MetadataRecord::decode(Bytes::from_static(b"\x01\x0c\x00")).unwrap(), None);
    }

    #[test]
    fn a_topic_is_laid_out_as_in_kafka() {
        let record = MetadataRecord::Topic { name: "ab".into(), id: Uuid::from_u128(1) };
        // Frame 1, type 2, version 0; compact "ab"; the id; no tags.
        let expected = [&[1, 2, 0, 3, b'a', b'b'][..], &[0; 15], &[1, 0]].concat();
        assert_eq!(record.encode(1).unwrap(), expected);
        let record =
            MetadataRecord::BrokerSetting { broker: "1".into(), key: "k".into(), value: Some("v".into()) };
        // Frame 1, type 4, version 0; a broker; compact "1", "k", "v"; no tags.
        let expected = [1, 4, 0, 4, 2, b'1', 2, b'k', 2, b'v', 0];
        assert_eq!(record.encode(1).unwrap(), expected[..]);
        let of_group = [1, 4, 0, 32, 2, b'1', 2, b'k', 2, b'v', 0];
        assert_eq!(MetadataRecord::decode(Bytes::copy_from_slice(&of_group)).unwrap(), None);
    }
}
