//! One connection: requests go out pipelined, answers come back in order.
//!
//! Two tasks serve it, one writes and one reads. Whoever asks holds a receiver; the reader matches each answer with the
//! oldest unanswered request. Anything irregular (a wrong correlation id, an absurd length, silence beyond a deadline)
//! ends the connection and fails everything that waits on it: a stream that lost its place cannot be trusted again.
//!
//! The deadline of a request is the connection's business, not that of whoever asked: a caller with less patience than
//! `request_timeout` goes away, and the next one would be given the same silent connection again, for ever.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use klamm_protocol::frame::{LENGTH_BYTES, decode_response, encode_request_in_parts};
use klamm_protocol::{ApiKey, Request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::metrics::{self, ConnectionMetrics};
use super::negotiate::{Versions, negotiate};
use crate::config::ClientConfig;
use crate::error::RequestError;
use crate::observe::{ClientEvent, Observers};
use crate::runtime::Tasks;
use crate::security::encrypt;

/// The correlation id alone.
const LEAST_ANSWER_BYTES: i32 = 4;
/// What a length is believed up to: more room is made when that much has come.
const BELIEVED_BYTES: usize = 4 * 1024 * 1024;
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
    /// How long an answer may take, unless whoever asks says otherwise.
    request_timeout: Duration,
    versions: OnceLock<Versions>,
    next_correlation: AtomicI32,
    frames: mpsc::UnboundedSender<Frame>,
    state: Arc<State>,
    /// Ends reader and writer when the connection is dropped.
    tasks: Tasks,
}

/// The connection, while it lives.
pub(super) type Living = Box<dyn Fn() -> Option<Connection> + Send + Sync>;

/// What the writer gets.
#[derive(Debug)]
struct Frame {
    /// To be written one after the other: record batches are not copied.
    parts: Vec<Bytes>,
    /// Told when the bytes were handed to the operating system, for requests that are not answered.
    written: Option<oneshot::Sender<Result<Bytes, RequestError>>>,
}

/// Shared by the handle and the two tasks.
#[derive(Debug)]
struct State {
    address: Arc<str>,
    observers: Observers,
    metrics: ConnectionMetrics,
    waiting: Mutex<Waiting>,
    /// Wakes the tasks so that they end.
    ended: Notify,
    /// Wakes the reader: a request has an earlier deadline than the one it waits for.
    earlier: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Unanswered requests, oldest first.
    requests: VecDeque<Unanswered>,
    /// Requests that wait until a session is renewed: a broker takes nothing else in the middle of that.
    held: Option<Vec<(Frame, Option<Unanswered>)>>,
    /// When the reader looks at deadlines next; it is not woken for later ones.
    looks_at: Option<Instant>,
    /// Why the connection ended.
    failure: Option<RequestError>,
    /// Observers know of it, and are to hear of its end.
    announced: bool,
}

#[derive(Debug)]
struct Unanswered {
    correlation: i32,
    api: ApiKey,
    queued: Instant,
    timeout: Duration,
    deadline: Instant,
    sender: oneshot::Sender<Result<Bytes, RequestError>>,
}

impl State {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection; the first reason stays.
    fn fail(&self, error: RequestError) {
        let (requests, announced) = {
            let mut waiting = self.waiting();
            if waiting.failure.is_some() {
                return;
            }
            waiting.failure = Some(error.clone());
            let held = waiting.held.take().into_iter().flatten().filter_map(|(_, waits)| waits);
            let requests = std::mem::take(&mut waiting.requests).into_iter().chain(held).collect::<Vec<_>>();
            (requests, waiting.announced)
        };
        self.ended.notify_waiters();
        for request in requests {
            self.metrics.unanswered(request.api);
            // Nobody waits any more: fine.
            let _ = request.sender.send(Err(error.clone()));
        }
        if announced {
            self.tell_end(error);
        }
    }

    fn tell_end(&self, error: RequestError) {
        if matches!(error, RequestError::Authentication { .. }) {
            let (address, error) = (Arc::clone(&self.address), error.clone());
            self.observers.tell(|| ClientEvent::AuthenticationFailed { address, error });
        }
        let address = Arc::clone(&self.address);
        self.observers.tell(|| ClientEvent::Disconnected { address, error });
    }

