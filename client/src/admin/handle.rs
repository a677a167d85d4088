//! `Admin`: the handle.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use klamm_protocol::messages::create_topics::{CreatableTopic, CreatableTopicConfig};
use klamm_protocol::messages::delete_topics::DeleteTopicState;
use klamm_protocol::messages::describe_groups::{DescribedGroup, DescribedGroupMember};
use klamm_protocol::messages::metadata::{MetadataResponsePartition, MetadataResponseTopic};
use klamm_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, DescribeGroupsRequest, ListGroupsRequest, MetadataResponse,
};
use klamm_protocol::{ApiKey, ErrorCode, Utf8Bytes};
use tokio::time::Instant;

use super::types::{
    GroupDescription, GroupListing, MemberDescription, NewTopic, PartitionDescription, TopicDescription,
};
use crate::client::Client;
use crate::cluster::{self, OffsetAt, OffsetSpec};
use crate::connection::{Connection, Retry};
use crate::error::{AdminError, RequestError};
use crate::group::{CoordinatorLink, decode_assignment, offsets};
use crate::types::{IsolationLevel, TopicPartition};

/// From here on topics to delete can be named by id, and the request has another shape.
const DELETE_BY_STATE_FROM: i16 = 6;

/// Results by what was asked about.
pub(super) type PerItem<T> = HashMap<Arc<str>, Result<T, AdminError>>;

/// Administers the cluster. Cheap to clone. Every call is retried until the client's `request_timeout`.
///
/// ```no_run
/// # async fn example(client: klamm_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use klamm_client::NewTopic;
///
/// let admin = client.admin();
/// for (topic, result) in admin.create_topics(&[NewTopic::new("orders").partitions(4)]).await? {
///     println!("{topic}: {result:?}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Admin {
    client: Client,
}

