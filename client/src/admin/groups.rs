//! Groups: listed, described, deleted, members removed.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use klamm_protocol::messages::consumer_group_describe as new_describe;
use klamm_protocol::messages::describe_groups::{DescribedGroup, DescribedGroupMember};
use klamm_protocol::messages::leave_group::MemberIdentity;
use klamm_protocol::messages::share_group_describe as share_describe;
use klamm_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DeleteGroupsRequest, DeleteGroupsResponse,
    DescribeGroupsRequest, DescribeGroupsResponse, LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest,
    ListGroupsResponse, ShareGroupDescribeRequest, ShareGroupDescribeResponse,
};
use klamm_protocol::{ErrorCode, Utf8Bytes};

use super::asking::{Exchange, Found};
use super::handle::Admin;
use super::progress::{PerItem, check};
use super::route::{Destination, Item, KeyType};
use super::topics::{key, keys};
use super::types::{GroupDescription, GroupListing, MemberDescription};
use crate::error::{AdminError, RequestError};
use crate::group::decode_assignment;
use crate::types::TopicPartition;

/// From here on groups are listed by state, and by type.
const STATES_FROM: i16 = 4;
const TYPES_FROM: i16 = 5;

impl Admin {
    /// All groups of all brokers, by id.
    ///
    /// # Errors
    /// A broker did not answer in time.
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>, AdminError> {
        self.list_groups_with(&GroupFilter::default()).await
    }

    /// The groups that a filter lets through, by id.
    ///
    /// # Errors
    /// A broker did not answer in time.
    pub async fn list_groups_with(&self, filter: &GroupFilter) -> Result<Vec<GroupListing>, AdminError> {
        let build = |_: &[i32], version| ListGroupsRequest {
            // Brokers that cannot filter are asked for all.
            states_filter: texts(filter.states.iter().filter(|_| version >= STATES_FROM)),
            types_filter: texts(filter.types.iter().filter(|_| version >= TYPES_FROM)),
            ..Default::default()
        };
        let read = |answer: ListGroupsResponse, asked: &[i32]| {
            let listed = check(answer.error_code, None).map(|()| answer.groups);
            asked.iter().map(|&broker| (broker, listed.clone())).collect()
        };
        let exchange = Exchange { what: "listing groups", up_to: i16::MAX, build, read };
        let mut seen = HashSet::new();
        let mut groups = Vec::new();
        for (_, listed) in BTreeMap::from_iter(self.ask_all_brokers(exchange).await?) {
            groups.extend(listed?.into_iter().filter(|group| seen.insert(group.group_id.clone())).map(
                |group| GroupListing {
                    group: key(&group.group_id),
                    protocol_type: key(&group.protocol_type),
                    state: key(&group.group_state),
                    group_type: key(&group.group_type),
                },
            ));
        }
        groups.retain(|group| filter.lets_through(group));
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(groups)
    }

    /// Describes groups of consumers, classic ones and those of KIP-848. A group that does not exist is described as
    /// `Dead`, or is an error, as the broker's version has it.
    ///
    /// # Errors
    /// No coordinator in time.
    pub async fn describe_groups<T: AsRef<str>>(
        &self,
        groups: &[T],
    ) -> Result<PerItem<Arc<str>, GroupDescription>, AdminError> {
        let mut found = Found::default();
        let build = |names: &[Arc<str>], _| ConsumerGroupDescribeRequest {
            group_ids: texts(names),
            ..Default::default()
        };
        let read = |answer: ConsumerGroupDescribeResponse, _: &[Arc<str>]| {
            let groups = answer.groups.into_iter();
            groups.map(|group| (key(&group.group_id), describe_new(group))).collect()
        };
        let exchange = Exchange { what: "describing groups", up_to: i16::MAX, build, read };
        let mut described = match self.ask_knowing(&mut found, keys(groups), coordinator, exchange).await {
            Ok(described) => described,
            // Then all are classic.
            Err(AdminError::Request(RequestError::Unsupported { .. })) => PerItem::new(),
            Err(error) => return Err(error),
        };
        let mut classic = keys(groups);
        classic.retain(|group| described.get(group).is_none_or(may_be_classic));
        if !classic.is_empty() {
            described.extend(self.describe_classic(&mut found, classic).await?);
        }
        Ok(with_coordinators(described, &found))
    }

    async fn describe_classic(
        &self,
        found: &mut Found,
        groups: Vec<Arc<str>>,
    ) -> Result<PerItem<Arc<str>, GroupDescription>, AdminError> {
        let build =
            |names: &[Arc<str>], _| DescribeGroupsRequest { groups: texts(names), ..Default::default() };
        let read = |answer: DescribeGroupsResponse, _: &[Arc<str>]| {
            let described = answer.groups.into_iter().map(|group| {
                let checked = check(group.error_code, group.error_message.clone());
                (key(&group.group_id), checked.map(|()| describe_classic(group)))
            });
            described.collect()
        };
        let exchange = Exchange { what: "describing groups", up_to: i16::MAX, build, read };
        self.ask_knowing(found, groups, coordinator, exchange).await
    }

