//! One connection that passes a script: requests to the broker, answers back, one after the other.

use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use klamm_protocol::{ApiKey, ErrorCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, WriteHalf, split};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep};

use super::received::{Body, Received};
use super::script::{Answer, Exchange, Verdict};
use super::serve::read_frame;
use super::watched::{Watched, refused_metadata, with_length};
use crate::runtime::Stream;

/// Requests that wait behind one that is not answered.
const WAITING_MAX: usize = 1_000;

/// Passes on until one of the two goes, or the script wants it closed.
pub(super) async fn pass_through(
    client: DuplexStream,
    broker: Box<dyn Stream>,
    watched: Arc<Mutex<Watched>>,
) {
    let (mut from_client, to_client) = split(client);
    let (frames, waiting) = mpsc::channel(WAITING_MAX);
    let gone = Notify::new();
    let mut connection = Connection { to_client, broker, waiting, watched, gone: &gone };
    let read = async {
        while let Ok(Some(frame)) = read_frame(&mut from_client).await
            && frames.send(frame).await.is_ok()
        {}
        drop(frames);
        gone.notify_one();
        pending::<()>().await;
    };
    tokio::select! {
        () = read => {}
        // An error is that one of the two went.
        _ = connection.serve() => {}
    }
}

struct Connection<'a> {
    to_client: WriteHalf<DuplexStream>,
    broker: Box<dyn Stream>,
    waiting: mpsc::Receiver<Bytes>,
    watched: Arc<Mutex<Watched>>,
    /// The client went.
    gone: &'a Notify,
}

impl Connection<'_> {
    async fn serve(&mut self) -> std::io::Result<()> {
        let mut unasked = [0; 1];
        loop {
            let frame = tokio::select! {
                biased;
                frame = self.waiting.recv() => frame,
                // Nothing comes that was not asked for: it is the end.
                _ = self.broker.read(&mut unasked) => None,
            };
            let Some(frame) = frame else { return Ok(()) };
            if !self.pass(frame).await? {
                return Ok(());
            }
        }
    }

    /// One request; `false` when that was the last one.
    async fn pass(&mut self, frame: Bytes) -> std::io::Result<bool> {
        let Ok(received) = Received::decode(frame.clone()).or_else(|_| Received::header(frame.clone()))
        else {
            // What that means is for the broker to say.
            return Ok(self.carry_out(&frame, true).await?.is_some());
        };
        let verdict = self.watch(|watched| watched.request(&received, Instant::now()));
        match &verdict.answer {
            Some(Answer::DisconnectBefore) => return Ok(false),
            Some(Answer::Hang) => return self.silence().await,
            Some(Answer::Bytes(bytes)) => return self.tell(bytes).await,
            _ => {}
        }
        let Some(answer) = self.answer(&received, &frame, &verdict).await? else { return Ok(false) };
        match &verdict.answer {
            Some(Answer::DisconnectAfter) => return Ok(false),
            Some(Answer::Never) => return self.silence().await,
            Some(Answer::Delayed(delay)) => sleep(*delay).await,
            _ => {}
        }
        let answer = match &verdict.answer {
            Some(Answer::Tampered(tamper)) => {
                let (api, version) = (received.api, received.version);
                tamper.apply(&Exchange { api, version, request: &received.bytes, answer: &answer })
            }
            _ => answer,
        };
        self.tell(&answer).await?;
        Ok(!matches!(verdict.answer, Some(Answer::ThenDisconnect)))
    }

    /// The answer with its length, empty for a request that has none; `None` to close the connection.
    async fn answer(
        &mut self,
        received: &Received,
        frame: &Bytes,
        verdict: &Verdict,
    ) -> std::io::Result<Option<Bytes>> {
        let is_answered = !matches!(&received.body, Some(Body::Produce(request)) if request.acks == 0);
        let refused: Option<ErrorCode> = verdict.any_error();
        if let Some(code) = refused.filter(|_| received.api != ApiKey::Metadata) {
            let refusal = self.watch(|watched| watched.refusal(received, code, Instant::now()));
            return Ok(if is_answered { refusal } else { Some(Bytes::new()) });
        }
        let Some(answer) = self.carry_out(frame, is_answered).await? else { return Ok(None) };
        self.watch(|watched| watched.answered(received, &answer, Instant::now()));
        Ok(match refused {
            Some(code) => refused_metadata(received, &answer, code),
            None => Some(answer),
        })
    }

    /// Has the broker do it. `None`: one of the two went.
    async fn carry_out(&mut self, frame: &Bytes, is_answered: bool) -> std::io::Result<Option<Bytes>> {
        self.broker.write_all(&with_length(frame)).await?;
        self.broker.flush().await?;
        if !is_answered {
            return Ok(Some(Bytes::new()));
        }
        tokio::select! {
            answer = read_frame(&mut self.broker) => Ok(answer?.map(|answer| with_length(&answer))),
            () = self.gone.notified() => {
                // What a client said before it went is heard.
                while let Ok(frame) = self.waiting.try_recv() {
                    self.broker.write_all(&with_length(&frame)).await?;
                }
                self.broker.flush().await?;
                Ok(None)
            }
        }
    }

    async fn tell(&mut self, bytes: &[u8]) -> std::io::Result<bool> {
        self.to_client.write_all(bytes).await?;
        self.to_client.flush().await?;
        Ok(true)
    }

    /// Nothing more, until the client goes.
    async fn silence(&self) -> std::io::Result<bool> {
        self.gone.notified().await;
        Ok(false)
    }

    fn watch<R>(&self, look: impl FnOnce(&mut Watched) -> R) -> R {
        look(&mut self.watched.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
