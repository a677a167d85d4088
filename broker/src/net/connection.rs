//! One connection: requests are worked on in order, what they have to wait for they wait for side by side,
//! and answers go out in order.
//!
//! The reader does the part of a request that must not be overtaken (an append, a join, a commit) before it reads the
//! next one. The rest (an fsync, a long poll, the others of a group) is a future in a bounded queue, which the writer
//! takes in order. A full queue stops the reader, and so the peer; full is also a queue of few answers that are large.
//! That a peer is gone shows only by reading and by sending, so that a queue may not be full for ever: see [`room`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use klamm_runtime::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::frame::{FrameError, FrameLimits, FrameReader};
use super::transport::{Reader, Writer, split};
use super::way::Ways;
use crate::api::{self, Answer, Context, Peer, Refusal, Response};
use crate::budget::{SMALL_BYTES, Share};

/// How long answers that are under way may still take after the peer has sent its last request.
const DRAIN: Duration = Duration::from_secs(5);

/// The same, after the peer has broken a rule.
const LAST_ANSWERS: Duration = Duration::from_millis(200);

/// How much of answers, finished or not, one connection may have unsent, records in files not counted, before no more
/// requests are read. One answer may be larger.
const UNSENT_BYTES_MAX: u32 = 4 << 20;

/// How long an answer may take to be sent beside a second for each MiB, while others wait for the memory it holds.
const SEND_TIME_WANTED: Duration = Duration::from_secs(10);

/// An answer in its place in the queue, with its part of [`UNSENT_BYTES_MAX`] and of the memory for requests.
type Queued = (Answer, Option<OwnedSemaphorePermit>, Arc<Share>);

/// What the reader and the writer let each other know.
#[derive(Debug)]
struct Progress {
    /// Answers that are owed.
    unanswered: AtomicUsize,
    /// Whether an answer is on its way to the peer.
    sending: AtomicBool,
    /// What is left of [`UNSENT_BYTES_MAX`].
    unsent: Arc<Semaphore>,
}

impl Progress {
    fn new() -> Self {
        Self {
            unanswered: AtomicUsize::new(0),
            sending: AtomicBool::new(false),
            unsent: Arc::new(Semaphore::new(UNSENT_BYTES_MAX as usize)),
        }
    }

    /// What all answers in the queue hold, the one at its head included.
    fn unsent_bytes(&self) -> usize {
        (UNSENT_BYTES_MAX as usize).saturating_sub(self.unsent.available_permits())
    }
}

/// Serves a connection until one side has had enough.
pub(super) async fn serve(
    context: Arc<Context>,
    peer: Arc<Peer>,
    stream: Box<dyn Stream>,
    limits: FrameLimits,
    ways: Arc<Ways>,
    stopping: watch::Receiver<bool>,
) {
    let (reader, writer) = split(stream, limits.idle, ways);
    let (queue, answers) = mpsc::channel(context.config().max_in_flight);
    let progress = Progress::new();
    let reading =
        read_requests(&context, &peer, reader, FrameReader::new(limits), queue, stopping, &progress);
    let writing = write_answers(writer, answers, &progress);
    tokio::pin!(reading, writing);
    let ended = tokio::select! {
        // The same history makes the same moves.
        biased;
        ended = &mut reading => match ended {
            // The peer broke a rule: what it asked before is still answered, if that can be done now.
            Err(refusal) => {
                let _ = timeout(LAST_ANSWERS, &mut writing).await;
                Err(refusal)
            }
            Ok(Ending::Peer) => timeout(DRAIN, &mut writing).await.unwrap_or(Ok(())),
            Ok(Ending::Stopping) => writing.await,
        },
        ended = &mut writing => ended,
    };
    if let Err(refusal) = ended {
        context.quiet_log().warn(&peer.address, &refusal);
    }
}

/// Why no more requests are read.
enum Ending {
    Peer,
    Stopping,
}

async fn read_requests(
    context: &Arc<Context>,
    peer: &Arc<Peer>,
    mut source: Reader,
    mut frames: FrameReader,
    queue: mpsc::Sender<Queued>,
    mut stopping: watch::Receiver<bool>,
    progress: &Progress,
) -> Result<Ending, Refusal> {
    loop {
        // Room for the answer first: a peer that does not read its answers is not read from either.
        let Some(Ok(place)) = room(queue.reserve(), context, progress).await else {
            return Ok(Ending::Peer);
        };
        if let Some(ending) = unmuted(context, peer, &mut stopping).await {
            return Ok(ending);
        }
        let frame = tokio::select! {
            // First, so that nobody who sends without a pause holds up the stop.
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return Ok(Ending::Stopping),
            frame = frames.next(&mut source) => frame,
        };
        let frame = match frame {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(Ending::Peer),
            // The peer waits for us: that is not idle.
            Err(FrameError::Idle) if progress.unanswered.load(Ordering::Relaxed) > 0 => continue,
            Err(FrameError::Idle) => return Ok(Ending::Peer),
            // Resets are how many clients say goodbye.
            Err(FrameError::Io(_)) => return Ok(Ending::Peer),
            Err(broken) => return Err(Refusal::new(broken.to_string())),
        };
        // An answer that went out meanwhile may have been too much. A large request would hold its memory.
        if frame.bytes.len() <= SMALL_BYTES
            && let Some(ending) = unmuted(context, peer, &mut stopping).await
        {
            return Ok(ending);
        }
        let share = Arc::new(frame.share);
        let answer = api::answer(context, peer, frame.bytes, &share).await?;
        let bytes = match &answer {
            Answer::None => continue,
            Answer::Ready(response) => response.encoded.bytes.len(),
            Answer::Later(_, held_bytes) => *held_bytes,
        };
        // Whoever still holds the frame has its share; what the answer takes is taken until it is out.
        share.resize(bytes);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(UNSENT_BYTES_MAX);
        let Some(part) = room(progress.unsent.clone().acquire_many_owned(bytes), context, progress).await
        else {
            return Ok(Ending::Peer);
        };
        progress.unanswered.fetch_add(1, Ordering::Relaxed);
        // Never closed, so that there is a permit; the answer goes out in any case.
        place.send((answer, part.ok(), share));
    }
}

