//! The task of a group member: runs what `member.rs` asks for, and tells it what came of it.
//!
//! Everything runs side by side: a heartbeat goes out while a join waits for others, a listener takes its time or
//! a look-up hangs.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::time::Instant;

use super::coordinator::CoordinatorLink;
use super::event::{Effect, Event, GroupProtocol, Report, Settings, Topics};
use super::member::Member;
use super::pattern::TopicPattern;
use super::requests::{BeatRequest, MemberSettings, Requests};
use crate::cluster::{AllTopics, ClusterView, Core, Followed, Metadata};
use crate::types::TopicPartition;

/// Who owns the partitions of a membership and is told what happens to them.
#[async_trait]
pub(crate) trait Owner: Send + Sync + 'static {
    /// From now on nothing of these is handed out; they are still owned.
    fn stop_handing_out(&self, partitions: &[TopicPartition]);
    /// These are owned, but not fetched yet.
    fn take(&self, partitions: &[TopicPartition]);
    fn start_fetching(&self, partitions: &[TopicPartition]);
    /// These are not owned any more.
    fn release(&self, partitions: &[TopicPartition]);
    /// Who commits from now on; a generation of -1 stands for nobody.
    fn identify(&self, member_id: Arc<str>, generation: i32);
    /// Until then the coordinator surely counts the member in; `None` while it is none.
    fn alive_until(&self, until: Option<Instant>);
    fn report(&self, report: Report);
    /// The membership ended by a panic, of a listener perhaps: nobody knows any more what is owned.
    fn abandoned(&self);
    /// Commits what is processed and calls the listener.
    async fn revoked(&self, partitions: &[TopicPartition]);
    async fn assigned(&self, partitions: &[TopicPartition]);
    async fn lost(&self, partitions: &[TopicPartition]);
}

/// What a member wants to read.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    Topics(Vec<Arc<str>>),
    Pattern(TopicPattern),
}

/// When and how a membership ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Close {
    pub(crate) deadline: Instant,
    /// Leave although the member is static.
    pub(crate) leave: bool,
}

/// What a membership is started with.
pub(crate) struct Membership<O> {
    pub(crate) core: Arc<Core>,
    pub(crate) link: Arc<CoordinatorLink>,
    pub(crate) owner: Arc<O>,
    pub(crate) settings: Settings,
    pub(crate) group_instance_id: Option<Arc<str>>,
    pub(crate) request_timeout: Duration,
    /// In the protocol in which the coordinator assigns, members name themselves.
    pub(crate) fresh_id: Arc<str>,
    pub(crate) wanted: watch::Receiver<Wanted>,
    /// How often it was asked to join anew.
    pub(crate) rejoins: watch::Receiver<u64>,
    pub(crate) closing: watch::Receiver<Option<Close>>,
}

/// The task's state.
pub(crate) struct MemberTask<O: Owner> {
    core: Arc<Core>,
    owner: Arc<O>,
    requests: Requests,
    protocol: GroupProtocol,
    member: Member,
    wanted: watch::Receiver<Wanted>,
    rejoins: watch::Receiver<u64>,
    closing: watch::Receiver<Option<Close>>,
    metadata: watch::Receiver<Arc<ClusterView>>,
    /// What runs; each ends with an event.
    work: FuturesUnordered<BoxFuture<'static, Event>>,
    all_topics: Option<AllTopics>,
    followed: Arc<Followed>,
    done: bool,
}

impl<O: Owner> Drop for MemberTask<O> {
    fn drop(&mut self) {
        // Also when the consumer is dropped, where it changes nothing.
        if !self.done {
            self.owner.abandoned();
        }
    }
}

