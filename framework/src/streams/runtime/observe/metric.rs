//! The table of the streams' metrics.

klamm_runtime::metrics_table! {
    /// Every metric of an application of streams. A recorder that is to see them must be there before it starts.
    STATE = "klamm_streams_state", Gauge, ["application", "state"],
        "1 for what the application is doing, 0 for the others: `rebalancing`, `running`, `closing`, `closed`, \
         `failed`.";
    PAUSED = "klamm_streams_paused", Gauge, ["application", "reason"],
        "1 while nothing is processed: somebody `asked` for it, or the `disk` of the state directory is almost full.";
    FREE_BYTES = "klamm_streams_free_bytes", Gauge, ["application"],
        "What the disk of the state directory has free, where `min_free_bytes` looks at it.";
    THREADS = "klamm_streams_threads", Gauge, ["application"],
        "Threads that process.";
    BUSY_RATIO = "klamm_streams_busy_ratio", Gauge, ["application", "thread"],
        "What part of the last second a thread spent on records.";
    COMMITS = "klamm_streams_commits_total", Counter, ["application", "thread", "result"],
        "Commits: `ok`, `later` where the next one makes up for it, `void` where the tasks begin again from the last \
         one, or `failed`.";
    COMMIT_SECONDS = "klamm_streams_commit_seconds", Histogram, ["application", "thread"],
        "How long a thread waited until outputs were acknowledged and offsets committed.";
    TASKS = "klamm_streams_tasks", Gauge, ["application", "state"],
        "Tasks of this instance, `running` or `restoring`.";
    FAILING_TASKS = "klamm_streams_failing_tasks", Gauge, ["application"],
        "Tasks of this instance that failed and are not past it, where `on_task_failure` lets them begin again.";
    PROCESSED = "klamm_streams_processed_total", Counter, ["application", "task"],
        "Records processed, those of repartition topics included.";
    PROCESS_SECONDS = "klamm_streams_process_seconds", Histogram, ["application", "task"],
        "How long a record took, as the mean of a turn of up to 1,000 of them; some turns a second are told.";
    RECORD_AGE_SECONDS = "klamm_streams_record_age_seconds", Histogram, ["application", "task"],
        "How old the last record of a turn was by its own time when it was processed; some turns a second are told.";
    BUFFERED = "klamm_streams_buffered_records", Gauge, ["application", "task"],
        "Records that were read and are not processed, about every second.";
    DROPPED = "klamm_streams_dropped_total", Counter, ["application", "task", "reason"],
        "Records left out: `null_key`, `null_value`, `late`, `negative_timestamp`, `unreadable`, `failed` or \
         `dead_lettered`.";
    FAILURES = "klamm_streams_failures_total", Counter, ["application", "operator", "outcome"],
        "Records that an operator could not process and went on without: `unreadable` or `skipped` ones are lost, a \
         `dead_letter` is in its topic.";
    PUNCTUATIONS = "klamm_streams_punctuations_total", Counter, ["application", "operator"],
        "How often a clock called a processor.";
    RESTORED = "klamm_streams_restored_total", Counter, ["application", "task", "store"],
        "Changelog records that a store was restored from.";
    RESTORED_BYTES = "klamm_streams_restored_bytes_total", Counter, ["application", "task", "store"],
        "Their keys and values.";
    RESTORE_LEFT = "klamm_streams_restore_left_records", Gauge, ["application", "task", "store"],
        "Offsets of the changelog that are still to be restored.";
    CACHE_HITS = "klamm_streams_cache_hits_total", Counter, ["application", "task", "store"],
        "Rows that were asked for and in memory.";
    CACHE_MISSES = "klamm_streams_cache_misses_total", Counter, ["application", "task", "store"],
        "Rows that were asked for and not in memory, whether the store has them or not.";
    CACHE_EVICTIONS = "klamm_streams_cache_evictions_total", Counter, ["application", "task", "store"],
        "Rows that were forgotten to make room.";
    STORE_CACHE_BYTES = "klamm_streams_store_cache_bytes", Gauge, ["application", "task", "store"],
        "What the rows of a store take in memory, of the budget `cache_bytes`.";
    STORE_ROWS = "klamm_streams_store_rows", Gauge, ["application", "task", "store"],
        "Rows of a store as far as they are committed, as RocksDB estimates them, about every second.";
    STORE_DISK_BYTES = "klamm_streams_store_disk_bytes", Gauge, ["application", "task", "store"],
        "The files of a store, about every second.";
    STORE_MEMTABLE_BYTES = "klamm_streams_store_memtable_bytes", Gauge, ["application", "task", "store"],
        "What is written to a store and not in files yet, about every second.";
    CACHE_BYTES = "klamm_streams_cache_bytes", Gauge, ["application"],
        "What rows in use take in memory, of all stores, of the budget `cache_bytes`.";
    BLOCK_CACHE_BYTES = "klamm_streams_block_cache_bytes", Gauge, ["application"],
        "What RocksDB holds of its files, memtables counted in, in the memory that the application shares with others.";
    WRITE_BUFFER_BYTES = "klamm_streams_write_buffer_bytes", Gauge, ["application"],
        "What RocksDB holds in memtables, in the memory that the application shares with others.";
}

#[cfg(test)]
mod tests {
    use klamm_runtime::metrics::{Metric, MetricKind};

    use super::*;

    #[test]
    fn names_say_what_they_count() {
        for Metric { name, kind, labels, doc, .. } in METRICS {
            assert!(name.starts_with("klamm_streams_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == MetricKind::Counter, "{name}");
            assert!(doc.ends_with('.') && !doc.contains('|'), "{name}");
            assert_eq!(
                METRICS.iter().filter(|other| other.name == *name).count(),
                1,
                "{name} stands there twice"
            );
            assert_eq!(labels.first(), Some(&"application"), "{name}");
        }
    }
}
