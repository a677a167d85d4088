//! What the logs of a broker are opened with.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use super::cleaner::CleanerOptions;
use super::handle::Partition;
use crate::log::LogConfig;

/// Internal topics, which are compacted, begin like this.
const INTERNAL_PREFIX: &str = "__";

/// Gives the settings of topics' logs, by topic, as a log tells them.
pub(crate) type ReadSettings = Box<dyn FnOnce(&Arc<Partition>) -> BTreeMap<String, LogConfig> + Send>;

/// A log that tells the settings of topics, whose partition 0 is opened before the others: what a topic's settings are
/// decides over what may be made of its logs.
pub(crate) struct TopicSettings {
    /// Its topic.
    pub(crate) log: &'static str,
    /// Reads it. Blocks on the disk.
    pub(crate) read: ReadSettings,
}

/// What a [`LogManager`](super::LogManager) is opened with.
#[derive(Debug, Clone)]
pub struct LogManagerOptions {
    /// `log.dirs`; made where they are missing. A partition lies in one of them.
    pub dirs: Vec<PathBuf>,
    /// Settings of topics that are not in `topic_configs`.
    pub defaults: LogConfig,
    /// Settings of topics that are known to differ.
    pub topic_configs: HashMap<String, LogConfig>,
    /// `node.id`; must be the one in `meta.properties` where there is one.
    pub node_id: i32,
    /// `log.open.files.max`: files of logs that are open beside those that are appended to.
    pub open_files_max: usize,
    /// `num.recovery.threads.per.data.dir`: partitions of a directory that are opened at the same time.
    pub recovery_threads: usize,
    /// The cluster's id; without one it is taken from `meta.properties`, or made up for a new broker.
    pub cluster_id: Option<String>,
    /// How logs are compacted.
    pub cleaner: CleanerOptions,
}

impl LogManagerOptions {
    /// Node 1 with Kafka's defaults in these directories.
    pub fn new(dirs: Vec<PathBuf>) -> Self {
        Self {
            dirs,
            defaults: LogConfig::default(),
            topic_configs: HashMap::new(),
            node_id: 1,
            open_files_max: 1_000,
            recovery_threads: 2,
            cluster_id: None,
            cleaner: CleanerOptions::default(),
        }
    }

    /// The settings of a topic, as far as they are known before its log is opened.
    pub(super) fn config_of(&self, topic: &str) -> LogConfig {
        let mut config = self.topic_configs.get(topic).unwrap_or(&self.defaults).clone();
        if topic.starts_with(INTERNAL_PREFIX) && !self.topic_configs.contains_key(topic) {
            // A compacted log may have gaps, which in any other would be damage.
            config.compact = true;
            config.delete = false;
        }
        config
    }
}
