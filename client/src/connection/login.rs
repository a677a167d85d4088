//! Sessions of connections: the login at the beginning, and again before it ends (KIP-368).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use klamm_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use klamm_protocol::{ApiKey, Request};

use super::socket::{Connection, Living};
use crate::config::ClientConfig;
use crate::error::RequestError;
use crate::runtime::Rng;
use crate::security::{Sasl, SaslTransport, Security, log_in, renew_after};

/// The version after which the mechanism's messages have frames.
const HANDSHAKE_VERSION: i16 = 1;
/// A part of a session's life after which a renewal that could not begin is tried again.
const AGAIN_AFTER: u32 = 20;
/// A broker that says that sessions last no time does not get logins without end.
const LEAST_PAUSE: Duration = Duration::from_millis(100);

/// A connection on which the client is who the settings say. Connecting and logging in may take `connect_timeout` each.
pub(super) async fn open(address: Arc<str>, config: &ClientConfig) -> Result<Connection, RequestError> {
    let connection = Connection::open(address, config).await?;
    match tokio::time::timeout(config.connect_timeout, begin_session(&connection, config)).await {
        Ok(result) => result?,
        Err(_) => {
            let reason = format!("no login within {:?} (setting `connect_timeout`)", config.connect_timeout);
            let source = Arc::new(io::Error::new(io::ErrorKind::TimedOut, reason));
            return Err(RequestError::Connect { address: Arc::clone(connection.address()), source });
        }
    }
    Ok(connection)
}

/// Logs in, if the settings say so, and sees to it that the session does not end.
async fn begin_session(connection: &Connection, config: &ClientConfig) -> Result<(), RequestError> {
    let Some(sasl) = config.security.as_ref().and_then(Security::login) else { return Ok(()) };
    let lifetime = log_in(&Login { connection, timeout: config.connect_timeout }, sasl).await?;
    connection.release();
    if let Some(lifetime) = lifetime {
        let (sasl, rng, timeout) = (sasl.clone(), Arc::clone(&config.rng), config.request_timeout);
        connection
            .spawn("session renewal", move |connection| renew(connection, sasl, lifetime, timeout, rng));
    }
    Ok(())
}

/// Logs in again before each session ends. Other requests wait only while the broker is being talked to.
async fn renew(living: Living, sasl: Sasl, mut lifetime: Duration, timeout: Duration, rng: Arc<dyn Rng>) {
    let mut pause = renew_after(lifetime, &*rng);
    loop {
        tokio::time::sleep(pause.max(LEAST_PAUSE)).await;
        let Some(connection) = living().filter(|connection| !connection.is_closed()) else { return };
        match log_in(&Login { connection: &connection, timeout }, &sasl).await {
            Ok(next) => {
                connection.release();
                let Some(next) = next else { return };
                lifetime = next;
                pause = renew_after(lifetime, &*rng);
            }
            // No token was to be had: the session goes on until the broker ends it.
            Err(error) if !connection.is_held() && error.is_retriable() => {
                tracing::warn!(%error, address = %connection.address(), "a session could not be renewed yet");
                pause = lifetime / AGAIN_AFTER;
            }
            Err(error) => {
                tracing::warn!(%error, address = %connection.address(), "a session could not be renewed");
                connection.end(error);
                return;
            }
        }
    }
}

/// A connection on which a login runs.
struct Login<'a> {
    connection: &'a Connection,
    timeout: Duration,
}

#[async_trait]
impl SaslTransport for Login<'_> {
    fn address(&self) -> &Arc<str> {
        self.connection.address()
    }

    async fn handshake(&self, request: SaslHandshakeRequest) -> Result<SaslHandshakeResponse, RequestError> {
        let version = self.connection.version::<SaslHandshakeRequest>()?;
        if version < HANDSHAKE_VERSION {
            let (address, api) = (Arc::clone(self.address()), ApiKey::SaslHandshake);
            return Err(RequestError::Unsupported { address, api });
        }
        self.connection.hold();
        self.send(&request).await
    }

    async fn authenticate(
        &self,
        request: SaslAuthenticateRequest,
    ) -> Result<SaslAuthenticateResponse, RequestError> {
        self.send(&request).await
    }
}

impl Login<'_> {
    async fn send<R: Request>(&self, request: &R) -> Result<R::Response, RequestError> {
        self.connection.call(request, self.timeout).await
    }
}
