//! One connection: requests go out pipelined, answers come back in order.
//!
//! Two tasks serve it, one writes and one reads. Whoever asks holds a receiver; the reader matches each answer with the
//! oldest unanswered request. Anything irregular (a wrong correlation id, an absurd length, silence beyond a deadline)
//! ends the connection and fails everything that waits on it: a stream that lost its place cannot be trusted again.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use klamm_protocol::frame::{LENGTH_BYTES, decode_response, encode_request};
use klamm_protocol::{ApiKey, Request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{Notify, mpsc, oneshot};

use super::negotiate::{Versions, negotiate};
use crate::config::ClientConfig;
use crate::error::RequestError;
use crate::runtime::Tasks;

/// The correlation id alone.
const LEAST_ANSWER_BYTES: i32 = 4;
/// Small answers are read several at a time.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// Frames that wait to be written go out together, up to this many per system call.
const MAX_SLICES: usize = 32;

/// An open connection. Cheap to clone; the last clone closes it.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    address: Arc<str>,
    client_id: Arc<str>,
    versions: OnceLock<Versions>,
    frames: mpsc::UnboundedSender<Frame>,
    state: Arc<State>,
    /// Ends reader and writer when the connection is dropped.
    _tasks: Tasks,
}

/// What the writer gets.
#[derive(Debug)]
struct Frame {
    bytes: Bytes,
    /// Told when the bytes were handed to the operating system, for requests that are not answered.
    written: Option<oneshot::Sender<Result<Bytes, RequestError>>>,
}

/// Shared by the handle and the two tasks.
#[derive(Debug)]
struct State {
    waiting: Mutex<Waiting>,
    /// Wakes the tasks so that they end.
    ended: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    next_correlation: i32,
    /// Unanswered requests, oldest first.
    requests: VecDeque<(i32, oneshot::Sender<Result<Bytes, RequestError>>)>,
    /// Why the connection ended.
    failure: Option<RequestError>,
}

impl State {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection; the first reason stays.
    fn fail(&self, error: RequestError) {
        let requests = {
            let mut waiting = self.waiting();
            if waiting.failure.is_some() {
                return;
            }
            waiting.failure = Some(error.clone());
            std::mem::take(&mut waiting.requests)
        };
        self.ended.notify_waiters();
        for (_, sender) in requests {
            // Nobody waits any more: fine.
            let _ = sender.send(Err(error.clone()));
        }
    }
}

