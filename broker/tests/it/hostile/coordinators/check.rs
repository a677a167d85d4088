//! What has to hold: nothing that was answered is lost with a start, and readers of what is committed see just that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::disk::MemoryDisk;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::*;
use klamm_runtime::MemoryNet;

use super::super::requests;
use super::super::wire::{Wire, visible};
use super::{Fate, GROUPS, IDS, TOPICS, World, start};

impl World {
    pub(super) async fn restart(&mut self, orderly: bool, what: &str) {
        self.settled(what).await;
        let before = self.everything(what).await;
        if orderly {
            self.broker.shutdown().await.unwrap();
        }
        let placeholder = start(&MemoryDisk::new(), &Arc::new(MemoryNet::new()), &self.clock).await;
        drop(std::mem::replace(&mut self.broker, placeholder));
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.disk.kill();
        self.broker = start(&self.disk, &self.net, &self.clock).await;
        self.wire = Wire::connect(&*self.net, self.broker.bootstrap()).await;
        self.settled(what).await;
        let after = self.everything(what).await;
        for (name, before) in &before {
            assert_eq!(Some(before), after.get(name), "{what}, orderly {orderly}: {name}");
        }
    }

    /// Waits until groups and transactions are loaded, and none is about to end.
    async fn settled(&mut self, what: &str) {
        for _ in 0..2_000 {
            let described = self.wire.ask(&requests::describe_transactions(&IDS)).await;
            let states: Vec<_> = described.transaction_states.iter().collect();
            let loading = ErrorCode::CoordinatorLoadInProgress.code();
            let ends = |state: &str| state.starts_with("Prepare");
            let busy = states.iter().any(|one| one.error_code == loading || ends(&one.transaction_state));
            let offsets = self.wire.ask_in(&requests::all_offsets(GROUPS[0]), 7).await;
            let other = self.wire.ask_in(&requests::all_offsets(GROUPS[1]), 7).await;
            if !busy && offsets.error_code != loading && other.error_code != loading {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{what}: the coordinators do not come to rest");
    }

    /// All that can be asked for and lasts.
    async fn everything(&mut self, what: &str) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let everything = MetadataRequest { topics: None, ..MetadataRequest::default() };
        for topic in self.wire.ask(&everything).await.topics {
            let name = topic.name.unwrap_or_default().to_string();
            all.insert(format!("topic {name}"), format!("{} {}", topic.topic_id, topic.partitions.len()));
        }
        for topic in TOPICS {
            if !all.contains_key(&format!("topic {topic}")) {
                continue;
            }
            let log = self.log(topic, what).await;
            all.insert(format!("log {topic}"), log);
            let configs = self.wire.ask(&requests::describe_topic(topic)).await;
            all.insert(format!("settings of {topic}"), format!("{:?}", configs.results));
        }
        for group in GROUPS {
            let mut offsets = self.wire.ask_in(&requests::all_offsets(group), 7).await.topics;
            offsets.sort_by_key(|topic| topic.name.to_string());
            all.insert(format!("offsets of {group}"), format!("{offsets:?}"));
        }
        let described = self.wire.ask(&requests::describe_transactions(&IDS)).await;
        for one in described.transaction_states {
            let who = (one.producer_id, one.producer_epoch);
            let said = format!("{} {} {who:?}", one.error_code, one.transaction_state);
            all.insert(format!("transaction {}", one.transactional_id), said);
        }
        let quotas = self.wire.ask(&DescribeClientQuotasRequest::default()).await;
        all.insert("quotas".to_owned(), format!("{:?}", quotas.entries));
        all
    }

    /// The values of a log, those that count, and where it ends; held against what is known of them.
    async fn log(&mut self, topic: &str, what: &str) -> String {
        let (mut said, mut seen, mut stable_to) = (String::new(), [BTreeSet::new(), BTreeSet::new()], 0);
        for (isolation, seen) in seen.iter_mut().enumerate() {
            let mut offset = 0;
            loop {
                let found = self.wire.fetch(topic, offset, isolation as i8).await;
                if found.error_code == ErrorCode::OffsetOutOfRange.code() && offset < 10 {
                    // Records were deleted there.
                    offset += 1;
                    continue;
                }
                assert_eq!(found.error_code, 0, "{what}: {topic} from {offset} on");
                let (stable, high) = (found.last_stable_offset, found.high_watermark);
                assert!((0..=high).contains(&stable), "{what}: stable {stable}, high {high}");
                let before = offset;
                stable_to = stable;
                let (values, next) = visible(&found, offset, isolation == 1);
                seen.extend(values.into_iter().map(|(_, value)| value));
                offset = next;
                if offset == before {
                    said += &format!("{} {high} {stable} {seen:?};", found.log_start_offset);
                    break;
                }
            }
        }
        for ((of, offset, value), fate) in self.values.iter().filter(|((of, ..), _)| *of == topic) {
            let right = match fate {
                Fate::Committed => seen[1].contains(value) || *offset >= stable_to,
                Fate::Aborted | Fate::Open(_) => !seen[1].contains(value),
                Fate::Unknown => true,
            };
            assert!(right, "{what}: {of}: {value} is {fate:?}, and {seen:?} is seen");
        }
        said
    }
}