impl Admin {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Creates topics and waits until the controller has them.
    ///
    /// # Errors
    /// No controller in time. What the controller says of each topic is in the map.
    pub async fn create_topics(&self, topics: &[NewTopic]) -> Result<PerItem<()>, AdminError> {
        let core = self.client.core();
        let wanted = topics.iter().map(|topic| CreatableTopic {
            name: (&*topic.name).into(),
            num_partitions: topic.partitions,
            replication_factor: topic.replication,
            configs: topic
                .configs
                .iter()
                .map(|(name, value)| CreatableTopicConfig {
                    name: name.into(),
                    value: Some(value.into()),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        });
        let request = CreateTopicsRequest {
            topics: wanted.collect(),
            timeout_ms: self.timeout_ms(),
            ..Default::default()
        };
        let mut retry = Retry::new(&core.config, "creating topics", self.deadline());
        let results = loop {
            let attempt = async {
                let connection = self.controller().await?;
                let answer = connection.call(&request, core.config.request_timeout).await?;
                let results = answer.topics.into_iter().map(|topic| {
                    (
                        Arc::<str>::from(&*topic.name),
                        outcome(&topic.name, topic.error_code, topic.error_message),
                    )
                });
                self.unless_controller_moved(&connection, results.collect()).await
            };
            if let Some(results) = retry.attempt(attempt).await? {
                break results;
            }
        };
        // So that they can be used at once through this client.
        let names: Vec<Arc<str>> = topics.iter().map(|topic| Arc::clone(&topic.name)).collect();
        core.ask_metadata(Some(&names), false).await?;
        Ok(results)
    }

    /// Deletes topics.
    ///
    /// # Errors
    /// As [`Admin::create_topics`].
    pub async fn delete_topics<T: AsRef<str>>(&self, topics: &[T]) -> Result<PerItem<()>, AdminError> {
        let core = self.client.core();
        let names: Vec<Utf8Bytes> = topics.iter().map(|topic| topic.as_ref().into()).collect();
        let mut retry = Retry::new(&core.config, "deleting topics", self.deadline());
        let results = loop {
            if let Some(results) = retry.attempt(self.delete_once(&names)).await? {
                break results;
            }
        };
        let names: Vec<Arc<str>> = topics.iter().map(|topic| Arc::from(topic.as_ref())).collect();
        core.ask_metadata(Some(&names), false).await?;
        Ok(results)
    }

    async fn delete_once(&self, names: &[Utf8Bytes]) -> Result<PerItem<()>, RequestError> {
        let connection = self.controller().await?;
        let version = connection.version::<DeleteTopicsRequest>()?;
        let mut request = DeleteTopicsRequest { timeout_ms: self.timeout_ms(), ..Default::default() };
        if version >= DELETE_BY_STATE_FROM {
            let state =
                |name: &Utf8Bytes| DeleteTopicState { name: Some(name.clone()), ..Default::default() };
            request.topics = names.iter().map(state).collect();
        } else {
            request.topic_names = names.to_vec();
        }
        let timeout = self.client.core().config.request_timeout;
        let answer = connection.start(&request, version)?.within(timeout).await?;
        let results = answer.responses.into_iter().map(|topic| {
            let name = topic.name.unwrap_or_default();
            (Arc::<str>::from(&*name), outcome(&name, topic.error_code, topic.error_message))
        });
        self.unless_controller_moved(&connection, results.collect()).await
    }

    /// Describes topics; does not create them.
    ///
    /// # Errors
    /// No broker in time.
    pub async fn describe_topics<T: AsRef<str>>(
        &self,
        topics: &[T],
    ) -> Result<PerItem<TopicDescription>, AdminError> {
        let names: Vec<Arc<str>> = topics.iter().map(|topic| Arc::from(topic.as_ref())).collect();
        let answer = self.metadata("describing topics", Some(&names)).await?;
        let described = answer.topics.into_iter().filter_map(|topic| {
            let name: Arc<str> = Arc::from(&**topic.name.as_ref()?);
            let result = outcome(&name, topic.error_code, None).map(|()| describe(Arc::clone(&name), &topic));
            Some((name, result))
        });
        Ok(described.collect())
    }

    /// All topics, by name.
    ///
    /// # Errors
    /// No broker in time.
    pub async fn list_topics(&self) -> Result<Vec<TopicDescription>, AdminError> {
        let answer = self.metadata("listing topics", None).await?;
        let described = answer.topics.iter().filter(|topic| topic.error_code == ErrorCode::None.code());
        let mut topics: Vec<TopicDescription> =
            described.filter_map(|topic| Some(describe(Arc::from(&**topic.name.as_ref()?), topic))).collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// All groups of all brokers, by id.
    ///
    /// # Errors
    /// A broker did not answer in time.
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>, AdminError> {
        let core = self.client.core();
        let mut retry = Retry::new(&core.config, "listing groups", self.deadline());
        let listed = loop {
            let attempt = async {
                let view = core.refresh_metadata(core.metadata.view().version).await?;
                let mut listed = Vec::new();
                for node in BTreeSet::from_iter(view.brokers.keys().copied()) {
                    let connection = core.links.connection(core, node).await?;
                    let answer =
                        connection.call(&ListGroupsRequest::default(), core.config.request_timeout).await?;
                    accept(&connection, ApiKey::ListGroups, answer.error_code)?;
                    listed.extend(answer.groups);
                }
                Ok(listed)
            };
            if let Some(listed) = retry.attempt(attempt).await? {
                break listed;
            }
        };
        let mut seen = HashSet::new();
        let mut groups: Vec<GroupListing> = listed
            .into_iter()
            .filter(|group| seen.insert(group.group_id.clone()))
            .map(|group| GroupListing {
                group: Arc::from(&*group.group_id),
                protocol_type: Arc::from(&*group.protocol_type),
                state: Arc::from(&*group.group_state),
            })
            .collect();
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(groups)
    }

    /// Describes groups. A group that does not exist is described as `Dead`, or is an error, as
    /// the broker's version has it.
    ///
    /// # Errors
    /// No coordinator in time.
    pub async fn describe_groups<T: AsRef<str>>(
        &self,
        groups: &[T],
    ) -> Result<PerItem<GroupDescription>, AdminError> {
        let mut described = PerItem::new();
        for group in groups {
            let group: Arc<str> = Arc::from(group.as_ref());
            let result = self.describe_group(&group).await?;
            described.insert(group, result);
        }
        Ok(described)
    }

    async fn describe_group(
        &self,
        group: &Arc<str>,
    ) -> Result<Result<GroupDescription, AdminError>, AdminError> {
        let core = self.client.core();
        let link = CoordinatorLink::new(Arc::clone(group));
        let mut retry = Retry::new(&core.config, "describing a group", self.deadline());
        let found = loop {
            let attempt = async {
                let result = self.describe_group_once(&link).await;
                if let Err(error) = &result {
                    link.learn_from(error);
                }
                result
            };
            if let Some(found) = retry.attempt(attempt).await? {
                break found;
            }
        };
        let Some(found) = found else {
            let (what, code) = (Arc::clone(group), ErrorCode::GroupIdNotFound);
            return Ok(Err(AdminError::Broker { what, code, message: None }));
        };
        let checked = outcome(group, found.error_code, found.error_message.clone());
        Ok(checked.map(|()| describe_found(group, found, link.node().unwrap_or(-1))))
    }

    async fn describe_group_once(
        &self,
        link: &CoordinatorLink,
    ) -> Result<Option<DescribedGroup>, RequestError> {
        let core = self.client.core();
        let connection = link.connection(core).await?;
        let request = DescribeGroupsRequest { groups: vec![(&**link.group()).into()], ..Default::default() };
        let answer = connection.call(&request, core.config.request_timeout).await?;
        let found = answer.groups.into_iter().next();
        let code = ErrorCode::from_code(found.as_ref().map_or(0, |group| group.error_code));
        if code.is_retriable() {
            accept(&connection, ApiKey::DescribeGroups, code.code())?;
        }
        Ok(found)
    }

    async fn metadata(
        &self,
        what: &'static str,
        topics: Option<&[Arc<str>]>,
    ) -> Result<MetadataResponse, RequestError> {
        let core = self.client.core();
        let mut retry = Retry::new(&core.config, what, self.deadline());
        loop {
            if let Some(answer) = retry.attempt(core.fetch_metadata(topics, false)).await? {
                return Ok(answer);
            }
        }
    }

    /// Looks up offsets by place or time.
    ///
    /// # Errors
    /// No leader in time.
    pub async fn offsets(
        &self,
        specs: &HashMap<TopicPartition, OffsetSpec>,
    ) -> Result<HashMap<TopicPartition, Result<OffsetAt, AdminError>>, AdminError> {
        let core = self.client.core();
        let wanted = specs.iter().map(|(partition, spec)| (partition.clone(), spec.wire())).collect();
        let isolation = IsolationLevel::ReadUncommitted;
        let found = cluster::list_offsets(core, &core.links, &wanted, isolation, self.deadline()).await?;
        let results = found.into_iter().map(|(partition, found)| {
            let what = Arc::from(partition.to_string());
            (partition, found.map_err(|code| AdminError::Broker { what, code, message: None }))
        });
        Ok(results.collect())
    }

    /// All committed offsets of a group.
    ///
    /// # Errors
    /// No coordinator in time, or the group cannot be read.
    pub async fn committed_offsets(&self, group: &str) -> Result<HashMap<TopicPartition, i64>, AdminError> {
        let link = CoordinatorLink::new(Arc::from(group));
        let committed = offsets::committed(self.client.core(), &link, None, self.deadline()).await?;
        Ok(committed.into_iter().map(|(partition, at)| (partition, at.offset)).collect())
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.client.core().config.request_timeout
    }

    fn timeout_ms(&self) -> i32 {
        i32::try_from(self.client.core().config.request_timeout.as_millis()).unwrap_or(i32::MAX)
    }

    /// The controller, or, where the brokers pass requests on to it, any broker.
    async fn controller(&self) -> Result<Connection, RequestError> {
        let core = self.client.core();
        match core.metadata.view().controller {
            Some(controller) => match core.links.connection(core, controller).await {
                Ok(connection) => Ok(connection),
                Err(_) => {
                    core.refresh_metadata(core.metadata.view().version).await?;
                    core.links.any(core).await
                }
            },
            None => core.links.any(core).await,
        }
    }

    /// Makes the whole call fail, to be retried, when the broker asked is not the controller any more.
    async fn unless_controller_moved(
        &self,
        connection: &Connection,
        results: PerItem<()>,
    ) -> Result<PerItem<()>, RequestError> {
        let moved = results
            .values()
            .any(|result| matches!(result, Err(error) if error.code() == Some(ErrorCode::NotController)));
        if moved {
            let core = self.client.core();
            core.refresh_metadata(core.metadata.view().version).await?;
            accept(connection, ApiKey::CreateTopics, ErrorCode::NotController.code())?;
        }
        Ok(results)
    }
}

fn accept(connection: &Connection, api: ApiKey, code: i16) -> Result<(), RequestError> {
    match ErrorCode::from_code(code) {
        ErrorCode::None => Ok(()),
        code => Err(RequestError::Broker { address: Arc::clone(connection.address()), api, code }),
    }
}

fn outcome(what: &str, code: i16, message: Option<Utf8Bytes>) -> Result<(), AdminError> {
    match ErrorCode::from_code(code) {
        ErrorCode::None => Ok(()),
        code => Err(AdminError::Broker {
            what: Arc::from(what),
            code,
            message: message.map(|message| Arc::from(&*message)),
        }),
    }
}

fn describe(name: Arc<str>, topic: &MetadataResponseTopic) -> TopicDescription {
    let partition = |part: &MetadataResponsePartition| PartitionDescription {
        partition: part.partition_index,
        leader: Some(part.leader_id).filter(|&leader| leader >= 0),
        leader_epoch: part.leader_epoch,
        replicas: part.replica_nodes.clone(),
        in_sync: part.isr_nodes.clone(),
    };
    let mut partitions: Vec<PartitionDescription> = topic.partitions.iter().map(partition).collect();
    partitions.sort_by_key(|partition| partition.partition);
    TopicDescription { name, id: topic.topic_id, internal: topic.is_internal, partitions }
}

fn describe_found(group: &Arc<str>, found: DescribedGroup, coordinator: i32) -> GroupDescription {
    let member = |member: DescribedGroupMember| MemberDescription {
        member_id: Arc::from(&*member.member_id),
        group_instance_id: member.group_instance_id.map(|id| Arc::from(&*id)),
        client_id: Arc::from(&*member.client_id),
        client_host: Arc::from(&*member.client_host),
        assignment: decode_assignment(&member.member_assignment).unwrap_or_default(),
    };
    GroupDescription {
        group: Arc::clone(group),
        state: Arc::from(&*found.group_state),
        protocol_type: Arc::from(&*found.protocol_type),
        assignor: Arc::from(&*found.protocol_data),
        coordinator,
        members: found.members.into_iter().map(member).collect(),
    }
}
