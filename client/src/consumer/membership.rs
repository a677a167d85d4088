//! The task of a group member: find the coordinator, join, take over the assignment, heartbeat, rebalance, leave.
//!
//! Partitions are given up in a fixed order: nothing more is handed out, what is processed is committed, the listener's
//! `revoked` runs, and only then does the member let go. Heartbeats go on while a listener runs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::JoinGroupResponse;
use tokio::sync::watch;

use super::builder::Subscription;
use super::positions::Start;
use super::shared::Shared;
use crate::cluster::{AllTopics, ClusterView, Metadata};
use crate::connection::Backoff;
use crate::error::{ConsumeError, RequestError};
use crate::group::assignors::{Assignment, Member, assign};
use crate::group::{
    Assignor, CoordinatorLink, MemberError, MemberSettings, MemberSubscription, Requests, decode_assignment,
    moved,
};
use crate::types::TopicPartition;

/// How long leaving may take: it is a courtesy.
pub(super) const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a membership went no further.
enum Stop {
    /// Join again.
    Rejoin,
    /// Join again after a pause; the coordinator may have moved.
    Retry,
    /// The group took this member for dead: what it owned may belong to others.
    Lost {
        forget_member: bool,
    },
    /// The group does not want this member.
    Fatal(ErrorCode),
    Closing,
}

/// The task's state.
pub(super) struct Group {
    shared: Arc<Shared>,
    link: CoordinatorLink,
    settings: MemberSettings,
    closing: watch::Receiver<bool>,
    metadata: watch::Receiver<Arc<ClusterView>>,
    backoff: Backoff,
    member_id: Arc<str>,
    /// The generation of the last assignment; -1 when what is owned is not confirmed by one.
    generation: i32,
    /// What this member subscribed to when it joined.
    topics: Vec<Arc<str>>,
    /// As the leader: the partition counts that the assignment was made for.
    assigned_for: Option<BTreeMap<Arc<str>, i32>>,
    /// Where partitions were that are not owned any more: the place to go on when they come back
    /// and nothing is committed.
    remembered: HashMap<TopicPartition, i64>,
    _all_topics: Option<AllTopics>,
}

