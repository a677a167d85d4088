//! Events that a program may listen to, and how a listener's panic is contained.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::{ApiKey, ErrorCode};

use crate::error::RequestError;
use crate::types::TopicPartition;

/// Something that happened to a client.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ClientEvent {
    /// A connection was made, the login included.
    Connected {
        /// The broker's `host:port`.
        address: Arc<str>,
    },
    /// A connection ended that was made before: the broker closed it, kept silent, or broke the protocol.
    Disconnected {
        /// The broker's `host:port`.
        address: Arc<str>,
        /// Why.
        error: RequestError,
    },
    /// No connection could be made. Told of every attempt; the pauses between them grow.
    ConnectFailed {
        /// The broker's `host:port`.
        address: Arc<str>,
        /// Why.
        error: RequestError,
    },
    /// The broker does not take this client for who it says it is, or the reverse. No secret is in the error.
    AuthenticationFailed {
        /// The broker's `host:port`.
        address: Arc<str>,
        /// Why.
        error: RequestError,
    },
    /// A broker asked to be left alone for a while: a quota is used up.
    Throttled {
        /// The broker's id.
        node: i32,
        /// What was asked.
        api: ApiKey,
        /// For how long.
        pause: Duration,
    },
    /// No broker tells about the cluster; what was known before is used on.
    MetadataLost {
        /// What failed.
        error: RequestError,
    },
    /// A broker does again.
    MetadataRestored,
    /// A rebalance ended, and these partitions were added: none, perhaps.
    PartitionsAssigned {
        /// The group.
        group: Arc<str>,
        /// What was added.
        partitions: Vec<TopicPartition>,
    },
    /// Partitions go to another member, or the consumer closes.
    PartitionsRevoked {
        /// The group.
        group: Arc<str>,
        /// What goes.
        partitions: Vec<TopicPartition>,
    },
    /// Partitions went away without warning: the group went on without this member.
    PartitionsLost {
        /// The group.
        group: Arc<str>,
        /// What is lost.
        partitions: Vec<TopicPartition>,
    },
    /// The group refuses a member for good: another one has its `group_instance_id`, for instance.
    MemberRefused {
        /// The group.
        group: Arc<str>,
        /// Kafka's error code.
        code: ErrorCode,
    },
    /// Another producer was built with the same transactional id.
    ProducerFenced {
        /// The transactional id.
        transactional_id: Arc<str>,
        /// Kafka's error code.
        code: ErrorCode,
    },
}

/// Listens to a client and all that is made from it ([`ClientBuilder::observer`](crate::ClientBuilder::observer)): for
/// health checks, alarms and tests.
///
/// It is called on the client's own tasks, so it must return at once: nothing of the client goes on before. To wait, or
/// to call the client, send the event somewhere else. A panic is logged and goes no further.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicBool, Ordering};
///
/// use klamm_client::{Client, ClientEvent, Observer};
///
/// struct Health(Arc<AtomicBool>);
///
/// impl Observer for Health {
///     fn on_event(&self, event: &ClientEvent) {
///         match event {
///             ClientEvent::MetadataLost { .. } => self.0.store(false, Ordering::Relaxed),
///             ClientEvent::MetadataRestored => self.0.store(true, Ordering::Relaxed),
///             _ => {}
///         }
///     }
/// }
///
/// let healthy = Arc::new(AtomicBool::new(true));
/// let builder = Client::builder().observer(Health(Arc::clone(&healthy)));
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Something happened.
    fn on_event(&self, event: &ClientEvent);
}

/// The observers of a client, in the order in which they are told.
#[derive(Clone, Default)]
pub(crate) struct Observers(Vec<Arc<dyn Observer>>);

impl Observers {
    pub(crate) fn add(&mut self, observer: Arc<dyn Observer>) {
        self.0.push(observer);
    }

    /// Not under a lock: an observer may ask a handle something.
    pub(crate) fn tell(&self, event: impl FnOnce() -> ClientEvent) {
        if self.0.is_empty() {
            return;
        }
        let event = event();
        for observer in &self.0 {
            if catch_unwind(AssertUnwindSafe(|| observer.on_event(&event))).is_err() {
                tracing::error!(?event, "an observer panicked");
            }
        }
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observers").field(&self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Notes(Mutex<Vec<String>>);

    impl Observer for Notes {
        fn on_event(&self, event: &ClientEvent) {
            self.0.lock().unwrap().push(format!("{event:?}"));
        }
    }

    struct Panics;

    impl Observer for Panics {
        fn on_event(&self, _: &ClientEvent) {
            panic!("in on_event");
        }
    }

    #[test]
    fn all_are_told_and_a_panic_stops_none() {
        let notes = Arc::new(Notes(Mutex::default()));
        let mut observers = Observers::default();
        observers.tell(|| unreachable!("nobody listens"));
        observers.add(Arc::<Notes>::clone(&notes));
        observers.add(Arc::new(Panics));
        observers.add(Arc::<Notes>::clone(&notes));
        observers.tell(|| ClientEvent::MetadataRestored);
        assert_eq!(*notes.0.lock().unwrap(), ["MetadataRestored", "MetadataRestored"]);
        assert_eq!(format!("{observers:?}"), "Observers(3)");
    }
}
