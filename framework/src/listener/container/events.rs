//! What happens to listeners, as a stream that a program may follow: bounded, and told without waiting for anybody.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{BoxStream, Stream, StreamExt, empty, unfold};
use klamm_client::TopicPartition;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{self, Receiver, Sender, WeakSender};

use super::status::{DrainReport, ListenerFailure};
use super::troubles::Trouble;

/// Events that wait for a receiver; who is further behind misses the oldest.
const EVENTS_MAX: usize = 1_024;

/// Something that happened to a listener.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ListenerEvent {
    /// It begins; its group has given it no partitions yet.
    Started,
    /// Its group gave it partitions: none, perhaps, because all have their readers.
    Assigned {
        /// What came.
        partitions: Arc<[TopicPartition]>,
    },
    /// Partitions go to another member. What is in work of them may finish.
    Revoked {
        /// What goes.
        partitions: Arc<[TopicPartition]>,
    },
    /// Partitions went away without warning: the group went on without this member.
    Lost {
        /// What is lost.
        partitions: Arc<[TopicPartition]>,
    },
    /// It begins nothing more.
    Paused {
        /// In this partition; in all of them without one.
        partition: Option<TopicPartition>,
        /// Why.
        reason: PauseReason,
    },
    /// It goes on.
    Resumed {
        /// In this partition; in all of them without one.
        partition: Option<TopicPartition>,
        /// Why it had been paused.
        reason: PauseReason,
    },
    /// Nothing has come for as long as [`idle_after`](crate::listener::ListenerBuilder::idle_after) says, and nothing
    /// is in hand. Told once.
    Idle {
        /// For how long.
        lasting: Duration,
    },
    /// Something came after [`Idle`](Self::Idle).
    NotIdle,
    /// Somebody has to see to something.
    Trouble(Trouble),
    /// That is over: the cause is gone, or the partition is.
    TroubleOver(Trouble),
    /// A call of the handler runs for longer than [`slow_after`](crate::listener::ListenerBuilder::slow_after). Told
    /// once for a call.
    HandlerSlow {
        /// The partition of its record, or of the first one of its batch.
        partition: TopicPartition,
        /// That record's offset.
        offset: i64,
        /// How long it has been running, to a second.
        running: Duration,
    },
    /// It ends: nothing more is begun.
    Stopping,
    /// It was shut down.
    Stopped {
        /// What was left of its work.
        report: Arc<DrainReport>,
    },
    /// It ended by itself.
    Failed {
        /// Why.
        failure: ListenerFailure,
        /// What was left of its work.
        report: Arc<DrainReport>,
    },
    /// After [`Failed`](Self::Failed): it is started again, as its
    /// [`restart`](crate::listener::ListenerBuilder::restart) says. Events of the listener itself ended with the
    /// failure, those of the app go on.
    Restarting {
        /// In how long.
        after: Duration,
    },
}

/// Why a listener begins nothing more. That a partition has its share of the budget in hand is no event: that comes and
/// goes with the load (`klamm_listener_pauses_total` counts it).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PauseReason {
    /// Somebody said so.
    Asked,
    /// Something that a record's completion depends on cannot be sent.
    Output,
}

/// An event and whose it is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Event {
    /// The listener's id.
    pub listener: Arc<str>,
    /// What happened.
    pub what: ListenerEvent,
    /// How many events before this one were missed, because the receiver was too slow for them; mostly 0.
    pub missed: u64,
}

