//! The client in real company: three Apache Kafka brokers that lose their leaders, groups in which clients of four
//! makes share the partitions, brokers that are killed under load. What everybody was told is noted and judged
//! afterwards.
//!
//! `log_history` judges what writers were told against what the log holds (A1 to A8), `group_history` what the
//! members of a group did (B1 to B6); both are pure. `writers` and `members` make such histories, `load` is both at
//! once, `kafka` runs nodes of Apache Kafka. `three_kafkas`, `klamm_restarts` and `mixed_groups` are the tests.

mod group_history;
mod kafka;
mod klamm_member;
mod klamm_restarts;
mod load;
mod log_history;
mod members;
mod mixed_groups;
mod three_kafkas;
mod writers;

pub(crate) use kafka::Kafka;

/// Longest that anything may stand still once nothing is broken any more.
const STUCK: std::time::Duration = std::time::Duration::from_secs(30);

/// What takes minutes runs in `make soak` (suites `company` and `kafka`), which sets a seed; `make test` has a slice of
/// it.
fn in_soak() -> bool {
    std::env::var_os("KLAMM_SEED").is_some()
}

/// Microseconds of the clock that all processes of this machine share.
fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_micros()).unwrap()
}

/// Fails with the first few of these faults.
fn no_faults(what: &str, faults: &[String]) {
    let shown: Vec<&str> = faults.iter().take(12).map(String::as_str).collect();
    assert!(faults.is_empty(), "{what}: {} faults:\n  {}", faults.len(), shown.join("\n  "));
}
