//! The table of the listeners' metrics.

klamm_runtime::metrics_table! {
    /// Every metric of a listener. A recorder that is to see them must be there before the app starts.
    DELIVERIES = "klamm_listener_deliveries_total", Counter, ["listener", "group", "topic"],
        "Records whose turn came, each attempt counted.";
    HANDLER_SECONDS = "klamm_listener_handler_seconds", Histogram, ["listener", "group", "topic"],
        "How long a call of the handler took, for a record or a batch, with the decoding and the interceptors \
         before it.";
    FAILURES = "klamm_listener_failures_total", Counter, ["listener", "group", "topic", "kind"],
        "Records that failed, each attempt counted: `handler`, `rejected`, `panicked`, `unanswered`, \
         `not_committed` or `not_acknowledged`.";
    RETRIES = "klamm_listener_retries_total", Counter, ["listener", "group", "topic"],
        "Records that failed and are tried again in place.";
    RETRY_COPIES = "klamm_listener_retry_copies_total", Counter, ["listener", "group", "topic"],
        "Records that failed and went to a retry topic.";
    DEAD_LETTERS = "klamm_listener_dead_letters_total", Counter, ["listener", "group", "topic"],
        "Records that failed for good and went to the dead-letter topic.";
    PARKED = "klamm_listener_parked_total", Counter, ["listener", "group", "topic"],
        "Records that went to the parking topic, because the topic that they belong to refused them.";
    SKIPPED = "klamm_listener_skipped_total", Counter, ["listener", "group", "topic"],
        "Records that failed for good and are lost to the group, because the failure policy says so.";
    DISCARDED = "klamm_listener_discarded_total", Counter, ["listener", "group", "topic"],
        "Records that an interceptor discarded.";
    REPLIES = "klamm_listener_replies_total", Counter, ["listener", "group", "topic"],
        "Replies acknowledged.";
    OUTPUT_FAILURES = "klamm_listener_output_failures_total", Counter, ["listener", "group", "output"],
        "Attempts to send a `dead_letter`, a `retry_copy` or a `reply` that failed.";
    COMMITS = "klamm_listener_commits_total", Counter, ["listener", "group", "result"],
        "Commits that were made, `ok` or `failed`.";
    LAG = "klamm_listener_lag_records", Gauge, ["listener", "group", "topic", "partition"],
        "Records of a partition that are not finished, read or not, about every second; beyond 1,000 partitions, of \
         all others of the topic together as `other`; 0 when it goes.";
    OLDEST_SECONDS = "klamm_listener_oldest_seconds", Gauge, ["listener", "group"],
        "How long the record has been in hand that has been for longest, about every second.";
    UNFINISHED = "klamm_listener_unfinished_records", Gauge, ["listener", "group"],
        "Records that were read and are not finished, about every second.";
    IN_FLIGHT = "klamm_listener_in_flight_records", Gauge, ["listener", "group"],
        "Records in hand: not finished, or finished above one that is not; what comes again after a crash.";
    IN_FLIGHT_BYTES = "klamm_listener_in_flight_bytes", Gauge, ["listener", "group"],
        "Their bytes, as `max_in_flight_bytes` counts them.";
    BUDGET_RATIO = "klamm_listener_budget_used_ratio", Gauge, ["listener", "group"],
        "What part of `max_in_flight` or of `max_in_flight_bytes` is in hand, whichever is more.";
    IN_RETRY = "klamm_listener_in_retry_records", Gauge, ["listener", "group"],
        "Records that failed and wait for another attempt in place.";
    CALLS = "klamm_listener_running_calls", Gauge, ["listener", "group"],
        "Calls of the handler that run, of `concurrency`, about every second.";
    SLOW_CALLS = "klamm_listener_slow_calls", Gauge, ["listener", "group"],
        "Calls among them that have run for longer than `slow_after`.";
    PAUSES = "klamm_listener_pauses_total", Counter, ["listener", "group"],
        "How often reading a partition was paused: it has its share in hand, an output cannot be sent, or somebody \
         said so.";
    ASSIGNED = "klamm_listener_assigned_partitions", Gauge, ["listener", "group"],
        "Partitions assigned, those of retry topics included.";
    REBALANCES = "klamm_listener_rebalances_total", Counter, ["listener", "group", "change"],
        "How often partitions were `assigned`, `revoked` or `lost`.";
    POLL_AGE_SECONDS = "klamm_listener_poll_age_seconds", Gauge, ["listener", "group"],
        "How long ago the poll loop turned, which it does every five seconds at least.";
    TROUBLES = "klamm_listener_troubles", Gauge, ["listener", "group"],
        "What somebody has to see to, as the log and `ListenerHandle::troubles` tell it.";
    LIVE = "klamm_listener_live", Gauge, ["listener", "group"],
        "1 while it runs; 0 when it has ended.";
    READY = "klamm_listener_ready", Gauge, ["listener", "group"],
        "1 while it reads, or is paused, and has no trouble; otherwise 0.";
    ENDS = "klamm_listener_ends_total", Counter, ["listener", "group", "result"],
        "How often it ended: `stopped`, or `failed` by itself.";
    DRAIN_SECONDS = "klamm_listener_drain_seconds", Histogram, ["listener", "group"],
        "How long its end took, from the last record that was begun.";
    DRAIN_UNFINISHED = "klamm_listener_drain_unfinished_total", Counter, ["listener", "group"],
        "Records that were begun and not finished when it ended.";
}

#[cfg(test)]
mod tests {
    use klamm_runtime::metrics::{Metric, MetricKind};

    use super::*;

    #[test]
    fn names_say_what_they_count() {
        for Metric { name, kind, labels, doc, .. } in METRICS {
            assert!(name.starts_with("klamm_listener_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == MetricKind::Counter, "{name}");
            assert!(doc.ends_with('.') && !doc.contains('|'), "{name}");
            assert_eq!(
                METRICS.iter().filter(|other| other.name == *name).count(),
                1,
                "{name} stands there twice"
            );
            assert!(labels.starts_with(&["listener", "group"]), "{name}");
        }
    }
}
