//! Dead-letter topics that are not there and that nobody would make: told before the first dead letter needs one.

use std::collections::BTreeSet;
use std::sync::Arc;

use klamm_client::admin::ConfigResource;
use klamm_client::{AdminError, Client, ErrorCode, NewTopic};

use super::shared::Shared;
use super::troubles::Subject;
use crate::listener::flow::Flow;
use crate::listener::topics::{DEAD_LETTER_SUFFIX, Topics};

/// The brokers' setting on which it depends whether a topic comes to be when somebody writes to it.
const AUTO_CREATE: &str = "auto.create.topics.enable";

/// Looks once, and tells.
pub(super) async fn look(shared: &Shared, client: &Client) {
    for topic in wanted(shared) {
        let subject = Subject::DeadLetters(Arc::clone(&topic));
        match missing(client, &topic).await {
            Some(why) => {
                let reason = format!("dead letters of this listener go to topic {topic}, {why}");
                shared.troubles.tell(&shared.scope.id, subject, &reason);
            }
            None => shared.troubles.over(&subject),
        }
    }
}

/// Where its dead letters go, as far as it is known before there are any.
fn wanted(shared: &Shared) -> BTreeSet<Arc<str>> {
    // What dies in a retry topic goes to where that of its own topic goes.
    let of = |topic: &Arc<str>| format!("{}{DEAD_LETTER_SUFFIX}", shared.scope.source_topic(topic)).into();
    match shared.settings.policy.dead_letter_topic() {
        None => BTreeSet::new(),
        Some(Some(topic)) => [Arc::clone(topic)].into(),
        Some(None) => match &*shared.topics() {
            Topics::Names(names) => names.iter().map(of).collect(),
            // What it was given says what the pattern matches.
            Topics::Pattern(_) => shared.look(Flow::places).iter().map(|place| of(&place.topic)).collect(),
        },
    }
}

/// What is wrong and what helps, if no dead letter could go there. What cannot be found out is no trouble yet.
async fn missing(client: &Client, topic: &Arc<str>) -> Option<String> {
    let admin = client.admin();
    let error = admin.describe_topics(&[&**topic]).await.ok()?.remove(topic)?.err()?;
    match error.code() {
        Some(ErrorCode::UnknownTopicOrPartition) => {}
        Some(ErrorCode::TopicAuthorizationFailed) => {
            return Some("which this user may not describe: allow it to describe and write it".to_owned());
        }
        _ => return None,
    }
    if is_created_by_itself(client).await == Some(false) {
        return Some(format!(
            "which does not exist and which the brokers do not make ({AUTO_CREATE}=false): create it, or declare it \
             with `App::topic`"
        ));
    }
    let tried =
        admin.validate_topics(&[NewTopic::new(Arc::clone(topic))]).await.ok()?.remove(topic)?.err()?;
    may_not(&tried).then(|| {
        "which does not exist and which this user may not create: create it, or allow this user to".to_owned()
    })
}

fn may_not(error: &AdminError) -> bool {
    matches!(error.code(), Some(ErrorCode::TopicAuthorizationFailed | ErrorCode::ClusterAuthorizationFailed))
}

/// Whether the brokers make a topic that somebody writes to; none if they do not say so.
async fn is_created_by_itself(client: &Client) -> Option<bool> {
    let admin = client.admin();
    let broker = admin.describe_cluster().await.ok()?.brokers.first()?.id;
    let resource = ConfigResource::broker(broker);
    let mut described = admin.describe_configs(std::slice::from_ref(&resource)).await.ok()?;
    let entries = described.remove(&resource)?.ok()?;
    let setting = entries.iter().find(|entry| &*entry.name == AUTO_CREATE)?;
    setting.value.as_deref().map(|value| value == "true")
}
