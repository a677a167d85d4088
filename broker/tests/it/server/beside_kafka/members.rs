//! What members ask of their group, from generation to generation.

use bytes::Bytes;
use klamm_protocol::Utf8Bytes;
use klamm_protocol::messages::leave_group::MemberIdentity;
use klamm_protocol::messages::*;

use super::super::groups::{self, commit, sync};
use super::{Dialogue, TOPIC};

const GROUP: &str = "members";
const STATIC: &str = "static-members";

/// A consumer of the topic. Kafka never answers one whose subscription it cannot read.
fn join(group: &str, member: &str) -> JoinGroupRequest {
    let mut request = groups::join(group, member);
    request.protocols[0].metadata = Bytes::from_static(b"\0\0\0\0\0\x01\0\x06beside\xff\xff\xff\xff");
    request
}

impl Dialogue {
    /// From now on an id is called something else: everybody gives out others.
    fn name(&mut self, id: &Utf8Bytes, name: &str) {
        self.names.push((id.to_string(), name.to_owned()));
    }

    /// Joins, and calls the id that is given out something.
    async fn joins(
        &mut self,
        what: &str,
        request: JoinGroupRequest,
        version: i16,
        name: &str,
    ) -> JoinGroupResponse {
        let mut response = self.wire.ask_in(&request, version).await;
        let known = |id: &str| self.names.iter().position(|(known, _)| known == id);
        response.members.sort_by_key(|member| known(&member.member_id));
        if !response.member_id.is_empty() && request.member_id.is_empty() {
            self.name(&response.member_id, name);
        }
        self.note::<JoinGroupRequest>(what, version, &response);
        response
    }

    async fn beats(&mut self, what: &str, group: &str, member: &str, generation_id: i32) {
        let request = HeartbeatRequest {
            group_id: group.into(),
            generation_id,
            member_id: member.into(),
            ..HeartbeatRequest::default()
        };
        self.ask(what, request, 4).await;
    }

    async fn commits(&mut self, what: &str, group: &str, member: &str, generation: i32) {
        let mut request = commit(group, TOPIC, 1);
        request.member_id = member.into();
        request.generation_id_or_member_epoch = generation;
        self.ask(what, request, 9).await;
    }

    /// Each with its instance id.
    async fn leaves(&mut self, what: &str, group: &str, members: &[(&str, Option<&str>)]) {
        let member = |(id, instance): &(&str, Option<&str>)| MemberIdentity {
            member_id: (*id).into(),
            group_instance_id: instance.map(Into::into),
            ..MemberIdentity::default()
        };
        let request = LeaveGroupRequest {
            group_id: group.into(),
            members: members.iter().map(member).collect(),
            ..LeaveGroupRequest::default()
        };
        self.ask(what, request, 5).await;
    }

    pub(super) async fn members(&mut self) {
        self.strangers().await;
        self.joins("an old client", join(GROUP, ""), 3, "<old>").await;
        let old = self.names.last().unwrap().0.clone();
        self.leaves("the old client", GROUP, &[(&old, None)]).await;
        let a = self.joins("a", join(GROUP, ""), 9, "<a>").await.member_id;
        self.beats("a, which has not joined", GROUP, &a, 0).await;
        self.commits("a, which has not joined", GROUP, &a, 0).await;
        let first = self.joins("a again", join(GROUP, &a), 9, "").await;
        self.beats("a, which has not synced", GROUP, &a, first.generation_id).await;
        self.commits("a, which has not synced", GROUP, &a, first.generation_id).await;
        self.joins("a, which has not synced", join(GROUP, &a), 9, "").await;
        let mut wrong = sync(GROUP, &first);
        wrong.generation_id += 1;
        self.ask("of the next generation", wrong, 5).await;
        let mut wrong = sync(GROUP, &first);
        wrong.protocol_name = Some("sticky".into());
        self.ask("of another protocol", wrong, 5).await;
        self.ask("a", sync(GROUP, &first), 5).await;
        self.ask("a again", sync(GROUP, &first), 5).await;
        self.beats("a", GROUP, &a, first.generation_id).await;
        self.beats("a of the last generation", GROUP, &a, first.generation_id - 1).await;
        self.commits("a", GROUP, &a, first.generation_id).await;
        self.commits("a of the last generation", GROUP, &a, first.generation_id - 1).await;
        self.commits("nobody", GROUP, "", -1).await;
        self.second_member(&a, &first).await;
    }

    async fn strangers(&mut self) {
        for (what, id) in [("nobody knows", "x"), ("nobody knows", "y")] {
            self.joins(what, join("no-members", id), 9, "").await;
        }
        self.joins("no group", join("", ""), 9, "").await;
        let mut request = join(GROUP, "");
        request.session_timeout_ms = 5_999;
        self.joins("too short", request.clone(), 9, "").await;
        request.session_timeout_ms = 1_800_001;
        self.joins("too long", request, 9, "").await;
        let mut request = join(GROUP, "");
        request.protocols.clear();
        self.joins("without a protocol", request, 9, "").await;
        let mut request = join(GROUP, "");
        request.protocol_type = "".into();
        self.joins("without a type", request, 9, "").await;
        for group in [GROUP, "no-members", ""] {
            self.beats(&format!("of {group:?}"), group, "x", 1).await;
            self.leaves(&format!("of {group:?}"), group, &[("x", None), ("", Some("i"))]).await;
            self.commits(&format!("of {group:?}"), group, "x", 1).await;
            let request =
                SyncGroupRequest { group_id: group.into(), member_id: "x".into(), ..Default::default() };
            self.ask(&format!("of {group:?}"), request, 5).await;
        }
    }

