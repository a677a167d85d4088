//! Why an app does not start or ends by itself.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::{AdminError, ClientError, ConsumeError};
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
    /// A handler takes a template that the app does not declare.
    #[error(
        "listener `{listener}` takes `{type_name}`, but the app declares no such template; add it with \
         `App::template::<K, V>(\"topic\")`"
    )]
    MissingTemplate {
        /// The listener's id.
        listener: Arc<str>,
        /// The template's Rust type.
        type_name: &'static str,
    },
    /// The app declares two templates of the same types: a handler could not say which it means.
    #[error(
        "the app declares `{type_name}` twice, to {first} and to {second}; give the values types of their own, or name \
         another topic for single records (`record(value).topic(..)`)"
    )]
    DuplicateTemplate {
        /// The Rust type.
        type_name: &'static str,
        /// The topic of the one.
        first: Arc<str>,
        /// The topic of the other.
        second: Arc<str>,
    },
    /// A template sends to a topic that cannot exist.
    #[error(
        "no topic can be called \"{topic}\", to which a template sends: 1 to 249 letters, digits, `.`, `_` or `-`"
    )]
    IllegalTemplateTopic {
        /// The name.
        topic: Arc<str>,
    },
    /// A placeholder in the topic of a template stands for nothing.
    #[error("the template to `{topic}`: {source}")]
    TemplatePlaceholder {
        /// The topic, as written.
        topic: Arc<str>,
        /// What is wrong with it.
        source: PlaceholderError,
    },
    /// A sequence names a container group that no listener is in.
    #[error(
        "no listener is in the container group `{group}`, which a sequence names; `container_group` puts one in"
    )]
    NoContainerGroup {
        /// The group.
        group: Arc<str>,
    },
    /// A sequence names a container group twice.
    #[error("a sequence names the container group `{group}` twice")]
    ContainerGroupTwice {
        /// The group.
        group: Arc<str>,
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
    /// Where a listener is to begin in the partitions that it names could not be looked up.
    #[error("listener `{listener}` cannot begin where it is to: {source}")]
    Position {
        /// The listener's id.
        listener: Arc<str>,
        /// What failed.
        source: ConsumeError,
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
    /// The app's [document](crate::asyncapi), which the environment asked for, could not be printed.
    #[cfg(feature = "asyncapi")]
    #[error("cannot print the app's AsyncAPI document: {0}")]
    Document(#[source] io::Error),
    /// A listener stopped by itself. The others were drained.
    #[error("listener `{listener}` stopped: {failure}")]
    Listener {
        /// The listener's id.
        listener: Arc<str>,
        /// Why.
        failure: ListenerFailure,
    },
}

/// Why the listeners of a running app did not become others; see [`ListenerRegistry`](super::ListenerRegistry).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The app has no such listener.
    #[error("the app has no listener `{listener}`; it has {known:?}")]
    Unknown {
        /// The id.
        listener: Arc<str>,
        /// Those that there are.
        known: Vec<Arc<str>>,
    },
    /// No listener is in such a group.
    #[error("no listener is in the container group `{group}`; `container_group` puts one in")]
    UnknownGroup {
        /// The group.
        group: Arc<str>,
    },
    /// The listener does not fit to the app, or does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Nothing would be handled.
    #[error("concurrency 0 would never handle anything; pause the listener, or stop it")]
    NoConcurrency,
    /// The app is shut down, or was dropped.
    #[error("the app is shut down")]
    Ended,
}

impl RegistryError {
    /// Of a listener that is started with its app.
    pub(super) fn of_start(self, listener: &Arc<str>) -> StartError {
        match self {
            Self::Start(error) => error,
            _ => StartError::Stopped { listener: Arc::clone(listener), source: ListenerFailure::Ended },
        }
    }
}
