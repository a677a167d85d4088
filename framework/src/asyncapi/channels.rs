//! The channels of a document: topics, patterns of topics, and places that a request names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klamm_client::NewTopic;
use serde_json::{Map, Value, json};

use super::messages::BINDING_VERSION;
use super::names::{name_of, unused};

/// Where records go to or come from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Topic(Arc<str>),
    Pattern(Arc<str>),
    /// The topic that the requests of this operation name.
    AsAsked(String),
}

/// The channels so far.
#[derive(Debug, Default)]
pub(super) struct Channels {
    ids: BTreeMap<Place, String>,
    by_id: BTreeMap<String, Channel>,
}

#[derive(Debug)]
struct Channel {
    place: Place,
    declared: Option<NewTopic>,
    /// Names of messages, which are the same among the channel's and the components'.
    messages: BTreeSet<String>,
}

impl Channels {
    /// The channel of a place, which is made if there is none.
    pub(super) fn id(&mut self, place: &Place) -> String {
        if let Some(id) = self.ids.get(place) {
            return id.clone();
        }
        let wanted = match place {
            Place::Topic(topic) => name_of(topic, "topic"),
            Place::Pattern(pattern) => name_of(&format!("pattern-{pattern}"), "pattern"),
            Place::AsAsked(operation) => format!("replies-of-{operation}"),
        };
        let id = unused(wanted, &self.by_id);
        let channel = Channel { place: place.clone(), declared: None, messages: BTreeSet::new() };
        self.by_id.insert(id.clone(), channel);
        self.ids.insert(place.clone(), id.clone());
        id
    }

    /// A topic that the app declares.
    pub(super) fn declare(&mut self, topic: &NewTopic) {
        let id = self.id(&Place::Topic(Arc::clone(&topic.name)));
        if let Some(channel) = self.by_id.get_mut(&id) {
            channel.declared = Some(topic.clone());
        }
    }

    /// Notes that a message of this name is on the channel, and gives the reference to it.
    pub(super) fn carry(&mut self, id: &str, message: &str) -> Value {
        if let Some(channel) = self.by_id.get_mut(id) {
            channel.messages.insert(message.to_owned());
        }
        json!({ "$ref": format!("#/channels/{id}/messages/{message}") })
    }

    pub(super) fn into_value(self) -> Value {
        self.by_id.into_iter().map(|(id, channel)| (id, channel.into_value())).collect::<Map<_, _>>().into()
    }
}

impl Channel {
    fn into_value(self) -> Value {
        let mut value = Map::new();
        let address = match &self.place {
            Place::Topic(topic) => json!(&**topic),
            Place::Pattern(_) | Place::AsAsked(_) => Value::Null,
        };
        value.insert("address".to_owned(), address);
        let described = match &self.place {
            Place::Topic(_) => None,
            Place::Pattern(pattern) => Some(format!("Every topic whose whole name matches `{pattern}`.")),
            Place::AsAsked(_) => Some("The topic that the request names.".to_owned()),
        };
        if let Some(described) = described {
            value.insert("description".to_owned(), described.into());
        }
        let messages: Map<_, _> =
            self.messages.into_iter().map(|name| (name.clone(), component(&name))).collect();
        value.insert("messages".to_owned(), messages.into());
        if let Place::Topic(topic) = &self.place {
            let mut kafka = Map::new();
            kafka.insert("topic".to_owned(), json!(&**topic));
            kafka.insert("bindingVersion".to_owned(), BINDING_VERSION.into());
            let declared = self.declared.as_ref();
            if let Some(partitions) = declared.map(|topic| topic.partitions).filter(|number| *number > 0) {
                kafka.insert("partitions".to_owned(), partitions.into());
            }
            if let Some(replicas) = declared.map(|topic| topic.replication).filter(|number| *number > 0) {
                kafka.insert("replicas".to_owned(), replicas.into());
            }
            value.insert("bindings".to_owned(), json!({ "kafka": kafka }));
        }
        value.into()
    }
}

fn component(message: &str) -> Value {
    json!({ "$ref": format!("#/components/messages/{message}") })
}
