//! `Admin`: the handle.

use std::collections::HashMap;
use std::sync::Arc;

use super::types::{GroupDescription, GroupListing, NewTopic, OffsetAt, OffsetSpec, TopicDescription};
use crate::client::Client;
use crate::error::{AdminError, RequestError};
use crate::types::TopicPartition;

/// Administers the cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admin {
    _client: Client,
}

impl Admin {
    pub(crate) fn new(client: Client) -> Self {
        Self { _client: client }
    }

    /// Creates topics and waits until the controller has them.
    ///
    /// # Errors
    /// No controller in time. What the controller says of each topic is in the map.
    pub async fn create_topics(
        &self,
        _topics: &[NewTopic],
    ) -> Result<HashMap<Arc<str>, Result<(), AdminError>>, AdminError> {
        Err(RequestError::Closed.into())
    }

    /// Deletes topics.
    ///
    /// # Errors
    /// As [`Admin::create_topics`].
    pub async fn delete_topics<T: AsRef<str>>(
        &self,
        _topics: &[T],
    ) -> Result<HashMap<Arc<str>, Result<(), AdminError>>, AdminError> {
        Err(RequestError::Closed.into())
    }

    /// Describes topics; does not create them.
    ///
    /// # Errors
    /// No broker in time.
    pub async fn describe_topics<T: AsRef<str>>(
        &self,
        _topics: &[T],
    ) -> Result<HashMap<Arc<str>, Result<TopicDescription, AdminError>>, AdminError> {
        Err(RequestError::Closed.into())
    }

    /// All topics, by name.
    ///
    /// # Errors
    /// No broker in time.
    pub async fn list_topics(&self) -> Result<Vec<TopicDescription>, AdminError> {
        Err(RequestError::Closed.into())
    }

    /// All groups of all brokers, by id.
    ///
    /// # Errors
    /// A broker did not answer in time.
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>, AdminError> {
        Err(RequestError::Closed.into())
    }

    /// Describes groups. A group that does not exist is described as `Dead`, or is an error, as the broker's version has it.
    ///
    /// # Errors
    /// No coordinator in time.
    pub async fn describe_groups<T: AsRef<str>>(
        &self,
        _groups: &[T],
    ) -> Result<HashMap<Arc<str>, Result<GroupDescription, AdminError>>, AdminError> {
        Err(RequestError::Closed.into())
    }

    /// Looks up offsets by place or time.
    ///
    /// # Errors
    /// No leader in time.
    pub async fn offsets(
        &self,
        _specs: &HashMap<TopicPartition, OffsetSpec>,
    ) -> Result<HashMap<TopicPartition, Result<OffsetAt, AdminError>>, AdminError> {
        Err(RequestError::Closed.into())
    }

    /// All committed offsets of a group.
    ///
    /// # Errors
    /// No coordinator in time, or the group cannot be read.
    pub async fn committed_offsets(&self, _group: &str) -> Result<HashMap<TopicPartition, i64>, AdminError> {
        Err(RequestError::Closed.into())
    }
}
