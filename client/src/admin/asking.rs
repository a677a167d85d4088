//! How a call is carried out: items go to whoever answers for them, all brokers at once, until each has its result.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use klamm_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse, MetadataResponse};
use klamm_protocol::{ErrorCode, Request};
use tokio::time::Instant;

use super::handle::Admin;
use super::progress::{Answer, PerItem, Progress, check};
use super::route::{Destination, Item, KeyType};
use crate::connection::{Brokers, Connection, Retry};
use crate::error::{AdminError, RequestError};

/// From here on several coordinators are asked for at once.
const FIND_MANY_FROM: i16 = 4;

/// One kind of request: how it is made of items, and how its answer is read. `what` names the call in errors.
pub(super) struct Exchange<B, A> {
    pub(super) what: &'static str,
    /// The highest version used.
    pub(super) up_to: i16,
    pub(super) build: B,
    pub(super) read: A,
}

/// A broker to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Any,
    Controller,
    Id(i32),
}

/// What a call has learnt about who answers for what.
#[derive(Debug, Default)]
pub(super) struct Found {
    coordinators: BTreeMap<(KeyType, Arc<str>), i32>,
    controller_moved: bool,
    attempts: u32,
}

impl Found {
    /// The coordinator that answered, if it is still known.
    pub(super) fn coordinator(&self, kind: KeyType, key: &Arc<str>) -> Option<i32> {
        self.coordinators.get(&(kind, Arc::clone(key))).copied()
    }
}

impl Admin {
    /// Asks until every item has a result or the deadline passes.
    pub(super) async fn ask<K, R, T, B, A>(
        &self,
        items: impl IntoIterator<Item = K>,
        route: impl Fn(&K) -> Destination,
        exchange: Exchange<B, A>,
    ) -> Result<PerItem<K, T>, AdminError>
    where
        K: Item,
        R: Request,
        B: Fn(&[K], i16) -> R,
        A: Fn(R::Response, &[K]) -> Vec<(K, Answer<T>)>,
    {
        self.ask_knowing(&mut Found::default(), items, route, exchange).await
    }

    /// As `ask`, with what an earlier request of the same call has found out.
    pub(super) async fn ask_knowing<K, R, T, B, A>(
        &self,
        found: &mut Found,
        items: impl IntoIterator<Item = K>,
        route: impl Fn(&K) -> Destination,
        exchange: Exchange<B, A>,
    ) -> Result<PerItem<K, T>, AdminError>
    where
        K: Item,
        R: Request,
        B: Fn(&[K], i16) -> R,
        A: Fn(R::Response, &[K]) -> Vec<(K, Answer<T>)>,
    {
        let mut progress = Progress::new(items);
        let mut retry = Retry::new(&self.core().config, exchange.what, self.deadline());
        loop {
            if progress.left().is_empty() {
                return progress.finish(Ok(()));
            }
            match retry.attempt(self.attempt(&mut progress, found, &route, &exchange)).await {
                Ok(Some(())) => return progress.finish(Ok(())),
                Ok(None) => {}
                Err(error) => return progress.finish(Err(error)),
            }
        }
    }

    /// Asks once about something that is one item.
    pub(super) async fn ask_one<K, R, T, B, A>(
        &self,
        item: K,
        destination: Destination,
        exchange: Exchange<B, A>,
    ) -> Result<T, AdminError>
    where
        K: Item,
        R: Request,
        B: Fn(&[K], i16) -> R,
        A: Fn(R::Response, &[K]) -> Vec<(K, Answer<T>)>,
    {
        let mut results = self.ask([item.clone()], |_| destination.clone(), exchange).await?;
        results.remove(&item).unwrap_or(Err(RequestError::Closed.into()))
    }

    /// Asks every broker of the cluster the same.
    pub(super) async fn ask_all_brokers<R, T, B, A>(
        &self,
        exchange: Exchange<B, A>,
    ) -> Result<PerItem<i32, T>, AdminError>
    where
        R: Request,
        B: Fn(&[i32], i16) -> R,
        A: Fn(R::Response, &[i32]) -> Vec<(i32, Answer<T>)>,
    {
        let core = self.core();
        let mut retry = Retry::new(&core.config, exchange.what, self.deadline());
        let view = loop {
            if let Some(view) = retry.attempt(core.refresh_metadata(core.metadata.view().version)).await? {
                break view;
            }
        };
        self.ask(view.brokers.keys().copied(), |&id| Destination::Broker(id), exchange).await
    }

