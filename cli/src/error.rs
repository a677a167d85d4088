//! How a command can end other than well, and the exit code of each way.

use std::io;

use klamm_client::{AdminError, ClientError, ErrorCode, RequestError};

/// Why a command did not do its job.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The command was used in a way that cannot work, which only its run could find: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// It was tried and did not work: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// Some of several items did not work; each was told already: exit code 1.
    #[error("{failed} of {of} failed")]
    Some {
        /// How many did not.
        failed: usize,
        /// How many there were.
        of: usize,
    },
    /// The reader of our standard output went away, like `head` does: nothing to say, exit code 0.
    #[error("standard output was closed")]
    BrokenPipe,
}

impl CliError {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// An error about one item.
    pub(crate) fn about(kind: &str, name: &str, error: &AdminError) -> Self {
        let why = match error {
            AdminError::Broker { code: ErrorCode::UnsupportedVersion, .. } => NOT_THERE.to_owned(),
            AdminError::Broker { code, message: Some(message), .. } => format!("{code}: {message}"),
            AdminError::Broker { code, .. } => code.to_string(),
            other => words(other),
        };
        Self::Failed(format!("{kind} {name}: {why}"))
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::BrokenPipe => 0,
            Self::Failed(_) | Self::Some { .. } => 1,
            Self::Usage(_) => 2,
        }
    }
}

/// What a person can do about a request that a broker does not know.
const NOT_THERE: &str = concat!(
    "the broker does not serve this. Klamm's broker does not yet, and skipped-features.md says so; ",
    "Apache Kafka 4.3 does"
);

/// The words of an administrative error. That a broker lacks a request is said as such, with what to do about it.
fn words(error: &AdminError) -> String {
    match error {
        AdminError::Request(RequestError::Unsupported { address, api }) => {
            format!("{address} does not know {api:?}: {NOT_THERE}")
        }
        other => other.to_string(),
    }
}

impl From<AdminError> for CliError {
    fn from(error: AdminError) -> Self {
        Self::Failed(words(&error))
    }
}

/// Errors of the client say themselves whose fault they are and which setting helps.
macro_rules! from_client_errors {
    ($($error:ty),*) => {$(
        impl From<$error> for CliError {
            fn from(error: $error) -> Self {
                Self::Failed(error.to_string())
            }
        }
    )*};
}

from_client_errors!(
    ClientError,
    klamm_client::ConfigError,
    klamm_client::RequestError,
    klamm_client::ProduceError,
    klamm_client::ConsumeError,
    klamm::dead_letters::DeadLetterError
);

/// Standard output is the only stream that commands write to with `?`.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::Failed(format!("cannot write to standard output: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_a_broker_lacks_is_told_in_words() {
        let api = klamm_client::ApiKey::DescribeConfigs;
        let lacking = || AdminError::from(RequestError::Unsupported { address: "b:1".into(), api });
        let text = CliError::from(lacking()).to_string();
        assert!(
            text.starts_with("b:1 does not know DescribeConfigs: the broker does not serve this."),
            "{text}"
        );
        assert!(text.contains("Klamm's broker does not yet") && !text.contains("UNSUPPORTED"), "{text}");
        let text = CliError::about("topic", "t", &lacking()).to_string();
        assert!(text.starts_with("topic t: b:1 does not know DescribeConfigs"), "{text}");
        let refused =
            AdminError::Broker { what: "t".into(), code: ErrorCode::UnsupportedVersion, message: None };
        let text = CliError::about("topic", "t", &refused).to_string();
        assert!(
            text.starts_with("topic t: the broker does not serve this") && !text.contains("UNSUPPORTED"),
            "{text}"
        );
        let refused =
            AdminError::Broker { what: "Topic t".into(), code: ErrorCode::InvalidConfig, message: None };
        assert_eq!(CliError::about("topic", "t", &refused).to_string(), "topic t: INVALID_CONFIG");
    }

    #[test]
    fn exit_codes_are_the_documented_ones() {
        assert_eq!(CliError::usage("x").exit_code(), 2);
        assert_eq!(CliError::failed("x").exit_code(), 1);
        assert_eq!(CliError::Some { failed: 1, of: 2 }.exit_code(), 1);
        assert_eq!(CliError::from(io::Error::from(io::ErrorKind::BrokenPipe)).exit_code(), 0);
        assert_eq!(CliError::from(io::Error::from(io::ErrorKind::StorageFull)).exit_code(), 1);
    }
}
