//! The task of a share consumer: sends what the cores want sent, and tells them what was answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use klamm_protocol::messages::{
    ShareAcknowledgeRequest, ShareFetchRequest, ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse,
};
use klamm_protocol::{ErrorCode, Request, Uuid};
use tokio::sync::watch;
use tokio::time::Instant;

use super::member::{Beat, Change, Member, Slot, Told, Vain};
use super::requests;
use super::shared::Shared;
use super::sharing::{AcquireMode, Answer, NoAnswer, Send, What};
use crate::cluster::{ClusterView, Followed, LeaderHint};
use crate::connection::{Connection, Links};
use crate::error::{RequestError, ShareError};
use crate::group::CoordinatorLink;

/// From here on locks are renewed, and the number of records is a limit.
const RENEWS_FROM: i16 = 2;
/// How long an answer to a heartbeat is waited for: a third of the session that brokers give a member by default.
const BEAT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long leaving may take: it is a courtesy.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the loop waits for.
enum Event {
    Beaten(u64, Result<ShareGroupHeartbeatResponse, RequestError>),
    Answered(i32, Result<(Answer, Vec<LeaderHint>, Connection), Failed>),
    Refreshed,
    Learned,
    Left,
}

/// Why a request brought nothing.
struct Failed {
    why: NoAnswer,
    /// None when its session ended with the connection.
    error: Option<RequestError>,
}

impl From<RequestError> for Failed {
    fn from(error: RequestError) -> Self {
        let why = if error.may_have_been_executed() { NoAnswer::Unanswered } else { NoAnswer::Unsent };
        Self { why, error: Some(error) }
    }
}

/// The task's state.
pub(super) struct ShareTask {
    shared: Arc<Shared>,
    member: Member,
    link: Arc<CoordinatorLink>,
    links: Arc<Links>,
    /// The connections that share sessions belong to.
    sessions: BTreeMap<i32, Connection>,
    topics: watch::Receiver<Vec<Arc<str>>>,
    metadata: watch::Receiver<Arc<ClusterView>>,
    followed: Arc<Followed>,
    work: FuturesUnordered<BoxFuture<'static, Event>>,
    refreshing: bool,
    leaving: bool,
    done: bool,
}

impl Drop for ShareTask {
    fn drop(&mut self) {
        // Whoever waits would wait for ever otherwise.
        self.shared.sharing().abandon();
        self.shared.tell();
    }
}

