//! An append on its way, as who asked for it sees it: a future that may be dropped.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::batch::Appended;
use super::error::{AppendError, interrupted};

/// What a disk thread says.
pub(super) struct Answer(pub(super) oneshot::Receiver<Result<Appended, AppendError>>);

/// An append under way. Batches get their offsets in the order of the calls of [`append`](super::Partition::append), as
/// far as they were queued at once ([`Appending::queued`]); what was queued is appended or refused also when this is
/// dropped.
#[must_use = "only waiting for it says whether the batch was appended"]
pub struct Appending(pub(super) Stage);

/// How far it is.
pub(super) enum Stage {
    Told(Result<Appended, AppendError>),
    /// Too much waits for the disk already; nothing has happened yet.
    WaitsForRoom(BoxFuture<'static, Answer>),
    Queued(Answer),
}

impl std::fmt::Debug for Appending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Stage::Told(_) => "Appending(told)",
            Stage::WaitsForRoom(_) => "Appending(waits for room)",
            Stage::Queued(_) => "Appending(queued)",
        })
    }
}

impl Appending {
    /// Waits until the batch has its place in the queue: what is appended later comes behind it. From then on it needs
    /// nobody who waits. Cancel-safe.
    pub async fn queued(&mut self) {
        if let Stage::WaitsForRoom(queued) = &mut self.0 {
            self.0 = Stage::Queued(queued.await);
        }
    }
}

impl Future for Appending {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut self.0 {
                Stage::Told(result) => return Poll::Ready(result.clone()),
                Stage::WaitsForRoom(queued) => {
                    let answer = ready!(queued.poll_unpin(context));
                    self.0 = Stage::Queued(answer);
                }
                Stage::Queued(answer) => {
                    let told = ready!(answer.0.poll_unpin(context));
                    return Poll::Ready(told.unwrap_or_else(|_| Err(interrupted().into())));
                }
            }
        }
    }
}