    /// The version of an API that some broker and this client speak.
    pub(super) async fn version_somewhere<R: Request>(&self, what: &'static str) -> Result<i16, AdminError> {
        let core = self.core();
        let mut retry = Retry::new(&core.config, what, self.deadline());
        loop {
            if let Some(connection) = retry.attempt(core.links.any(core)).await? {
                return Ok(connection.version::<R>()?);
            }
        }
    }

    async fn attempt<K, R, T, B, A>(
        &self,
        progress: &mut Progress<K, T>,
        found: &mut Found,
        route: &impl Fn(&K) -> Destination,
        exchange: &Exchange<B, A>,
    ) -> Result<(), RequestError>
    where
        K: Item,
        R: Request,
        B: Fn(&[K], i16) -> R,
        A: Fn(R::Response, &[K]) -> Vec<(K, Answer<T>)>,
    {
        found.attempts += 1;
        let nodes = self.nodes(progress, found, route).await?;
        let mut asked: FuturesUnordered<_> =
            nodes.into_iter().map(|(node, items)| self.ask_node(node, items, exchange)).collect();
        while let Some((items, result)) = asked.next().await {
            let again = match result {
                Ok((connection, answers)) => {
                    progress.answered(&items, (connection.address(), R::KEY), route, answers)
                }
                Err(error) => {
                    progress.failed(&items, &error);
                    if error.is_retriable() { items } else { Vec::new() }
                }
            };
            for item in again {
                match route(&item) {
                    Destination::Coordinator(kind, key) => drop(found.coordinators.remove(&(kind, key))),
                    Destination::Controller => found.controller_moved = true,
                    _ => {}
                }
            }
        }
        progress.outcome()
    }

    /// Sends one request about these items. The items come back with the answers.
    async fn ask_node<K, R, T, B, A>(
        &self,
        node: Node,
        items: Vec<K>,
        exchange: &Exchange<B, A>,
    ) -> (Vec<K>, Result<(Connection, Vec<(K, Answer<T>)>), RequestError>)
    where
        K: Item,
        R: Request,
        B: Fn(&[K], i16) -> R,
        A: Fn(R::Response, &[K]) -> Vec<(K, Answer<T>)>,
    {
        let core = self.core();
        let result = async {
            let connection = match node {
                Node::Any => core.links.any(core).await?,
                Node::Controller => self.controller().await?,
                Node::Id(id) => core.links.connection(core, id).await?,
            };
            let version = connection.version_up_to::<R>(exchange.up_to)?;
            let request = (exchange.build)(&items, version);
            let answer = connection.start(&request, version)?.within(self.request_timeout()).await?;
            let answers = (exchange.read)(answer, &items);
            Ok((connection, answers))
        }
        .await;
        (items, result)
    }

    /// Which broker each item that is left goes to now. Those that nobody can answer for get their result.
    async fn nodes<K: Item, T>(
        &self,
        progress: &mut Progress<K, T>,
        found: &mut Found,
        route: &impl Fn(&K) -> Destination,
    ) -> Result<BTreeMap<Node, Vec<K>>, RequestError> {
        let core = self.core();
        if std::mem::take(&mut found.controller_moved) {
            core.refresh_metadata(core.metadata.view().version).await?;
        }
        let routed: Vec<(K, Destination)> = progress
            .left()
            .into_iter()
            .map(|item| {
                let destination = route(&item);
                (item, destination)
            })
            .collect();
        let refused = self.find_coordinators(&routed, found, progress).await?;
        let topics = self.leaders(&routed).await?;
        let leaders = Leaders::of(topics.as_ref());
        let mut nodes: BTreeMap<Node, Vec<K>> = BTreeMap::new();
        for (item, destination) in routed {
            let node = match destination {
                Destination::Any => Node::Any,
                Destination::Controller => Node::Controller,
                Destination::Broker(id) => Node::Id(id),
                Destination::Coordinator(kind, key) => match found.coordinators.get(&(kind, key)) {
                    Some(&id) => Node::Id(id),
                    None => continue,
                },
                Destination::Leader(partition) => {
                    match leaders.leader(&partition.topic, partition.partition) {
                        Ok(id) => Node::Id(id),
                        Err(code) if may_appear(code, found.attempts) => {
                            progress.failed(&[], &cluster_said(code));
                            continue;
                        }
                        Err(code) => {
                            let (what, message) = (item.name(), None);
                            progress.end(&item, Err(AdminError::Broker { what, code, message }));
                            continue;
                        }
                    }
                }
            };
            nodes.entry(node).or_default().push(item);
        }
        if let Some(error) = refused {
            progress.failed(&[], &error);
        }
        self.without_unknown(nodes, progress, route).await
    }