    async fn second_member(&mut self, a: &str, first: &JoinGroupResponse) {
        let mut request = join(GROUP, "");
        request.protocol_type = "connect".into();
        self.joins("of another type", request, 9, "").await;
        let mut request = join(GROUP, "");
        request.protocols[0].name = "sticky".into();
        self.joins("of another protocol", request, 9, "").await;
        let b = self.joins("b", join(GROUP, ""), 9, "<b>").await.member_id;
        self.beats("a, while b has not joined", GROUP, a, first.generation_id).await;
        self.other.send_in(&join(GROUP, &b), 9).await;
        // Until b is waiting.
        let beat = HeartbeatRequest {
            group_id: GROUP.into(),
            generation_id: first.generation_id,
            member_id: a.into(),
            ..HeartbeatRequest::default()
        };
        self.until(async |wire| wire.ask(&beat).await.error_code != 0).await;
        self.beats("a, while b waits", GROUP, a, first.generation_id).await;
        self.ask("a, while b waits", sync(GROUP, first), 5).await;
        let mut wrong = sync(GROUP, first);
        wrong.protocol_name = Some("sticky".into());
        self.ask("of another protocol, while b waits", wrong, 5).await;
        self.commits("a, while b waits", GROUP, a, first.generation_id).await;
        self.commits("nobody, while b waits", GROUP, "", -1).await;
        let second = self.joins("a, while b waits", join(GROUP, a), 9, "").await;
        let joined = self.other.receive_in::<JoinGroupRequest>(9).await.1;
        self.note::<JoinGroupRequest>("b", 9, &joined);
        self.other.send_in(&sync(GROUP, &joined), 5).await;
        self.ask("a leads", sync(GROUP, &second), 5).await;
        let synced = self.other.receive_in::<SyncGroupRequest>(5).await.1;
        self.note::<SyncGroupRequest>("b follows", 5, &synced);
        self.joins("b, which has nothing new to say", join(GROUP, &b), 9, "").await;
        let delete = DeleteGroupsRequest { groups_names: vec![GROUP.into()], ..Default::default() };
        self.ask("with members", delete.clone(), 2).await;
        let topic = offset_delete::OffsetDeleteRequestTopic {
            name: TOPIC.into(),
            partitions: vec![offset_delete::OffsetDeleteRequestPartition::default()],
            ..Default::default()
        };
        let offsets =
            OffsetDeleteRequest { group_id: GROUP.into(), topics: vec![topic], ..Default::default() };
        self.ask("with members", offsets.clone(), 0).await;
        self.leaves("nobody and both", GROUP, &[("x", None), (a, None), (&b, None), ("", None)]).await;
        self.beats("a, which has left", GROUP, a, second.generation_id).await;
        self.joins("a, which has left", join(GROUP, a), 9, "").await;
        self.ask("without members", offsets, 0).await;
        self.ask("without members", delete, 2).await;
    }

    pub(super) async fn static_members(&mut self) {
        let of = |instance: &str, id: &str| {
            let mut request = join(STATIC, id);
            request.group_instance_id = Some(instance.into());
            request
        };
        let first = self.joins("i", of("i", ""), 9, "<i1>").await;
        let mut request = sync(STATIC, &first);
        request.group_instance_id = Some("i".into());
        self.ask("i", request, 5).await;
        let second = self.joins("i anew", of("i", ""), 9, "<i2>").await;
        let (old, new) = (first.member_id.to_string(), second.member_id.to_string());
        for (what, id, instance) in
            [("fenced", &old, "i"), ("current", &new, "i"), ("of another", &new, "j"), ("unknown", &old, "j")]
        {
            let request = HeartbeatRequest {
                group_id: STATIC.into(),
                generation_id: second.generation_id,
                member_id: id.as_str().into(),
                group_instance_id: Some(instance.into()),
                ..HeartbeatRequest::default()
            };
            self.ask(what, request, 4).await;
            let mut request = commit(STATIC, TOPIC, 1);
            request.member_id = id.as_str().into();
            request.group_instance_id = Some(instance.into());
            request.generation_id_or_member_epoch = second.generation_id;
            self.ask(what, request, 9).await;
        }
        self.joins("fenced", of("i", &old), 9, "").await;
        self.joins("unknown", of("j", &new), 9, "").await;
        self.joins("i anew, of an old client", of("i", ""), 8, "<i3>").await;
        let mut other = of("i", "");
        other.protocols[0].name = "sticky".into();
        let last = self.joins("i anew, with another protocol", other, 9, "<i4>").await;
        self.ask("without an assignment", sync(STATIC, &last), 5).await;
        self.leaves("fenced and unknown", STATIC, &[(&old, Some("i")), ("", Some("j"))]).await;
        self.leaves("by the name alone", STATIC, &[("", Some("i"))]).await;
        let delete = DeleteGroupsRequest { groups_names: vec![STATIC.into()], ..Default::default() };
        self.ask("without members", delete, 2).await;
    }
}
