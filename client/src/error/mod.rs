//! What can go wrong, by operation, and one umbrella over all of it.
//!
//! Every error answers three questions: whose fault it is (its variant and text), whether trying again can help
//! (`is_retriable`), and, for a write, whether the broker may have it already (`may_have_been_written`). Where a
//! setting would have avoided the error, the text names it. All of them are cheap to clone, because one failed request
//! may fail thousands of records.
//!
//! ```text
//! request.rs   a request to a broker
//! produce.rs   a record that was not delivered
//! consume.rs   reading, committing, group membership
//! share.rs     reading from share groups, acknowledging
//! transaction.rs  a transaction
//! admin.rs     administration
//! ```

use std::borrow::Cow;
use std::sync::Arc;

mod admin;
mod consume;
mod produce;
mod request;
mod share;
mod transaction;

pub use admin::AdminError;
pub use consume::ConsumeError;
pub use produce::ProduceError;
pub use request::RequestError;
pub use share::ShareError;
pub use transaction::TransactionError;

/// Any error of this crate.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A setting is wrong; nothing was sent.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A request to a broker failed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A record was not delivered.
    #[error(transparent)]
    Produce(#[from] ProduceError),
    /// Reading, committing or group membership failed.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// Reading from a share group, or acknowledging to it, failed.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// An administrative request failed.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A transaction failed.
    #[error(transparent)]
    Transaction(#[from] TransactionError),
}

impl ClientError {
    /// Whether the same call may succeed later without a change of settings.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Config(_) => false,
            Self::Request(error) => error.is_retriable(),
            Self::Produce(error) => error.is_retriable(),
            Self::Consume(error) => error.is_retriable(),
            Self::Share(error) => error.is_retriable(),
            Self::Admin(error) => error.is_retriable(),
            Self::Transaction(error) => error.is_retriable(),
        }
    }
}

/// A setting that cannot work, found before anything is sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("setting `{setting}`: {reason}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The builder method that sets it, or the property under which it was given.
    pub setting: Cow<'static, str>,
    /// What is wrong with the value.
    pub reason: String,
}

impl ConfigError {
    pub(crate) fn new(setting: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Self {
        Self { setting: setting.into(), reason: reason.into() }
    }
}

/// The broker's own words, as they are put behind its error code.
fn detail(message: &Option<Arc<str>>) -> String {
    message.as_ref().map(|message| format!(": {message}")).unwrap_or_default()
}