impl<O: Owner> MemberTask<O> {
    pub(crate) fn new(membership: Membership<O>) -> Self {
        let Membership { core, link, owner, settings, group_instance_id, request_timeout, .. } = membership;
        let member_id = match settings.protocol {
            GroupProtocol::Classic => Arc::from(""),
            GroupProtocol::Consumer => membership.fresh_id,
        };
        let requests = Requests {
            core: Arc::clone(&core),
            settings: Arc::new(MemberSettings {
                session_timeout: settings.session_timeout,
                rebalance_timeout: settings.rebalance_timeout,
                request_timeout,
                group_instance_id,
                rack: settings.rack.clone(),
            }),
            link,
        };
        Self {
            protocol: settings.protocol,
            member: Member::new(settings, Vec::new(), member_id),
            requests,
            wanted: membership.wanted,
            rejoins: membership.rejoins,
            closing: membership.closing,
            metadata: core.metadata.watch(),
            followed: core.metadata.follow(&[]),
            core,
            owner,
            work: FuturesUnordered::new(),
            all_topics: None,
            done: false,
        }
    }

    /// Runs until the consumer has closed or the group refuses this member for good.
    pub(crate) async fn run(mut self) {
        self.subscribe();
        self.tell(Event::Started);
        while !self.done {
            let wake_at = self.member.wake_at();
            let timer = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // The senders live as long as the consumer's shared state, so nothing here fails.
            tokio::select! {
                biased;
                () = timer => self.tell(Event::Time),
                Some(event) = self.work.next(), if !self.work.is_empty() => self.finished(event),
                Ok(()) = self.closing.changed() => self.close(),
                Ok(()) = self.wanted.changed() => self.subscribe(),
                Ok(()) = self.rejoins.changed() => self.tell(Event::Rejoin),
                Ok(()) = self.metadata.changed() => self.metadata_changed(),
            }
        }
    }

    fn finished(&mut self, event: Event) {
        // What an answer about topics brought is in the view already, and a pattern may match it.
        if matches!(event, Event::TopicsAnswered(..)) && self.metadata.has_changed().unwrap_or(false) {
            self.metadata_changed();
        }
        self.tell(event);
    }

    fn tell(&mut self, event: Event) {
        tracing::trace!(group = %self.requests.link.group(), ?event, "group member");
        let effects = self.member.on(event, Instant::now());
        self.owner.alive_until(self.member.alive_until());
        for effect in effects {
            self.run_effect(effect);
        }
    }

    fn close(&mut self) {
        let close = *self.closing.borrow_and_update();
        if let Some(Close { deadline, leave }) = close {
            self.tell(Event::Close { deadline, leave });
        }
    }

    fn subscribe(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        self.all_topics = match &wanted {
            Wanted::Pattern(_) => Some(Metadata::follow_all(&self.core)),
            Wanted::Topics(topics) => {
                self.followed.set(topics.iter().cloned());
                None
            }
        };
        let topics = topics_of(&wanted, &self.core.metadata.view());
        self.tell(Event::SubscriptionChanged(topics));
    }

    fn metadata_changed(&mut self) {
        let view = self.metadata.borrow_and_update().clone();
        let topics = {
            let wanted = self.wanted.borrow();
            matches!(*wanted, Wanted::Pattern(_)).then(|| topics_of(&wanted, &view))
        };
        if let Some(topics) = topics {
            self.tell(Event::SubscriptionChanged(topics));
        }
        let known = known(self.member.watched().iter(), &view);
        self.tell(Event::TopicsChanged(known));
    }

