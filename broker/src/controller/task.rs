//! The one task of the controller: takes proposals, writes what [`Core`] accepts, publishes what is committed, and has
//! directories looked at. It lives as long as the controller, so that no caller who goes away can leave anything half
//! done.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures::future::{BoxFuture, join_all};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use klamm_protocol::ErrorCode;
use klamm_runtime::Rng;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::broker_settings::BrokerSettings;
use super::command::TopicError;
use super::decide::{Accepted, Answer, Command, Core, Done, Ticket};
use super::directories::{Looked, follow};
use super::error::ControllerError;
use super::image::{METADATA_TOPIC, Topic};
use super::metadata_log::{MetadataLog, Written};
use super::shared::Shared;
use super::snapshots::Snapshots;
use super::view::View;
use crate::config::{LiveConfig, topic};
use crate::ids::fresh_uuid;
use crate::partition::LogManager;

/// How many commands share an fsync at most.
pub(super) const COMMANDS_PER_ROUND: usize = 1_024;

/// A command, and where its answer goes. Whether anybody waits for that is of no concern here.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) command: Command,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// What the controller works with.
#[derive(Debug, Clone)]
pub(super) struct Means {
    pub(super) logs: Arc<LogManager>,
    pub(super) rng: Arc<dyn Rng>,
    pub(super) live: Arc<LiveConfig>,
    pub(super) node_id: i32,
    pub(super) metadata: MetadataLog,
}

impl Means {
    /// A look at the directories of one name, under the metadata as it is committed now.
    fn look(&self, core: &Core, name: Arc<str>) -> impl Future<Output = Looked> + Send + 'static {
        follow(self.logs.clone(), core.committed().clone(), name, self.live.now().log.clone())
    }

    /// Makes the broker's settings what the metadata says.
    fn alter_settings(&self, altered: &BrokerSettings) {
        self.live.alter(altered.of(""), altered.of(&self.node_id.to_string()));
    }
}

/// An accepted command, and where its last record is.
type Wrote = (Accepted, Result<Written, ControllerError>);

/// The task's own.
pub(super) struct Task {
    means: Means,
    core: Core,
    shared: Arc<Shared>,
    view: View,
    proposals: mpsc::Receiver<Proposal>,
    /// Those who wait, by their tickets.
    waiting: HashMap<Ticket, oneshot::Sender<Answer>>,
    next_ticket: Ticket,
    /// What is left of a round, whose commands are written one after the other: each is decided by what is in the log
    /// before it.
    round: VecDeque<Proposal>,
    /// Records on their way into the log.
    writing: Option<BoxFuture<'static, Wrote>>,
    /// The last record of the round that is in the log.
    last_offset: Option<i64>,
    /// Records on their way to the disk.
    committing: Option<BoxFuture<'static, Result<(), ControllerError>>>,
    /// Where the log ends then.
    committing_to: i64,
    snapshots: Snapshots,
    /// Looks at directories, one for each name.
    looking: FuturesUnordered<BoxFuture<'static, Looked>>,
}

