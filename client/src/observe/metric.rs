//! The table of the client's metrics.

pub use klamm_runtime::metrics::{Metric, MetricKind};

klamm_runtime::metrics_table! {
    /// Every metric of the client. A recorder that is to see them must be there before the client is built.
    CONNECTIONS = "klamm_client_connections_total", Counter, ["result"],
        "Attempts to connect: `opened` or `failed`.";
    REQUESTS = "klamm_client_requests_total", Counter, ["api"],
        "Requests sent, by Kafka's name of the API.";
    REQUEST_SECONDS = "klamm_client_request_seconds", Histogram, ["api"],
        "From queueing a request to its answer: for `Produce`, `Fetch`, `OffsetCommit`, `Heartbeat` and all others.";
    REQUESTS_FAILED = "klamm_client_requests_failed_total", Counter, ["api"],
        "Requests without an answer.";
    SENT_BYTES = "klamm_client_sent_bytes_total", Counter, [],
        "Bytes of requests, with their lengths.";
    RECEIVED_BYTES = "klamm_client_received_bytes_total", Counter, [],
        "Bytes of answers, with their lengths.";
    THROTTLE_SECONDS = "klamm_client_throttle_seconds", Histogram, ["api"],
        "How long a broker asked to be left alone, for `Produce` and `Fetch`.";
    METADATA_REFRESHES = "klamm_client_metadata_refreshes_total", Counter, ["result"],
        "Requests for metadata: `ok` or `failed`.";
    PRODUCER_RECORDS = "klamm_client_producer_records_total", Counter, ["client_id", "topic"],
        "Records acknowledged (with `acks` 0: written to the network).";
    PRODUCER_BYTES = "klamm_client_producer_batch_bytes_total", Counter, ["client_id", "topic"],
        "Bytes of their batches, compressed.";
    PRODUCER_ERRORS = "klamm_client_producer_errors_total", Counter, ["client_id", "error"],
        "Records that were not taken or not delivered, by `ProduceError::kind`.";
    PRODUCER_RETRIES = "klamm_client_producer_retries_total", Counter, ["client_id"],
        "Batches sent again.";
    PRODUCER_BATCH_BYTES = "klamm_client_producer_batch_bytes", Histogram, ["client_id"],
        "Size of a batch as it is first sent, compressed.";
    PRODUCER_BATCH_RECORDS = "klamm_client_producer_batch_records", Histogram, ["client_id"],
        "Records of a batch as it is first sent.";
    PRODUCER_COMPRESSION_RATIO = "klamm_client_producer_compression_ratio", Histogram, ["client_id"],
        "Size of a batch, compressed, in parts of what it takes uncompressed.";
    PRODUCER_QUEUE_SECONDS = "klamm_client_producer_queue_seconds", Histogram, ["client_id"],
        "From a batch's first record to when the batch is first sent.";
    PRODUCER_DELIVERY_SECONDS = "klamm_client_producer_delivery_seconds", Histogram, ["client_id"],
        "From a batch's first record to its acknowledgement, with retries.";
    PRODUCER_BUFFER_BYTES = "klamm_client_producer_buffer_bytes", Gauge, ["client_id"],
        "What waits or is in flight, of `buffer_bytes`.";
    PRODUCER_BUFFER_WAIT_SECONDS = "klamm_client_producer_buffer_wait_seconds", Histogram, ["client_id"],
        "How long a record waited for room in the buffer, where it had to.";
    PRODUCER_TRANSACTIONS = "klamm_client_producer_transactions_total", Counter, ["client_id", "result"],
        "Transactions ended: `committed`, `aborted`, `fenced`, `unknown` or `failed`.";
    CONSUMER_RECORDS = "klamm_client_consumer_records_total", Counter, ["client_id", "group", "topic"],
        "Records fetched, by their batches' own count.";
    CONSUMER_BYTES = "klamm_client_consumer_batch_bytes_total", Counter, ["client_id", "group", "topic"],
        "Bytes of their batches, compressed.";
    CONSUMER_ERRORS = "klamm_client_consumer_errors_total", Counter, ["client_id", "group", "error"],
        "Errors that the program was given, by `ConsumeError::kind`.";
    CONSUMER_LAG = "klamm_client_consumer_lag_records", Gauge, ["client_id", "group", "topic", "partition"],
        "Records between the position and the end, of each assigned partition, about every second; 0 when it goes.";
    CONSUMER_BUFFERED_BYTES = "klamm_client_consumer_buffered_bytes", Gauge, ["client_id", "group"],
        "Fetched bytes that wait for the program, of `prefetch_bytes`, about every second.";
    CONSUMER_POLL_GAP_SECONDS = "klamm_client_consumer_poll_gap_seconds", Histogram, ["client_id", "group"],
        "From handing out the first record of a fetch to being asked for one beyond its last: the time of processing.";
    CONSUMER_ASSIGNED = "klamm_client_consumer_assigned_partitions", Gauge, ["client_id", "group"],
        "Partitions assigned, by the group or by hand.";
    CONSUMER_JOINED = "klamm_client_consumer_joined", Gauge, ["client_id", "group"],
        "Consumers that are members of their group now; less than there are is a rebalance, or trouble.";
    CONSUMER_REBALANCES = "klamm_client_consumer_rebalances_total", Counter, ["client_id", "group"],
        "Rebalances that ended with an assignment.";
    CONSUMER_LOST = "klamm_client_consumer_lost_partitions_total", Counter, ["client_id", "group"],
        "Partitions that went away without warning.";
    CONSUMER_COMMIT_SECONDS = "klamm_client_consumer_commit_seconds", Histogram, ["client_id", "group", "result"],
        "How long a commit took that was `ok`, that the coordinator `refused` for a partition, or that `failed`.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_count() {
        for Metric { name, kind, labels, doc, .. } in METRICS {
            assert!(name.starts_with("klamm_client_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == MetricKind::Counter, "{name}");
            assert!(doc.ends_with('.') && !doc.contains('|'), "{name}");
            assert_eq!(
                METRICS.iter().filter(|other| other.name == *name).count(),
                1,
                "{name} stands there twice"
            );
            let mut different = labels.to_vec();
            different.dedup();
            assert_eq!(different, *labels, "{name}");
        }
    }
}
