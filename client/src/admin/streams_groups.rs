//! Groups of Kafka Streams (KIP-1071): state, members, tasks.

use std::sync::Arc;

use klamm_protocol::messages::streams_group_describe::{Assignment, DescribedGroup, Member, TaskIds};
use klamm_protocol::messages::{StreamsGroupDescribeRequest, StreamsGroupDescribeResponse};

use super::asking::{Exchange, Found};
use super::groups::{coordinator, texts};
use super::handle::Admin;
use super::progress::{Answer, PerItem, check};
use super::route::KeyType;
use super::topics::{key, keys};
use crate::error::AdminError;

impl Admin {
    /// Describes groups of Kafka Streams.
    ///
    /// # Errors
    /// No coordinator in time, or brokers without such groups (Apache Kafka before 4.1).
    pub async fn describe_streams_groups<T: AsRef<str>>(
        &self,
        groups: &[T],
    ) -> Result<PerItem<Arc<str>, StreamsGroupDescription>, AdminError> {
        let mut found = Found::default();
        let build = |names: &[Arc<str>], _| StreamsGroupDescribeRequest {
            group_ids: texts(names),
            ..Default::default()
        };
        let read = |answer: StreamsGroupDescribeResponse, _: &[Arc<str>]| {
            answer.groups.into_iter().map(|group| (key(&group.group_id), describe(group))).collect()
        };
        let exchange = Exchange { what: "describing streams groups", up_to: i16::MAX, build, read };
        let described = self.ask_knowing(&mut found, keys(groups), coordinator, exchange).await?;
        let told = described.into_iter().map(|(group, result)| {
            let node = found.coordinator(KeyType::Group, &group).unwrap_or(-1);
            let result =
                result.map(|description| StreamsGroupDescription { coordinator: node, ..description });
            (group, result)
        });
        Ok(told.collect())
    }
}

/// A group of Kafka Streams.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamsGroupDescription {
    /// Its id.
    pub group: Arc<str>,
    /// Such as `Stable`, `NotReady`, `Empty`.
    pub state: Arc<str>,
    /// The broker that coordinates it.
    pub coordinator: i32,
    /// The group's epoch and that of the assignment it is moving to.
    pub epochs: (i32, i32),
    /// How often its topology was changed; `None` when no member has told one.
    pub topology_epoch: Option<i32>,
    /// The ids of the topology's parts and the topics that each reads, its own repartition topics included.
    pub subtopologies: Vec<(Arc<str>, Vec<Arc<str>>)>,
    /// Its members.
    pub members: Vec<StreamsMemberDescription>,
}

/// A member of a group of Kafka Streams.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamsMemberDescription {
    /// The id that it chose.
    pub member_id: Arc<str>,
    /// The static member's id.
    pub group_instance_id: Option<Arc<str>>,
    /// The client's id.
    pub client_id: Arc<str>,
    /// The client's host as the broker sees it.
    pub client_host: Arc<str>,
    /// The process that it is part of.
    pub process_id: Arc<str>,
    /// Its rack, where it told one.
    pub rack: Option<Arc<str>>,
    /// Where it can be asked for its stores: host and port.
    pub endpoint: Option<(Arc<str>, u16)>,
    /// The epoch of what it runs.
    pub epoch: i32,
    /// The epoch of the topology that it runs.
    pub topology_epoch: i32,
    /// What it runs.
    pub tasks: StreamsTasks,
    /// What it is to run.
    pub target: StreamsTasks,
}

/// Tasks of a member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamsTasks {
    /// Those that it runs.
    pub active: Vec<StreamsTask>,
    /// Those whose state it keeps for another.
    pub standby: Vec<StreamsTask>,
    /// Those that it is to run when it has caught up.
    pub warmup: Vec<StreamsTask>,
}

/// A task: one partition of one part of the topology.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamsTask {
    /// The part.
    pub subtopology: Arc<str>,
    /// The partition.
    pub partition: i32,
}

fn describe(found: DescribedGroup) -> Answer<StreamsGroupDescription> {
    check(found.error_code, found.error_message.clone())?;
    let parts = found.topology.iter().flat_map(|topology| &topology.subtopologies).flatten();
    let subtopologies = parts.map(|part| {
        let own = part.repartition_source_topics.iter().map(|topic| &topic.name);
        (key(&part.subtopology_id), part.source_topics.iter().chain(own).map(key).collect())
    });
    Ok(StreamsGroupDescription {
        group: key(&found.group_id),
        state: key(&found.group_state),
        coordinator: -1,
        epochs: (found.group_epoch, found.assignment_epoch),
        topology_epoch: found.topology.as_ref().map(|topology| topology.epoch),
        subtopologies: subtopologies.collect(),
        members: found.members.iter().map(member).collect(),
    })
}

