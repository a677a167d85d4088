//! Record batches, format v2: reading without copies, building in place, patching and checking.
//!
//! ```text
//! batches(Bytes)  -> RecordBatch    one batch, still compressed: header(), verify_crc()
//!   .records(cap) -> RecordSet      decompressed once: iter() borrows, owned() slices
//!     .iter()     -> RecordView     key, value and headers inside the buffer
//!     .owned()    -> OwnedRecord    the same as `Bytes`, sharing the buffer
//! BatchBuilder    -> Bytes          records appended straight into the batch
//! emptied_batch   what is left of a batch all of whose records were compacted away
//! patch           edits a finished batch in place;   validate   what a broker asks of a producer's batch
//! ```
//!
//! Nothing here panics on any input, and nothing is allocated by a count or length before the bytes for it are there.

mod batch;
mod builder;
mod control;
mod emptied;
mod error;
mod header;
mod owned;
pub mod patch;
mod validate;
mod varint;
mod view;

pub use batch::{Batches, RecordBatch, RecordSet, batches};
pub use builder::{BatchBuilder, BatchOptions, record_size};
pub use control::{ControlRecord, EndTxnMarker, end_txn_batch};
pub use emptied::emptied_batch;
pub use error::RecordError;
pub use header::{
    BATCH_HEADER_LEN, BatchHeader, NO_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE,
    NO_TIMESTAMP, TimestampType, next_sequence,
};
pub use owned::{OwnedRecord, OwnedRecords, RecordHeaders, RecordHeadersIter};
pub use validate::{BatchLimits, BatchOrigin, InvalidBatch, validate_batch, validated_batch};
pub use view::{HeaderViews, RecordView, RecordViews};

/// CRC-32C (Castagnoli) of `bytes`: the checksum of a batch, taken from its attributes (byte 21) to its end.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}