    /// Describes share groups (KIP-932).
    ///
    /// # Errors
    /// No coordinator in time, or brokers without share groups.
    pub async fn describe_share_groups<T: AsRef<str>>(
        &self,
        groups: &[T],
    ) -> Result<PerItem<Arc<str>, GroupDescription>, AdminError> {
        let mut found = Found::default();
        let build = |names: &[Arc<str>], _| ShareGroupDescribeRequest {
            group_ids: texts(names),
            ..Default::default()
        };
        let read = |answer: ShareGroupDescribeResponse, _: &[Arc<str>]| {
            let groups = answer.groups.into_iter();
            groups.map(|group| (key(&group.group_id), describe_share(group))).collect()
        };
        let exchange = Exchange { what: "describing share groups", up_to: i16::MAX, build, read };
        let described = self.ask_knowing(&mut found, keys(groups), coordinator, exchange).await?;
        Ok(with_coordinators(described, &found))
    }

    /// Deletes groups that have no members, with their committed offsets.
    ///
    /// # Errors
    /// No coordinator in time.
    pub async fn delete_groups<T: AsRef<str>>(
        &self,
        groups: &[T],
    ) -> Result<PerItem<Arc<str>, ()>, AdminError> {
        let build =
            |names: &[Arc<str>], _| DeleteGroupsRequest { groups_names: texts(names), ..Default::default() };
        let read = |answer: DeleteGroupsResponse, _: &[Arc<str>]| {
            let results = answer.results.into_iter();
            results.map(|group| (key(&group.group_id), check(group.error_code, None))).collect()
        };
        let exchange = Exchange { what: "deleting groups", up_to: i16::MAX, build, read };
        self.ask(keys(groups), coordinator, exchange).await
    }

    /// Removes members from a classic group; their partitions go to the others. A member that lives joins again.
    ///
    /// # Errors
    /// No coordinator in time, or one older than Kafka 2.4.
    pub async fn remove_members(
        &self,
        group: &str,
        members: &[MemberToRemove],
    ) -> Result<PerItem<MemberToRemove, ()>, AdminError> {
        let build = |members: &[MemberToRemove], _| LeaveGroupRequest {
            group_id: group.into(),
            members: members.iter().map(MemberToRemove::identity).collect(),
            ..Default::default()
        };
        let read = |answer: LeaveGroupResponse, asked: &[MemberToRemove]| {
            if let Err(refusal) = check(answer.error_code, None) {
                return asked.iter().map(|member| (member.clone(), Err(refusal.clone()))).collect();
            }
            let results = answer.members.into_iter().map(|member| {
                let removed = match member.group_instance_id {
                    Some(instance) => MemberToRemove::Static(key(&instance)),
                    None => MemberToRemove::Dynamic(key(&member.member_id)),
                };
                (removed, check(member.error_code, None))
            });
            results.collect()
        };
        let exchange = Exchange { what: "removing members", up_to: i16::MAX, build, read };
        let destination = Destination::Coordinator(KeyType::Group, Arc::from(group));
        self.ask(members.iter().cloned(), |_| destination.clone(), exchange).await
    }
}

/// Which groups to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupFilter {
    /// States wanted, such as `Stable`, `Empty`; empty for all.
    pub states: Vec<String>,
    /// Types wanted: `classic`, `consumer`, `share`, `streams`; empty for all.
    pub types: Vec<String>,
}

impl GroupFilter {
    /// All groups.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only groups in this state; several calls name several.
    #[must_use]
    pub fn state(mut self, state: impl Into<String>) -> Self {
        self.states.push(state.into());
        self
    }

    /// Only groups of this type; several calls name several.
    #[must_use]
    pub fn group_type(mut self, group_type: impl Into<String>) -> Self {
        self.types.push(group_type.into());
        self
    }

    /// Brokers that cannot filter answer with all, and may not tell what they are.
    fn lets_through(&self, group: &GroupListing) -> bool {
        let wanted = |wanted: &[String], told: &str| {
            wanted.is_empty() || told.is_empty() || wanted.iter().any(|one| one.eq_ignore_ascii_case(told))
        };
        wanted(&self.states, &group.state) && wanted(&self.types, &group.group_type)
    }
}

/// A member to remove from its group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum MemberToRemove {
    /// By the id that the coordinator gave it.
    Dynamic(Arc<str>),
    /// A static member by its `group.instance.id`.
    Static(Arc<str>),
}

impl MemberToRemove {
    fn identity(&self) -> MemberIdentity {
        let (member_id, group_instance_id) = match self {
            Self::Dynamic(id) => ((&**id).into(), None),
            Self::Static(instance) => (Utf8Bytes::default(), Some((&**instance).into())),
        };
        let reason = Some(Utf8Bytes::from_static("removed by an administrator"));
        MemberIdentity { member_id, group_instance_id, reason, ..Default::default() }
    }
}

