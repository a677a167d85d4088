//! The way to a group's coordinator: found on demand, forgotten when it moves.

use std::sync::{Arc, Mutex, PoisonError};

use klamm_protocol::messages::FindCoordinatorRequest;
use klamm_protocol::{ErrorCode, Request};

use super::event::moved;
use crate::cluster::Core;
use crate::connection::{Brokers, Connection, Links};
use crate::error::RequestError;

/// From here on several coordinators are asked for at once.
const BATCHED_FROM: i16 = 4;

/// Connections to the coordinator of one group.
#[derive(Debug)]
pub(crate) struct CoordinatorLink {
    group: Arc<str>,
    /// For what is answered at once: heartbeats, offsets.
    links: Links,
    /// For what the coordinator may hold back for minutes: on a connection answers come in order.
    patient: Links,
    node: Mutex<Option<i32>>,
}

impl CoordinatorLink {
    pub(crate) fn new(group: Arc<str>) -> Self {
        Self { group, links: Links::default(), patient: Links::default(), node: Mutex::new(None) }
    }

    pub(crate) fn group(&self) -> &Arc<str> {
        &self.group
    }

    /// The coordinator's id, if it is known.
    pub(crate) fn node(&self) -> Option<i32> {
        *self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to the coordinator. One attempt: callers retry within their deadlines.
    pub(crate) async fn connection(&self, core: &Core) -> Result<Connection, RequestError> {
        let node = self.find(core).await?;
        self.or_forget(self.links.connection(core, node).await)
    }

    /// A connection for requests that the coordinator holds back: joins and syncs.
    pub(super) async fn patient_connection(&self, core: &Core) -> Result<Connection, RequestError> {
        let node = self.find(core).await?;
        self.or_forget(self.patient.connection(core, node).await)
    }

    async fn find(&self, core: &Core) -> Result<i32, RequestError> {
        if let Some(node) = self.node() {
            return Ok(node);
        }
        let node = find(core, &self.group).await?;
        if core.address(node).is_none() {
            core.refresh_metadata(core.metadata.view().version).await?;
        }
        *self.node.lock().unwrap_or_else(PoisonError::into_inner) = Some(node);
        Ok(node)
    }

    fn or_forget<T>(&self, result: Result<T, RequestError>) -> Result<T, RequestError> {
        if result.is_err() {
            self.forget();
        }
        result
    }

    /// The coordinator moved or cannot be reached: look for it again.
    pub(crate) fn forget(&self) {
        *self.node.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Notes what a failure says about the coordinator.
    pub(crate) fn learn_from(&self, error: &RequestError) {
        let moved = match error {
            RequestError::Broker { code, .. } => moved(*code),
            _ => true,
        };
        if moved {
            self.forget();
        }
    }
}

/// Asks any broker who coordinates a group.
async fn find(core: &Core, group: &Arc<str>) -> Result<i32, RequestError> {
    let connection = core.links.any(core).await?;
    let version = connection.version::<FindCoordinatorRequest>()?;
    let mut request = FindCoordinatorRequest::default();
    if version >= BATCHED_FROM {
        request.coordinator_keys = vec![(&**group).into()];
    } else {
        request.key = (&**group).into();
    }
    let answer = connection.start(&request, version)?.within(core.config.request_timeout).await?;
    let (code, node) = match answer.coordinators.first() {
        Some(coordinator) if version >= BATCHED_FROM => (coordinator.error_code, coordinator.node_id),
        None if version >= BATCHED_FROM => (ErrorCode::CoordinatorNotAvailable.code(), -1),
        _ => (answer.error_code, answer.node_id),
    };
    match ErrorCode::from_code(code) {
        ErrorCode::None if node >= 0 => Ok(node),
        code => Err(RequestError::Broker {
            address: Arc::clone(connection.address()),
            api: FindCoordinatorRequest::KEY,
            code: if code == ErrorCode::None { ErrorCode::CoordinatorNotAvailable } else { code },
        }),
    }
}
