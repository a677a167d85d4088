//! A snapshot of the metadata: the records that make an image, as batches between a header and a footer, laid out as
//! Kafka's. Whole or not at all: whatever is cut off or changed is found. Pure.

use bytes::Bytes;
use klamm_protocol::records::{BatchBuilder, BatchOptions, batches};
use klamm_protocol::{Decoder, Encoder};

use super::error::ControllerError;
use super::image::Image;
use super::record::MetadataRecord;
use crate::log::StorageError;

/// Records in one batch of a snapshot.
const RECORDS_PER_BATCH: usize = 500;
/// How much one batch may decompress to; ours are not compressed.
const BATCH_CAP_BYTES: usize = 256 << 20;
/// Kafka's types of the control records at both ends.
const HEADER: i16 = 3;
const FOOTER: i16 = 4;

/// The records that make the image of nothing.
pub(super) fn records(image: &Image) -> impl Iterator<Item = MetadataRecord> {
    let gone = image.deleted_topics().into_iter().flat_map(|(id, name)| {
        [MetadataRecord::Topic { name: name.to_string(), id }, MetadataRecord::RemoveTopic { id }]
    });
    let there = image.topics().flat_map(|topic| {
        let settings = topic.settings.iter().map(|(key, value)| MetadataRecord::TopicSetting {
            topic: topic.name.to_string(),
            key: key.clone(),
            value: Some(value.clone()),
        });
        let topic_id = topic.id;
        let partitions =
            (0..topic.partitions).map(move |index| MetadataRecord::Partition { topic_id, index });
        let name = topic.name.to_string();
        std::iter::once(MetadataRecord::Topic { name, id: topic.id }).chain(settings).chain(partitions)
    });
    let altered = image.broker_settings().all().map(|(broker, key, value)| MetadataRecord::BrokerSetting {
        broker: broker.to_owned(),
        key: key.to_owned(),
        value: Some(value.to_owned()),
    });
    let quotas = image.client_quotas().all().map(|(entity, key, value)| MetadataRecord::ClientQuota {
        entity: entity.clone(),
        key: key.to_owned(),
        value: Some(value),
    });
    let next = image.next_producer_id();
    let ids = (next > 0).then_some(MetadataRecord::ProducerIds { next });
    gone.chain(there).chain(altered).chain(quotas).chain(ids)
}

/// Gives `write` the snapshot, batch by batch.
///
/// # Errors
/// Those of `write`, or a record that cannot be written down.
pub(super) fn write(
    image: &Image,
    node_id: i32,
    now_ms: i64,
    mut write: impl FnMut(&[u8]) -> Result<(), ControllerError>,
) -> Result<(), ControllerError> {
    let (mut base_offset, mut records) = (0, records(image).peekable());
    write(&control(base_offset, HEADER, now_ms)?)?;
    base_offset += 1;
    while records.peek().is_some() {
        let mut batch =
            BatchBuilder::new(BatchOptions { base_offset, leader_epoch: 0, ..BatchOptions::default() });
        for record in records.by_ref().take(RECORDS_PER_BATCH) {
            let value = record.encode(node_id)?;
            batch.append(now_ms, None, Some(&value), []).map_err(broken)?;
            base_offset += 1;
        }
        write(&batch.build().map_err(broken)?)?;
    }
    write(&control(base_offset, FOOTER, now_ms)?)
}

fn control(base_offset: i64, kind: i16, now_ms: i64) -> Result<Bytes, ControllerError> {
    let options = BatchOptions { base_offset, leader_epoch: 0, control: true, ..BatchOptions::default() };
    let mut batch = BatchBuilder::new(options);
    let (mut key, mut value) = (Encoder::new(0, false), Encoder::new(0, true));
    key.put_i16(0);
    key.put_i16(kind);
    value.put_i16(0);
    if kind == HEADER {
        value.put_i64(now_ms);
    }
    // No tagged fields.
    value.put_uvarint(0);
    batch.append(now_ms, Some(&key.finish().bytes), Some(&value.finish().bytes), []).map_err(broken)?;
    Ok(batch.build().map_err(broken)?)
}

/// The image that a snapshot makes.
///
/// # Errors
/// When it is not one from beginning to end.
pub(super) fn read(bytes: Bytes) -> Result<Image, StorageError> {
    let (mut image, mut next_offset, mut ended) = (Image::default(), 0, false);
    let mut all = batches(bytes);
    for batch in all.by_ref() {
        let batch = batch.map_err(broken)?;
        batch.verify_crc().map_err(broken)?;
        let header = batch.header();
        if header.base_offset != next_offset || ended {
            return Err(StorageError::new("its batches do not follow each other"));
        }
        let is_first = next_offset == 0;
        next_offset = header.next_offset();
        for record in batch.records(BATCH_CAP_BYTES).map_err(broken)?.iter() {
            let record = record.map_err(broken)?;
            if header.is_control() {
                let kind = kind_of(record.key.unwrap_or_default());
                match (is_first, kind) {
                    (true, Some(HEADER)) => {}
                    (false, Some(FOOTER)) => ended = true,
                    _ => return Err(StorageError::new("a control record is not where it belongs")),
                }
            } else if is_first {
                return Err(StorageError::new("it has no header"));
            } else {
                let value = Bytes::copy_from_slice(record.value.unwrap_or_default());
                let record = MetadataRecord::decode(value).map_err(broken)?;
                record.iter().for_each(|record| image.apply(record));
            }
        }
    }
    match ended && all.rest().is_empty() {
        true => Ok(image),
        false => Err(StorageError::new("it has no end")),
    }
}

