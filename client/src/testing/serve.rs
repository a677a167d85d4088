//! One connection of the fake broker: requests in, and what the script makes of their answers out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use klamm_protocol::ApiKey;
use klamm_protocol::frame::LENGTH_BYTES;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::answers::{Outcome, answer};
use super::received::Received;
use super::script::{Answer, Exchange, Verdict};
use super::state::State;
use crate::runtime::Stream;

/// Larger requests close the connection.
const REQUEST_BYTES_MAX: usize = 128 * 1024 * 1024;

/// What connections and the test share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Wakes what waits for something to happen.
    pub(super) changed: Notify,
}

impl Shared {
    pub(super) fn new(state: State) -> Self {
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves until the client goes, or until something wants the connection closed.
pub(super) async fn serve(mut stream: Box<dyn Stream>, shared: Arc<Shared>) -> std::io::Result<()> {
    let mut logging_in = false;
    loop {
        let Some(frame) = read_frame(&mut stream).await? else { return Ok(()) };
        let received = match Received::decode(frame) {
            Ok(received) => received,
            Err(unreadable) => {
                tracing::warn!(reason = unreadable.0, "the fake broker closes a connection");
                return Ok(());
            }
        };
        // In the middle of a login a broker takes nothing else.
        if logging_in && received.api != ApiKey::SaslAuthenticate {
            return Ok(());
        }
        logging_in = received.api == ApiKey::SaslHandshake;
        let verdict = judge(&shared, &received);
        match &verdict.answer {
            Some(Answer::DisconnectBefore) => return Ok(()),
            Some(Answer::Hang) => return silence(&mut stream).await,
            Some(Answer::Bytes(bytes)) => {
                stream.write_all(bytes).await?;
                stream.flush().await?;
                continue;
            }
            _ => {}
        }
        let Some(frame) = carry_out(&shared, &received, &verdict).await else { return Ok(()) };
        match &verdict.answer {
            Some(Answer::DisconnectAfter) => return Ok(()),
            Some(Answer::Never) => return silence(&mut stream).await,
            Some(Answer::Delayed(delay)) => sleep(*delay).await,
            _ => {}
        }
        let frame = match &verdict.answer {
            Some(Answer::Tampered(tamper)) => {
                let (api, version) = (received.api, received.version);
                tamper.apply(&Exchange { api, version, request: &received.bytes, answer: &frame })
            }
            _ => frame,
        };
        stream.write_all(&frame).await?;
        stream.flush().await?;
        if matches!(verdict.answer, Some(Answer::ThenDisconnect)) {
            return Ok(());
        }
    }
}

/// A request, or an answer, without its length; `None` for one that is too long to be true.
pub(super) async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Option<Bytes>> {
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length).await?;
    let Ok(size) = usize::try_from(i32::from_be_bytes(length)) else { return Ok(None) };
    if size > REQUEST_BYTES_MAX {
        return Ok(None);
    }
    // It grows with what comes.
    let mut frame = BytesMut::new();
    let mut rest = stream.take(size as u64);
    while frame.len() < size {
        if rest.read_buf(&mut frame).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(frame.freeze()))
}

/// Reads and answers nothing any more, until the client goes.
async fn silence(stream: &mut Box<dyn Stream>) -> std::io::Result<()> {
    let mut nowhere = [0; 4_096];
    while stream.read(&mut nowhere).await? > 0 {}
    Ok(())
}

fn judge(shared: &Shared, received: &Received) -> Verdict {
    let mut state = shared.state();
    let named = match &received.body {
        Some(body) if state.script.len() > 0 => body.partitions(|id| state.name_of(id)),
        _ => Vec::new(),
    };
    state.seen.note(received, Instant::now());
    state.script.verdict(received.api, &named)
}

/// The frame of the answer, which is empty for a request that has none; `None` to close the connection.
async fn carry_out(shared: &Shared, received: &Received, verdict: &Verdict) -> Option<Bytes> {
    let arrived = Instant::now();
    let mut arriving = true;
    loop {
        // Before looking, so that nothing that happens in between is missed.
        let changed = shared.changed.notified();
        let outcome = answer(&mut shared.state(), received, verdict, (arrived, arriving), Instant::now());
        // Held requests of others may have become ready, a held join by this one.
        if arriving || !matches!(outcome, Outcome::Hold(_)) {
            shared.changed.notify_waiters();
        }
        arriving = false;
        match outcome {
            Outcome::Answer(frame) => return Some(frame),
            Outcome::Nothing => return Some(Bytes::new()),
            Outcome::Close => return None,
            Outcome::Hold(until) => tokio::select! {
                () = changed => {}
                () = sleep_until(until) => {}
            },
        }
    }
}
