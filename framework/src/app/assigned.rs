//! Waits until a listener that has begun has its partitions, or tells why it has none.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::StartError;
use crate::listener::ListenerHandle;

/// Why a listener has no partitions.
pub(super) enum Unassigned {
    Stopped(StartError),
    Late(ListenerHandle),
}

impl Unassigned {
    pub(super) fn at(self, after: Duration) -> StartError {
        match self {
            Self::Stopped(error) => error,
            Self::Late(handle) => {
                let troubles = handle.troubles().iter().map(ToString::to_string).collect();
                StartError::NotAssigned { listener: handle.id().into(), after, troubles }
            }
        }
    }
}

/// Waits until the group has given the listener its partitions.
pub(super) async fn assigned(handle: &ListenerHandle, end: Option<Instant>) -> Result<(), Unassigned> {
    let assigned = match end {
        Some(end) => timeout_at(end, handle.wait_assigned()).await,
        None => Ok(handle.wait_assigned().await),
    };
    let id = || Arc::from(handle.id());
    match assigned {
        Ok(Ok(())) => {}
        Ok(Err(source)) => return Err(Unassigned::Stopped(StartError::Stopped { listener: id(), source })),
        Err(_) => return Err(Unassigned::Late(handle.clone())),
    }
    match handle.topic_refused() {
        Some(trouble) => {
            Err(Unassigned::Stopped(StartError::TopicRefused { listener: id(), reason: trouble.reason }))
        }
        None => Ok(()),
    }
}