fn kind_of(key: &[u8]) -> Option<i16> {
    let mut key = Decoder::new(Bytes::copy_from_slice(key));
    key.take_i16().ok()?;
    key.take_i16().ok()
}

fn broken(error: impl std::fmt::Display) -> StorageError {
    StorageError::new(error.to_string())
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Uuid;
    use klamm_runtime::{Rng, SeededRng};

    use super::*;
    use crate::quota::Entity;

    fn bytes_of(image: &Image) -> Bytes {
        let mut all = Vec::new();
        let collect = |batch: &[u8]| {
            all.extend_from_slice(batch);
            Ok(())
        };
        write(image, 1, 77, collect).unwrap();
        all.into()
    }

    /// What some random records make, among them topics of one name, ones that went and came again, and nonsense.
    fn some_image(rng: &SeededRng, records: u64) -> Image {
        let mut image = Image::default();
        for _ in 0..records {
            let number = rng.below(12);
            let id = Uuid::from_u128(u128::from(number) + 1);
            // An id is never another name's, and no name is another with dots for underscores.
            let name = ["a", "b.c", "d_e", "f"][number as usize / 3].to_owned();
            let value = (rng.below(2) == 0).then(|| rng.below(9).to_string());
            image.apply(&match rng.below(7) {
                0 => MetadataRecord::Topic { name, id },
                1 => MetadataRecord::Partition { topic_id: id, index: rng.below(4) as i32 },
                2 => MetadataRecord::TopicSetting { topic: name, key: "k".into(), value },
                3 => MetadataRecord::BrokerSetting { broker: name, key: "k".into(), value },
                4 => MetadataRecord::RemoveTopic { id },
                5 => MetadataRecord::ClientQuota {
                    entity: Entity::from([(name, value.clone())]),
                    key: "k".into(),
                    value: value.map(|_| 7.0),
                },
                _ => MetadataRecord::ProducerIds { next: rng.below(3) as i64 * 1_000 },
            });
        }
        image
    }

    #[test]
    fn an_image_comes_back_as_it_was() {
        assert_eq!(read(bytes_of(&Image::default())).unwrap(), Image::default());
        for seed in 0..2_000 {
            let rng = SeededRng::new(seed);
            let records = rng.below(60);
            let image = some_image(&rng, records);
            assert_eq!(read(bytes_of(&image)).unwrap(), image, "seed {seed}");
        }
    }

    #[test]
    fn a_large_one_is_of_many_batches() {
        let mut image = Image::default();
        for number in 0..400 {
            let id = Uuid::from_u128(number + 1);
            image.apply(&MetadataRecord::Topic { name: format!("t{number}"), id });
            (0..5).for_each(|index| image.apply(&MetadataRecord::Partition { topic_id: id, index }));
        }
        let bytes = bytes_of(&image);
        assert_eq!(batches(bytes.clone()).count(), 2 + 2_400_usize.div_ceil(RECORDS_PER_BATCH));
        assert_eq!(read(bytes).unwrap(), image);
    }

    /// Never silently a smaller cluster.
    #[test]
    fn one_that_is_cut_or_changed_anywhere_is_none() {
        let image = some_image(&SeededRng::new(5), 40);
        let whole = bytes_of(&image);
        for len in 0..whole.len() {
            assert!(read(whole.slice(..len)).is_err(), "cut at {len}");
        }
        // The leader epochs lie outside the checksums, and nothing depends on them.
        let epochs: Vec<_> = {
            let mut starts = vec![0];
            for batch in batches(whole.clone()) {
                starts.push(starts.last().unwrap() + batch.unwrap().header().total_len());
            }
            starts.into_iter().flat_map(|start| start + 12..start + 16).collect()
        };
        for position in (0..whole.len()).filter(|position| !epochs.contains(position)) {
            let mut changed = whole.to_vec();
            changed[position] ^= 1;
            assert!(read(changed.into()).is_err(), "changed at {position}");
        }
        let twice = [whole.clone(), whole.clone()].concat();
        assert!(read(twice.into()).is_err());
        let end = batches(whole.clone()).last().unwrap().unwrap().header().next_offset();
        let more = [whole.clone(), control(end, FOOTER, 77).unwrap()].concat();
        assert!(read(more.into()).is_err(), "something comes behind its end");
        let header_len = batches(whole.clone()).next().unwrap().unwrap().header().total_len();
        assert!(read(whole.slice(header_len..)).is_err());
    }
}