impl Task {
    /// The task of a controller whose log has been read. Makes all directories what the image says.
    pub(super) async fn new(
        means: Means,
        mut core: Core,
        snapshots: Snapshots,
        proposals: mpsc::Receiver<Proposal>,
        now: Instant,
    ) -> Self {
        means.alter_settings(core.committed().broker_settings());
        let on_disk = means.logs.partitions();
        let on_disk = on_disk.iter().map(|log| log.topic().clone()).filter(|name| **name != *METADATA_TOPIC);
        let in_image: Vec<_> = core.committed().topics().map(|topic| topic.name.clone()).collect();
        core.suspect(on_disk.chain(in_image));
        let mut view = View { image: core.visible(), ..View::default() };
        if let Some(names) = core.begin_pass(now) {
            let looked = join_all(names.into_iter().map(|name| means.look(&core, name))).await;
            take_logs(&mut view, &core, &looked);
            core.end_pass(&looked.into_iter().map(|(attempt, _)| attempt).collect::<Vec<_>>(), now);
        }
        // Nobody waits yet, and nobody sees the view yet.
        let _ = core.take_effects();
        let shared = Arc::new(Shared::new(view.clone()));
        Self {
            means,
            core,
            shared,
            view,
            proposals,
            waiting: HashMap::new(),
            next_ticket: 0,
            round: VecDeque::new(),
            writing: None,
            last_offset: None,
            committing: None,
            committing_to: 0,
            snapshots,
            looking: FuturesUnordered::new(),
        }
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Works until `stopping` turns true and what was proposed before is done.
    pub(super) async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        let mut taken = Vec::new();
        let (mut ended, mut asked_to_stop) = (false, false);
        loop {
            let retry_at = self.core.retry_at().filter(|_| !asked_to_stop);
            tokio::select! {
                // The same history makes the same moves.
                biased;
                durable = wait_for(&mut self.committing) => {
                    self.committing = None;
                    match durable {
                        Ok(()) => {
                            self.core.commit();
                            let (image, end) = (self.core.committed(), self.committing_to);
                            self.snapshots.begin_if_due(&self.means.metadata, image, end);
                        }
                        Err(error) => self.core.lost(&error.into()),
                    }
                }
                (accepted, wrote) = wait_for(&mut self.writing) => {
                    self.writing = None;
                    self.end_write(accepted, wrote);
                    self.write();
                }
                () = self.snapshots.written() => {}
                Some(looked) = self.looking.next(), if !self.looking.is_empty() => self.end_looks(looked),
                count = self.proposals.recv_many(&mut taken, COMMANDS_PER_ROUND),
                    if self.is_between_rounds() && !ended =>
                {
                    ended = count == 0;
                    self.round.extend(taken.drain(..));
                    self.write();
                }
                () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => {}
                _ = stopping.wait_for(|stopping| *stopping), if !asked_to_stop => {
                    asked_to_stop = true;
                    self.proposals.close();
                }
            }
            self.carry_out();
            let is_idle = self.is_between_rounds() && self.looking.is_empty();
            if ended && is_idle && !self.snapshots.is_under_way() {
                return;
            }
        }
    }

    fn is_between_rounds(&self) -> bool {
        self.writing.is_none() && self.committing.is_none()
    }

