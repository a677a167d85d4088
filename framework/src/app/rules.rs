//! What an app asks of its listeners and gives to them, also to those that come while it runs.

use std::sync::Arc;

use super::placeholders::Properties;
use super::templates::DeclaredTemplate;
use super::{StartError, check, configured, templates};
use crate::listener::{DeadLetterTopics, Interceptors, Listener, States};

pub(super) struct Rules {
    pub(super) properties: Properties,
    pub(super) interceptors: Interceptors,
    pub(super) states: States,
    pub(super) templates: Vec<DeclaredTemplate>,
    pub(super) dead_letter_topics: Arc<DeadLetterTopics>,
}

impl Rules {
    /// Replaces the placeholders of the templates, and checks them.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn configure_templates(&mut self) -> Result<(), StartError> {
        let environment = |name: &str| std::env::var(name).ok();
        configured::configure(&mut self.templates, &self.properties, &environment)?;
        templates::check(&self.templates)
    }

    /// Replaces the placeholders of a listener, and gives it the interceptors of the app.
    ///
    /// # Errors
    /// A placeholder stands for nothing.
    pub(super) fn configured(&self, listener: Listener) -> Result<Listener, StartError> {
        let environment = |name: &str| std::env::var(name).ok();
        let mut listener = configured::configured(listener, &self.properties, &environment)?;
        listener.settings.interceptors.prepend(&self.interceptors);
        Ok(listener)
    }

    /// As [`Rules::configured`], and checks it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn fit(&self, listener: Listener) -> Result<Listener, StartError> {
        let listener = self.configured(listener)?;
        check::one(&listener, &self.states, &self.templates, &self.dead_letter_topics)?;
        Ok(listener)
    }

    /// Checks all that the app starts with.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(super) fn check(&self, listeners: &[Listener]) -> Result<(), StartError> {
        check::all(listeners, &self.states, &self.templates, &self.dead_letter_topics)
    }
}