impl ShareTask {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let core = &shared.core;
        let topics = shared.topics.subscribe();
        let wanted = topics.borrow().clone();
        let (backoff, rng) = (core.backoff(), Arc::clone(&core.config.rng));
        Self {
            member: Member::new(wanted, backoff, rng, Instant::now()),
            link: Arc::new(CoordinatorLink::new(Arc::clone(&shared.config.group))),
            links: Arc::default(),
            sessions: BTreeMap::new(),
            topics,
            metadata: core.metadata.watch(),
            followed: core.metadata.follow(&[]),
            work: FuturesUnordered::new(),
            refreshing: false,
            leaving: false,
            done: false,
            shared,
        }
    }

    /// Runs until the consumer has closed.
    pub(super) async fn run(mut self) {
        self.subscribe();
        let shared = Arc::clone(&self.shared);
        loop {
            let wake_at = self.dispatch(Instant::now());
            if self.done {
                return;
            }
            let timer = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // The senders live as long as the shared state, so nothing here fails.
            tokio::select! {
                Some(event) = self.work.next(), if !self.work.is_empty() => self.handle(event),
                () = shared.work.notified() => {}
                Ok(()) = self.topics.changed() => self.subscribe(),
                Ok(()) = self.metadata.changed() => self.place(),
                () = timer => {}
            }
        }
    }

    /// Starts all that can be started. Gives the instant at which time alone brings more.
    fn dispatch(&mut self, now: Instant) -> Option<Instant> {
        let shared = Arc::clone(&self.shared);
        let mut sharing = shared.sharing();
        let (sends, wake_at) = sharing.send(now);
        let stale = std::mem::take(&mut sharing.stale) && !sharing.is_closing();
        let (closing, closed) = (sharing.is_closing(), sharing.is_closed());
        drop(sharing);
        sends.into_iter().for_each(|send| self.send(send));
        if stale {
            self.refresh();
        }
        if closed && !self.leaving {
            self.leave();
        }
        if closing {
            return wake_at;
        }
        if let Some(beat) = self.member.beat(now) {
            self.beat(beat);
        }
        [wake_at, self.member.wake_at()].into_iter().flatten().min()
    }

    fn subscribe(&mut self) {
        let topics = self.topics.borrow_and_update().clone();
        let core = Arc::clone(&self.shared.core);
        self.followed.set(topics.iter().cloned());
        self.member.subscribe(topics.clone(), Instant::now());
        self.work.push(Box::pin(async move {
            // The first look, which may create them.
            if let Err(error) = core.ask_metadata(Some(&topics), core.config.allow_auto_create_topics).await {
                tracing::debug!(%error, "the topics are not known yet");
            }
            Event::Learned
        }));
    }

    fn beat(&self, beat: Beat) {
        let attempt = beat.attempt;
        let request = requests::heartbeat(&self.shared.config, &self.shared.member_id, beat);
        let (shared, link) = (Arc::clone(&self.shared), Arc::clone(&self.link));
        self.work.push(Box::pin(async move {
            let answered = exchange(&shared, &link, &request, BEAT_TIMEOUT).await;
            Event::Beaten(attempt, answered)
        }));
    }

    fn leave(&mut self) {
        self.leaving = true;
        let Some(beat) = self.member.leave() else {
            self.done = true;
            return;
        };
        let request = requests::heartbeat(&self.shared.config, &self.shared.member_id, beat);
        let (shared, link) = (Arc::clone(&self.shared), Arc::clone(&self.link));
        self.work.push(Box::pin(async move {
            if let Err(error) = exchange(&shared, &link, &request, LEAVE_TIMEOUT).await {
                tracing::debug!(%error, "cannot leave; the group will notice by itself");
            }
            Event::Left
        }));
    }

    fn send(&self, send: Send) {
        let (shared, links) = (Arc::clone(&self.shared), Arc::clone(&self.links));
        let (node, session) = (send.node, self.sessions.get(&send.node).cloned());
        self.work.push(Box::pin(async move {
            Event::Answered(node, ask_leader(&shared, &links, session, send).await)
        }));
    }

    fn refresh(&mut self) {
        if std::mem::replace(&mut self.refreshing, true) {
            return;
        }
        let core = Arc::clone(&self.shared.core);
        let seen = core.metadata.view().version;
        self.work.push(Box::pin(async move {
            if let Err(error) = core.refresh_metadata(seen).await {
                tracing::debug!(%error, "metadata refresh failed");
                // The next attempt is paced by the cache, but a failure that needs no network would spin.
                tokio::time::sleep(core.config.retry_backoff).await;
            }
            Event::Refreshed
        }));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Beaten(attempt, answered) => self.beaten(attempt, answered),
            Event::Answered(node, answered) => self.answered(node, answered),
            Event::Refreshed => {
                self.refreshing = false;
                self.place();
            }
            Event::Learned => self.place(),
            Event::Left => self.done = true,
        }
        self.shared.tell();
    }

    fn beaten(&mut self, attempt: u64, answered: Result<ShareGroupHeartbeatResponse, RequestError>) {
        let told: Result<Told, Vain> = match answered {
            Ok(answer) => {
                if let Some(message) = &answer.error_message {
                    tracing::debug!(group = %self.link.group(), %message, "a heartbeat was refused");
                }
                requests::heartbeat_answer(answer)
            }
            Err(error) if error.is_retriable() => {
                self.link.learn_from(&error);
                Err(Vain::Unheard)
            }
            Err(error) => return self.refused(error),
        };
        if let Err(Vain::Refused(ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable)) = told {
            self.link.forget();
        }
        match self.member.answered(attempt, told, Instant::now()) {
            Change::Nothing => {}
            Change::Read(slots) => {
                self.shared.sharing().read(&slots);
                self.place();
            }
            Change::Refused(code) => {
                let group = Arc::clone(&self.shared.config.group);
                self.shared.sharing().report(ShareError::Group { group, code });
            }
        }
    }

    /// The way to the coordinator is barred for good.
    fn refused(&mut self, error: RequestError) {
        self.member.leave();
        let group = Arc::clone(&self.shared.config.group);
        self.shared.sharing().report(match error {
            RequestError::Broker { code, .. } => ShareError::Group { group, code },
            error => error.into(),
        });
    }

    fn answered(&mut self, node: i32, answered: Result<(Answer, Vec<LeaderHint>, Connection), Failed>) {
        let answer = match answered {
            Ok((answer, hints, connection)) => {
                self.sessions.insert(node, connection);
                hints.iter().for_each(|hint| self.shared.core.metadata.learn_leader(hint));
                Ok(answer)
            }
            Err(Failed { why, error }) => {
                self.sessions.remove(&node);
                if let Some(error) = error {
                    tracing::debug!(node, %error, "a request of a share session failed");
                    if !error.is_retriable() {
                        self.shared.sharing().report(error.into());
                    }
                }
                Err(why)
            }
        };
        self.shared.sharing().answered(node, answer, Instant::now());
    }

    /// Tells the names and leaders of what is read.
    fn place(&mut self) {
        let view = Arc::clone(&self.metadata.borrow_and_update());
        let names: BTreeMap<Uuid, &Arc<str>> =
            view.topics.keys().filter_map(|name| Some((view.topics.get(name)?.id, name))).collect();
        self.shared.sharing().place(|slot: &Slot| {
            let name = names.get(&slot.topic_id)?;
            Some((Arc::clone(name), view.leader(name, slot.partition)))
        });
        self.shared.tell();
    }
}