fn member(member: &Member) -> StreamsMemberDescription {
    StreamsMemberDescription {
        member_id: key(&member.member_id),
        group_instance_id: member.instance_id.as_ref().map(key),
        client_id: key(&member.client_id),
        client_host: key(&member.client_host),
        process_id: key(&member.process_id),
        rack: member.rack_id.as_ref().map(key),
        endpoint: member.user_endpoint.as_ref().map(|endpoint| (key(&endpoint.host), endpoint.port)),
        epoch: member.member_epoch,
        topology_epoch: member.topology_epoch,
        tasks: tasks(&member.assignment),
        target: tasks(&member.target_assignment),
    }
}

fn tasks(assignment: &Assignment) -> StreamsTasks {
    let each = |tasks: &[TaskIds]| {
        let of_part = |part: &TaskIds| {
            let subtopology = key(&part.subtopology_id);
            let task =
                move |&partition: &i32| StreamsTask { subtopology: Arc::clone(&subtopology), partition };
            part.partitions.iter().map(task).collect::<Vec<_>>()
        };
        tasks.iter().flat_map(of_part).collect()
    };
    StreamsTasks {
        active: each(&assignment.active_tasks),
        standby: each(&assignment.standby_tasks),
        warmup: each(&assignment.warmup_tasks),
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::ErrorCode;
    use klamm_protocol::messages::streams_group_describe::{Endpoint, Subtopology, TopicInfo, Topology};

    use super::*;

    fn ids(subtopology: &str, partitions: &[i32]) -> Vec<TaskIds> {
        let subtopology_id = subtopology.into();
        vec![TaskIds { subtopology_id, partitions: partitions.to_vec(), ..Default::default() }]
    }

    #[test]
    fn what_the_coordinator_tells_arrives() {
        let subtopology = Subtopology {
            subtopology_id: "s".into(),
            source_topics: vec!["in".into()],
            repartition_source_topics: vec![TopicInfo { name: "again".into(), ..Default::default() }],
            ..Default::default()
        };
        let told = Member {
            member_id: "m".into(),
            member_epoch: 4,
            topology_epoch: 2,
            process_id: "p".into(),
            user_endpoint: Some(Endpoint { host: "h".into(), port: 65_535, ..Default::default() }),
            assignment: Assignment { active_tasks: ids("s", &[0, 1]), ..Default::default() },
            target_assignment: Assignment {
                standby_tasks: ids("s", &[2]),
                warmup_tasks: ids("s", &[3]),
                ..Default::default()
            },
            ..Default::default()
        };
        let topology = Topology { epoch: 2, subtopologies: Some(vec![subtopology]), ..Default::default() };
        let group = DescribedGroup {
            group_id: "g".into(),
            group_state: "Stable".into(),
            group_epoch: 5,
            assignment_epoch: 4,
            topology: Some(topology),
            members: vec![told],
            ..Default::default()
        };
        let described = describe(group).unwrap();
        let task = |partition| StreamsTask { subtopology: "s".into(), partition };
        assert_eq!((&*described.group, &*described.state, described.epochs), ("g", "Stable", (5, 4)));
        assert_eq!(described.topology_epoch, Some(2));
        assert_eq!(described.subtopologies, [("s".into(), vec!["in".into(), "again".into()])]);
        let [member] = &described.members[..] else { panic!("{described:?}") };
        assert_eq!((&*member.member_id, &*member.process_id), ("m", "p"));
        assert_eq!((member.epoch, member.topology_epoch), (4, 2));
        assert_eq!(member.endpoint, Some(("h".into(), 65_535)));
        assert_eq!(member.tasks, StreamsTasks { active: vec![task(0), task(1)], ..Default::default() });
        let target = StreamsTasks { active: vec![], standby: vec![task(2)], warmup: vec![task(3)] };
        assert_eq!(member.target, target);
    }

    #[test]
    fn a_group_that_is_not_there_is_an_error() {
        let group = DescribedGroup { error_code: ErrorCode::GroupIdNotFound.code(), ..Default::default() };
        assert_eq!(describe(group).unwrap_err().code, ErrorCode::GroupIdNotFound);
    }
}
