//! Starts a thread with all that serves it.

use std::sync::{Arc, mpsc};

use tokio::sync::{mpsc as async_mpsc, oneshot, watch};

use super::error::StreamsError;
use super::keeper::Keeper;
use super::outbox::{self, OUTBOX_MESSAGES};
use super::shared::{Background, Shared};
use super::worker::{self, WorkerLinks};
use super::workers::Ended;
use super::{clock, restore, tail, transactions};

/// Starts a thread.
pub(super) fn start_worker(shared: &Arc<Shared>, background: &Background) -> Result<(), StreamsError> {
    let (sender, commands) = mpsc::channel();
    let index = shared.workers.insert(sender)?;
    let (outbox, outgoing) = async_mpsc::channel(OUTBOX_MESSAGES);
    let (restores, requests) = async_mpsc::unbounded_channel();
    let (sends, sent) = oneshot::channel::<()>();
    match &shared.directory {
        Some(directory) if shared.config.is_exactly_once() => {
            let name = format!("{}-{}-{index}", shared.group(), directory.process_id());
            let serving = transactions::serve(Arc::clone(shared), name, outgoing);
            background.spawn("streams-outbox", while_living(sends, serving));
        }
        _ => {
            let serving = outbox::serve(Arc::clone(shared), outgoing);
            background.spawn("streams-outbox", while_living(sends, serving));
        }
    }
    background.spawn("streams-restore", restore::serve(Arc::clone(shared), index, requests));
    let wake_at_ms = watch::Sender::new(None);
    background.spawn("streams-clock", clock::serve(Arc::clone(shared), index, wake_at_ms.subscribe()));
    let links = WorkerLinks { index, shared: Arc::clone(shared), commands, outbox, restores, wake_at_ms };
    // A dedicated thread: stores block, and tasks keep a core busy.
    let (lives, ended) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new().name(format!("streams-{index}")).spawn(move || {
        let _lives = lives;
        worker::run(links);
    });
    match thread {
        Ok(_) => shared.workers.ends_with(index, Ended { thread: Some(ended), outbox: Some(sent) }),
        Err(error) => {
            shared.workers.remove(index);
            return Err(StreamsError::Thread(error));
        }
    }
    Ok(())
}

/// Starts the thread of the standbys; gives what ends with it.
pub(super) fn start_keeper(
    shared: &Arc<Shared>,
    background: &Background,
) -> Result<oneshot::Receiver<()>, StreamsError> {
    let (lives, ended) = oneshot::channel::<()>();
    let Some(orders) = shared.standbys.take_commands() else { return Ok(ended) };
    let (tails, requests) = async_mpsc::unbounded_channel();
    background.spawn("streams-standbys", tail::serve(Arc::clone(shared), requests));
    let shared = Arc::clone(shared);
    let thread = std::thread::Builder::new().name("streams-standbys".to_owned()).spawn(move || {
        let _lives = lives;
        Keeper::new(shared, tails).run(&orders);
    });
    thread.map(|_| ended).map_err(StreamsError::Thread)
}

/// Drops what tells of its life when a future has ended, or is dropped.
async fn while_living(lives: oneshot::Sender<()>, serving: impl Future<Output = ()>) {
    serving.await;
    drop(lives);
}