/// One request to the coordinator.
async fn exchange(
    shared: &Shared,
    link: &CoordinatorLink,
    request: &ShareGroupHeartbeatRequest,
    timeout: Duration,
) -> Result<ShareGroupHeartbeatResponse, RequestError> {
    let timeout = timeout.min(shared.config.request_timeout);
    let ask = async { link.connection(&shared.core).await?.call(request, timeout).await };
    tokio::time::timeout(timeout, ask).await.unwrap_or_else(|_| {
        let last = Arc::from("no answer");
        Err(RequestError::Deadline { what: "a heartbeat", after: timeout, last })
    })
}

/// One request to a leader, over the connection of its session.
async fn ask_leader(
    shared: &Shared,
    links: &Links,
    session: Option<Connection>,
    send: Send,
) -> Result<(Answer, Vec<LeaderHint>, Connection), Failed> {
    let Send { node, epoch, what, said } = send;
    let connection = match session.filter(|session| !session.is_closed()) {
        Some(session) if epoch != 0 => session,
        _ if epoch != 0 => return Err(Failed { why: NoAnswer::Unsent, error: None }),
        _ => links.connection(&shared.core, node).await?,
    };
    let (config, member_id) = (&shared.config, &*shared.member_id);
    let name = |slot| shared.sharing().named(slot);
    let (answer, hints) = match what {
        What::Fetch { added, forgotten } => {
            let version = version_for::<ShareFetchRequest>(&connection, config.acquire)?;
            let request = requests::fetch(config, member_id, epoch, &added, &forgotten, said);
            // The broker may rightly hold the fetch for `fetch_max_wait`.
            let timeout = config.request_timeout + config.fetch_max_wait;
            let answer = connection.start(&request, version)?.within(timeout).await?;
            requests::fetch_answer(answer, version >= RENEWS_FROM, requests::reading(config), name)
        }
        What::Acknowledge => {
            let version = connection.version::<ShareAcknowledgeRequest>()?;
            let request = requests::acknowledge(config, member_id, epoch, said);
            let answer = connection.start(&request, version)?.within(config.request_timeout).await?;
            requests::acknowledge_answer(answer, version >= RENEWS_FROM, name)
        }
    };
    Ok((answer, hints, connection))
}

/// The version to use: older ones cannot say that the number of records is a limit.
fn version_for<R: Request>(connection: &Connection, mode: AcquireMode) -> Result<i16, RequestError> {
    let version = connection.version::<R>()?;
    if mode == AcquireMode::RecordLimit && version < RENEWS_FROM {
        return Err(RequestError::Unsupported { address: Arc::clone(connection.address()), api: R::KEY });
    }
    Ok(version)
}
