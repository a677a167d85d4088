//! The cluster as it was last seen, shared by everything that is made from one client, and the requests that renew it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use klamm_protocol::messages::metadata::MetadataRequestTopic;
use klamm_protocol::messages::{MetadataRequest, MetadataResponse};
use klamm_protocol::{ApiKey, ErrorCode};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::core::Core;
use super::view::{ClusterView, LeaderHint, TopicView};
use crate::connection::{Connection, Retry};
use crate::error::RequestError;
use crate::observe::ClientEvent;
use crate::observe::names::METADATA_REFRESHES;

/// How soon a topic that is being created is asked for again.
const CREATION_POLL: Duration = Duration::from_millis(10);

/// Topics asked about in one request.
const LEARNED_AT_ONCE: usize = 1_000;

/// The cache and what it must cover.
#[derive(Debug)]
pub(crate) struct Metadata {
    view: watch::Sender<Arc<ClusterView>>,
    /// Held during a refresh; when the last one ended.
    refreshing: tokio::sync::Mutex<Option<Instant>>,
    /// Held while topics that are not known are asked about.
    learning: tokio::sync::Mutex<()>,
    /// What is to be asked about next: whoever gets the turn asks for all.
    unknown: Mutex<BTreeMap<Arc<str>, Vec<Asker>>>,
    interest: Mutex<Interest>,
    /// The last request failed.
    lost: AtomicBool,
}

/// Told what the request about its topic brought.
type Asker = oneshot::Sender<Result<Arc<ClusterView>, RequestError>>;

#[derive(Debug, Default)]
struct Interest {
    followed: Vec<Weak<Followed>>,
    /// How many pattern subscriptions need all topics.
    all: usize,
}

/// Topics that somebody needs: every refresh asks for them while this lives. What nobody follows any more is forgotten
/// with the next refresh.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    topics: Mutex<BTreeSet<Arc<str>>>,
}

impl Followed {
    /// These too.
    pub(crate) fn add(&self, topics: &[Arc<str>]) {
        self.topics().extend(topics.iter().cloned());
    }

    /// These and no others.
    pub(crate) fn set(&self, topics: impl IntoIterator<Item = Arc<str>>) {
        *self.topics() = topics.into_iter().collect();
    }

    fn topics(&self) -> MutexGuard<'_, BTreeSet<Arc<str>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps all topics in the cache while it lives.
#[derive(Debug)]
pub(crate) struct AllTopics {
    core: Arc<Core>,
}

impl Drop for AllTopics {
    fn drop(&mut self) {
        self.core.metadata.interest().all -= 1;
    }
}

impl Metadata {
    pub(crate) fn new() -> Self {
        Self {
            view: watch::Sender::default(),
            refreshing: tokio::sync::Mutex::default(),
            learning: tokio::sync::Mutex::default(),
            unknown: Mutex::default(),
            interest: Mutex::default(),
            lost: AtomicBool::new(false),
        }
    }

    pub(crate) fn view(&self) -> Arc<ClusterView> {
        Arc::clone(&self.view.borrow())
    }

    /// Tells of every refresh.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.view.subscribe()
    }

    /// Notes a leader that a broker told instead of serving a partition. One that is not newer than what is known
    /// changes nothing.
    pub(crate) fn learn_leader(&self, hint: &LeaderHint) {
        self.view.send_if_modified(|view| match view.with_leader(hint) {
            Some(next) => {
                *view = Arc::new(next);
                true
            }
            None => false,
        });
    }

    /// Refreshes these topics while what this gives lives.
    pub(crate) fn follow(&self, topics: &[Arc<str>]) -> Arc<Followed> {
        let followed = Arc::new(Followed::default());
        followed.add(topics);
        let mut interest = self.interest();
        interest.followed.retain(|followed| followed.strong_count() > 0);
        interest.followed.push(Arc::downgrade(&followed));
        followed
    }

    /// The topics that a refresh asks for; `None` is all.
    fn followed(&self) -> Option<BTreeSet<Arc<str>>> {
        let interest = self.interest();
        if interest.all > 0 {
            return None;
        }
        let mut topics = BTreeSet::new();
        for followed in interest.followed.iter().filter_map(Weak::upgrade) {
            topics.extend(followed.topics().iter().cloned());
        }
        Some(topics)
    }

