//! When commits happen: one at a time, as often as somebody asks, and at least every second.

use std::sync::Arc;
use std::time::Duration;

use klamm_client::ConsumeError;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::shared::Shared;
use crate::listener::ack::AckError;

/// How long finished work may stay uncommitted when nothing else causes a commit.
const INTERVAL: Duration = Duration::from_secs(1);

/// Requests for commits. Requests made while a commit is under way are served together by the next one.
#[derive(Debug)]
pub(super) struct Commits {
    wanted: watch::Sender<u64>,
    done: watch::Sender<Round>,
}

#[derive(Debug, Clone, Default)]
struct Round {
    number: u64,
    error: Option<ConsumeError>,
    over: bool,
}

impl Commits {
    pub(super) fn new() -> Self {
        Self { wanted: watch::Sender::new(0), done: watch::Sender::new(Round::default()) }
    }

    /// Asks for a commit.
    pub(super) fn request(&self) -> u64 {
        let mut number = 0;
        self.wanted.send_modify(|wanted| {
            *wanted += 1;
            number = *wanted;
        });
        number
    }

    /// Asks for a commit of everything finished so far and waits for the answer.
    pub(super) async fn flush(&self) -> Result<(), AckError> {
        let mut done = self.done.subscribe();
        let number = self.request();
        let round = done.wait_for(|round| round.number >= number || round.over).await;
        let round = round.map(|round| round.clone()).map_err(|_| AckError::Gone)?;
        match round.error {
            _ if round.number < number => Err(AckError::Gone),
            Some(error) => Err(AckError::Commit(error)),
            None => Ok(()),
        }
    }

    /// Commits until it is dropped.
    pub(super) async fn run(shared: Arc<Shared>) {
        let this = &shared.commits;
        let mut wanted = this.wanted.subscribe();
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let served = this.done.borrow().number;
            tokio::select! {
                _ = wanted.wait_for(|wanted| *wanted > served) => {}
                _ = interval.tick() => {}
            }
            let number = *this.wanted.borrow();
            let error = shared.commit_all().await.err();
            this.done.send_replace(Round { number, error, over: false });
        }
    }

    /// No more commits will happen; who waits for one is told.
    pub(super) fn end(&self) {
        self.done.send_modify(|round| round.over = true);
    }
}