    /// A broker that the metadata does not name cannot be asked. Leaders and coordinators may become known.
    async fn without_unknown<K: Item, T>(
        &self,
        mut nodes: BTreeMap<Node, Vec<K>>,
        progress: &mut Progress<K, T>,
        route: &impl Fn(&K) -> Destination,
    ) -> Result<BTreeMap<Node, Vec<K>>, RequestError> {
        let core = self.core();
        let unknown = |node: &Node| matches!(node, Node::Id(id) if *id < 0 || core.address(*id).is_none());
        if nodes.keys().any(unknown) {
            core.refresh_metadata(core.metadata.view().version).await?;
        }
        let gone: Vec<Node> = nodes.keys().copied().filter(unknown).collect();
        for node in gone {
            let (Node::Id(id), Some(items)) = (node, nodes.remove(&node)) else { continue };
            let error = RequestError::UnknownNode { node: id };
            progress.failed(&[], &error);
            for item in items.iter().filter(|item| matches!(route(item), Destination::Broker(_))) {
                progress.end(item, Err(error.clone().into()));
            }
        }
        Ok(nodes)
    }

    /// Looks for the coordinators that are not known yet; gives the last error that another attempt may cure.
    async fn find_coordinators<K: Item, T>(
        &self,
        routed: &[(K, Destination)],
        found: &mut Found,
        progress: &mut Progress<K, T>,
    ) -> Result<Option<RequestError>, RequestError> {
        let mut wanted: BTreeMap<KeyType, BTreeMap<Arc<str>, Vec<&K>>> = BTreeMap::new();
        for (item, destination) in routed {
            if let Destination::Coordinator(kind, key) = destination
                && !found.coordinators.contains_key(&(*kind, Arc::clone(key)))
            {
                wanted.entry(*kind).or_default().entry(Arc::clone(key)).or_default().push(item);
            }
        }
        let mut later = None;
        for (kind, keys) in wanted {
            let names: Vec<Arc<str>> = keys.keys().cloned().collect();
            for (key, answer) in self.find(kind, &names).await? {
                let destination = Destination::Coordinator(kind, Arc::clone(&key));
                match answer {
                    Ok(node) => drop(found.coordinators.insert((kind, key), node)),
                    Err(refusal) if destination.may_try_again(refusal.code) => {
                        later = Some(cluster_said(refusal.code));
                    }
                    Err(refusal) => {
                        for item in keys.get(&key).into_iter().flatten() {
                            let (code, message) = (refusal.code, refusal.message.clone());
                            let error = AdminError::Broker { what: item.name(), code, message };
                            progress.end(item, Err(error));
                        }
                    }
                }
            }
        }
        Ok(later)
    }

