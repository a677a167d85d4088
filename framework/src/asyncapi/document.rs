//! The document: servers, channels, operations, messages. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::channels::{Channels, Place};
use super::messages::{BINDING_VERSION, Messages, Parts};
use super::names::{name_of, unused};
use super::{Outline, Sends, VERSION};
use crate::listener::{Listener, Topics};
use crate::template::request::REPLY_TOPIC;

/// The document of an app.
pub(super) fn document(outline: &Outline<'_>) -> Value {
    let messages = Messages::new(outline.schemas);
    let mut written = Written { channels: Channels::default(), messages, operations: BTreeMap::new() };
    outline.topics.iter().for_each(|topic| written.channels.declare(topic));
    outline.listeners.iter().for_each(|listener| written.receives(listener));
    outline.sends.iter().for_each(|sends| written.sends(sends));
    let mut document = Map::new();
    document.insert("asyncapi".to_owned(), VERSION.into());
    let info = json!({ "title": &*outline.info.title, "version": &*outline.info.version });
    document.insert("info".to_owned(), info);
    let servers = servers(outline.bootstrap);
    if !servers.is_empty() {
        document.insert("servers".to_owned(), servers.into());
    }
    document.insert("channels".to_owned(), written.channels.into_value());
    document.insert("operations".to_owned(), written.operations.into_iter().collect::<Map<_, _>>().into());
    document.insert("components".to_owned(), written.messages.into_components());
    document.into()
}

fn servers(bootstrap: &str) -> Map<String, Value> {
    let hosts = bootstrap.split(',').map(str::trim).filter(|host| !host.is_empty());
    let named = hosts.enumerate().map(|(index, host)| {
        let name = if index == 0 { "kafka".to_owned() } else { format!("kafka-{}", index + 1) };
        (name, json!({ "host": host, "protocol": "kafka" }))
    });
    named.collect()
}

/// What is written of a document so far.
struct Written<'a> {
    channels: Channels,
    messages: Messages<'a>,
    operations: BTreeMap<String, Value>,
}

impl Written<'_> {
    fn receives(&mut self, listener: &Listener) {
        let places: Vec<Place> = match &listener.settings.topics {
            Topics::Names(names) => names.iter().map(|name| Place::Topic(Arc::clone(name))).collect(),
            Topics::Pattern(pattern) => vec![Place::Pattern(Arc::clone(pattern))],
        };
        let is_alone = places.len() == 1;
        for place in places {
            let channel = self.channels.id(&place);
            let wanted = match is_alone {
                true => name_of(&listener.id, "listener"),
                false => name_of(&format!("{}-{channel}", listener.id), "listener"),
            };
            let id = unused(wanted, &self.operations);
            let reads = &listener.needs.reads;
            let parts = Parts {
                value: None,
                key: reads.keys.first(),
                headers: &reads.headers,
                is_correlated: !reads.replies.is_empty(),
            };
            let values = reads.values.iter().map(Some);
            let values: Vec<_> = if reads.values.is_empty() { vec![None] } else { values.collect() };
            let names: Vec<_> =
                values.into_iter().map(|value| self.messages.name(Parts { value, ..parts })).collect();
            let mut operation = self.operation("receive", &channel, &names);
            operation.insert("title".to_owned(), json!(&*listener.id));
            let mut kafka = Map::new();
            if !listener.settings.group.is_empty() {
                let group = &*listener.settings.group;
                kafka.insert("groupId".to_owned(), json!({ "type": "string", "enum": [group] }));
            }
            kafka.insert("bindingVersion".to_owned(), BINDING_VERSION.into());
            operation.insert("bindings".to_owned(), json!({ "kafka": kafka }));
            if let Some(reply) = self.reply(listener, &id) {
                operation.insert("reply".to_owned(), reply);
            }
            self.operations.insert(id, operation.into());
        }
    }

    /// Where the answers of a listener's operation go, and what they are.
    fn reply(&mut self, listener: &Listener, operation: &str) -> Option<Value> {
        let reads = &listener.needs.reads;
        if reads.replies.is_empty() {
            return None;
        }
        let (place, address) = match &listener.settings.send_to {
            Some(topic) => (Place::Topic(Arc::clone(topic)), None),
            None => {
                let location = format!("$message.header#/{REPLY_TOPIC}");
                (Place::AsAsked(operation.to_owned()), Some(json!({ "location": location })))
            }
        };
        let channel = self.channels.id(&place);
        // An answer has its request's key.
        let key = reads.keys.first();
        let parts = Parts { value: None, key, headers: &[], is_correlated: true };
        let names: Vec<_> = reads
            .replies
            .iter()
            .map(|value| self.messages.name(Parts { value: Some(value), ..parts }))
            .collect();
        let mut reply = self.on_channel(&channel, &names);
        if let Some(address) = address {
            reply.insert("address".to_owned(), address);
        }
        Some(reply.into())
    }

    fn sends(&mut self, sends: &Sends<'_>) {
        let channel = self.channels.id(&Place::Topic(Arc::clone(sends.topic)));
        let parts = Parts { value: None, key: sends.keys.first(), headers: &[], is_correlated: false };
        let names: Vec<_> = sends
            .values
            .iter()
            .map(|value| self.messages.name(Parts { value: Some(value), ..parts }))
            .collect();
        let operation = self.operation("send", &channel, &names);
        let id = unused(format!("send-{channel}"), &self.operations);
        self.operations.insert(id, operation.into());
    }

    fn operation(&mut self, action: &str, channel: &str, messages: &[String]) -> Map<String, Value> {
        let mut operation = self.on_channel(channel, messages);
        operation.insert("action".to_owned(), action.into());
        operation
    }

    fn on_channel(&mut self, channel: &str, messages: &[String]) -> Map<String, Value> {
        // Two types may be one message.
        let mut names: Vec<&String> = messages.iter().collect();
        names.sort();
        names.dedup();
        let messages: Vec<Value> = names.into_iter().map(|name| self.channels.carry(channel, name)).collect();
        let mut map = Map::new();
        map.insert("channel".to_owned(), json!({ "$ref": format!("#/channels/{channel}") }));
        map.insert("messages".to_owned(), messages.into());
        map
    }
}
