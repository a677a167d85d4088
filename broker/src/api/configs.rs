//! What the requests about settings have in common: whose they are, and how a change is carried out.

use std::collections::BTreeSet;

use futures::future::join_all;
use klamm_protocol::{ErrorCode, Utf8Bytes};
use tokio::time::Instant;

use super::Context;
use super::context::each_once;
use crate::controller::{COMMANDS_AT_ONCE, Change, ChangeBroker, ChangeTopic};

/// Kafka's numbers for those who have settings.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

/// Why a change was refused.
pub(super) type Refused = (ErrorCode, String);

/// What a request names more than once: which of the changes is meant is not said.
pub(super) fn named_twice<T: Ord>(named: impl Iterator<Item = T>) -> BTreeSet<T> {
    let (mut seen, mut twice) = (BTreeSet::new(), BTreeSet::new());
    for one in named {
        if let Some(before) = seen.replace(one) {
            twice.insert(before);
        }
    }
    twice
}

/// Whether a resource of this name is the broker that is asked.
pub(super) fn is_this_broker(context: &Context, name: &str) -> bool {
    // As it is written, and no other way: "01" and "+1" would each be answered with all settings.
    name == context.config().node_id.to_string()
}

/// A resource whose settings are to change.
pub(super) struct Wanted {
    pub(super) resource_type: i8,
    pub(super) name: Utf8Bytes,
    /// Or why the request makes no sense.
    pub(super) change: Result<Change, Refused>,
}

/// What came of it.
pub(super) struct Outcome {
    pub(super) resource_type: i8,
    pub(super) name: Utf8Bytes,
    pub(super) error: ErrorCode,
    pub(super) message: Option<Utf8Bytes>,
}

/// What came of it in the words of a response, each of which has a type of its own for the same.
macro_rules! responses {
    ($outcomes:expr, $response:ident) => {
        $outcomes
            .into_iter()
            .map(|outcome| $response {
                error_code: outcome.error.code(),
                error_message: outcome.message,
                resource_type: outcome.resource_type,
                resource_name: outcome.name,
                ..$response::default()
            })
            .collect()
    };
}
pub(super) use responses;

/// Changes settings of whoever has them, each once and in the order of the request.
pub(super) async fn change_all(
    context: &Context,
    resources: Vec<Wanted>,
    validate_only: bool,
) -> Vec<Outcome> {
    let key = |one: &Wanted| (one.resource_type, one.name.clone());
    let twice = named_twice(resources.iter().map(key));
    let mut resources = each_once(resources, key);
    let mut outcomes = Vec::new();
    loop {
        let some: Vec<Wanted> = resources.by_ref().take(COMMANDS_AT_ONCE).collect();
        if some.is_empty() {
            return outcomes;
        }
        let changes = some.into_iter().map(async |wanted| {
            let refused = match twice.contains(&key(&wanted)) {
                true => Err((ErrorCode::InvalidRequest, "it is in the request twice".to_owned())),
                false => wanted.change,
            };
            let Wanted { resource_type, name, .. } = wanted;
            let changed = match refused {
                Ok(wanted) => change(context, resource_type, &name, wanted, validate_only).await,
                Err(refused) => Err(refused),
            };
            let (error, message) = changed
                .err()
                .map_or((ErrorCode::None, None), |(error, message)| (error, Some(message.into())));
            Outcome { resource_type, name, error, message }
        });
        outcomes.extend(join_all(changes).await);
    }
}

async fn change(
    context: &Context,
    resource_type: i8,
    name: &str,
    change: Change,
    validate_only: bool,
) -> Result<(), Refused> {
    match resource_type {
        TOPIC => change_topic(context, name, change, validate_only, None).await,
        BROKER if name.is_empty() || is_this_broker(context, name) => {
            let command = ChangeBroker { broker: name.to_owned(), change };
            let changed = context.controller().change_broker(command, validate_only).await;
            changed.map_err(|error| (error.code, error.message))
        }
        other => Err(without_settings(other, name)),
    }
}

/// Why there are no settings.
pub(super) fn without_settings(resource_type: i8, name: &str) -> Refused {
    let message = match resource_type {
        BROKER => format!("there is no broker {name}"),
        BROKER_LOGGER => {
            "what is logged is up to the program that the broker runs in: see RUST_LOG".to_owned()
        }
        CLIENT_METRICS => "clients are not asked for metrics here".to_owned(),
        GROUP => "groups have no settings here: classic groups have none in Kafka, and there are no others"
            .to_owned(),
        other => format!("resources of kind {other} have no settings here"),
    };
    (ErrorCode::InvalidRequest, message)
}

/// Changes a topic.
///
/// # Errors
/// What its owner is told.
pub(super) async fn change_topic(
    context: &Context,
    name: &str,
    change: Change,
    validate_only: bool,
    until: Option<Instant>,
) -> Result<(), Refused> {
    let command = ChangeTopic { name: name.to_owned(), change };
    let changed = context.controller().change_topic_until(command, validate_only, until).await;
    changed.map_err(|error| (error.code, error.message))
}
