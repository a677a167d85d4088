//! Hooks into every record that is handed out and every commit, and how their panics are contained.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::record::ConsumerRecord;
use crate::types::{OffsetAndMetadata, TopicPartition};

/// Sees what a consumer hands out and commits (`interceptor.classes`): for tracing, counting, decrypting. It is called
/// on the way of every record, so it must be quick; a panic in it is logged and goes no further.
pub trait ConsumerInterceptor: Send + Sync {
    /// A record is about to be handed out. Key, value and headers may be changed; to change where it comes from would
    /// only mislead whoever commits by it.
    fn on_consume(&self, record: &mut ConsumerRecord) {
        let _ = record;
    }

    /// These offsets were committed.
    fn on_commit(&self, offsets: &HashMap<TopicPartition, OffsetAndMetadata>) {
        let _ = offsets;
    }
}

/// The interceptors of a consumer, in the order in which they are called.
#[derive(Clone, Default)]
pub(crate) struct Interceptors(Vec<Arc<dyn ConsumerInterceptor>>);

impl Interceptors {
    pub(super) fn add(&mut self, interceptor: Arc<dyn ConsumerInterceptor>) {
        self.0.push(interceptor);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn consumed(&self, record: &mut ConsumerRecord) {
        for interceptor in &self.0 {
            contained("on_consume", || interceptor.on_consume(record));
        }
    }

    pub(super) fn committed(&self, offsets: &HashMap<TopicPartition, OffsetAndMetadata>) {
        for interceptor in &self.0 {
            contained("on_commit", || interceptor.on_commit(offsets));
        }
    }
}

fn contained(method: &'static str, call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        tracing::error!(method, "a consumer interceptor panicked; the record or commit goes on without it");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use klamm_protocol::records::TimestampType;

    use super::*;
    use crate::types::Headers;

    struct Marks(Mutex<Vec<String>>, &'static str);

    impl ConsumerInterceptor for Marks {
        fn on_consume(&self, record: &mut ConsumerRecord) {
            record.value =
                Some([record.value.as_deref().unwrap_or_default(), self.1.as_bytes()].concat().into());
        }

        fn on_commit(&self, offsets: &HashMap<TopicPartition, OffsetAndMetadata>) {
            let lines = offsets.iter().map(|(partition, offset)| format!("{partition}: {}", offset.offset));
            self.0.lock().unwrap().extend(lines);
        }
    }

    struct Panics;

    impl ConsumerInterceptor for Panics {
        fn on_consume(&self, _: &mut ConsumerRecord) {
            panic!("in on_consume");
        }

        fn on_commit(&self, _: &HashMap<TopicPartition, OffsetAndMetadata>) {
            panic!("in on_commit");
        }
    }

    struct Nothing;

    impl ConsumerInterceptor for Nothing {}

    #[test]
    fn all_are_called_in_order_and_a_panic_stops_none() {
        let marks = Arc::new(Marks(Mutex::default(), "1"));
        let mut interceptors = Interceptors::default();
        assert!(interceptors.is_empty());
        interceptors.add(Arc::<Marks>::clone(&marks));
        interceptors.add(Arc::new(Panics));
        interceptors.add(Arc::new(Nothing));
        interceptors.add(Arc::new(Marks(Mutex::default(), "2")));
        assert!(!interceptors.is_empty());
        let mut record = ConsumerRecord {
            topic: Arc::from("t"),
            partition: 0,
            offset: 0,
            timestamp_ms: 0,
            timestamp_type: TimestampType::CreateTime,
            leader_epoch: None,
            key: None,
            value: Some("v".into()),
            headers: Headers::new(),
        };
        interceptors.consumed(&mut record);
        assert_eq!(record.value.as_deref(), Some(&b"v12"[..]));
        interceptors.committed(&HashMap::from([(TopicPartition::new("t", 0), 5.into())]));
        assert_eq!(*marks.0.lock().unwrap(), ["t-0: 5"]);
    }
}