    /// Decides the commands of a round and writes what is accepted: one batch each, one wait for all.
    fn write(&mut self) {
        while let Some(Proposal { command, answer }) = self.round.pop_front() {
            let there_are_ids =
                matches!(command, Command::ProducerIds) && !self.shared.producer_ids().is_empty();
            if there_are_ids {
                let _ = answer.send(Ok(Done::ProducerIds));
                continue;
            }
            let ticket = self.next_ticket;
            self.next_ticket += 1;
            self.waiting.insert(ticket, answer);
            let rng = self.means.rng.clone();
            let Some(accepted) = self.core.propose(ticket, &command, || fresh_uuid(&*rng)) else { continue };
            let metadata = self.means.metadata.clone();
            let mut writing: BoxFuture<'static, Wrote> = Box::pin(async move {
                let wrote = metadata.append(&accepted.records).await;
                (accepted, wrote)
            });
            // In place, where the disk does not block.
            match (&mut writing).now_or_never() {
                Some((accepted, wrote)) => self.end_write(accepted, wrote),
                None => {
                    self.writing = Some(writing);
                    return;
                }
            }
        }
        if let Some(offset) = self.last_offset.take() {
            self.committing_to = offset + 1;
            self.committing = Some(Box::pin(self.means.metadata.clone().committed(offset)));
        }
    }

    fn end_write(&mut self, accepted: Accepted, wrote: Result<Written, ControllerError>) {
        match wrote {
            Ok(written) => {
                self.last_offset = Some(written.last_offset);
                self.snapshots.note(written.bytes);
                self.core.written(accepted);
            }
            Err(error) => self.core.not_written(&accepted, error.into()),
        }
    }

    /// Does what the core wants done, until it wants nothing more at this moment.
    fn carry_out(&mut self) {
        loop {
            let effects = self.core.take_effects();
            if let Some(ids) = effects.producer_ids {
                *self.shared.producer_ids() = ids;
            }
            for deleted in &effects.deleted {
                self.view.logs.remove_mut(&deleted.id);
                tracing::info!(topic = deleted.name, id = %deleted.id, "topic deleted");
            }
            if effects.publish {
                let before = std::mem::replace(&mut self.view.image, self.core.visible());
                if !Arc::ptr_eq(before.broker_settings(), self.view.image.broker_settings()) {
                    self.alter_settings();
                }
                self.shared.view.send_replace(Arc::new(self.view.clone()));
            }
            // After the view: who begins to follow sees a deletion in one of the two.
            self.shared.tell(&effects.deleted);
            for (ticket, answer) in effects.answers {
                if let Ok(Done::Created(Topic { name, id, partitions, .. })) = &answer
                    && !id.is_zero()
                {
                    tracing::info!(topic = %name, partitions, %id, "topic created");
                }
                if let Some(waits) = self.waiting.remove(&ticket) {
                    let _ = waits.send(answer);
                }
            }
            if !self.look() {
                return;
            }
        }
    }

    /// The broker's settings have changed, and with them those of all logs.
    fn alter_settings(&mut self) {
        self.means.alter_settings(self.view.image.broker_settings());
        let defaults = &self.means.live.now().log;
        for topic in self.core.committed().topics() {
            let config = topic::log_config(defaults, &topic.settings);
            let logs = self.view.logs(topic).into_iter().flat_map(|logs| logs.iter().flatten());
            logs.for_each(|log| log.set_config(config.clone()));
        }
        self.core.suspect_passing();
    }

    /// Begins to look at directories if that is due; says whether some of it is already done.
    fn look(&mut self) -> bool {
        let Some(names) = self.core.begin_pass(Instant::now()) else { return false };
        let mut done = Vec::new();
        for name in names {
            let mut looking: BoxFuture<'static, Looked> = Box::pin(self.means.look(&self.core, name));
            // Where there is nothing to do, or the disk does not block.
            match (&mut looking).now_or_never() {
                Some(looked) => done.push(looked),
                None => self.looking.push(looking),
            }
        }
        if done.is_empty() {
            return false;
        }
        self.looked_at(done);
        true
    }

    /// Takes what a look came to, and others that have ended with it: what others see is made once for all of them.
    fn end_looks(&mut self, first: Looked) {
        let mut looked = vec![first];
        while let Some(Some(more)) = self.looking.next().now_or_never() {
            looked.push(more);
        }
        self.looked_at(looked);
    }

    fn looked_at(&mut self, looked: Vec<Looked>) {
        take_logs(&mut self.view, &self.core, &looked);
        let attempts: Vec<_> = looked.into_iter().map(|(attempt, _)| attempt).collect();
        self.core.end_pass(&attempts, Instant::now());
    }
}

/// The logs that were found or made, of topics that are still there.
fn take_logs(view: &mut View, core: &Core, looked: &[Looked]) {
    for (attempt, logs) in looked {
        if let (Some(id), Some(logs)) = (attempt.topic, logs)
            && core.committed().topic_by_id(id).is_some()
        {
            view.logs.insert_mut(id, logs.clone());
        }
    }
}

/// The end of what is under way; never, when nothing is.
async fn wait_for<T>(under_way: &mut Option<BoxFuture<'static, T>>) -> T {
    match under_way {
        Some(under_way) => under_way.await,
        None => std::future::pending().await,
    }
}

/// The controller is not there to do anything.
pub(super) fn stopped() -> TopicError {
    let message = "the broker is stopping; what was asked for may have been done, the metadata says so";
    TopicError::new(ErrorCode::NotController, message)
}
