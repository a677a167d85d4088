//! What was learned from a registry. Pure: time comes in.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::{RegistryError, Schema};

/// How many ids that are not there are remembered: whoever makes them up must not fill the memory.
const MISSING_MAX: usize = 10_000;

/// A schema as it was fetched, with all that it uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fetched {
    pub(super) id: i32,
    pub(super) schema: Schema,
    /// The schemas that it refers to, each before the one that needs it.
    pub(super) referenced: Vec<Arc<str>>,
    /// The subjects that it lies under, where the registry tells.
    pub(super) subjects: Vec<String>,
}

/// With what a type's values are written to a topic.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) id: i32,
    /// The subject's newest schema, where values are written with that.
    pub(super) latest: Option<Arc<Fetched>>,
}

/// What a registry is known to have or not to have.
pub(super) enum Found {
    Schema(Arc<Fetched>),
    Missing(RegistryError),
    Unknown,
}

/// A schema in the form in which a type reads it, or why it cannot.
pub(super) type Compiled = Arc<dyn Any + Send + Sync>;

/// By topic, and until when it holds.
type WrittenByTopic = HashMap<Arc<str>, (Arc<Written>, Option<Instant>)>;

#[derive(Default)]
pub(super) struct Known {
    schemas: HashMap<i32, Arc<Fetched>>,
    missing: HashMap<i32, (RegistryError, Instant)>,
    compiled: HashMap<(TypeId, i32), Compiled>,
    /// By type, and whether it is a key; then by topic.
    written: HashMap<(TypeId, bool), WrittenByTopic>,
}

impl Known {
    pub(super) fn schema(&self, id: i32, now: Instant) -> Found {
        if let Some(schema) = self.schemas.get(&id) {
            return Found::Schema(Arc::clone(schema));
        }
        match self.missing.get(&id) {
            Some((error, until)) if now < *until => Found::Missing(error.clone()),
            _ => Found::Unknown,
        }
    }

    pub(super) fn learn_schema(&mut self, fetched: Arc<Fetched>) {
        self.missing.remove(&fetched.id);
        self.schemas.insert(fetched.id, fetched);
    }

    pub(super) fn learn_missing(&mut self, id: i32, error: RegistryError, now: Instant, until: Instant) {
        if self.missing.len() >= MISSING_MAX {
            self.missing.retain(|_, (_, until)| now < *until);
        }
        if self.missing.len() >= MISSING_MAX {
            self.missing.clear();
        }
        self.missing.insert(id, (error, until));
    }

    pub(super) fn compiled(&self, reader: TypeId, id: i32) -> Option<Compiled> {
        self.compiled.get(&(reader, id)).cloned()
    }

    pub(super) fn learn_compiled(&mut self, reader: TypeId, id: i32, compiled: Compiled) {
        self.compiled.insert((reader, id), compiled);
    }

    pub(super) fn written(
        &self,
        writer: TypeId,
        is_key: bool,
        topic: &str,
        now: Instant,
    ) -> Option<Arc<Written>> {
        let (written, until) = self.written.get(&(writer, is_key))?.get(topic)?;
        until.is_none_or(|until| now < until).then(|| Arc::clone(written))
    }

    /// `until`: how long it holds; `None` for ever.
    pub(super) fn learn_written(
        &mut self,
        writer: TypeId,
        is_key: bool,
        topic: Arc<str>,
        written: Written,
        until: Option<Instant>,
    ) {
        let topics = self.written.entry((writer, is_key)).or_default();
        topics.insert(topic, (Arc::new(written), until));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::serde::registry::SchemaType;

    fn missing() -> RegistryError {
        RegistryError::NotFound { url: "u".into(), what: "w".into(), code: 40403, message: "m".into() }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_missing_is_forgotten_after_a_while_and_what_is_there_is_not() {
        let (mut known, now) = (Known::default(), Instant::now());
        let soon = now + Duration::from_secs(10);
        assert!(matches!(known.schema(7, now), Found::Unknown));
        known.learn_missing(7, missing(), now, soon);
        assert!(matches!(known.schema(7, now), Found::Missing(_)));
        assert!(matches!(known.schema(7, soon), Found::Unknown));
        let schema = Schema::new(SchemaType::Avro, "\"int\"");
        let fetched = Fetched { id: 7, schema, referenced: Vec::new(), subjects: Vec::new() };
        known.learn_schema(Arc::new(fetched));
        assert!(matches!(known.schema(7, now), Found::Schema(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn ids_that_somebody_makes_up_do_not_fill_the_memory() {
        let (mut known, now) = (Known::default(), Instant::now());
        for id in 0..3 * MISSING_MAX as i32 {
            known.learn_missing(id, missing(), now, now + Duration::from_secs(10));
            assert!(known.missing.len() <= MISSING_MAX);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_is_the_newest_for_a_while() {
        let (mut known, now, writer) = (Known::default(), Instant::now(), TypeId::of::<u8>());
        let soon = now + Duration::from_secs(1);
        let learn = |known: &mut Known, until| {
            known.learn_written(writer, false, "t".into(), Written { id: 1, latest: None }, until);
        };
        learn(&mut known, Some(soon));
        assert!(known.written(writer, false, "t", now).is_some());
        assert!(known.written(writer, true, "t", now).is_none());
        assert!(known.written(writer, false, "t", soon).is_none());
        learn(&mut known, None);
        assert!(known.written(writer, false, "t", soon).is_some());
    }
}