impl Connection {
    /// Connects to `address` and learns which versions the broker speaks.
    pub(crate) async fn open(address: Arc<str>, config: &ClientConfig) -> Result<Self, RequestError> {
        let connect = async {
            let stream = config.net.connect(&address).await.map_err(|error| RequestError::Connect {
                address: Arc::clone(&address),
                source: Arc::new(error),
            })?;
            let connection = Self::over(stream, Arc::clone(&address), config);
            let versions = negotiate(&connection, config.connect_timeout).await?;
            // It was not set before: the connection is new.
            let _ = connection.inner.versions.set(versions);
            Ok(connection)
        };
        match tokio::time::timeout(config.connect_timeout, connect).await {
            Ok(result) => result,
            Err(_) => Err(RequestError::Connect {
                address: Arc::clone(&address),
                source: Arc::new(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no answer within {:?} (setting `connect_timeout`)", config.connect_timeout),
                )),
            }),
        }
    }

    fn over(stream: Box<dyn crate::runtime::Stream>, address: Arc<str>, config: &ClientConfig) -> Self {
        let state = Arc::new(State { waiting: Mutex::default(), ended: Notify::new() });
        let (frames, queue) = mpsc::unbounded_channel();
        let (reader, writer) = tokio::io::split(stream);
        let tasks = Tasks::new();
        tasks.spawn(
            "connection writer",
            write_frames(writer, queue, Arc::clone(&state), Arc::clone(&address)),
        );
        tasks.spawn(
            "connection reader",
            read_frames(reader, Arc::clone(&state), Arc::clone(&address), config.max_response_bytes),
        );
        let client_id = Arc::clone(&config.client_id);
        let versions = OnceLock::new();
        Self { inner: Arc::new(Inner { address, client_id, versions, frames, state, _tasks: tasks }) }
    }

    pub(crate) fn address(&self) -> &Arc<str> {
        &self.inner.address
    }

    /// Whether these are handles to the same connection.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Whether it ended. A new one must be made.
    pub(crate) fn is_closed(&self) -> bool {
        self.inner.state.waiting().failure.is_some()
    }

    /// The highest version of `R` that both sides speak.
    pub(crate) fn version<R: Request>(&self) -> Result<i16, RequestError> {
        self.version_up_to::<R>(i16::MAX)
    }

    /// The highest version of `R` that both sides speak and that is at most `cap`.
    pub(crate) fn version_up_to<R: Request>(&self, cap: i16) -> Result<i16, RequestError> {
        self.inner
            .versions
            .get()
            .and_then(|versions| versions.pick::<R>(cap))
            .ok_or_else(|| RequestError::Unsupported { address: Arc::clone(self.address()), api: R::KEY })
    }

    /// Sends a request in the highest common version and waits for its answer.
    pub(crate) async fn call<R: Request>(
        &self,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response, RequestError> {
        self.start(request, self.version::<R>()?)?.within(timeout).await
    }

    /// Queues a request, in the order of calls, and returns its answer to come.
    pub(crate) fn start<R: Request>(&self, request: &R, version: i16) -> Result<Answer<R>, RequestError> {
        let receiver = self.enqueue(request, version, true)?;
        Ok(Answer { connection: self.clone(), receiver, version, request: PhantomData })
    }

    /// Queues a request that the broker does not answer (Produce with `acks` 0), and returns its being written to come.
    pub(crate) fn send_only<R: Request>(&self, request: &R, version: i16) -> Result<Written, RequestError> {
        let receiver = self.enqueue(request, version, false)?;
        Ok(Written { connection: self.clone(), receiver, api: R::KEY })
    }

    /// Sends a request and gives its undecoded answer: for negotiation, where the answer's version is not known yet.
    pub(super) async fn exchange<R: Request>(
        &self,
        request: &R,
        version: i16,
        timeout: Duration,
    ) -> Result<Bytes, RequestError> {
        let receiver = self.enqueue(request, version, true)?;
        self.receive(receiver, R::KEY, timeout).await
    }

    /// Ends the connection because of what the broker sent, and gives the error that says so.
    pub(super) fn broke_protocol(&self, reason: impl Into<Arc<str>>) -> RequestError {
        let error = RequestError::Protocol { address: Arc::clone(self.address()), reason: reason.into() };
        self.inner.state.fail(error.clone());
        error
    }

    fn enqueue<R: Request>(
        &self,
        request: &R,
        version: i16,
        answered: bool,
    ) -> Result<oneshot::Receiver<Result<Bytes, RequestError>>, RequestError> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.inner.state.waiting();
        if let Some(error) = &waiting.failure {
            // This request was not sent: whatever ended the connection, it can be tried elsewhere.
            return Err(RequestError::Connect {
                address: Arc::clone(self.address()),
                source: Arc::new(io::Error::new(io::ErrorKind::NotConnected, error.to_string())),
            });
        }
        let correlation = waiting.next_correlation;
        let frame =
            encode_request(request, version, correlation, Some(&self.inner.client_id)).map_err(|error| {
                RequestError::Encode {
                    address: Arc::clone(self.address()),
                    api: R::KEY,
                    reason: Arc::from(error.to_string()),
                }
            })?;
        waiting.next_correlation = correlation.wrapping_add(1) & i32::MAX;
        let mut frame = Frame { bytes: frame, written: None };
        if answered {
            waiting.requests.push_back((correlation, sender));
        } else {
            frame.written = Some(sender);
        }
        // Under the lock, so that frames leave in the order in which their answers are expected. When the writer
        // has ended, `fail` follows.
        let _ = self.inner.frames.send(frame);
        Ok(receiver)
    }

    async fn receive(
        &self,
        receiver: oneshot::Receiver<Result<Bytes, RequestError>>,
        api: ApiKey,
        timeout: Duration,
    ) -> Result<Bytes, RequestError> {
        match tokio::time::timeout(timeout, receiver).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(disconnected(self.address(), "the connection was dropped")),
            Err(_) => {
                // Answers come in order: behind this one nothing would come either.
                let error =
                    RequestError::Timeout { address: Arc::clone(self.address()), api, after: timeout };
                self.inner.state.fail(error.clone());
                Err(error)
            }
        }
    }
}

/// An answer to come. Dropping it leaves the request on its way.
#[derive(Debug)]
pub(crate) struct Answer<R> {
    connection: Connection,
    receiver: oneshot::Receiver<Result<Bytes, RequestError>>,
    version: i16,
    request: PhantomData<fn() -> R>,
}

impl<R: Request> Answer<R> {
    /// Waits for the answer. When `timeout` passes the connection ends.
    pub(crate) async fn within(self, timeout: Duration) -> Result<R::Response, RequestError> {
        let frame = self.connection.receive(self.receiver, R::KEY, timeout).await?;
        match decode_response::<R>(frame, self.version) {
            Ok((_, response)) => Ok(response),
            Err(error) => Err(self.connection.broke_protocol(format!(
                "cannot read its answer to {:?} version {}: {error}",
                R::KEY,
                self.version
            ))),
        }
    }
}

