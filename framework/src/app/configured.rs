//! Listeners and templates with the placeholders of their settings replaced. Pure.

use std::sync::Arc;

use super::StartError;
use super::placeholders::{PlaceholderError, Properties, has_placeholder};
use super::templates::DeclaredTemplate;
use crate::listener::{Listener, Partitions, Topics, topics_of};

/// Replaces what the listener's topics, pattern, group, id, dead-letter topic and `send_to` have in placeholders.
///
/// # Errors
/// A placeholder stands for nothing.
pub(super) fn configured(
    mut listener: Listener,
    properties: &Properties,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Listener, StartError> {
    let replace = |text: &Arc<str>| match has_placeholder(text) {
        true => properties.resolve(text, environment).map(Arc::from),
        false => Ok(Arc::clone(text)),
    };
    let replaced = (|| {
        let topics = match &listener.settings.topics {
            Topics::Names(names) => Topics::Names(replace_names(names, replace)?),
            Topics::Pattern(pattern) => Topics::Pattern(replace(pattern)?),
        };
        let replaced = |some: &Partitions| -> Result<Partitions, PlaceholderError> {
            Ok(Partitions { topic: replace(&some.topic)?, ..some.clone() })
        };
        let partitions = listener.settings.partitions.as_deref();
        let partitions = partitions.map(|all| all.iter().map(replaced).collect::<Result<Arc<[_]>, _>>());
        let partitions = partitions.transpose()?;
        let (group, id) = (replace(&listener.settings.group)?, replace(&listener.id)?);
        let dead_letters = match listener.settings.policy.dead_letter_topic() {
            Some(Some(topic)) if has_placeholder(topic) => Some(replace(topic)?),
            _ => None,
        };
        let send_to = listener.settings.send_to.as_ref().map(replace).transpose()?;
        Ok((topics, partitions, group, id, dead_letters, send_to))
    })();
    let (topics, partitions, group, id, dead_letters, send_to) =
        replaced.map_err(|source: PlaceholderError| StartError::Placeholder {
            listener: Arc::clone(&listener.id),
            source,
        })?;
    listener.id = id;
    listener.settings.topics = partitions.as_deref().map_or(topics, topics_of);
    listener.settings.partitions = partitions;
    listener.settings.group = group;
    listener.settings.send_to = send_to;
    if let Some(topic) = dead_letters {
        listener.settings.policy = listener.settings.policy.dead_letter_to(topic);
    }
    Ok(listener)
}

/// Replaces what the topics of templates have in placeholders.
///
/// # Errors
/// A placeholder stands for nothing.
pub(super) fn configure(
    templates: &mut [DeclaredTemplate],
    properties: &Properties,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<(), StartError> {
    for template in templates.iter_mut().filter(|template| has_placeholder(&template.topic)) {
        let replaced = properties.resolve(&template.topic, environment);
        template.topic = replaced.map(Arc::from).map_err(|source| StartError::TemplatePlaceholder {
            topic: Arc::clone(&template.topic),
            source,
        })?;
    }
    Ok(())
}

/// One placeholder may stand for several topics, separated by commas.
fn replace_names(
    names: &[Arc<str>],
    replace: impl Fn(&Arc<str>) -> Result<Arc<str>, PlaceholderError>,
) -> Result<Vec<Arc<str>>, PlaceholderError> {
    let mut replaced = Vec::with_capacity(names.len());
    for name in names {
        let text = replace(name)?;
        match has_placeholder(name) {
            true => replaced.extend(text.split(',').map(|name| Arc::from(name.trim()))),
            false => replaced.push(text),
        }
    }
    Ok(replaced)
}