    pub(crate) fn follow_all(core: &Arc<Core>) -> AllTopics {
        core.metadata.interest().all += 1;
        AllTopics { core: Arc::clone(core) }
    }

    /// Forgets topics that nobody follows.
    fn forget(&self) {
        let Some(followed) = self.followed() else { return };
        self.view.send_if_modified(|view| match view.without(|topic| !followed.contains(topic)) {
            Some(next) => {
                *view = Arc::new(next);
                true
            }
            None => false,
        });
    }

    fn unknown(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Vec<Asker>>> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn interest(&self) -> MutexGuard<'_, Interest> {
        self.interest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// Asks the cluster, unless somebody did since `seen` was the version: many askers make one request, and a failing
    /// cluster is asked once per `retry_backoff`.
    pub(crate) async fn refresh_metadata(&self, seen: u64) -> Result<Arc<ClusterView>, RequestError> {
        let mut last = self.metadata.refreshing.lock().await;
        let view = self.metadata.view();
        if view.version > seen {
            return Ok(view);
        }
        if let Some(last) = *last {
            tokio::time::sleep_until(last + self.config.retry_backoff).await;
        }
        *last = Some(Instant::now());
        let topics = self.metadata.followed().map(|topics| topics.into_iter().collect::<Vec<_>>());
        // A refresh never creates topics: it would bring deleted ones back.
        let result = self.ask_metadata(topics.as_deref(), false).await;
        self.metadata.forget();
        *last = Some(Instant::now());
        result
    }

    /// A usable topic, created if the settings and the broker allow it.
    pub(crate) async fn topic(&self, topic: &Arc<str>, deadline: Instant) -> Result<TopicView, RequestError> {
        let _followed = self.metadata.follow(std::slice::from_ref(topic));
        let retry = Retry::new(&self.config, "learning about a topic", deadline);
        let mut retry = retry.first_pause(CREATION_POLL);
        loop {
            if let Some(view) = retry.attempt(self.topic_once(topic)).await? {
                return Ok(view);
            }
        }
    }

    async fn topic_once(&self, topic: &Arc<str>) -> Result<TopicView, RequestError> {
        if let Some(view) = self.metadata.view().usable(topic) {
            return Ok(view.clone());
        }
        let view = self.learn(topic).await?;
        if let Some(usable) = view.usable(topic) {
            return Ok(usable.clone());
        }
        let code = match view.topics.get(topic).map(|topic| topic.error) {
            None => ErrorCode::UnknownTopicOrPartition,
            // It is there and has no partitions yet.
            Some(ErrorCode::None) => ErrorCode::LeaderNotAvailable,
            Some(code) => code,
        };
        Err(RequestError::Broker { address: Arc::from("the cluster"), api: ApiKey::Metadata, code })
    }

    /// Asks about a topic, one asker at a time and for all that wait: a thousand senders of first records to a thousand
    /// topics make a few requests.
    async fn learn(&self, topic: &Arc<str>) -> Result<Arc<ClusterView>, RequestError> {
        loop {
            let (sender, told) = oneshot::channel();
            self.metadata.unknown().entry(Arc::clone(topic)).or_default().push(sender);
            let asked = tokio::select! {
                biased;
                // An error: whoever asked for all went away. Then it is somebody else's turn.
                Ok(result) = told => return result,
                _turn = self.metadata.learning.lock() => self.learn_unknown().await,
            };
            if let Some(result) = asked {
                return result;
            }
        }
    }

    /// Asks for all topics that somebody waits for, and tells them. `None` when somebody else did so meanwhile.
    async fn learn_unknown(&self) -> Option<Result<Arc<ClusterView>, RequestError>> {
        let mut asked = Vec::new();
        let mut names = Vec::new();
        while names.len() < LEARNED_AT_ONCE
            && let Some((name, askers)) = self.metadata.unknown().pop_first()
        {
            names.push(name);
            asked.extend(askers);
        }
        if names.is_empty() {
            return None;
        }
        let result = self.ask_metadata(Some(&names), self.config.allow_auto_create_topics).await;
        for asker in asked {
            // Its caller may have gone.
            let _ = asker.send(result.clone());
        }
        Some(result)
    }

    /// One request about some topics, or about all; the view is updated by the answer.
    pub(crate) async fn ask_metadata(
        &self,
        topics: Option<&[Arc<str>]>,
        create: bool,
    ) -> Result<Arc<ClusterView>, RequestError> {
        let answer = self.fetch_metadata(topics, create).await;
        self.note_metadata(answer.as_ref().err());
        let answer = answer?;
        let mut result = Arc::default();
        self.metadata.view.send_modify(|view| {
            *view = Arc::new(view.updated(answer, topics.is_none()));
            result = Arc::clone(view);
        });
        Ok(result)
    }

    /// Tells how a request for metadata ended.
    fn note_metadata(&self, error: Option<&RequestError>) {
        METADATA_REFRESHES.counter(&[if error.is_none() { "ok" } else { "failed" }.into()]).increment(1);
        let was_lost = self.metadata.lost.swap(error.is_some(), Ordering::Relaxed);
        match (was_lost, error) {
            (false, Some(error)) => {
                let error = error.clone();
                self.config.observers.tell(|| ClientEvent::MetadataLost { error });
            }
            (true, None) => self.config.observers.tell(|| ClientEvent::MetadataRestored),
            _ => {}
        }
    }

    /// The bare request.
    pub(crate) async fn fetch_metadata(
        &self,
        topics: Option<&[Arc<str>]>,
        create: bool,
    ) -> Result<MetadataResponse, RequestError> {
        let named =
            |name: &Arc<str>| MetadataRequestTopic { name: Some((&**name).into()), ..Default::default() };
        let request = MetadataRequest {
            topics: topics.map(|topics| topics.iter().map(named).collect()),
            allow_auto_topic_creation: create,
            ..Default::default()
        };
        let timeout = self.config.request_timeout;
        let request = &request;
        let ask = |connection: Connection| -> BoxFuture<'_, _> {
            Box::pin(async move { connection.call(request, timeout).await })
        };
        self.links.ask_any(self, &ask).await
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::messages::metadata::MetadataResponseTopic;

    use super::*;

    fn names(topics: &[&str]) -> Vec<Arc<str>> {
        topics.iter().map(|&topic| Arc::from(topic)).collect()
    }

    #[test]
    fn what_nobody_follows_any_more_is_neither_asked_for_nor_kept() {
        let metadata = Metadata::new();
        let known = |topic: &str| metadata.view().topics.get(topic).is_some();
        let topic = |name: &str| MetadataResponseTopic { name: Some(name.into()), ..Default::default() };
        let answer = MetadataResponse { topics: ["a", "b", "c"].map(topic).into(), ..Default::default() };
        metadata.view.send_modify(|view| *view = Arc::new(view.updated(answer, true)));
        let version = metadata.view().version;
        let (first, second) = (metadata.follow(&names(&["a", "b"])), metadata.follow(&names(&["b"])));
        second.add(&names(&["c"]));
        assert_eq!(metadata.followed(), Some(names(&["a", "b", "c"]).into_iter().collect()));
        metadata.forget();
        assert!(known("a") && known("b") && known("c"));
        drop(first);
        assert_eq!(metadata.followed(), Some(names(&["b", "c"]).into_iter().collect()));
        metadata.forget();
        assert!(!known("a") && known("b") && known("c"));
        second.set(names(&["c"]));
        metadata.forget();
        assert!(!known("b") && known("c"));
        assert_eq!(metadata.view().version, version, "nobody learned anything");
        drop(metadata.follow(&[]));
        assert_eq!(metadata.interest().followed.len(), 2, "one is gone, one lives, one was still new");
        metadata.interest().all = 1;
        assert_eq!(metadata.followed(), None, "a pattern needs all");
        drop(second);
        metadata.forget();
        assert!(known("c"));
        metadata.interest().all = 0;
        metadata.forget();
        assert!(!known("c"));
    }
}
