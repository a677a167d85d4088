//! Security of connections: TLS, and who the client is (SASL).
//!
//! ```text
//! settings.rs   Security, Sasl: what a client is set to
//! secret.rs     text that is never shown
//! tls.rs        TLS by rustls over any stream (feature `tls`)
//! login.rs      a login over a connection: handshake, messages, session lifetime
//! mechanism.rs  what the mechanisms have in common           (pure)
//! plain.rs      PLAIN                                        (pure)
//! scram.rs      SCRAM-SHA-256 and SCRAM-SHA-512              (pure)
//! oauth.rs      OAUTHBEARER                                  (pure), and where tokens come from
//! ```

mod login;
mod mechanism;
mod oauth;
mod plain;
mod scram;
mod secret;
mod settings;
#[cfg(feature = "tls")]
mod tls;

pub(crate) use login::{SaslTransport, log_in, renew_after};
pub use oauth::{Token, TokenProvider};
pub(crate) use scram::salted_password;
pub use settings::{Sasl, Security};
#[cfg(feature = "tls")]
pub use tls::Tls;

use std::sync::Arc;

use crate::error::RequestError;
use crate::runtime::Stream;

/// The stream to `address` (`host:port`) as the settings have it: encrypted, or as it is.
pub(crate) async fn encrypt(
    stream: Box<dyn Stream>,
    address: &Arc<str>,
    security: Option<&Security>,
) -> Result<Box<dyn Stream>, RequestError> {
    #[cfg(feature = "tls")]
    if let Some(tls) = security.and_then(Security::encryption) {
        return tls::encrypt(stream, address, tls).await;
    }
    let _ = (address, security);
    Ok(stream)
}