    /// Makes sure that the reader looks at deadlines in time for this one.
    fn look_at(&self, waiting: &mut Waiting, deadline: Instant) {
        if waiting.looks_at.is_none_or(|looks_at| deadline < looks_at) {
            waiting.looks_at = Some(deadline);
            self.earlier.notify_one();
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
            let stream = encrypt(stream, &address, config.security.as_ref()).await?;
            let connection = Self::over(stream, Arc::clone(&address), config);
            let versions = negotiate(&connection, config.connect_timeout).await?;
            // It was not set before: the connection is new.
            let _ = connection.inner.versions.set(versions);
            Ok(connection)
        };
        let opened = match tokio::time::timeout(config.connect_timeout, connect).await {
            Ok(result) => result,
            Err(_) => Err(RequestError::Connect {
                address: Arc::clone(&address),
                source: Arc::new(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no answer within {:?} (setting `connect_timeout`)", config.connect_timeout),
                )),
            }),
        };
        metrics::connected(opened.is_ok());
        opened
    }

    fn over(stream: Box<dyn crate::runtime::Stream>, address: Arc<str>, config: &ClientConfig) -> Self {
        let state = Arc::new(State {
            address: Arc::clone(&address),
            observers: config.observers.clone(),
            metrics: ConnectionMetrics::new(),
            waiting: Mutex::default(),
            ended: Notify::new(),
            earlier: Notify::new(),
        });
        let (frames, queue) = mpsc::unbounded_channel();
        let (reader, writer) = tokio::io::split(stream);
        let tasks = Tasks::new();
        tasks.spawn(
            "connection writer",
            write_frames(writer, queue, Arc::clone(&state), Arc::clone(&address), config.request_timeout),
        );
        tasks.spawn(
            "connection reader",
            read_frames(reader, Arc::clone(&state), Arc::clone(&address), config.max_response_bytes),
        );
        let inner = Inner {
            address,
            client_id: Arc::clone(&config.client_id),
            request_timeout: config.request_timeout,
            versions: OnceLock::new(),
            next_correlation: AtomicI32::new(0),
            frames,
            state,
            tasks,
        };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn address(&self) -> &Arc<str> {
        &self.inner.address
    }

    /// Whether these are handles to the same connection.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// It can be used: observers hear of it, and of its end.
    pub(super) fn announce(&self) {
        let state = &self.inner.state;
        state.observers.tell(|| ClientEvent::Connected { address: Arc::clone(self.address()) });
        // It may have ended just now, when nobody knew of it.
        let ended = {
            let mut waiting = state.waiting();
            waiting.announced = true;
            waiting.failure.clone()
        };
        if let Some(error) = ended {
            state.tell_end(error);
        }
    }

    /// Whether it ended. A new one must be made.
    pub(crate) fn is_closed(&self) -> bool {
        self.inner.state.waiting().failure.is_some()
    }

    /// The level of a feature, if the cluster uses it.
    pub(crate) fn feature(&self, name: &str) -> Option<i16> {
        self.inner.versions.get()?.feature(name)
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

    /// Queues a request, in the order of calls, and returns its answer to come. The connection ends when the answer
    /// takes longer than `request_timeout`, or than [`Answer::within`] says, whether or not anybody still waits.
    pub(crate) fn start<R: Request>(&self, request: &R, version: i16) -> Result<Answer<R>, RequestError> {
        let (correlation, frame) = self.encode(request, version)?;
        let (sender, receiver) = oneshot::channel();
        let timeout = self.inner.request_timeout;
        let queued = Instant::now();
        let waits =
            Unanswered { correlation, api: R::KEY, queued, timeout, deadline: queued + timeout, sender };
        self.queue(R::KEY, Frame { parts: frame, written: None }, Some(waits))?;
        Ok(Answer { connection: self.clone(), receiver, correlation, version, request: PhantomData })
    }

    /// Queues a request that the broker does not answer (Produce with `acks` 0), and returns its being written to come.
    pub(crate) fn send_only<R: Request>(&self, request: &R, version: i16) -> Result<Written, RequestError> {
        let (_, frame) = self.encode(request, version)?;
        let (sender, receiver) = oneshot::channel();
        self.queue(R::KEY, Frame { parts: frame, written: Some(sender) }, None)?;
        Ok(Written { connection: self.clone(), receiver, api: R::KEY })
    }

    /// Sends a request and gives its undecoded answer: for negotiation, where the answer's version is not known yet.
    pub(super) async fn exchange<R: Request>(
        &self,
        request: &R,
        version: i16,
        timeout: Duration,
    ) -> Result<Bytes, RequestError> {
        self.start(request, version)?.frame_within(timeout).await
    }

    /// Ends the connection because of what the broker sent, and gives the error that says so.
    pub(super) fn broke_protocol(&self, reason: impl Into<Arc<str>>) -> RequestError {
        let error = RequestError::Protocol { address: Arc::clone(self.address()), reason: reason.into() };
        self.inner.state.fail(error.clone());
        error
    }

    /// A request's frame under a correlation id of its own. Not under the lock: a frame may hold many
    /// batches.
    fn encode<R: Request>(&self, request: &R, version: i16) -> Result<(i32, Vec<Bytes>), RequestError> {
        let correlation = self.inner.next_correlation.fetch_add(1, Ordering::Relaxed) & i32::MAX;
        let frame = encode_request_in_parts(request, version, correlation, Some(&self.inner.client_id));
        let frame = frame.map_err(|error| RequestError::Encode {
            address: Arc::clone(self.address()),
            api: R::KEY,
            reason: Arc::from(error.to_string()),
        })?;
        self.inner.state.metrics.sent(R::KEY, frame.iter().map(Bytes::len).sum());
        Ok((correlation, frame))
    }

    fn queue(&self, api: ApiKey, frame: Frame, waits: Option<Unanswered>) -> Result<(), RequestError> {
        let mut waiting = self.inner.state.waiting();
        if let Some(error) = &waiting.failure {
            // This request was not sent: whatever ended the connection, it can be tried elsewhere.
            return Err(RequestError::Connect {
                address: Arc::clone(self.address()),
                source: Arc::new(io::Error::new(io::ErrorKind::NotConnected, error.to_string())),
            });
        }
        let is_login = matches!(api, ApiKey::SaslHandshake | ApiKey::SaslAuthenticate);
        match waiting.held.as_mut().filter(|_| !is_login) {
            Some(held) => held.push((frame, waits)),
            None => self.dispatch(&mut waiting, frame, waits),
        }
        Ok(())
    }

    /// Under the lock, so that frames leave in the order in which their answers are expected.
    fn dispatch(&self, waiting: &mut Waiting, frame: Frame, waits: Option<Unanswered>) {
        if let Some(waits) = waits {
            let deadline = waits.deadline;
            waiting.requests.push_back(waits);
            self.inner.state.look_at(waiting, deadline);
        }
        // When the writer has ended, `fail` follows.
        let _ = self.inner.frames.send(frame);
    }

    /// From now on only logins are sent; everything else waits for `release`.
    pub(super) fn hold(&self) {
        self.inner.state.waiting().held.get_or_insert_default();
    }

    /// Whether requests wait for `release`.
    pub(super) fn is_held(&self) -> bool {
        self.inner.state.waiting().held.is_some()
    }

    /// Sends what waited, in the order in which it came.
    pub(super) fn release(&self) {
        let mut waiting = self.inner.state.waiting();
        for (frame, waits) in waiting.held.take().into_iter().flatten() {
            self.dispatch(&mut waiting, frame, waits);
        }
    }

    /// Ends the connection.
    pub(super) fn end(&self, error: RequestError) {
        self.inner.state.fail(error);
    }

    /// Runs a task that ends with the connection. It gets the connection for as long as somebody else has it.
    pub(super) fn spawn<F: Future<Output = ()> + Send + 'static>(
        &self,
        name: &'static str,
        task: impl FnOnce(Living) -> F,
    ) {
        let inner = Arc::downgrade(&self.inner);
        let living = move || inner.upgrade().map(|inner| Connection { inner });
        self.inner.tasks.spawn(name, task(Box::new(living)));
    }

    /// Gives an unanswered request another deadline, counted from now.
    fn set_timeout(&self, correlation: i32, timeout: Duration) {
        let mut waiting = self.inner.state.waiting();
        let Waiting { requests, held, .. } = &mut *waiting;
        let held = held.iter_mut().flatten().filter_map(|(_, waits)| waits.as_mut());
        // Most often it is the last one, just sent.
        let found = requests.iter_mut().rev().chain(held).find(|request| request.correlation == correlation);
        let Some(request) = found.filter(|request| request.timeout != timeout) else { return };
        request.timeout = timeout;
        request.deadline = Instant::now() + timeout;
        let deadline = request.deadline;
        self.inner.state.look_at(&mut waiting, deadline);
    }
}

