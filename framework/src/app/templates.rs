//! Templates that an app declares, before there is a producer to send with.

use std::any::{TypeId, type_name};
use std::sync::Arc;

use klamm_client::Producer;

use super::StartError;
use crate::listener::{States, is_legal};
use crate::serde::{DefaultSerde, Payload};
use crate::template::Template;

/// A template by its types: handlers take it by them.
#[derive(Debug, Clone)]
pub(super) struct DeclaredTemplate {
    pub(super) type_id: TypeId,
    pub(super) type_name: &'static str,
    pub(super) topic: Arc<str>,
    #[cfg_attr(not(feature = "asyncapi"), expect(dead_code, reason = "documents about an app read it"))]
    pub(super) keys: Vec<Payload>,
    #[cfg_attr(not(feature = "asyncapi"), expect(dead_code, reason = "documents about an app read it"))]
    pub(super) values: Vec<Payload>,
    insert: fn(&Producer, Arc<str>, &mut States),
}

impl DeclaredTemplate {
    pub(super) fn new<K: DefaultSerde, V: DefaultSerde>(topic: Arc<str>) -> Self {
        let (type_id, type_name) = (TypeId::of::<Template<K, V>>(), type_name::<Template<K, V>>());
        let (keys, values) = (K::payloads(), V::payloads());
        Self { type_id, type_name, topic, keys, values, insert: insert::<K, V> }
    }
}

fn insert<K: DefaultSerde, V: DefaultSerde>(producer: &Producer, topic: Arc<str>, states: &mut States) {
    let serdes = states.serdes();
    states.insert(Template::<K, V>::with_serdes(
        producer,
        topic,
        serdes.of::<K>(true),
        serdes.of::<V>(false),
    ));
}

/// Checks what is declared.
///
/// # Errors
/// The first thing that is wrong.
pub(super) fn check(templates: &[DeclaredTemplate]) -> Result<(), StartError> {
    for (index, template) in templates.iter().enumerate() {
        let DeclaredTemplate { type_id, type_name, topic, .. } = template;
        if !is_legal(topic) {
            return Err(StartError::IllegalTemplateTopic { topic: Arc::clone(topic) });
        }
        if let Some(first) = templates[..index].iter().find(|first| first.type_id == *type_id) {
            let (first, second) = (Arc::clone(&first.topic), Arc::clone(topic));
            return Err(StartError::DuplicateTemplate { type_name, first, second });
        }
    }
    Ok(())
}

/// Makes them, for handlers to find.
pub(super) fn make(templates: &[DeclaredTemplate], producer: &Producer, states: &mut States) {
    for DeclaredTemplate { topic, insert, .. } in templates {
        insert(producer, Arc::clone(topic), states);
    }
}