/// A request that is not answered, on its way to the operating system.
#[derive(Debug)]
pub(crate) struct Written {
    connection: Connection,
    receiver: oneshot::Receiver<Result<Bytes, RequestError>>,
    api: ApiKey,
}

impl Written {
    /// Waits until it is written. When `timeout` passes the connection ends.
    pub(crate) async fn within(self, timeout: Duration) -> Result<(), RequestError> {
        self.connection.receive(self.receiver, self.api, timeout).await.map(drop)
    }
}

fn disconnected(address: &Arc<str>, reason: impl Into<Arc<str>>) -> RequestError {
    RequestError::Disconnected { address: Arc::clone(address), reason: reason.into() }
}

async fn write_frames(
    mut stream: impl AsyncWrite + Unpin,
    mut queue: mpsc::UnboundedReceiver<Frame>,
    state: Arc<State>,
    address: Arc<str>,
) {
    let write = async {
        let mut gathered = Gathered::default();
        let mut written = Vec::new();
        while let Some(frame) = queue.recv().await {
            let mut next = Some(frame);
            while let Some(frame) = next {
                gathered.0.push_back(frame.bytes);
                written.extend(frame.written);
                next = if gathered.0.len() < MAX_SLICES { queue.try_recv().ok() } else { None };
            }
            stream.write_all_buf(&mut gathered).await?;
            stream.flush().await?;
            for written in written.drain(..) {
                // Whoever asked may have gone.
                let _ = written.send(Ok(Bytes::new()));
            }
        }
        io::Result::Ok(())
    };
    tokio::select! {
        result = write => if let Err(error) = result {
            state.fail(disconnected(&address, format!("write failed: {error}")));
        },
        () = ended(&state) => {}
    }
}

async fn read_frames(stream: impl AsyncRead + Unpin, state: Arc<State>, address: Arc<str>, limit: usize) {
    let mut stream = BufReader::with_capacity(READ_BUFFER_BYTES, stream);
    tokio::select! {
        error = read_answers(&mut stream, &state, &address, limit) => state.fail(error),
        () = ended(&state) => {}
    }
}

async fn ended(state: &State) {
    let notified = state.ended.notified();
    if state.waiting().failure.is_none() {
        notified.await;
    }
}

/// Hands out answers until something is wrong, and says what.
async fn read_answers(
    stream: &mut (impl AsyncRead + Unpin),
    state: &State,
    address: &Arc<str>,
    limit: usize,
) -> RequestError {
    loop {
        let frame = match read_frame(stream, address, limit).await {
            Ok(frame) => frame,
            Err(error) => return error,
        };
        let correlation = frame.first_chunk().map_or(-1, |id| i32::from_be_bytes(*id));
        let mut waiting = state.waiting();
        let Some((expected, sender)) = waiting.requests.pop_front() else {
            let reason = Arc::from(format!("an answer (correlation id {correlation}) to nothing"));
            return RequestError::Protocol { address: Arc::clone(address), reason };
        };
        if correlation != expected {
            // The request gets its error with all others.
            waiting.requests.push_front((expected, sender));
            let reason = Arc::from(format!("correlation id {correlation} instead of {expected}"));
            return RequestError::Protocol { address: Arc::clone(address), reason };
        }
        drop(waiting);
        // Whoever asked may have gone.
        let _ = sender.send(Ok(frame));
    }
}

async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    address: &Arc<str>,
    limit: usize,
) -> Result<Bytes, RequestError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => disconnected(address, "the broker closed it"),
        _ => disconnected(address, format!("read failed: {error}")),
    };
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length).await.map_err(failed)?;
    let length = i32::from_be_bytes(length);
    if length < LEAST_ANSWER_BYTES {
        let reason = Arc::from(format!("an answer of {length} bytes"));
        return Err(RequestError::Protocol { address: Arc::clone(address), reason });
    }
    let size = usize::try_from(length).unwrap_or(usize::MAX);
    if size > limit {
        return Err(RequestError::ResponseTooLarge {
            address: Arc::clone(address),
            size: i64::from(length),
            limit,
        });
    }
    let mut frame = BytesMut::with_capacity(size);
    let mut rest = stream.take(size as u64);
    while frame.len() < size {
        if rest.read_buf(&mut frame).await.map_err(failed)? == 0 {
            return Err(disconnected(address, "the broker closed it in the middle of an answer"));
        }
    }
    Ok(frame.freeze())
}

/// Frames that are written with one system call.
#[derive(Debug, Default)]
struct Gathered(VecDeque<Bytes>);

impl Buf for Gathered {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.0.front().map_or(&[], |frame| frame)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(&self.0);
        filled.map(|(slice, frame)| *slice = IoSlice::new(frame)).count()
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(frame) = self.0.front_mut() {
            if count < frame.len() {
                frame.advance(count);
                return;
            }
            count -= frame.len();
            self.0.pop_front();
        }
    }
}
