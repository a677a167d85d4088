//! One member of a group, and the vote for a protocol.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use bytes::Bytes;

use crate::coordinator::Ticket;

/// A protocol that a member offers (for consumers: an assignor), with what the member tells the leader about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Protocol {
    /// The name, for instance `range`.
    pub name: String,
    /// Opaque to the broker; for consumers the subscription.
    pub metadata: Bytes,
}

/// A JoinGroup that waits for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PendingJoin {
    pub(super) ticket: Ticket,
    pub(super) skips_assignment: bool,
}

/// One member of a group.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) instance_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) session_timeout_ms: i32,
    pub(super) rebalance_timeout_ms: i32,
    /// In order of the member's preference.
    pub(super) protocols: Vec<Protocol>,
    pub(super) assignment: Bytes,
    /// When the member is given up unless it is heard of; see [`Member::expires_at`].
    pub(super) deadline_ms: i64,
    /// It has not got an answer to its first JoinGroup yet.
    pub(super) is_new: bool,
    pub(super) joining: Option<PendingJoin>,
    pub(super) syncing: Option<Ticket>,
}

impl Member {
    /// When the member is given up. One that waits for us is not expected to send heartbeats, so its
    /// session cannot end; except that of a new member, which does not know its id yet: if it goes away,
    /// nobody will ever speak for it again.
    pub(super) fn expires_at(&self) -> Option<i64> {
        let waits_for_us = self.syncing.is_some() || (self.joining.is_some() && !self.is_new);
        (!waits_for_us).then_some(self.deadline_ms)
    }

    /// The member was heard of.
    pub(super) fn touch(&mut self, now_ms: i64) {
        self.deadline_ms = now_ms + i64::from(self.session_timeout_ms);
    }

    #[cfg(test)]
    pub(super) fn supports(&self, name: &str) -> bool {
        self.protocols.iter().any(|protocol| protocol.name == name)
    }

    /// What the member tells the leader under a protocol.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|offered| offered.name == protocol);
        found.map(|offered| offered.metadata.clone()).unwrap_or_default()
    }
}

/// The protocol that all members support and most prefer; among equals the one that the first
/// member to list it lists first.
pub(super) fn vote<'a>(
    members: impl Iterator<Item = &'a Member>,
    all_support: impl Fn(&str) -> bool,
) -> Option<String> {
    // How many prefer it, and the place of the first who does, backwards.
    let mut votes: BTreeMap<&str, (usize, Reverse<usize>)> = BTreeMap::new();
    for (place, member) in members.enumerate() {
        if let Some(choice) = member.protocols.iter().find(|protocol| all_support(&protocol.name)) {
            votes.entry(&choice.name).or_insert((0, Reverse(place))).0 += 1;
        }
    }
    votes.into_iter().max_by_key(|(_, count)| *count).map(|(name, _)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(protocols: &[&str]) -> Member {
        let offer =
            |name: &&str| Protocol { name: name.to_string(), metadata: Bytes::from(format!("of {name}")) };
        Member {
            id: "m".into(),
            instance_id: None,
            client_id: "c".into(),
            client_host: "/h".into(),
            session_timeout_ms: 10,
            rebalance_timeout_ms: 20,
            protocols: protocols.iter().map(offer).collect(),
            assignment: Bytes::new(),
            deadline_ms: 7,
            is_new: false,
            joining: None,
            syncing: None,
        }
    }

    #[test]
    fn a_session_does_not_end_while_the_member_waits_for_us() {
        let joining = Some(PendingJoin { ticket: 1, skips_assignment: false });
        assert_eq!(member(&[]).expires_at(), Some(7));
        assert_eq!(Member { is_new: true, ..member(&[]) }.expires_at(), Some(7));
        assert_eq!(Member { joining, ..member(&[]) }.expires_at(), None);
        assert_eq!(Member { joining, is_new: true, ..member(&[]) }.expires_at(), Some(7));
        assert_eq!(Member { syncing: Some(1), ..member(&[]) }.expires_at(), None);
        assert_eq!(Member { syncing: Some(1), is_new: true, ..member(&[]) }.expires_at(), None);
        let mut touched = member(&[]);
        touched.touch(100);
        assert_eq!(touched.expires_at(), Some(110));
    }

    #[test]
    fn a_member_says_something_of_itself_under_each_protocol() {
        let member = member(&["range", "sticky"]);
        assert!(member.supports("range") && member.supports("sticky") && !member.supports("other"));
        assert_eq!((member.metadata("sticky"), member.metadata("other")), ("of sticky".into(), Bytes::new()));
    }

    #[test]
    fn the_vote() {
        let elected = |offers: &[&[&str]]| {
            let members: Vec<Member> = offers.iter().map(|protocols| member(protocols)).collect();
            vote(members.iter(), |name| members.iter().all(|member| member.supports(name)))
        };
        let check = |offers: &[&[&str]], winner: Option<&str>| {
            assert_eq!(elected(offers).as_deref(), winner, "{offers:?}");
        };
        check(&[], None);
        check(&[&["a"], &["b"]], None);
        check(&[&["a", "b"]], Some("a"));
        // What somebody does not support gets no vote, whoever prefers it.
        check(&[&["a", "b"], &["a", "b"], &["b"]], Some("b"));
        // The most votes win; among equals who was named first.
        check(&[&["a", "b"], &["b", "a"], &["b", "a"]], Some("b"));
        check(&[&["a", "b"], &["b", "a"]], Some("a"));
        check(&[&["b", "a"], &["a", "b"]], Some("b"));
        check(&[&["c", "a", "b"], &["b", "a", "c"], &["a", "b", "c"], &["a", "c", "b"]], Some("a"));
    }
}