    /// Asks any broker who coordinates these keys.
    async fn find(
        &self,
        kind: KeyType,
        keys: &[Arc<str>],
    ) -> Result<Vec<(Arc<str>, Answer<i32>)>, RequestError> {
        let core = self.core();
        let connection = core.links.any(core).await?;
        let version = connection.version::<FindCoordinatorRequest>()?;
        let key_type = kind as i8;
        if version >= FIND_MANY_FROM {
            let coordinator_keys = keys.iter().map(|key| (&**key).into()).collect();
            let request = FindCoordinatorRequest { key_type, coordinator_keys, ..Default::default() };
            let answer = connection.start(&request, version)?.within(self.request_timeout()).await?;
            return Ok(many_coordinators(answer, keys));
        }
        let mut answers = Vec::new();
        for key in keys {
            let request = FindCoordinatorRequest { key_type, key: (&**key).into(), ..Default::default() };
            answers.push((Arc::clone(key), connection.start(&request, version)?));
        }
        let mut found = Vec::new();
        for (key, answer) in answers {
            let answer = answer.within(self.request_timeout()).await?;
            let node = check(answer.error_code, answer.error_message).and_then(|()| known(answer.node_id));
            found.push((key, node));
        }
        Ok(found)
    }

    /// The metadata of the topics whose leaders are wanted, if there are any.
    async fn leaders<K>(
        &self,
        routed: &[(K, Destination)],
    ) -> Result<Option<MetadataResponse>, RequestError> {
        let topics = routed.iter().filter_map(|(_, destination)| match destination {
            Destination::Leader(partition) => Some(Arc::clone(&partition.topic)),
            _ => None,
        });
        let mut topics: Vec<Arc<str>> = topics.collect();
        topics.dedup();
        if topics.is_empty() {
            return Ok(None);
        }
        // Asked for each time and not kept: what an administrator looked at once need not be refreshed for ever.
        self.core().fetch_metadata(Some(&topics), false).await.map(Some)
    }

    /// The controller, or, where the brokers pass requests on to it, any broker.
    async fn controller(&self) -> Result<Connection, RequestError> {
        let core = self.core();
        let Some(controller) = core.metadata.view().controller else { return core.links.any(core).await };
        match core.links.connection(core, controller).await {
            Ok(connection) => Ok(connection),
            Err(_) => {
                core.refresh_metadata(core.metadata.view().version).await?;
                core.links.any(core).await
            }
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.request_timeout()
    }

    pub(super) fn request_timeout(&self) -> Duration {
        self.timeout.unwrap_or(self.core().config.request_timeout)
    }

    pub(super) fn timeout_ms(&self) -> i32 {
        i32::try_from(self.request_timeout().as_millis()).unwrap_or(i32::MAX)
    }
}

/// Whether a leader may be there at the next attempt. What was just created is known everywhere a moment later, but
/// not at once: a topic that is missing twice is missing.
fn may_appear(code: ErrorCode, attempts: u32) -> bool {
    code.is_retriable() && (attempts == 1 || code != ErrorCode::UnknownTopicOrPartition)
}

fn cluster_said(code: ErrorCode) -> RequestError {
    RequestError::Broker { address: Arc::from("the cluster"), api: klamm_protocol::ApiKey::Metadata, code }
}

/// The coordinator's id; an answer without one is as good as an error.
fn known(node: i32) -> Answer<i32> {
    if node >= 0 { Ok(node) } else { check(ErrorCode::CoordinatorNotAvailable.code(), None).map(|()| node) }
}

/// The answers about several keys. Keys that are missing have no coordinator now.
fn many_coordinators(answer: FindCoordinatorResponse, keys: &[Arc<str>]) -> Vec<(Arc<str>, Answer<i32>)> {
    let mut told: BTreeMap<Arc<str>, Answer<i32>> = BTreeMap::new();
    for coordinator in answer.coordinators {
        let node = check(coordinator.error_code, coordinator.error_message)
            .and_then(|()| known(coordinator.node_id));
        told.insert(Arc::from(&*coordinator.key), node);
    }
    keys.iter().map(|key| (Arc::clone(key), told.remove(key).unwrap_or_else(|| known(-1)))).collect()
}

/// The leaders of partitions by the metadata that was asked for.
#[derive(Debug, Default)]
struct Leaders<'a>(BTreeMap<&'a str, Result<BTreeMap<i32, i32>, ErrorCode>>);

