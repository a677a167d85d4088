//! Requests for commits. Those made while a commit is under way are served together by the next one.

use klamm_client::ConsumeError;
use tokio::sync::watch;

use crate::listener::ack::AckError;

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

    /// Asks for a commit; gives the number of its round.
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

    /// Resolves with the number of the next round when one is asked for.
    pub(super) async fn wanted(&self) -> u64 {
        let served = self.done.borrow().number;
        // The sender lives as long as `self`, so that this cannot fail.
        let _ = self.wanted.subscribe().wait_for(|wanted| *wanted > served).await;
        self.next_round()
    }

    /// The round that a commit which begins now serves.
    pub(super) fn next_round(&self) -> u64 {
        *self.wanted.borrow()
    }

    /// A round is over.
    pub(super) fn done(&self, number: u64, error: Option<ConsumeError>) {
        self.done.send_replace(Round { number, error, over: false });
    }

    /// No more commits will happen; who waits for one is told.
    pub(super) fn end(&self) {
        self.done.send_modify(|round| round.over = true);
    }
}
