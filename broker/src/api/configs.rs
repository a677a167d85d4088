//! What the requests about settings have in common: whose they are, and how a change is carried out.

use std::collections::BTreeSet;

use klamm_protocol::ErrorCode;
use tokio::time::Instant;

use super::Context;
use crate::controller::{Change, ChangeTopic};

/// Kafka's numbers for those who have settings.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;

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

/// Changes settings of whoever has them.
///
/// # Errors
/// What its owner is told.
pub(super) async fn change(
    context: &Context,
    resource_type: i8,
    name: &str,
    change: Change,
    validate_only: bool,
) -> Result<(), Refused> {
    match resource_type {
        TOPIC => change_topic(context, name, change, validate_only, None).await,
        BROKER if name.is_empty() || is_this_broker(context, name) => {
            let message =
                "the broker's settings are what it was started with: change them there, and restart it";
            Err((ErrorCode::InvalidConfig, message.to_owned()))
        }
        BROKER => Err((ErrorCode::InvalidRequest, format!("there is no broker {name}"))),
        other => Err((ErrorCode::InvalidRequest, format!("resources of kind {other} have no settings here"))),
    }
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