impl Group {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let core = &shared.core;
        let all_topics = match &shared.config.subscription {
            Subscription::Pattern(_) => Some(Metadata::follow_all(core)),
            Subscription::Topics(topics) => {
                core.metadata.follow(topics);
                None
            }
            Subscription::Nothing | Subscription::Partitions(_) => None,
        };
        Self {
            link: CoordinatorLink::new(shared.config.group.clone().unwrap_or_else(|| Arc::from(""))),
            settings: shared.config.member_settings(),
            closing: shared.closing.subscribe(),
            metadata: core.metadata.watch(),
            backoff: core.backoff(),
            member_id: Arc::from(""),
            generation: -1,
            topics: Vec::new(),
            assigned_for: None,
            remembered: HashMap::new(),
            _all_topics: all_topics,
            shared,
        }
    }

    /// Runs until the consumer is closed or the group refuses this member for good.
    pub(super) async fn run(mut self) {
        self.learn_topics().await;
        loop {
            match self.membership().await {
                Stop::Rejoin => self.backoff.reset(),
                Stop::Retry => {
                    let pause = self.backoff.next(&*self.shared.core.config.rng);
                    if self.unless_closing(tokio::time::sleep(pause)).await.is_none() {
                        break;
                    }
                }
                Stop::Lost { forget_member } => {
                    if forget_member {
                        self.member_id = Arc::from("");
                    }
                    self.lose_all().await;
                }
                Stop::Fatal(code) => {
                    self.lose_all().await;
                    let group = Arc::clone(self.link.group());
                    self.shared.report(ConsumeError::Group { group, code });
                    return;
                }
                Stop::Closing => break,
            }
        }
        self.leave().await;
    }

    /// Joins, takes over the assignment, and serves it until something stops it.
    async fn membership(&mut self) -> Stop {
        let result = async {
            self.topics = self.subscribed_topics();
            if self.is_eager() {
                let owned = self.owned();
                self.revoke(&owned).await;
            }
            let joined = self.join().await?;
            self.backoff.reset();
            let assigned = self.sync(joined).await?;
            if self.take_over(assigned).await {
                // What was given up goes to its new owners in the next round (KIP-429).
                return Err(Stop::Rejoin);
            }
            self.serve().await
        };
        let Err(stop) = result.await else { return Stop::Rejoin };
        stop
    }

    // ---- joining

    async fn join(&mut self) -> Result<JoinGroupResponse, Stop> {
        loop {
            let subscription = MemberSubscription {
                topics: self.topics.clone(),
                owned: self.owned(),
                generation: self.generation,
            };
            let member_id = Arc::clone(&self.member_id);
            let request = self.requests_join(&member_id, &subscription);
            let error = match or_closing(&mut self.closing.clone(), request).await.ok_or(Stop::Closing)? {
                Ok(joined) => {
                    self.member_id = Arc::from(&*joined.member_id);
                    return Ok(joined);
                }
                Err(error) => error,
            };
            match error {
                MemberError::Coordinator {
                    code: ErrorCode::MemberIdRequired,
                    member_id: Some(member_id),
                } => {
                    self.member_id = member_id;
                }
                error => return Err(self.stop_for(error)),
            }
        }
    }

    async fn requests_join(
        &self,
        member_id: &str,
        subscription: &MemberSubscription,
    ) -> Result<JoinGroupResponse, MemberError> {
        self.requests().join(member_id, subscription.encode()).await
    }

    /// Gives out assignments if this member leads, and gets its own.
    async fn sync(&mut self, joined: JoinGroupResponse) -> Result<Vec<TopicPartition>, Stop> {
        let generation = joined.generation_id;
        let leads = joined.leader == joined.member_id;
        self.assigned_for = None;
        let assignment = match leads && !joined.skip_assignment {
            true => self.share_out(&joined).await?,
            false => Assignment::new(),
        };
        let (member_id, mut closing) = (Arc::clone(&self.member_id), self.closing.clone());
        let request = async { self.requests().sync(&member_id, generation, assignment).await };
        let bytes = match or_closing(&mut closing, request).await.ok_or(Stop::Closing)? {
            Ok(bytes) => bytes,
            Err(error) => return Err(self.stop_for(error)),
        };
        self.generation = generation;
        self.shared.set_membership(|membership| {
            membership.generation = generation;
            membership.member_id = member_id;
        });
        decode_assignment(&bytes).map_err(|error| {
            tracing::error!(group = %self.link.group(), %error, "the leader's assignment cannot be read");
            Stop::Retry
        })
    }

    async fn share_out(&mut self, joined: &JoinGroupResponse) -> Result<Assignment, Stop> {
        let members: Vec<Member> = joined
            .members
            .iter()
            .map(|member| {
                let subscription = MemberSubscription::decode(&member.metadata).unwrap_or_else(|error| {
                    tracing::warn!(member = %member.member_id, %error, "it gets nothing");
                    MemberSubscription::default()
                });
                Member {
                    id: Arc::from(&*member.member_id),
                    instance_id: member.group_instance_id.as_ref().map(|id| Arc::from(&**id)),
                    subscription,
                }
            })
            .collect();
        let topics: BTreeSet<Arc<str>> =
            members.iter().flat_map(|member| member.subscription.topics.iter().cloned()).collect();
        let topics: Vec<Arc<str>> = topics.into_iter().collect();
        let core = Arc::clone(&self.shared.core);
        core.metadata.follow(&topics);
        let mut view = core.metadata.view();
        if topics.iter().any(|topic| view.usable(topic).is_none()) {
            // Topics that do not exist (yet) are left out; when they appear the group rebalances.
            let asked = core.ask_metadata(Some(&topics), core.config.allow_auto_create_topics);
            match or_closing(&mut self.closing.clone(), asked).await.ok_or(Stop::Closing)? {
                Ok(newer) => view = newer,
                Err(error) => return Err(self.stop_for(error.into())),
            }
        }
        let counts = partition_counts(&topics, &view);
        let assignment = assign(self.shared.config.assignor, &members, &counts);
        self.assigned_for = Some(
            topics
                .into_iter()
                .map(|topic| (Arc::clone(&topic), counts.get(&topic).copied().unwrap_or(0)))
                .collect(),
        );
        Ok(assignment)
    }

    /// Gives up what is not assigned any more and adds what is new. Returns whether something
    /// was given up cooperatively.
    async fn take_over(&mut self, assigned: Vec<TopicPartition>) -> bool {
        let owned = self.owned();
        let revoked: Vec<TopicPartition> =
            owned.iter().filter(|partition| !assigned.contains(partition)).cloned().collect();
        let added: Vec<TopicPartition> =
            assigned.into_iter().filter(|partition| !owned.contains(partition)).collect();
        tracing::debug!(group = %self.link.group(), generation = self.generation, ?added, ?revoked, "rebalanced");
        self.revoke(&revoked).await;
        if !added.is_empty() {
            let topics: Vec<Arc<str>> = added.iter().map(|partition| Arc::clone(&partition.topic)).collect();
            self.shared.core.metadata.follow(&topics);
            for partition in &added {
                let fallback = self.remembered.remove(partition);
                self.shared.partitions().add(partition.clone(), Start::Committed { fallback }, true);
            }
            if let Some(listener) = self.shared.config.listener.clone() {
                self.call_listener(listener.assigned(&added)).await;
            }
            self.shared.partitions().release();
            self.shared.fetch.notify_one();
        }
        !revoked.is_empty()
    }

    // ---- serving

    /// Heartbeats until a rebalance is due.
    async fn serve(&mut self) -> Result<(), Stop> {
        let mut closing = self.closing.clone();
        // What changed before this point is looked at right away.
        self.check_topics()?;
        loop {
            tokio::select! {
                () = closed(&mut closing) => return Err(Stop::Closing),
                Ok(()) = self.metadata.changed() => self.check_topics()?,
                () = tokio::time::sleep(self.shared.config.heartbeat_interval) => {
                    self.look_for_missing_topics().await?;
                    let beat = async { self.requests().heartbeat(&self.member_id, self.generation).await };
                    match or_closing(&mut self.closing.clone(), beat).await.ok_or(Stop::Closing)? {
                        Ok(()) => self.backoff.reset(),
                        // Only the coordinator's word ends a membership; a broken connection is made anew.
                        Err(MemberError::Request(error)) => {
                            tracing::debug!(group = %self.link.group(), %error, "a heartbeat failed");
                            self.link.learn_from(&error);
                        }
                        Err(MemberError::Coordinator { code, .. }) if moved(code) => self.link.forget(),
                        Err(MemberError::Coordinator { code: ErrorCode::CoordinatorLoadInProgress, .. }) => {}
                        Err(error) => return Err(self.stop_for(error)),
                    }
                }
            }
        }
    }

    /// Asks again for topics that did not exist: without this they would be found only by the age of the metadata.
    async fn look_for_missing_topics(&self) -> Result<(), Stop> {
        let core = &self.shared.core;
        let view = core.metadata.view();
        let wanted = self.topics.iter().chain(self.assigned_for.iter().flat_map(BTreeMap::keys));
        let missing: BTreeSet<Arc<str>> =
            wanted.filter(|topic| view.usable(topic).is_none()).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing: Vec<Arc<str>> = missing.into_iter().collect();
        let asked = core.ask_metadata(Some(&missing), false);
        if let Err(error) = self.unless_closing(asked).await.ok_or(Stop::Closing)? {
            tracing::debug!(%error, "cannot look for missing topics");
        }
        Ok(())
    }

    /// Whether topics came, went or grew, so that the group must share out anew.
    fn check_topics(&mut self) -> Result<(), Stop> {
        let view = self.metadata.borrow_and_update().clone();
        if self.subscribed_topics() != self.topics {
            return Err(Stop::Rejoin);
        }
        let Some(assigned_for) = &self.assigned_for else { return Ok(()) };
        let topics: Vec<Arc<str>> = assigned_for.keys().cloned().collect();
        let now = partition_counts(&topics, &view);
        let changed = assigned_for.iter().any(|(topic, &count)| {
            // A topic that vanished, perhaps for a moment, is no reason: there is nothing to share out.
            now.get(topic).is_some_and(|&now| now != count)
        });
        if changed { Err(Stop::Rejoin) } else { Ok(()) }
    }

    // ---- giving up

    /// Lets go of partitions in order: stop handing out, commit, tell the listener.
    async fn revoke(&mut self, revoked: &[TopicPartition]) {
        if revoked.is_empty() {
            return;
        }
        self.shared.partitions().stop(revoked);
        self.shared.set_membership(|membership| membership.revoking = true);
        let shared = Arc::clone(&self.shared);
        self.call_listener(async {
            shared.commit_before_revoke(revoked).await;
            if let Some(listener) = &shared.config.listener {
                listener.revoked(revoked).await;
            }
        })
        .await;
        self.shared.set_membership(|membership| membership.revoking = false);
        self.remembered.extend(self.shared.partitions().remove(revoked));
    }

    /// Everything is gone already.
    async fn lose_all(&mut self) {
        self.generation = -1;
        let owned = self.owned();
        self.shared.partitions().stop(&owned);
        let member_id = Arc::clone(&self.member_id);
        self.shared.set_membership(|membership| {
            membership.generation = -1;
            membership.member_id = member_id;
        });
        if !owned.is_empty() {
            tracing::warn!(
                group = %self.link.group(), partitions = owned.len(),
                "the group went on without this member"
            );
            if let Some(listener) = self.shared.config.listener.clone() {
                let bound = self.shared.config.rebalance_timeout;
                if tokio::time::timeout(bound, listener.lost(&owned)).await.is_err() {
                    tracing::warn!("the rebalance listener took longer than `rebalance_timeout`");
                }
            }
        }
        self.remembered.extend(self.shared.partitions().remove(&owned));
    }

    /// The last words: revoke, and leave unless the member is static and may come back.
    async fn leave(&mut self) {
        let owned = self.owned();
        self.revoke(&owned).await;
        if self.member_id.is_empty() || self.shared.config.group_instance_id.is_some() {
            return;
        }
        // Not on the connection of the membership: a join may be waiting there.
        let Some(link) = &self.shared.offsets else { return };
        let requests = Requests { core: &self.shared.core, settings: &self.settings, link };
        let left = tokio::time::timeout(LEAVE_TIMEOUT, requests.leave(&self.member_id)).await;
        if !matches!(left, Ok(Ok(()))) {
            tracing::debug!(group = %self.link.group(), ?left, "cannot leave; the group will notice by itself");
        }
    }

    // ---- helpers

    /// Runs a listener's method within the rebalance timeout, with heartbeats meanwhile.
    async fn call_listener(&self, call: impl Future<Output = ()>) {
        let bound = self.shared.config.rebalance_timeout;
        let mut call = pin!(tokio::time::timeout(bound, call));
        loop {
            tokio::select! {
                result = &mut call => {
                    if result.is_err() {
                        tracing::warn!("the rebalance listener took longer than `rebalance_timeout`");
                    }
                    return;
                }
                () = self.heartbeat_meanwhile() => {}
            }
        }
    }

    async fn heartbeat_meanwhile(&self) {
        tokio::time::sleep(self.shared.config.heartbeat_interval).await;
        if self.generation >= 0 {
            // Whatever it says is acted on when the listener has returned.
            let _ = self.requests().heartbeat(&self.member_id, self.generation).await;
        }
    }

    fn requests(&self) -> Requests<'_> {
        Requests { core: &self.shared.core, settings: &self.settings, link: &self.link }
    }

    fn owned(&self) -> Vec<TopicPartition> {
        self.shared.partitions().assignment()
    }

    fn is_eager(&self) -> bool {
        self.shared.config.assignor != Assignor::CooperativeSticky
    }

    /// The topics that the subscription names now.
    fn subscribed_topics(&self) -> Vec<Arc<str>> {
        match &self.shared.config.subscription {
            Subscription::Topics(topics) => topics.clone(),
            Subscription::Pattern(pattern) => {
                let view = self.shared.core.metadata.view();
                let usable = view
                    .topics
                    .keys()
                    .filter(|topic| view.usable(topic).is_some_and(|topic| !topic.internal));
                let mut topics: Vec<Arc<str>> =
                    usable.filter(|topic| pattern.is_match(topic)).cloned().collect();
                topics.sort_unstable();
                topics
            }
            Subscription::Nothing | Subscription::Partitions(_) => Vec::new(),
        }
    }

    /// The first look at the subscribed topics, which may create them.
    async fn learn_topics(&self) {
        let core = &self.shared.core;
        let asked = match &self.shared.config.subscription {
            Subscription::Topics(topics) => {
                core.ask_metadata(Some(topics), core.config.allow_auto_create_topics).await
            }
            _ => core.ask_metadata(None, false).await,
        };
        if let Err(error) = asked {
            tracing::debug!(%error, "the subscribed topics are not known yet");
        }
    }

    async fn unless_closing<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        or_closing(&mut self.closing.clone(), future).await
    }

    /// What a failed request means for the membership.
    fn stop_for(&self, error: MemberError) -> Stop {
        let code = match error {
            MemberError::Request(error) => {
                tracing::debug!(group = %self.link.group(), %error, "a group request failed");
                self.link.learn_from(&error);
                return match error {
                    RequestError::Broker { code, .. } if !code.is_retriable() => Stop::Fatal(code),
                    RequestError::Unsupported { .. } => Stop::Fatal(ErrorCode::UnsupportedVersion),
                    _ => Stop::Retry,
                };
            }
            MemberError::Coordinator { code, .. } => code,
        };
        tracing::debug!(group = %self.link.group(), %code, "the coordinator answered with an error");
        match code {
            ErrorCode::RebalanceInProgress => Stop::Rejoin,
            ErrorCode::UnknownMemberId => Stop::Lost { forget_member: true },
            ErrorCode::IllegalGeneration => Stop::Lost { forget_member: false },
            code if moved(code) => {
                self.link.forget();
                Stop::Retry
            }
            code if code.is_retriable() => Stop::Retry,
            code => Stop::Fatal(code),
        }
    }
}

/// The result of `future`, or `None` as soon as the consumer is closing.
async fn or_closing<T>(closing: &mut watch::Receiver<bool>, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        result = future => Some(result),
        () = closed(closing) => None,
    }
}

async fn closed(closing: &mut watch::Receiver<bool>) {
    // The sender lives as long as the consumer's shared state, so there is no error.
    let _ = closing.wait_for(|closing| *closing).await;
}

/// The partition counts of those topics that exist.
fn partition_counts(topics: &[Arc<str>], view: &ClusterView) -> BTreeMap<Arc<str>, i32> {
    let count = |topic: &Arc<str>| Some((Arc::clone(topic), view.usable(topic)?.partition_count()));
    topics.iter().filter_map(count).collect()
}