/// What happens from here on; it ends with the listeners. Up to 1,024 events wait for who follows them, and the next
/// one then says how many were [missed](Event::missed).
///
/// ```no_run
/// use klamm::listener::ListenerEvent;
///
/// # async fn follow(app: klamm::AppHandle) {
/// let mut events = app.events();
/// while let Some(event) = events.next().await {
///     match event.what {
///         ListenerEvent::Lost { partitions } => println!("{} lost {partitions:?}", event.listener),
///         ListenerEvent::Trouble(trouble) => println!("{}: {trouble}", event.listener),
///         _ => {}
///     }
/// }
/// # }
/// ```
pub struct Events(BoxStream<'static, Event>);

impl Events {
    /// The next event; `None` when there will be none. Dropping the future loses none.
    pub async fn next(&mut self) -> Option<Event> {
        StreamExt::next(&mut self.0).await
    }

    /// Those that `receiver` gets, of one listener or of all.
    fn of(receiver: Option<Receiver<Event>>, only: Option<Arc<str>>) -> Self {
        let Some(receiver) = receiver else { return Self(empty().boxed()) };
        Self(unfold(Some((receiver, only)), following).boxed())
    }
}

type Follower = (Receiver<Event>, Option<Arc<str>>);

/// The next event that is wanted. Of one listener there is none after its end.
async fn following(follower: Option<Follower>) -> Option<(Event, Option<Follower>)> {
    let (mut receiver, only) = follower?;
    let mut missed = 0;
    loop {
        let mut event = match receiver.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(events)) => {
                missed += events;
                continue;
            }
            Err(RecvError::Closed) => return None,
        };
        if only.as_ref().is_some_and(|only| *only != event.listener) {
            continue;
        }
        event.missed = missed;
        let is_end = matches!(event.what, ListenerEvent::Stopped { .. } | ListenerEvent::Failed { .. });
        let goes_on = only.is_none() || !is_end;
        return Some((event, goes_on.then_some((receiver, only))));
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

/// Where the events of an app's listeners go. Streams of them end when all of these are gone.
#[derive(Debug, Clone)]
pub(crate) struct EventHub(Sender<Event>);

impl Default for EventHub {
    fn default() -> Self {
        Self(broadcast::channel(EVENTS_MAX).0)
    }
}

impl EventHub {
    pub(crate) fn events(&self) -> Events {
        self.source().events(None)
    }

    pub(crate) fn source(&self) -> EventSource {
        EventSource(self.0.downgrade())
    }
}

/// Where events come from, as long as there are any.
#[derive(Debug, Clone)]
pub(crate) struct EventSource(WeakSender<Event>);

impl EventSource {
    /// What happens from here on, to one listener or to all.
    pub(crate) fn events(&self, only: Option<Arc<str>>) -> Events {
        Events::of(self.0.upgrade().map(|sender| sender.subscribe()), only)
    }

    pub(super) fn none() -> Events {
        Events::of(None, None)
    }

    /// An event happened; it is not even made if nobody follows.
    pub(super) fn tell(&self, listener: &Arc<str>, what: impl FnOnce() -> ListenerEvent) {
        let Some(sender) = self.0.upgrade().filter(|sender| sender.receiver_count() > 0) else { return };
        // Nobody receives who has gone since.
        let _ = sender.send(Event { listener: Arc::clone(listener), what: what(), missed: 0 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(n: u64) -> ListenerEvent {
        ListenerEvent::Idle { lasting: Duration::from_secs(n) }
    }

    fn number(event: &Event) -> u64 {
        let ListenerEvent::Idle { lasting } = event.what else { panic!("{event:?}") };
        lasting.as_secs()
    }

    #[tokio::test]
    async fn who_is_too_slow_is_told_how_much_was_missed() {
        let (hub, id) = (EventHub::default(), Arc::from("l"));
        let source = hub.source();
        source.tell(&id, || unreachable!("nobody follows"));
        let (mut all, mut own) = (hub.events(), source.events(Some(Arc::clone(&id))));
        let count = EVENTS_MAX as u64 + 76;
        for n in 0..count {
            source.tell(&id, || idle(n));
        }
        let first = all.next().await.unwrap();
        assert_eq!((first.missed, number(&first)), (76, 76));
        let second = all.next().await.unwrap();
        assert_eq!((second.missed, number(&second)), (0, 77));
        source.tell(&"another".into(), || idle(0));
        source.tell(&id, || ListenerEvent::Stopped { report: Arc::default() });
        drop(hub);
        assert!(own.next().await.is_some_and(|first| first.missed == 78));
        let mut rest = 0;
        while own.next().await.is_some() {
            rest += 1;
        }
        assert_eq!(rest, EVENTS_MAX - 2, "not those of the other one");
        assert!(source.events(None).next().await.is_none(), "all are gone");
    }
}