/// An answer to come. Dropping it leaves the request on its way.
#[derive(Debug)]
pub(crate) struct Answer<R> {
    connection: Connection,
    receiver: oneshot::Receiver<Result<Bytes, RequestError>>,
    correlation: i32,
    version: i16,
    request: PhantomData<fn() -> R>,
}

impl<R: Request> Answer<R> {
    /// Waits for the answer. When `timeout` passes the connection ends.
    pub(crate) async fn within(self, timeout: Duration) -> Result<R::Response, RequestError> {
        let (connection, version) = (self.connection.clone(), self.version);
        let frame = self.frame_within(timeout).await?;
        match decode_response::<R>(frame, version) {
            Ok((_, response)) => Ok(response),
            Err(error) => Err(connection.broke_protocol(format!(
                "cannot read its answer to {:?} version {version}: {error}",
                R::KEY,
            ))),
        }
    }

    async fn frame_within(self, timeout: Duration) -> Result<Bytes, RequestError> {
        self.connection.set_timeout(self.correlation, timeout);
        match self.receiver.await {
            Ok(result) => result,
            Err(_) => Err(disconnected(self.connection.address(), "the connection was dropped")),
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
        let address = self.connection.address();
        match tokio::time::timeout(timeout, self.receiver).await {
            Ok(Ok(result)) => result.map(drop),
            Ok(Err(_)) => Err(disconnected(address, "the connection was dropped")),
            Err(_) => {
                let error =
                    RequestError::Timeout { address: Arc::clone(address), api: self.api, after: timeout };
                self.connection.inner.state.fail(error.clone());
                Err(error)
            }
        }
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
    patience: Duration,
) {
    let write = async {
        let mut gathered = Gathered::default();
        let mut written = Vec::new();
        while let Some(frame) = queue.recv().await {
            let mut next = Some(frame);
            while let Some(frame) = next {
                gathered.0.extend(frame.parts);
                written.extend(frame.written);
                next = if gathered.0.len() < MAX_SLICES { queue.try_recv().ok() } else { None };
            }
            while gathered.has_remaining() {
                // A peer that takes nothing for so long is as good as gone.
                match tokio::time::timeout(patience, stream.write_buf(&mut gathered)).await?? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    _written => {}
                }
            }
            tokio::time::timeout(patience, stream.flush()).await??;
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
        error = overdue(&state, &address) => state.fail(error),
        () = ended(&state) => {}
    }
}

async fn ended(state: &State) {
    let notified = state.ended.notified();
    if state.waiting().failure.is_none() {
        notified.await;
    }
}

/// Waits until a request is overdue, and says which. Answers come in order: behind that one nothing would come either.
async fn overdue(state: &State, address: &Arc<str>) -> RequestError {
    loop {
        let looks_at = {
            let mut waiting = state.waiting();
            let now = Instant::now();
            if let Some(late) = waiting.requests.iter().find(|request| request.deadline <= now) {
                return RequestError::Timeout {
                    address: Arc::clone(address),
                    api: late.api,
                    after: late.timeout,
                };
            }
            waiting.looks_at = waiting.requests.iter().map(|request| request.deadline).min();
            waiting.looks_at
        };
        match looks_at {
            // An earlier deadline may have come meanwhile; the permit of `notify_one` is kept.
            None => state.earlier.notified().await,
            Some(at) => tokio::select! {
                () = tokio::time::sleep_until(at) => {}
                () = state.earlier.notified() => {}
            },
        }
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
        let Some(oldest) = waiting.requests.pop_front() else {
            let reason = Arc::from(format!("an answer (correlation id {correlation}) to nothing"));
            return RequestError::Protocol { address: Arc::clone(address), reason };
        };
        if correlation != oldest.correlation {
            let expected = oldest.correlation;
            // The request gets its error with all others.
            waiting.requests.push_front(oldest);
            let reason = Arc::from(format!("correlation id {correlation} instead of {expected}"));
            return RequestError::Protocol { address: Arc::clone(address), reason };
        }
        drop(waiting);
        state.metrics.answered(oldest.api, oldest.queued.elapsed(), LENGTH_BYTES + frame.len());
        // Whoever asked may have gone.
        let _ = oldest.sender.send(Ok(frame));
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
    let mut frame = BytesMut::with_capacity(size.min(BELIEVED_BYTES));
    let mut rest = stream.take(size as u64);
    while frame.len() < size {
        if frame.len() == frame.capacity() {
            // Twice as much, so that what came is moved seldom.
            frame.reserve((size - frame.len()).min(frame.len()));
        }
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