    fn run_effect(&mut self, effect: Effect) {
        let (requests, protocol) = (self.requests.clone(), self.protocol);
        match effect {
            Effect::AskTopics { ask, topics, create } => self.ask_topics(ask, topics, create),
            Effect::CallRevoked(partitions, by) => {
                self.call(by, |owner| Box::pin(async move { owner.revoked(&partitions).await }));
            }
            Effect::CallLost(partitions, by) => {
                tracing::warn!(
                    group = %self.requests.link.group(), partitions = partitions.len(),
                    "the group went on without this member"
                );
                self.call(by, |owner| Box::pin(async move { owner.lost(&partitions).await }));
            }
            Effect::CallAssigned(partitions, by) => {
                let topics: Vec<_> =
                    partitions.iter().map(|partition| Arc::clone(&partition.topic)).collect();
                self.followed.add(&topics);
                self.owner.take(&partitions);
                self.call(by, |owner| Box::pin(async move { owner.assigned(&partitions).await }));
            }
            Effect::StopHandingOut(partitions) => self.owner.stop_handing_out(&partitions),
            Effect::StartFetching(partitions) => self.owner.start_fetching(&partitions),
            Effect::Release(partitions) => self.owner.release(&partitions),
            Effect::Identify { member_id, generation } => self.owner.identify(member_id, generation),
            Effect::Report(report) => self.owner.report(report),
            Effect::Done => self.done = true,
            Effect::FindCoordinator => self.start(async move {
                match requests.find_coordinator().await {
                    Ok(()) => Event::CoordinatorFound,
                    Err(failure) => Event::CoordinatorFailed(failure),
                }
            }),
            Effect::SendJoin { attempt, member_id, protocols } => {
                let join =
                    async move { Event::JoinAnswered(attempt, requests.join(&member_id, protocols).await) };
                self.start(join);
            }
            Effect::SendSync { attempt, member_id, generation, assignor, assignment } => {
                self.start(async move {
                    let answer = requests.sync(&member_id, generation, &assignor, assignment).await;
                    Event::SyncAnswered(attempt, answer)
                });
            }
            Effect::SendHeartbeat { attempt, member_id, generation } => self.start(async move {
                Event::HeartbeatAnswered(attempt, requests.heartbeat(&member_id, generation).await)
            }),
            Effect::SendBeat { attempt, member_id, epoch, topics, owned } => self.start(async move {
                let beat = BeatRequest { member_id, epoch, topics, owned };
                Event::BeatAnswered(attempt, requests.beat(beat).await)
            }),
            Effect::SendLeave { member_id, epoch } => self.start(async move {
                match protocol {
                    GroupProtocol::Classic => requests.leave(&member_id).await,
                    GroupProtocol::Consumer => requests.leave_epochs(member_id, epoch).await,
                }
                Event::LeaveAnswered
            }),
        }
    }

    fn start(&self, work: impl Future<Output = Event> + Send + 'static) {
        self.work.push(Box::pin(work));
    }

    /// Calls the listener; the deadline ends the call.
    fn call(&self, by: Instant, call: impl FnOnce(Arc<O>) -> BoxFuture<'static, ()>) {
        let call = call(Arc::clone(&self.owner));
        self.start(async move {
            if tokio::time::timeout_at(by, call).await.is_err() {
                tracing::warn!("the rebalance listener took longer than `rebalance_timeout`");
            }
            Event::ListenerReturned
        });
    }

    fn ask_topics(&self, ask: u64, topics: Vec<Arc<str>>, create: bool) {
        let (core, all) = (Arc::clone(&self.core), self.all_topics.is_some() && topics.is_empty());
        self.followed.add(&topics);
        self.start(async move {
            let view = core.metadata.view();
            let known_already = !all && topics.iter().all(|topic| view.usable(topic).is_some());
            let view = match known_already {
                true => Ok(view),
                false => core.ask_metadata(if all { None } else { Some(&topics) }, create).await,
            };
            Event::TopicsAnswered(ask, view.map(|view| known(topics.iter(), &view)))
        });
    }
}

/// What a view says of these topics.
fn known<'a>(topics: impl Iterator<Item = &'a Arc<str>>, view: &ClusterView) -> Topics {
    let mut known = Topics::default();
    for topic in topics {
        if let Some(usable) = view.usable(topic) {
            known.counts.insert(Arc::clone(topic), usable.partition_count());
        } else if let Some(refused) = view.topics.get(topic).map(|topic| topic.error)
            && refused != klamm_protocol::ErrorCode::None
            && !refused.is_retriable()
        {
            known.refused.insert(Arc::clone(topic), refused);
        }
    }
    known
}

/// The topics that the subscription names now.
fn topics_of(wanted: &Wanted, view: &ClusterView) -> Vec<Arc<str>> {
    let pattern = match wanted {
        Wanted::Topics(topics) => return topics.clone(),
        Wanted::Pattern(pattern) => pattern,
    };
    let usable = view.topics.keys().filter(|topic| view.usable(topic).is_some_and(|topic| !topic.internal));
    let mut topics: Vec<Arc<str>> = usable.filter(|topic| pattern.is_match(topic)).cloned().collect();
    topics.sort_unstable();
    topics
}
