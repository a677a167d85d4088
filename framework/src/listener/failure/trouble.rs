//! What becomes of what a listener cannot do anything about by itself: a dead letter that can never be sent, a batch
//! that cannot be read.

use std::sync::Arc;

/// What becomes of a record whose dead letter is refused for good: it is too large also without the story of its
/// failure, or the dead-letter topic may not be written to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Unsendable {
    /// The partition stands still, the others flow. It is tried again every minute, because somebody may grow a limit
    /// or grant a permission; until then it is said in the log and by
    /// [`ListenerHandle::troubles`](crate::listener::ListenerHandle::troubles). Nothing is lost. The default.
    #[default]
    Halt,
    /// The record is published to this topic instead. If that is refused too: [`Unsendable::Halt`].
    Park(Arc<str>),
    /// It is logged at error level, and the record is lost to this group.
    Skip,
    /// The listener stops. The record is not committed and comes again after a restart.
    Stop,
}

/// What becomes of a batch in the log that cannot be read because it is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Unreadable {
    /// The partition stands still, the others flow. It is read again every second, from another replica perhaps; until
    /// then it is said in the log and by
    /// [`ListenerHandle::troubles`](crate::listener::ListenerHandle::troubles). Nothing is lost. The default.
    #[default]
    Halt,
    /// It is logged at error level, and the records of the batch are lost to this group. A batch of which not even the
    /// end can be read halts its partition.
    Skip,
    /// The listener stops, and stops again after each restart until the batch is gone.
    Stop,
}
