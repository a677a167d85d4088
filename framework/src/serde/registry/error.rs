//! What a registry did not do, and whose fault it is.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

/// Why a schema registry did not answer as hoped. `Clone`, because several who asked the same get the same answer.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// A setting cannot work.
    #[error("the schema registry's setting `{setting}`: {reason}")]
    Config {
        /// The method of [`SchemaRegistryBuilder`](super::SchemaRegistryBuilder).
        setting: &'static str,
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// Nobody answers there.
    #[error(
        "the schema registry at {url} cannot be reached: {reason} (setting `SchemaRegistry::builder(urls)`)"
    )]
    Unreachable {
        /// The address that was tried last.
        url: Arc<str>,
        /// What the network said.
        reason: Arc<str>,
    },
    /// It takes too long.
    #[error("the schema registry at {url} did not answer within {after:?} (setting `timeout`)")]
    Timeout {
        /// The address that was tried last.
        url: Arc<str>,
        /// How long one request may take.
        after: Duration,
    },
    /// It failed itself, and went on failing; or it is asked too much (429).
    #[error("the schema registry at {url} failed: {status} {message}")]
    Server {
        /// The address that was tried last.
        url: Arc<str>,
        /// The HTTP status: 429, or from 500 on.
        status: u16,
        /// What it said.
        message: Arc<str>,
    },
    /// It does not take who we are.
    #[error(
        "the schema registry at {url} refuses us: {status} {message} (settings `basic_auth`, `bearer_token`)"
    )]
    Unauthorized {
        /// The address.
        url: Arc<str>,
        /// 401 or 403.
        status: u16,
        /// What it said.
        message: Arc<str>,
    },
    /// It does not have it.
    #[error("the schema registry at {url} has no {what}: {code} {message}")]
    NotFound {
        /// The address.
        url: Arc<str>,
        /// What was asked for, as `schema with id 7`.
        what: Arc<str>,
        /// The registry's code, as 40403.
        code: i64,
        /// What it said.
        message: Arc<str>,
    },
    /// The subject does not have the type's schema, and nobody was asked to register it.
    #[error(
        "the type's schema is not under `{subject}` at {url}: {message} (register it, or setting \
         `auto_register(true)`)"
    )]
    NotRegistered {
        /// The address.
        url: Arc<str>,
        /// The subject.
        subject: Arc<str>,
        /// What it said.
        message: Arc<str>,
    },
    /// The schema does not go with those that the subject has.
    #[error(
        "the schema is not compatible with those under `{subject}` at {url}: {message} (change the schema, or the \
         subject's compatibility: `set_compatibility`)"
    )]
    Incompatible {
        /// The address.
        url: Arc<str>,
        /// The subject.
        subject: Arc<str>,
        /// What it said.
        message: Arc<str>,
    },
    /// It has it, and nobody here can use it.
    #[error("the {what} at {url} cannot be used here: {reason}")]
    Unusable {
        /// The address.
        url: Arc<str>,
        /// What was asked for, as `schema with the id 7`.
        what: Arc<str>,
        /// Why not.
        reason: Arc<str>,
    },
    /// It finds the schema, or something else that was sent, wrong.
    #[error("the schema registry at {url} does not take the {what}: {code} {message}")]
    Invalid {
        /// The address.
        url: Arc<str>,
        /// What was sent.
        what: Arc<str>,
        /// The registry's code, as 42201.
        code: i64,
        /// What it said.
        message: Arc<str>,
    },
    /// It answers with something else than a registry does.
    #[error(
        "what answers at {url} is no schema registry: {reason} (setting `SchemaRegistry::builder(urls)`)"
    )]
    Strange {
        /// The address.
        url: Arc<str>,
        /// What it said instead.
        reason: Arc<str>,
    },
}

impl RegistryError {
    /// Whether the same request may succeed later, or once an operator has put the settings right: no record is to
    /// blame, and none should be given up for it.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Server { .. }
            | Self::Unauthorized { .. }
            | Self::Strange { .. } => true,
            Self::Config { .. }
            | Self::NotFound { .. }
            | Self::NotRegistered { .. }
            | Self::Incompatible { .. }
            | Self::Unusable { .. }
            | Self::Invalid { .. } => false,
        }
    }

    /// Whether another of its addresses, or the same a little later, may do better: a failure of the server or of the
    /// way there, never a refusal.
    pub(super) fn is_worth_another_try(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } => true,
            // Who is asked too much is not helped by being asked again at once.
            Self::Server { status, .. } => *status >= 500,
            _ => false,
        }
    }
}
