//! What answering needs to know of the instance it runs in, and of others. Tests have tables in their place.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::answer::{AnsweredBy, Demands};
use super::error::QueryError;
use super::merging::{Cursor, Found, Room};
use super::raw::RawQuery;
use crate::store::StateStore;
use crate::streams::node::StoreLayout;

/// Who has a partition of a store, of those that can be asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Holders {
    pub(crate) active: Option<Arc<str>>,
    pub(crate) standbys: Vec<Arc<str>>,
}

/// What a store is, in this version of the application.
#[derive(Debug, Clone)]
pub(crate) struct StoreFacts {
    pub(crate) name: Arc<str>,
    pub(crate) layout: StoreLayout,
    /// Every instance has all of it.
    pub(crate) is_global: bool,
    /// Differs where the bytes of keys or values mean something else.
    pub(crate) form: u64,
}

/// One instance of an application.
#[async_trait]
pub(crate) trait Instance: Send + Sync {
    /// What a store is.
    fn facts(&self, store: &str) -> Result<StoreFacts, QueryError>;
    /// How many partitions a store has.
    async fn partitions(&self, facts: &StoreFacts) -> Result<i32, QueryError>;
    /// A partition of a store, if it is here; without what its engine says of itself.
    fn part(&self, facts: &StoreFacts, partition: i32, standby: bool) -> Option<AnsweredBy>;
    /// A global table, by the partitions of its topic: every instance has all of it, as one partition.
    fn global_parts(&self, facts: &StoreFacts) -> Vec<AnsweredBy>;
    /// Finds out how far a standby is in what its task reads, if it can be found out.
    async fn look(&self, facts: &StoreFacts, partition: i32);
    /// Its engine, which is closed with the last of its holders: not to be dropped in async code.
    fn engine(&self, facts: &StoreFacts, partition: i32, standby: bool) -> Option<Arc<dyn StateStore>>;
    /// Who has it, as far as is known here.
    fn holders(&self, facts: &StoreFacts, partition: i32) -> Holders;
    /// Which application it is of, until that is closed.
    fn application(&self) -> Option<Arc<str>>;
    /// Where this instance is asked.
    fn host(&self) -> Option<Arc<str>>;
    /// What it is doing.
    fn state(&self) -> &'static str;
    /// Whether nothing will be here any more.
    fn is_over(&self) -> bool;
    /// Notified when stores have come further.
    fn progress(&self) -> watch::Receiver<u64>;
}

/// The way to other instances.
#[async_trait]
pub(crate) trait Peers: Send + Sync {
    /// Has an instance answer from what it has. Whoever calls this has a deadline.
    async fn ask(&self, host: &Arc<str>, request: &Request) -> Result<Reply, QueryError>;
}

/// A query and all that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) store: Arc<str>,
    /// Whose store it is for whoever asks; `None` of strangers.
    pub(crate) application: Option<Arc<str>>,
    /// What the store is for whoever asks; `None` of strangers.
    pub(crate) form: Option<u64>,
    /// If none are named: that of the key, or all if there is no one key, or it may be `everywhere`.
    pub(crate) partitions: Option<Vec<i32>>,
    pub(crate) everywhere: bool,
    pub(crate) query: RawQuery,
    pub(crate) reverse: bool,
    pub(crate) room: Room,
    pub(crate) after: Option<Cursor>,
    pub(crate) demands: Demands,
    /// Only what is at whoever is asked: nobody hands on what was handed on to him.
    pub(crate) here_only: bool,
}

impl Request {
    /// What is too much of it.
    pub(crate) fn excess(&self) -> Option<String> {
        let records = &self.demands.bound.records;
        let keys = if let RawQuery::Keys { keys } = &self.query { keys.len() } else { 0 };
        let longest = keys.max(records.len()).max(self.partitions.as_ref().map_or(0, Vec::len));
        if longest > LIST_MAX {
            return Some(format!("a list of {longest} is too long: ask for {LIST_MAX} at a time"));
        }
        let after = self.after.as_ref().map_or(0, |cursor| cursor.place.len());
        let topics: usize = records.keys().map(|of| of.topic.len()).sum();
        let bytes = self.query.bytes() + after + topics;
        let too_long = || format!("its keys have {bytes} bytes, and {QUESTION_BYTES_MAX} are the most");
        (bytes > QUESTION_BYTES_MAX).then(too_long)
    }
}

/// An answer to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) found: Found,
    pub(crate) from: Vec<AnsweredBy>,
}

/// The time for an answer where nobody says how much there is.
pub(crate) const USUAL_PATIENCE: Duration = Duration::from_secs(5);
/// The rows of a part of an answer where nobody says how many.
pub(crate) const USUAL_ROWS: usize = 1_000;
/// No part of an answer has more rows.
pub(crate) const ROWS_MAX: usize = 10_000;
/// Where a part of an answer ends, in bytes of keys and values; a single row may be longer.
pub(crate) const BYTES_MAX: usize = 1024 * 1024;
/// The longest question, in bytes of keys, values and names of topics: two bounds and a place to go on behind, of
/// records of a megabyte each, and as many records to wait for as there may be.
pub(crate) const QUESTION_BYTES_MAX: usize = 6 * 1024 * 1024;
/// A question names no more keys, partitions, or records to wait for.
pub(crate) const LIST_MAX: usize = 10_000;
