//! DescribeLogDirs, key 35: versions 1 to 5.
//!
//! Every directory of `log.dirs`: what it holds of the partitions that are asked for, or of all of them, and how much
//! room its file system has. Of one whose disk failed nothing is told but KAFKA_STORAGE_ERROR. A log that is here is
//! its replica's only one: it lags behind nothing, and is never a future one. No directory is cordoned (KIP-1066).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::describe_log_dirs::{
    DescribableLogDirTopic, DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use klamm_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};

use super::{Answer, Call, Context, Refusal};
use crate::controller::{METADATA_TOPIC, View};
use crate::partition::{DirContents, DirReport, Partition};

pub(super) const VERSIONS: RangeInclusive<i16> = 1..=5;

/// What a partition takes in the answer.
const PARTITION_BYTES: usize = size_of::<DescribeLogDirsPartition>();

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: DescribeLogDirsRequest = call.decode()?;
    let asked = request.topics.map(asked);
    let reply = call.reply();
    let context = context.clone();
    let logs = context.logs().clone();
    let held_bytes = logs.partitions().len() * PARTITION_BYTES;
    // A disk that hangs is waited for a moment.
    Ok(Answer::later(held_bytes, async move {
        let (reports, view) = (logs.dir_reports().await, context.view());
        let results = reports.into_iter().map(|report| described(&view, report, asked.as_ref())).collect();
        reply.encode(&DescribeLogDirsResponse { results, ..DescribeLogDirsResponse::default() }).map(Some)
    }))
}

/// The partitions that are asked for, by topic.
type Asked = BTreeMap<String, BTreeSet<i32>>;

fn asked(topics: Vec<DescribableLogDirTopic>) -> Asked {
    let mut asked = Asked::new();
    for topic in topics {
        // A copy, which does not keep the request's frame.
        asked.entry(topic.topic.to_string()).or_default().extend(topic.partitions);
    }
    asked
}

fn described(view: &View, report: DirReport, asked: Option<&Asked>) -> DescribeLogDirsResult {
    let mut result =
        DescribeLogDirsResult { log_dir: absolute(&report.path).into(), ..DescribeLogDirsResult::default() };
    let Ok(DirContents { space, partitions }) = report.state else {
        result.error_code = ErrorCode::KafkaStorageError.code();
        return result;
    };
    if let Some(space) = space {
        result.total_bytes = i64::try_from(space.total_bytes).unwrap_or(i64::MAX);
        result.usable_bytes = i64::try_from(space.free_bytes).unwrap_or(i64::MAX);
    }
    for partition in partitions {
        let (name, index) = (partition.topic(), partition.index());
        let is_asked = asked.is_none_or(|asked| asked.get(&**name).is_some_and(|of| of.contains(&index)));
        if !is_asked || **name == *METADATA_TOPIC || !is_served(view, &partition) {
            continue;
        }
        if result.topics.last().is_none_or(|topic| *topic.name != **name) {
            let topic = DescribeLogDirsTopic { name: (&**name).into(), ..DescribeLogDirsTopic::default() };
            result.topics.push(topic);
        }
        if let Some(topic) = result.topics.last_mut() {
            topic.partitions.push(DescribeLogDirsPartition {
                partition_index: index,
                partition_size: i64::try_from(partition.size_bytes()).unwrap_or(i64::MAX),
                ..DescribeLogDirsPartition::default()
            });
        }
    }
    result
}

/// Whether it is a topic's, and not a directory that no metadata speaks of.
fn is_served(view: &View, partition: &Arc<Partition>) -> bool {
    let log = view.partition(partition.topic(), partition.index());
    log.is_ok_and(|log| Arc::ptr_eq(log, partition))
}

/// Kafka tells absolute paths, and tools show them.
fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}
