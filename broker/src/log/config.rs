//! The settings of one log, under Kafka's names and with Kafka's defaults where Kafka has them.

use klamm_protocol::compression::Compression;
use klamm_protocol::records::TimestampType;

/// When an acknowledgement may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FlushMode {
    /// After `fdatasync`: acknowledged records survive a power cut. The default here, because one node
    /// has no replicas to lean on.
    #[default]
    Sync,
    /// As Apache Kafka: once the operating system has the bytes. Survives the death of the process, not of the machine.
    Os,
}

/// A number from 0 to 1.
#[derive(Debug, Clone, Copy)]
pub struct Ratio(pub f64);

impl PartialEq for Ratio {
    fn eq(&self, other: &Self) -> bool {
        self.0.total_cmp(&other.0).is_eq()
    }
}

impl Eq for Ratio {}

/// Settings of a log. Durations are milliseconds, sizes are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `segment.bytes` (1 GiB): a segment that would grow beyond is closed and a new one begun.
    pub segment_bytes: u64,
    /// `segment.ms` (7 days): a segment is closed when a record comes that is this much younger
    /// than the segment's first.
    pub segment_ms: i64,
    /// `segment.jitter.ms` (0): by up to so much earlier, another part of it for each segment, so that the segments of
    /// many partitions are not all closed at the same time.
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes` (10 MiB): how large the two indexes of a segment may get.
    pub segment_index_bytes: u32,
    /// `index.interval.bytes` (4096): one index entry for about so many bytes of log.
    pub index_interval_bytes: u32,
    /// `max.message.bytes` (1,048,588): the largest record batch, after compression.
    pub max_message_bytes: u32,
    /// `retention.ms` (7 days): segments whose youngest record is older are deleted; negative keeps them for ever.
    pub retention_ms: i64,
    /// `retention.bytes` (-1): the oldest segments are deleted while the rest still holds so many
    /// bytes; negative is no limit.
    pub retention_bytes: i64,
    /// `cleanup.policy` contains `compact`: records must have a key.
    pub compact: bool,
    /// `cleanup.policy` contains `delete`: retention applies.
    pub delete: bool,
    /// `message.timestamp.type` (`CreateTime`).
    pub timestamp_type: TimestampType,
    /// `message.timestamp.after.max.ms` (1 hour): a record may be so far in the future.
    pub timestamp_after_max_ms: i64,
    /// `message.timestamp.before.max.ms` (no limit): a record may be so old.
    pub timestamp_before_max_ms: i64,
    /// `producer.id.expiration.ms` (1 day): idempotent producers silent for so long are forgotten.
    pub producer_id_expiration_ms: i64,
    /// `max.producer.ids.per.partition` (100,000, ours): of more idempotent producers, those silent for longest are
    /// forgotten.
    pub producer_ids_max: usize,
    /// `producer.snapshot.interval.bytes` (16 MiB, ours): so much log is between two snapshots of the idempotent
    /// producers, more where those are many. A start after a crash walks over no more. With [`FlushMode::Os`] they are
    /// written at rolls alone, as in Kafka.
    pub producer_snapshot_interval_bytes: u64,
    /// `min.cleanable.dirty.ratio` (0.5): a log is compacted when more than this part of it was not yet.
    pub min_cleanable_dirty_ratio: Ratio,
    /// `min.compaction.lag.ms` (0): records that are younger are not compacted.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms` (no limit): records that are older are, however little there is of them; a segment is
    /// closed when it is so old.
    pub max_compaction_lag_ms: i64,
    /// `delete.retention.ms` (1 day): so long a tombstone stays from the first compaction that sees it.
    pub delete_retention_ms: i64,
    /// When an acknowledgement may be sent; set for the whole broker.
    pub flush: FlushMode,
    /// `flush.messages` (no limit): with [`FlushMode::Os`] a batch that makes so many records unsynced is synced before
    /// it is acknowledged. With [`FlushMode::Sync`] every batch is.
    pub flush_messages: i64,
    /// `flush.ms` (no limit): with [`FlushMode::Os`] what was appended is synced so long after, at the latest.
    pub flush_ms: i64,
    /// `file.delete.delay.ms` (1 minute): files of what was deleted get another name, and are removed so much later.
    pub file_delete_delay_ms: i64,
    /// `preallocate`: the disk sets the room of a segment aside when it is begun.
    pub preallocate: bool,
    /// `compression.type`: what batches of clients are stored as; nothing leaves them as their producers sent them.
    pub compression: Option<Compression>,
    /// `compression.gzip.level` and `compression.zstd.level`, where they are not the codec's default.
    pub gzip_level: Option<i32>,
    /// See [`Self::gzip_level`].
    pub zstd_level: Option<i32>,
}

const HOUR_MS: i64 = 60 * 60 * 1_000;
const DAY_MS: i64 = 24 * HOUR_MS;

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * DAY_MS,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4_096,
            max_message_bytes: 1_048_588,
            retention_ms: 7 * DAY_MS,
            retention_bytes: -1,
            compact: false,
            delete: true,
            timestamp_type: TimestampType::CreateTime,
            timestamp_after_max_ms: HOUR_MS,
            timestamp_before_max_ms: i64::MAX,
            producer_id_expiration_ms: DAY_MS,
            producer_ids_max: 100_000,
            producer_snapshot_interval_bytes: 16 << 20,
            min_cleanable_dirty_ratio: Ratio(0.5),
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            delete_retention_ms: DAY_MS,
            flush: FlushMode::Sync,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            file_delete_delay_ms: 60_000,
            preallocate: false,
            compression: None,
            gzip_level: None,
            zstd_level: None,
        }
    }
}

impl LogConfig {
    /// How old the active segment may get: what waits to be compacted has to be in a closed one.
    pub(crate) fn segment_age_max_ms(&self) -> i64 {
        match self.compact {
            true => self.segment_ms.min(self.max_compaction_lag_ms),
            false => self.segment_ms,
        }
    }
}