impl Item for MemberToRemove {
    fn name(&self) -> Arc<str> {
        match self {
            Self::Dynamic(name) | Self::Static(name) => Arc::clone(name),
        }
    }
}

pub(super) fn coordinator(group: &Arc<str>) -> Destination {
    Destination::Coordinator(KeyType::Group, Arc::clone(group))
}

pub(super) fn texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Vec<Utf8Bytes> {
    texts.into_iter().map(|text| text.as_ref().into()).collect()
}

/// Tells each group's coordinator, which no answer names.
fn with_coordinators(
    described: PerItem<Arc<str>, GroupDescription>,
    found: &Found,
) -> PerItem<Arc<str>, GroupDescription> {
    let told = described.into_iter().map(|(group, result)| {
        let node = found.coordinator(KeyType::Group, &group).unwrap_or(-1);
        let result = result.map(|description| GroupDescription { coordinator: node, ..description });
        (group, result)
    });
    told.collect()
}

/// Whether the older request is worth a try: the group is not one of KIP-848, or the coordinator cannot tell.
fn may_be_classic(result: &Result<GroupDescription, AdminError>) -> bool {
    match result {
        Err(AdminError::Broker { code, .. }) => {
            matches!(code, ErrorCode::GroupIdNotFound | ErrorCode::UnsupportedVersion)
        }
        Err(AdminError::Request(error)) => matches!(error, RequestError::Unsupported { .. }),
        Ok(_) => false,
    }
}

fn describe_classic(found: DescribedGroup) -> GroupDescription {
    let member = |member: DescribedGroupMember| MemberDescription {
        member_id: key(&member.member_id),
        group_instance_id: member.group_instance_id.as_ref().map(key),
        client_id: key(&member.client_id),
        client_host: key(&member.client_host),
        assignment: decode_assignment(&member.member_assignment).unwrap_or_default().partitions,
        target: None,
        epoch: None,
        rack: None,
        topics: Vec::new(),
    };
    GroupDescription {
        group: key(&found.group_id),
        state: key(&found.group_state),
        protocol_type: key(&found.protocol_type),
        assignor: key(&found.protocol_data),
        coordinator: -1,
        group_type: Arc::from("classic"),
        epochs: None,
        members: found.members.into_iter().map(member).collect(),
    }
}

fn describe_new(found: new_describe::DescribedGroup) -> super::progress::Answer<GroupDescription> {
    check(found.error_code, found.error_message.clone())?;
    let partitions = |assignment: &new_describe::Assignment| {
        let topics = assignment.topic_partitions.iter();
        topics.flat_map(|topic| of_topic(&topic.topic_name, &topic.partitions)).collect::<Vec<_>>()
    };
    let member = |member: new_describe::Member| MemberDescription {
        member_id: key(&member.member_id),
        group_instance_id: member.instance_id.as_ref().map(key),
        client_id: key(&member.client_id),
        client_host: key(&member.client_host),
        assignment: partitions(&member.assignment),
        target: Some(partitions(&member.target_assignment)),
        epoch: Some(member.member_epoch),
        rack: member.rack_id.as_ref().map(key),
        topics: member.subscribed_topic_names.iter().map(key).collect(),
    };
    Ok(GroupDescription {
        group: key(&found.group_id),
        state: key(&found.group_state),
        protocol_type: Arc::from("consumer"),
        assignor: key(&found.assignor_name),
        coordinator: -1,
        group_type: Arc::from("consumer"),
        epochs: Some((found.group_epoch, found.assignment_epoch)),
        members: found.members.into_iter().map(member).collect(),
    })
}

fn describe_share(found: share_describe::DescribedGroup) -> super::progress::Answer<GroupDescription> {
    check(found.error_code, found.error_message.clone())?;
    let member = |member: share_describe::Member| MemberDescription {
        member_id: key(&member.member_id),
        group_instance_id: None,
        client_id: key(&member.client_id),
        client_host: key(&member.client_host),
        assignment: member
            .assignment
            .topic_partitions
            .iter()
            .flat_map(|topic| of_topic(&topic.topic_name, &topic.partitions))
            .collect(),
        target: None,
        epoch: Some(member.member_epoch),
        rack: member.rack_id.as_ref().map(key),
        topics: member.subscribed_topic_names.iter().map(key).collect(),
    };
    Ok(GroupDescription {
        group: key(&found.group_id),
        state: key(&found.group_state),
        protocol_type: Arc::from("share"),
        assignor: key(&found.assignor_name),
        coordinator: -1,
        group_type: Arc::from("share"),
        epochs: Some((found.group_epoch, found.assignment_epoch)),
        members: found.members.into_iter().map(member).collect(),
    })
}

fn of_topic(name: &Utf8Bytes, partitions: &[i32]) -> Vec<TopicPartition> {
    let name = key(name);
    partitions.iter().map(|&partition| TopicPartition::new(Arc::clone(&name), partition)).collect()
}
