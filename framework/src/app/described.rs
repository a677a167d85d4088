//! What an app says of itself in its document, and the document of that and of its listeners and templates.

use klamm_client::NewTopic;

use super::templates::DeclaredTemplate;
use crate::asyncapi::{AsyncApi, Info, Outline, Schemas, Sends};
use crate::listener::Listener;

/// What the document needs beside listeners and templates, from the app to its handle.
#[derive(Debug, Clone)]
pub(super) struct Described {
    pub(super) info: Info,
    pub(super) schemas: Schemas,
    pub(super) bootstrap: String,
    pub(super) topics: Vec<NewTopic>,
}

impl Described {
    pub(super) fn new() -> Self {
        Self {
            info: Info::default(),
            schemas: Schemas::declared(),
            bootstrap: String::new(),
            topics: Vec::new(),
        }
    }

    pub(super) fn document(&self, listeners: &[Listener], templates: &[DeclaredTemplate]) -> AsyncApi {
        AsyncApi::of(&Outline {
            info: self.info.clone(),
            bootstrap: &self.bootstrap,
            topics: &self.topics,
            listeners,
            sends: templates.iter().map(sends).collect(),
            schemas: &self.schemas,
        })
    }
}

fn sends(template: &DeclaredTemplate) -> Sends<'_> {
    Sends { topic: &template.topic, keys: &template.keys, values: &template.values }
}
