//! What is left of a batch whose records were all compacted away, and which has to stay for what its header says.

use bytes::Bytes;

use super::crc32c;
use super::header::{
    BATCH_HEADER_LEN, BatchHeader, CODEC_MASK, DELETE_HORIZON, LENGTH_OVERHEAD, NO_TIMESTAMP, at,
};

/// A batch without records that has the offsets, the producer, its epoch and sequence numbers, and the greatest
/// timestamp of the one whose header this is.
pub fn emptied_batch(header: &BatchHeader) -> Bytes {
    let mut emptied = BatchHeader {
        batch_length: (BATCH_HEADER_LEN - LENGTH_OVERHEAD) as i32,
        attributes: header.attributes & !CODEC_MASK & !DELETE_HORIZON,
        base_timestamp: NO_TIMESTAMP,
        record_count: 0,
        crc: 0,
        ..*header
    };
    emptied.crc = crc32c(&emptied.to_bytes()[at::ATTRIBUTES..]);
    Bytes::copy_from_slice(&emptied.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::{BatchBuilder, BatchOptions, RecordBatch};
    use super::*;
    use crate::compression::Compression;

    #[test]
    fn all_but_the_records_stays() {
        let options = BatchOptions {
            compression: Compression::Gzip,
            base_offset: 7,
            leader_epoch: 3,
            producer_id: 9,
            producer_epoch: 2,
            base_sequence: 40,
            transactional: true,
            ..BatchOptions::default()
        };
        let mut builder = BatchBuilder::new(options);
        builder.set_delete_horizon(5);
        builder.append(100, Some(b"a"), None, []).unwrap();
        builder.append_at(4, 90, Some(b"b"), None, []).unwrap();
        let before = *RecordBatch::parse(builder.build().unwrap()).unwrap().header();
        let batch = RecordBatch::parse(emptied_batch(&before)).unwrap();
        batch.verify_crc().unwrap();
        assert_eq!(batch.records(0).unwrap().iter().count(), 0);
        let after = batch.header();
        let expected = BatchHeader {
            batch_length: 49,
            attributes: 0x10,
            base_timestamp: -1,
            record_count: 0,
            crc: after.crc,
            ..before
        };
        assert_eq!(*after, expected);
        assert_eq!((after.last_offset(), after.last_sequence(), after.max_timestamp), (11, 44, 100));
        assert_eq!(emptied_batch(after), batch.into_bytes(), "once more changes nothing");
    }
}
