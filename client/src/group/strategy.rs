//! The assignors that a member offers its group: those built in, and the program's own. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::assignors::{Assignor, MemberView, assign};
use super::protocol::{MemberShare, decode_sticky, encode_sticky};
use crate::types::TopicPartition;

/// A way of one's own to share out partitions. Every member of a group must offer it, under the same name.
pub trait PartitionAssignor: fmt::Debug + Send + Sync + 'static {
    /// The name that group members know it by.
    fn name(&self) -> &str;

    /// Whether what stays keeps being consumed during a rebalance (KIP-429). Such an assignor gives a partition to a
    /// new owner only when no other member claims it: the old one gives it up first, and joins again.
    fn is_cooperative(&self) -> bool {
        false
    }

    /// What a member tells the leader's assignor beyond its topics; at most a few kilobytes.
    fn user_data(&self, topics: &[Arc<str>]) -> Option<Bytes> {
        let _ = topics;
        None
    }

    /// What each member gets, by member id; called on the leader, and expected to return at once. `counts` has the
    /// number of partitions of each existing topic that some member subscribes to.
    fn assign(
        &self,
        members: &[GroupMember],
        counts: &BTreeMap<Arc<str>, i32>,
    ) -> BTreeMap<Arc<str>, Vec<TopicPartition>>;

    /// As [`assign`](Self::assign), with what each member is told beyond its partitions. This is what is called: it
    /// calls `assign`, and tells nothing more, unless it is written anew.
    fn share_out(
        &self,
        members: &[GroupMember],
        counts: &BTreeMap<Arc<str>, i32>,
    ) -> BTreeMap<Arc<str>, MemberShare> {
        let shares = self.assign(members, counts).into_iter();
        shares.map(|(member, partitions)| (member, MemberShare { partitions, user_data: None })).collect()
    }

    /// Told on each member what it got, by the leader's [`share_out`](Self::share_out), in which generation; before the
    /// rebalance listener is called, and expected to return at once. Not called while the group uses another assignor.
    fn on_assignment(&self, share: &MemberShare, generation: i32) {
        let _ = (share, generation);
    }
}

/// What each member gets, by member id.
pub(crate) type Shares = BTreeMap<Arc<str>, MemberShare>;

/// A member of a group, as the leader's assignor sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct GroupMember {
    /// The id that the coordinator gave.
    pub id: Arc<str>,
    /// The static member's id.
    pub instance_id: Option<Arc<str>>,
    /// The topics it subscribes to.
    pub topics: Vec<Arc<str>>,
    /// What it owned when it joined.
    pub owned: Vec<TopicPartition>,
    /// The generation in which it owned that; -1 when it does not tell.
    pub generation: i32,
    /// Its [`PartitionAssignor::user_data`].
    pub user_data: Option<Bytes>,
    /// The rack that it is in.
    pub rack: Option<Arc<str>>,
}

/// One of the assignors that a member offers.
#[derive(Debug, Clone)]
pub(crate) enum Strategy {
    BuiltIn(Assignor),
    Custom(Arc<dyn PartitionAssignor>),
}

impl Strategy {
    pub(crate) fn name(&self) -> Arc<str> {
        match self {
            Self::BuiltIn(assignor) => Arc::from(assignor.name()),
            Self::Custom(assignor) => Arc::from(assignor.name()),
        }
    }

    pub(crate) fn is_cooperative(&self) -> bool {
        match self {
            Self::BuiltIn(assignor) => *assignor == Assignor::CooperativeSticky,
            Self::Custom(assignor) => assignor.is_cooperative(),
        }
    }

    /// What the leader's assignor is told; `last` is what this member got last, in which generation.
    pub(crate) fn user_data(
        &self,
        topics: &[Arc<str>],
        last: Option<(&[TopicPartition], i32)>,
    ) -> Option<Bytes> {
        match self {
            // It gives everything up before it joins, so what it had is told apart.
            Self::BuiltIn(Assignor::Sticky) => {
                last.map(|(partitions, generation)| encode_sticky(partitions, generation))
            }
            Self::BuiltIn(_) => None,
            Self::Custom(assignor) => assignor.user_data(topics),
        }
    }

    /// Tells a member's assignor what it got.
    pub(crate) fn on_assignment(&self, share: &MemberShare, generation: i32) {
        if let Self::Custom(assignor) = self {
            assignor.on_assignment(share, generation);
        }
    }

    pub(crate) fn assign(&self, members: &[MemberView], counts: &BTreeMap<Arc<str>, i32>) -> Shares {
        let shares = match self {
            Self::BuiltIn(Assignor::Sticky) => {
                let told = |member: &MemberView| {
                    let mut member = member.clone();
                    let data = member.subscription.user_data.as_deref();
                    let (owned, generation) = data.and_then(decode_sticky).unwrap_or((Vec::new(), -1));
                    (member.subscription.owned, member.subscription.generation) = (owned, generation);
                    member
                };
                assign(Assignor::Sticky, &members.iter().map(told).collect::<Vec<_>>(), counts)
            }
            Self::BuiltIn(assignor) => assign(*assignor, members, counts),
            Self::Custom(assignor) => {
                let members: Vec<GroupMember> = members.iter().map(GroupMember::from).collect();
                return assignor.share_out(&members, counts);
            }
        };
        shares.into_iter().map(|(member, partitions)| (member, partitions.into())).collect()
    }
}

impl From<&MemberView> for GroupMember {
    fn from(member: &MemberView) -> Self {
        let subscription = member.subscription.clone();
        Self {
            id: Arc::clone(&member.id),
            instance_id: member.instance_id.clone(),
            topics: subscription.topics,
            owned: subscription.owned,
            generation: subscription.generation,
            user_data: subscription.user_data,
            rack: subscription.rack,
        }
    }
}
