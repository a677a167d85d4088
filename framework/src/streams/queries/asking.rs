//! A query before anybody is asked for rows: whether it fits the store, and which partitions it is about.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::error::QueryError;
use super::instance::{Instance, Peers, Reply, Request, StoreFacts};
use super::raw::{self, RawQuery};
use super::rounds::{Asker, PATIENCE_AT_ONCE};
use crate::store::StoreError;

/// Nobody waits longer, whatever he says.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// Answers a query.
pub(crate) async fn ask(
    instance: &dyn Instance,
    peers: Option<&dyn Peers>,
    request: &Request,
) -> Result<Reply, QueryError> {
    let application = instance.application();
    if let (Some(asked), Some(own)) = (&request.application, &application)
        && asked != own
    {
        // Others had this address before.
        return Err(QueryError::OtherApplication { application: Arc::clone(own) });
    }
    let facts = instance.facts(&request.store)?;
    let host = || instance.host().unwrap_or_else(|| "this instance".into());
    if request.form.is_some_and(|form| form != facts.form) {
        return Err(QueryError::Differs { store: facts.name, host: host() });
    }
    let wrong = |why: &str| QueryError::Wrong { store: Arc::clone(&facts.name), why: why.into() };
    raw::check(facts.layout, &request.query, request.reverse).map_err(wrong)?;
    if let Some(excess) = request.excess() {
        return Err(wrong(&excess));
    }
    let deadline = Instant::now() + request.demands.within.min(LONGEST);
    let count =
        if facts.is_global { 1 } else { partitions(instance, &facts, request.demands.within).await? };
    let mut request = Cow::Borrowed(request);
    if request.partitions.is_none() && !request.everywhere {
        request.to_mut().query = request.query.hashed(facts.layout, count);
    }
    let asked: BTreeSet<i32> = match (&request.partitions, &request.query) {
        _ if facts.is_global => BTreeSet::from([0]),
        (Some(partitions), _) => partitions.iter().copied().collect(),
        (None, _) if request.everywhere => (0..count).collect(),
        (None, RawQuery::Keys { keys }) => keys.iter().filter_map(|key| key.partition).collect(),
        (None, query) => match query.one_key(facts.layout) {
            Some(key) => BTreeSet::from([klamm_client::producer::partition_for_key(&key, count)]),
            None => (0..count).collect(),
        },
    };
    if let RawQuery::Keys { keys } = &request.query
        && let Some(partition) = keys.iter().filter_map(|key| key.partition).find(|of| !asked.contains(of))
    {
        return Err(wrong(&format!("a key is of partition {partition}, and that is not asked")));
    }
    if let Some(unknown) = asked.iter().find(|partition| !(0..count).contains(partition)) {
        return Err(wrong(&format!("it has {count} partitions, and no {unknown}")));
    }
    Asker { instance, peers, request: &request, facts: &facts, deadline }.run(asked).await
}

/// How many partitions a store has, if the cluster says so in time.
pub(super) async fn partitions(
    instance: &dyn Instance,
    facts: &StoreFacts,
    within: Duration,
) -> Result<i32, QueryError> {
    let patience = if within.is_zero() { PATIENCE_AT_ONCE } else { within.min(LONGEST) };
    let asked = timeout(patience, instance.partitions(facts)).await;
    asked.unwrap_or_else(|_| {
        let (store, why) = (facts.name.to_string(), "the cluster does not say how many partitions it has");
        let last = StoreError::Engine { store, source: why.into() };
        Err(QueryError::TimedOut { within: patience, last: Box::new(last.into()) })
    })
}
