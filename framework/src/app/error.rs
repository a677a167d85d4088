//! Why an app does not start or ends by itself.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::{AdminError, ClientError};
use thiserror::Error;

use super::placeholders::PlaceholderError;
use crate::listener::ListenerFailure;

/// Why an app could not start. Except for the first and the last, the program is wrong, not the world.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The cluster does not answer.
    #[error("cannot connect to the cluster: {0}")]
    Connect(#[source] ClientError),
    /// No listener was added.
    #[error(
        "the app has no listeners; add one with `listener(...)`, or those under `#[kafka_listener]` with `discover()`"
    )]
    NoListeners,
    /// A handler takes a state that the app does not have.
    #[error(
        "listener `{listener}` takes `State<{type_name}>`, but the app has no such state; {}",
        how_to_give(*has)
    )]
    MissingState {
        /// The listener's id.
        listener: Arc<str>,
        /// The state's Rust type.
        type_name: &'static str,
        /// The type of a state that the app has and that was probably meant.
        has: Option<&'static str>,
    },
    /// Two listeners have the same id.
    #[error("two listeners have the id `{listener}`: {}; give one another with `id`", both(first, second))]
    DuplicateId {
        /// The id.
        listener: Arc<str>,
        /// The function of the one.
        first: &'static str,
        /// The function of the other.
        second: &'static str,
    },
    /// A function was added that is not under `#[kafka_listener]`.
    #[error(
        "`{function}` is not under #[kafka_listener], so nothing says what it listens on; \
         annotate it, or add `Listener::on(...).group(...).handle({function})`"
    )]
    NotAnnotated {
        /// The function's name.
        function: &'static str,
    },
    /// The settings of a listener do not fit together.
    #[error("listener `{listener}`: {reason}")]
    Invalid {
        /// The listener's id.
        listener: Arc<str>,
        /// What is wrong.
        reason: &'static str,
    },
    /// A listener names a topic that cannot exist.
    #[error(
        "listener `{listener}`: no topic can be called \"{topic}\": 1 to 249 letters, digits, `.`, `_` or `-`{}",
        if topic.contains(',') { "; several topics are an array, [\"a\", \"b\"]" } else { "" }
    )]
    IllegalTopic {
        /// The listener's id.
        listener: Arc<str>,
        /// The name.
        topic: Arc<str>,
    },
    /// A retry topic would have a name that no topic can have: it holds the name of the topic, and the group.
    #[error(
        "listener `{listener}`: no retry topic can be called \"{topic}\": give its group a name of letters, digits, \
         `.`, `_` or `-`, and keep the whole below 250 letters"
    )]
    IllegalRetryTopic {
        /// The listener's id.
        listener: Arc<str>,
        /// The name.
        topic: Arc<str>,
    },
    /// A placeholder in a listener's settings stands for nothing.
    #[error("listener `{listener}`: {source}")]
    Placeholder {
        /// The listener's id, as written.
        listener: Arc<str>,
        /// What is wrong with it.
        source: PlaceholderError,
    },
    /// A file of properties cannot be read.
    #[error("cannot read the properties in {}: {source}", path.display())]
    PropertiesFile {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// A topic that the app declares cannot be made or grown.
    #[error("a topic that the app declares cannot be made or grown: {0}")]
    Topic(#[source] AdminError),
    /// A listener stopped before its group gave it partitions.
    #[error("listener `{listener}` does not start: {source}")]
    Stopped {
        /// The listener's id.
        listener: Arc<str>,
        /// Why.
        source: ListenerFailure,
    },
    /// A listener may not read a topic.
    #[error("listener `{listener}`: {reason}")]
    TopicRefused {
        /// The listener's id.
        listener: Arc<str>,
        /// Which, and what helps.
        reason: Arc<str>,
    },
    /// The group of a listener gave it no partitions in time.
    #[error(
        "listener `{listener}`: its group has not assigned partitions within {after:?}{}",
        because(troubles)
    )]
    NotAssigned {
        /// The listener's id.
        listener: Arc<str>,
        /// How long it waited.
        after: Duration,
        /// What is in the way, as far as it is known.
        troubles: Vec<String>,
    },
    /// A listener could not subscribe.
    #[error("listener `{listener}` cannot subscribe: {source}")]
    Subscribe {
        /// The listener's id.
        listener: Arc<str>,
        /// What failed.
        source: ClientError,
    },
}

fn how_to_give(has: Option<&str>) -> String {
    match has {
        Some(has) => format!("add it with `App::state(...)`, or take `State<{has}>`, which the app has"),
        None => "add it with `App::state(...)`".to_owned(),
    }
}

fn because(troubles: &[String]) -> String {
    match troubles {
        [] => {
            " (other members of the group may still be at work; `App::start_deadline` gives them more time)"
                .to_owned()
        }
        troubles => format!(": {}", troubles.join("; ")),
    }
}

fn both(first: &str, second: &str) -> String {
    if first == second { format!("`{first}`, twice") } else { format!("`{first}` and `{second}`") }
}

/// Why an app ended with an error.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The handlers of SIGTERM and SIGINT could not be set.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] io::Error),
    /// A listener stopped by itself. The others were drained.
    #[error("listener `{listener}` stopped: {failure}")]
    Listener {
        /// The listener's id.
        listener: Arc<str>,
        /// Why.
        failure: ListenerFailure,
    },
}