/// Waits while the peer has used too much of a quota. Why no more is read, if so: the broker stops, or this has taken
/// `connections.max.idle.ms`: that a peer is gone shows only by reading, and it may be told to wait for weeks.
async fn unmuted(context: &Context, peer: &Peer, stopping: &mut watch::Receiver<bool>) -> Option<Ending> {
    let patience = Instant::now() + context.config().connections_max_idle;
    while let Some(until) = peer.muted_until().filter(|until| *until > Instant::now()) {
        if Instant::now() >= patience {
            return Some(Ending::Peer);
        }
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return Some(Ending::Stopping),
            () = sleep_until(until.min(patience)) => {}
        }
    }
    None
}

/// Waits for room in the queue of answers. None when there was none for `connections.max.idle.ms` and the writer waits
/// itself, for what the first answer in the queue waits for: a peer that asked for so much and so patiently may be gone
/// for long. Where the writer sends, it is the one that notices.
async fn room<T>(wait: impl Future<Output = T>, context: &Context, progress: &Progress) -> Option<T> {
    tokio::pin!(wait);
    loop {
        match timeout(context.config().connections_max_idle, &mut wait).await {
            Ok(room) => return Some(room),
            Err(_) if progress.sending.load(Ordering::Relaxed) => {}
            Err(_) => return None,
        }
    }
}

async fn write_answers(
    mut writer: Writer,
    mut answers: mpsc::Receiver<Queued>,
    progress: &Progress,
) -> Result<(), Refusal> {
    // What the answer holds is given back when it is out.
    while let Some((answer, part, share)) = answers.recv().await {
        let response = match answer {
            Answer::None => None,
            Answer::Ready(response) => Some(response),
            Answer::Later(later, _) => {
                let own_bytes = part.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
                wait(later, own_bytes, &share, progress).await?
            }
        };
        if let Some(response) = response {
            share.resize(response.encoded.bytes.len());
            progress.sending.store(true, Ordering::Relaxed);
            if !send(&mut writer, response, &share, progress).await? {
                // The peer is gone, or does not read.
                return Ok(());
            }
            progress.sending.store(false, Ordering::Relaxed);
        }
        progress.unanswered.fetch_sub(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Waits for an answer. When others wait for the memory that the answers behind it hold, the peer is let go.
async fn wait(
    later: impl Future<Output = Result<Option<Response>, Refusal>>,
    own_bytes: usize,
    share: &Share,
    progress: &Progress,
) -> Result<Option<Response>, Refusal> {
    tokio::pin!(later);
    loop {
        if let Ok(response) = timeout(SEND_TIME_WANTED, &mut later).await {
            return response;
        }
        let behind_bytes = progress.unsent_bytes().saturating_sub(own_bytes);
        if behind_bytes > SMALL_BYTES && share.budget().is_wanted() {
            let why = "answers behind one that has to wait kept memory that others waited for \
                       (queued.max.request.bytes)";
            return Err(Refusal::new(why));
        }
    }
}

/// Sends a response; false when that cannot be done. A peer that takes it so slowly that others wait for the memory
/// that this one and those behind it hold is let go.
async fn send(
    writer: &mut Writer,
    response: Response,
    share: &Share,
    progress: &Progress,
) -> Result<bool, Refusal> {
    let begun = Instant::now();
    let bytes = response.encoded.total_len();
    let sending = writer.send(response);
    tokio::pin!(sending);
    let patience = SEND_TIME_WANTED + Duration::from_secs((bytes >> 20) as u64);
    loop {
        if let Ok(sent) = timeout(SEND_TIME_WANTED, &mut sending).await {
            return Ok(sent.is_ok());
        }
        let held_bytes = share.held_bytes().max(progress.unsent_bytes());
        if held_bytes > SMALL_BYTES && begun.elapsed() >= patience && share.budget().is_wanted() {
            let why =
                "an answer was read so slowly that others waited for its memory (queued.max.request.bytes)";
            return Err(Refusal::new(why));
        }
    }
}