impl<'a> Leaders<'a> {
    fn of(answer: Option<&'a MetadataResponse>) -> Self {
        let mut leaders = BTreeMap::new();
        for topic in answer.into_iter().flat_map(|answer| &answer.topics) {
            let Some(name) = topic.name.as_deref() else { continue };
            let led = match ErrorCode::from_code(topic.error_code) {
                ErrorCode::None => {
                    Ok(topic.partitions.iter().map(|part| (part.partition_index, part.leader_id)).collect())
                }
                code => Err(code),
            };
            leaders.insert(name, led);
        }
        Self(leaders)
    }

    fn leader(&self, topic: &str, partition: i32) -> Result<i32, ErrorCode> {
        let led = self.0.get(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let leader = led.as_ref().map_err(|code| *code)?.get(&partition);
        let leader = *leader.ok_or(ErrorCode::UnknownTopicOrPartition)?;
        if leader >= 0 { Ok(leader) } else { Err(ErrorCode::LeaderNotAvailable) }
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::messages::find_coordinator::Coordinator;
    use klamm_protocol::messages::metadata::{MetadataResponsePartition, MetadataResponseTopic};

    use super::*;

    #[test]
    fn each_key_has_its_coordinator_or_its_error() {
        let told = |key: &str, node_id, code: ErrorCode| Coordinator {
            key: key.into(),
            node_id,
            error_code: code.code(),
            ..Default::default()
        };
        let coordinators = vec![
            told("b", 2, ErrorCode::None),
            told("a", 0, ErrorCode::None),
            told("c", -1, ErrorCode::GroupAuthorizationFailed),
            told("d", -1, ErrorCode::None),
            told("stranger", 9, ErrorCode::None),
        ];
        let keys: Vec<Arc<str>> = ["a", "b", "c", "d", "e"].into_iter().map(Arc::from).collect();
        let answer = FindCoordinatorResponse { coordinators, ..Default::default() };
        let found = many_coordinators(answer, &keys);
        let found: Vec<(&str, Result<i32, ErrorCode>)> =
            found.iter().map(|(key, node)| (&**key, node.clone().map_err(|refusal| refusal.code))).collect();
        let expected = [
            ("a", Ok(0)),
            ("b", Ok(2)),
            ("c", Err(ErrorCode::GroupAuthorizationFailed)),
            ("d", Err(ErrorCode::CoordinatorNotAvailable)),
            ("e", Err(ErrorCode::CoordinatorNotAvailable)),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn leaders_by_the_metadata_that_was_asked_for() {
        let part = |partition_index, leader_id| MetadataResponsePartition {
            partition_index,
            leader_id,
            ..Default::default()
        };
        let topic = |name: &str, code: ErrorCode| MetadataResponseTopic {
            name: Some(name.into()),
            error_code: code.code(),
            partitions: vec![part(1, 0), part(0, 7), part(2, -1)],
            ..Default::default()
        };
        let topics = vec![topic("bad", ErrorCode::TopicAuthorizationFailed), topic("t", ErrorCode::None)];
        let answer = MetadataResponse { topics, ..Default::default() };
        let leaders = Leaders::of(Some(&answer));
        let leader = |topic, partition| leaders.leader(topic, partition);
        assert_eq!(leader("t", 0), Ok(7));
        assert_eq!(leader("t", 1), Ok(0));
        assert_eq!(leader("t", 2), Err(ErrorCode::LeaderNotAvailable));
        assert_eq!(leader("t", 3), Err(ErrorCode::UnknownTopicOrPartition));
        assert_eq!(leader("bad", 0), Err(ErrorCode::TopicAuthorizationFailed));
        assert_eq!(leader("missing", 0), Err(ErrorCode::UnknownTopicOrPartition));
        assert_eq!(Leaders::of(None).leader("t", 0), Err(ErrorCode::UnknownTopicOrPartition));
    }

    #[test]
    fn what_is_missing_twice_is_missing() {
        assert!(may_appear(ErrorCode::UnknownTopicOrPartition, 1));
        assert!(!may_appear(ErrorCode::UnknownTopicOrPartition, 2));
        assert!(may_appear(ErrorCode::LeaderNotAvailable, 50));
        assert!(!may_appear(ErrorCode::TopicAuthorizationFailed, 1));
    }
}
