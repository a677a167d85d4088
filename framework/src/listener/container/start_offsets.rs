//! Commits where a group begins, before it has handled anything: what is found anew at each start, as the log's end is,
//! would pass over records that were read and not finished when the listener stopped.

use std::collections::HashMap;

use klamm_client::{ConsumeError, ConsumerHandle, OffsetReset, TopicPartition};

use crate::listener::builder::CommitOnAssign;

/// The starts to commit: of those partitions that have no committed offset, as `policy` says.
pub(super) async fn starts(
    consumer: &ConsumerHandle,
    places: &[TopicPartition],
    policy: CommitOnAssign,
    reset: OffsetReset,
) -> Result<HashMap<TopicPartition, i64>, ConsumeError> {
    if !is_wanted(policy, reset) {
        return Ok(HashMap::new());
    }
    let committed = consumer.committed(places).await?;
    let new: Vec<_> = places.iter().filter(|place| !committed.contains_key(*place)).cloned().collect();
    if new.is_empty() {
        return Ok(HashMap::new());
    }
    match reset {
        OffsetReset::Earliest => consumer.beginning_offsets(&new).await,
        _ => consumer.end_offsets(&new).await,
    }
}

fn is_wanted(policy: CommitOnAssign, reset: OffsetReset) -> bool {
    match policy {
        CommitOnAssign::LatestOnly => reset == OffsetReset::Latest,
        CommitOnAssign::Always => matches!(reset, OffsetReset::Latest | OffsetReset::Earliest),
        CommitOnAssign::Never => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_start_that_moves_is_committed_unless_told_otherwise() {
        let resets = [
            OffsetReset::Latest,
            OffsetReset::Earliest,
            OffsetReset::ByDuration(Duration::from_secs(1)),
            OffsetReset::None,
        ];
        let wanted = |policy| resets.map(|reset| is_wanted(policy, reset));
        assert_eq!(wanted(CommitOnAssign::LatestOnly), [true, false, false, false]);
        assert_eq!(wanted(CommitOnAssign::Always), [true, true, false, false]);
        assert_eq!(wanted(CommitOnAssign::Never), [false; 4]);
    }
}
