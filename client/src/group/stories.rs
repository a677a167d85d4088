//! What one member does, event by event: exact effects, at the instants that matter. Many members at once, and chance,
//! are in `simulation.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::{ApiKey, ErrorCode};
use klamm_runtime::SeededRng;
use tokio::time::Instant;

use super::assignors::Assignor;
use super::event::{
    Beat, Effect, Event, Failure, GroupProtocol, Joined, JoinedMember, Report, Settings, Topics,
};
use super::member::Member;
use super::protocol::{MemberShare, MemberSubscription};
use super::strategy::{GroupMember, PartitionAssignor, Strategy};
use crate::error::RequestError;
use crate::types::TopicPartition;

const SESSION: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_secs(1);
const REBALANCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_nanos(1);
/// Longer than any pause after failures.
const PAUSE: Duration = Duration::from_millis(1_300);

struct Story {
    member: Member,
    now: Instant,
}

fn settings() -> Settings {
    Settings {
        protocol: GroupProtocol::Classic,
        strategies: vec![Strategy::BuiltIn(Assignor::CooperativeSticky)],
        session_timeout: SESSION,
        heartbeat_interval: INTERVAL,
        rebalance_timeout: REBALANCE,
        retry_backoff: (Duration::from_millis(100), Duration::from_secs(1)),
        is_static: false,
        rack: Some("rack".into()),
        create_topics: true,
        rng: Arc::new(SeededRng::new(1)),
    }
}

fn at(partitions: &[i32]) -> Vec<TopicPartition> {
    partitions.iter().map(|&partition| TopicPartition::new("t", partition)).collect()
}

fn topics(of: &[(&str, i32)]) -> Topics {
    let counts = of.iter().map(|&(topic, count)| (Arc::from(topic), count)).collect();
    Topics { counts, refused: BTreeMap::new() }
}

fn said(code: ErrorCode) -> Failure {
    Failure::Coordinator { code, member_id: None }
}

fn broken() -> Failure {
    Failure::Request(RequestError::Disconnected { address: "b".into(), reason: "gone".into() })
}

fn subscription(topics: &[&str]) -> Bytes {
    let topics = topics.iter().map(|&topic| Arc::from(topic)).collect();
    MemberSubscription { topics, generation: -1, ..Default::default() }.encode()
}

fn following(generation: i32) -> Joined {
    Joined {
        generation,
        member_id: "m".into(),
        leads: false,
        skip_assignment: false,
        assignor: "cooperative-sticky".into(),
        members: Vec::new(),
    }
}

fn leading(generation: i32, wants: &[&str]) -> Joined {
    let member = JoinedMember { id: "m".into(), instance_id: None, metadata: subscription(wants) };
    Joined { leads: true, members: vec![member], ..following(generation) }
}

fn heartbeat(attempt: u64, generation: i32) -> Effect {
    Effect::SendHeartbeat { attempt, member_id: "m".into(), generation }
}

fn identify(generation: i32) -> Effect {
    Effect::Identify { member_id: "m".into(), generation }
}

impl Story {
    fn new(settings: Settings) -> Self {
        Self { member: Member::new(settings, vec!["t".into()], "".into()), now: Instant::now() }
    }

    /// Whatever happens, all that is due is done, and time alone brings nothing before the member wakes.
    fn on(&mut self, event: Event) -> Vec<Effect> {
        let effects = self.member.on(event, self.now);
        assert!(self.member.wake_at().is_none_or(|at| at > self.now), "it would wake for nothing, for ever");
        effects
    }

    /// To where the pause after a first failure ends: what it does there, and not before.
    fn after_pause(&mut self) -> Vec<Effect> {
        let ends = self.member.wake_at().unwrap();
        let pause = ends - self.now;
        assert!((80..=120).contains(&pause.as_millis()), "{pause:?}");
        assert_eq!(self.after(pause - TICK), []);
        self.after(TICK)
    }

    fn after(&mut self, time: Duration) -> Vec<Effect> {
        self.now += time;
        self.on(Event::Time)
    }

    fn by(&self) -> Instant {
        self.now + REBALANCE
    }

    /// The number of the request among these effects.
    fn attempt(effects: &[Effect]) -> u64 {
        let attempt = effects.iter().find_map(|effect| match effect {
            Effect::SendJoin { attempt, .. }
            | Effect::SendSync { attempt, .. }
            | Effect::SendHeartbeat { attempt, .. }
            | Effect::SendBeat { attempt, .. } => Some(*attempt),
            Effect::AskTopics { ask, .. } => Some(*ask),
            _ => None,
        });
        attempt.unwrap_or_else(|| panic!("no request in {effects:?}"))
    }

    /// Up to the first join.
    fn joining(settings: Settings) -> (Self, u64) {
        let mut story = Self::new(settings);
        let effects = story.on(Event::Started);
        let ask = Self::attempt(&effects);
        let first = Effect::AskTopics { ask, topics: vec!["t".into()], create: true };
        assert_eq!(effects, [first, Effect::FindCoordinator]);
        assert_eq!(story.on(Event::CoordinatorFound), [], "the topics are not known yet");
        let effects = story.on(Event::TopicsAnswered(ask, Ok(topics(&[("t", 4)]))));
        assert_eq!(effects.len(), 1);
        let attempt = Self::attempt(&effects);
        (story, attempt)
    }

    /// A member of generation 1 that owns these.
    fn stable(settings: Settings, partitions: &[i32]) -> Self {
        let (mut story, join) = Self::joining(settings);
        let effects = story.on(Event::JoinAnswered(join, Ok(following(1))));
        let sync = Self::attempt(&effects);
        story.on(Event::SyncAnswered(sync, Ok(at(partitions).into())));
        story.on(Event::ListenerReturned);
        story
    }

    /// Sends the heartbeat that is due, and gives its number.
    fn beat(&mut self) -> u64 {
        let effects = self.after(INTERVAL);
        Self::attempt(&effects)
    }
}

#[test]
fn a_member_joins_syncs_and_takes_over() {
    let (mut story, join) = Story::joining(settings());
    let required = Failure::Coordinator { code: ErrorCode::MemberIdRequired, member_id: Some("m".into()) };
    let effects = story.on(Event::JoinAnswered(join, Err(required)));
    let join = Story::attempt(&effects);
    let told = MemberSubscription {
        topics: vec!["t".into()],
        generation: -1,
        rack: Some("rack".into()),
        ..Default::default()
    };
    let protocols = vec![("cooperative-sticky".into(), told.encode())];
    assert_eq!(effects, [Effect::SendJoin { attempt: join, member_id: "m".into(), protocols }]);
    assert_eq!(story.on(Event::JoinAnswered(join - 1, Ok(following(9)))), [], "of an older attempt");
    assert_eq!(story.member.wake_at(), Some(story.now + INTERVAL), "topics that are missing are looked for");

    let effects = story.on(Event::JoinAnswered(join, Ok(following(3))));
    let sync = Story::attempt(&effects);
    let expected = Effect::SendSync {
        attempt: sync,
        member_id: "m".into(),
        generation: 3,
        assignor: "cooperative-sticky".into(),
        assignment: BTreeMap::new(),
    };
    assert_eq!(effects, [expected]);
    // Heartbeats begin with the generation, not with the assignment.
    assert_eq!(story.member.wake_at(), Some(story.now + INTERVAL));
    let effects = story.after(INTERVAL);
    let beat = Story::attempt(&effects[..1]);
    assert!(effects.contains(&heartbeat(beat, 3)), "{effects:?}");
    assert_eq!(story.on(Event::HeartbeatAnswered(beat, Err(said(ErrorCode::RebalanceInProgress)))), []);

    assert_eq!(story.on(Event::SyncAnswered(sync - 1, Ok(at(&[9]).into()))), [], "of an older attempt");
    let effects =
        story.on(Event::SyncAnswered(sync, Ok([at(&[0, 1]), vec![("other", 0).into()]].concat().into())));
    assert_eq!(effects, [identify(3), Effect::CallAssigned(at(&[0, 1]), story.by())]);
    assert_eq!(story.on(Event::ListenerReturned), [Effect::StartFetching(at(&[0, 1]))]);
    assert_eq!(story.on(Event::SyncAnswered(sync, Ok(at(&[3]).into()))), [], "answered already");
}

/// A coordinator that asks for an id and does not take the one that it gave would otherwise be asked without a pause.
#[test]
fn an_id_is_given_once() {
    let (mut story, join) = Story::joining(settings());
    let required =
        |id: &str| Failure::Coordinator { code: ErrorCode::MemberIdRequired, member_id: Some(id.into()) };
    let effects = story.on(Event::JoinAnswered(join, Err(required("m"))));
    let join = Story::attempt(&effects);
    let effects = story.on(Event::JoinAnswered(join, Err(required("n"))));
    let refused = Effect::Report(Report::Refused(ErrorCode::MemberIdRequired));
    assert_eq!(effects, [refused, Effect::Done]);
}

#[test]
fn a_cooperative_member_keeps_reading_while_it_joins_again() {
    let mut story = Story::stable(settings(), &[0, 1]);
    let beat = story.beat();
    let effects = story.on(Event::HeartbeatAnswered(beat, Err(said(ErrorCode::RebalanceInProgress))));
    let join = Story::attempt(&effects);
    let told = MemberSubscription {
        topics: vec!["t".into()],
        owned: at(&[0, 1]),
        generation: 1,
        rack: Some("rack".into()),
        ..Default::default()
    };
    let protocols = vec![("cooperative-sticky".into(), told.encode())];
    assert_eq!(effects, [Effect::SendJoin { attempt: join, member_id: "m".into(), protocols }]);
    // The join waits for others: heartbeats go on, and that the generation is over is no news.
    let beat = story.beat();
    assert_eq!(story.on(Event::HeartbeatAnswered(beat, Err(said(ErrorCode::IllegalGeneration)))), []);
    let effects = story.on(Event::JoinAnswered(join, Ok(following(2))));
    let sync = Story::attempt(&effects);
    let effects = story.on(Event::SyncAnswered(sync, Ok(at(&[1]).into())));
    let revoked = Effect::CallRevoked(at(&[0]), story.by());
    assert_eq!(effects, [identify(2), Effect::StopHandingOut(at(&[0])), revoked]);
    let effects = story.on(Event::ListenerReturned);
    assert_eq!(effects, [Effect::Release(at(&[0])), Effect::CallAssigned(vec![], story.by())]);
    // What was given up goes to its new owner in one more round.
    let effects = story.on(Event::ListenerReturned);
    assert!(matches!(&effects[..], [Effect::SendJoin { .. }]), "{effects:?}");
}

#[test]
fn an_eager_member_gives_everything_up_before_it_joins() {
    let strategies = [Assignor::CooperativeSticky, Assignor::Sticky].map(Strategy::BuiltIn).to_vec();
    let mut story = Story::stable(Settings { strategies, ..settings() }, &[0, 1]);
    let beat = story.beat();
    let effects = story.on(Event::HeartbeatAnswered(beat, Err(said(ErrorCode::RebalanceInProgress))));
    let revoked = Effect::CallRevoked(at(&[0, 1]), story.by());
    assert_eq!(effects, [Effect::StopHandingOut(at(&[0, 1])), revoked]);
    // The listener takes its time: heartbeats go on.
    let beat = story.beat();
    assert_eq!(story.on(Event::HeartbeatAnswered(beat, Err(said(ErrorCode::RebalanceInProgress)))), []);
    let effects = story.on(Event::ListenerReturned);
    let [Effect::Release(released), Effect::SendJoin { protocols, .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(*released, at(&[0, 1]));
    let told: Vec<_> = protocols
        .iter()
        .map(|(name, data)| (&**name, MemberSubscription::decode(data).unwrap().user_data))
        .collect();
    let last = super::protocol::encode_sticky(&at(&[0, 1]), 1);
    assert_eq!(told, [("cooperative-sticky", None), ("sticky", Some(last))]);
}

#[test]
fn a_leader_shares_out_and_watches_partition_counts() {
    let (mut story, join) = Story::joining(settings());
    let effects = story.on(Event::JoinAnswered(join, Ok(leading(1, &["t", "u"]))));
    let ask = Story::attempt(&effects);
    let names = vec!["t".into(), "u".into()];
    assert_eq!(effects, [Effect::AskTopics { ask, topics: names, create: true }]);
    // The answer takes its time: the new generation lives already.
    let effects = story.after(INTERVAL);
    let beat = Story::attempt(&effects);
    assert_eq!(effects, [heartbeat(beat, 1)]);
    let effects = story.on(Event::TopicsAnswered(ask, Ok(topics(&[("u", 1)]))));
    let sync = Story::attempt(&effects);
    let [Effect::SendSync { assignment, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(assignment[&Arc::from("m")].partitions.len(), 5);
    assert_eq!(story.member.watched().len(), 2);
    story.on(Event::SyncAnswered(sync, Ok(at(&[0, 1, 2, 3]).into())));
    story.on(Event::ListenerReturned);
    assert_eq!(story.on(Event::TopicsChanged(topics(&[("t", 4), ("u", 1)]))), []);
    assert_eq!(story.on(Event::TopicsChanged(topics(&[("t", 4)]))), [], "one that vanished is no reason");
    let effects = story.on(Event::TopicsChanged(topics(&[("t", 4), ("u", 2)])));
    assert!(matches!(&effects[..], [Effect::SendJoin { .. }]), "{effects:?}");
}

/// A static member that leads again after a restart is told to leave the assignment as it is (KIP-814), and must watch
/// all the same.
#[test]
fn a_leader_that_shares_nothing_out_watches_partition_counts_too() {
    let (mut story, join) = Story::joining(Settings { is_static: true, ..settings() });
    let joined = Joined { skip_assignment: true, ..leading(1, &["t"]) };
    let effects = story.on(Event::JoinAnswered(join, Ok(joined)));
    let [Effect::SendSync { attempt, assignment, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert!(assignment.is_empty());
    story.on(Event::SyncAnswered(*attempt, Ok(at(&[0, 1, 2, 3]).into())));
    story.on(Event::ListenerReturned);
    let effects = story.on(Event::TopicsChanged(topics(&[("t", 5)])));
    assert!(matches!(&effects[..], [Effect::SendJoin { .. }]), "{effects:?}");
}

#[test]
fn a_leader_without_metadata_or_assignor_does_not_share_out() {
    let (mut story, join) = Story::joining(settings());
    let effects = story.on(Event::JoinAnswered(join, Ok(leading(1, &["u"]))));
    let ask = Story::attempt(&effects);
    assert_eq!(story.on(Event::TopicsAnswered(ask, Err(RequestError::Closed))), []);
    let effects = story.after(PAUSE);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::SendJoin { .. })), "{effects:?}");

    let (mut story, join) = Story::joining(settings());
    let joined = Joined { assignor: "unheard".into(), ..leading(1, &["t"]) };
    let effects = story.on(Event::JoinAnswered(join, Ok(joined)));
    let refused = Effect::Report(Report::Refused(ErrorCode::InconsistentGroupProtocol));
    assert_eq!(effects, [refused, Effect::Done]);
}

#[test]
fn heartbeats_have_deadlines_that_nothing_else_moves() {
    let mut story = Story::stable(settings(), &[0]);
    for _ in 0..9 {
        story.now += INTERVAL / 10;
        assert_eq!(story.on(Event::TopicsChanged(topics(&[("t", 4)]))), []);
    }
    story.now += INTERVAL / 10 - TICK;
    assert_eq!(story.on(Event::TopicsChanged(topics(&[("t", 4)]))), []);
    assert_eq!(story.member.wake_at(), Some(story.now + TICK));
    let effects = story.after(TICK);
    let attempt = Story::attempt(&effects);
    assert_eq!(effects, [heartbeat(attempt, 1)]);
    assert_eq!(story.on(Event::HeartbeatAnswered(attempt, Ok(()))), []);
}

#[test]
fn a_look_up_for_a_missing_topic_holds_nothing_up() {
    let mut story = Story::new(settings());
    let effects = story.on(Event::SubscriptionChanged(vec!["t".into(), "mispelt".into()]));
    assert_eq!(effects, [Effect::FindCoordinator]);
    let effects = story.on(Event::Started);
    let ask = Story::attempt(&effects);
    story.on(Event::CoordinatorFound);
    let effects = story.on(Event::TopicsAnswered(ask, Ok(topics(&[("t", 1)]))));
    let join = Story::attempt(&effects);
    let effects = story.on(Event::JoinAnswered(join, Ok(following(1))));
    let sync = Story::attempt(&effects);
    story.on(Event::SyncAnswered(sync, Ok(at(&[0]).into())));
    story.on(Event::ListenerReturned);
    let effects = story.after(INTERVAL);
    let ask = Story::attempt(&effects);
    let missing = Effect::AskTopics { ask, topics: vec!["mispelt".into()], create: false };
    assert_eq!(effects, [missing, heartbeat(ask + 1, 1)]);
    // It hangs: heartbeats go on, and it is not asked again before it is answered.
    story.on(Event::HeartbeatAnswered(ask + 1, Ok(())));
    let effects = story.after(INTERVAL);
    assert!(matches!(&effects[..], [Effect::SendHeartbeat { .. }]), "{effects:?}");
    story.on(Event::HeartbeatAnswered(Story::attempt(&effects), Ok(())));
    assert_eq!(story.on(Event::TopicsAnswered(ask, Err(RequestError::Closed))), []);
    let effects = story.after(INTERVAL);
    assert!(matches!(&effects[..], [Effect::AskTopics { .. }, Effect::SendHeartbeat { .. }]), "{effects:?}");
}

/// The first question may create topics; when it was not heard, the next one may.
#[test]
fn a_first_look_that_fails_is_made_again() {
    for create in [true, false] {
        let mut story = Story::new(Settings { create_topics: create, ..settings() });
        let effects = story.on(Event::Started);
        let ask = Story::attempt(&effects);
        assert_eq!(effects[0], Effect::AskTopics { ask, topics: vec!["t".into()], create });
        story.on(Event::CoordinatorFound);
        let effects = story.on(Event::TopicsAnswered(ask, Err(RequestError::Closed)));
        assert!(matches!(&effects[..], [Effect::SendJoin { .. }]), "it joins all the same: {effects:?}");
        let effects = story.after(INTERVAL);
        let ask = Story::attempt(&effects);
        assert_eq!(effects[0], Effect::AskTopics { ask, topics: vec!["t".into()], create });
        story.on(Event::TopicsAnswered(ask, Ok(Topics::default())));
        let effects = story.after(INTERVAL);
        let ask = Story::attempt(&effects);
        assert_eq!(effects[0], Effect::AskTopics { ask, topics: vec!["t".into()], create: false });
    }
}

#[test]
fn refused_topics_are_told_once_each() {
    let mut story = Story::stable(settings(), &[0]);
    let refused = |code| Topics {
        counts: topics(&[("t", 4)]).counts,
        refused: [(Arc::from("t"), code), (Arc::from("other"), code)].into(),
    };
    let told = |code| Effect::Report(Report::Topic("t".into(), code));
    let code = ErrorCode::TopicAuthorizationFailed;
    assert_eq!(story.on(Event::TopicsChanged(refused(code))), [told(code)]);
    assert_eq!(story.on(Event::TopicsChanged(refused(code))), []);
    let other = ErrorCode::InvalidTopicException;
    assert_eq!(story.on(Event::TopicsChanged(refused(other))), [told(other)]);
}

#[test]
fn a_silent_coordinator_ends_the_membership_after_a_session() {
    let mut story = Story::stable(settings(), &[0, 1]);
    let beat = story.beat();
    story.on(Event::HeartbeatAnswered(beat, Ok(())));
    // The session counts from when that heartbeat was sent.
    let last = story.now;
    let lost = story.beat();
    // Its answer is waited for half a session, then the coordinator is looked for again.
    assert_eq!(Member::heartbeat_patience(SESSION), SESSION / 2);
    story.now = last + INTERVAL + SESSION / 2 - TICK;
    assert_eq!(story.on(Event::Time), []);
    assert_eq!(story.after(TICK), []);
    let effects = story.after(Duration::from_millis(200));
    assert_eq!(effects, [Effect::FindCoordinator]);
    assert_eq!(story.on(Event::HeartbeatAnswered(lost, Ok(()))), [], "too late to count");
    story.now = last + SESSION - TICK;
    assert_eq!(story.on(Event::Time), []);
    assert_eq!(story.member.wake_at(), Some(last + SESSION));
    let effects = story.after(TICK);
    let by = story.by();
    let expected = [Effect::StopHandingOut(at(&[0, 1])), identify(-1), Effect::CallLost(at(&[0, 1]), by)];
    assert_eq!(effects[..3], expected);
    assert_eq!(effects[3..], [Effect::FindCoordinator]);
    assert_eq!(story.on(Event::CoordinatorFound), [], "the listener has not returned");
    let effects = story.on(Event::ListenerReturned);
    let [Effect::Release(_), Effect::SendJoin { member_id, protocols, .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(&**member_id, "m", "the coordinator may still know it");
    // Was it not expelled, the coordinator would answer an unchanged subscription with the old generation, in which
    // what was begun before the loss can still be committed.
    let told = MemberSubscription::decode(&protocols[0].1).unwrap();
    assert_eq!((told.owned, told.generation), (vec![], 1));

    // Silent again before the join was answered: it may not have heard of that.
    let join = Story::attempt(&effects[1..]);
    story.on(Event::JoinAnswered(join, Err(broken())));
    story.after(PAUSE);
    let effects = story.on(Event::CoordinatorFound);
    let [Effect::SendJoin { protocols, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(MemberSubscription::decode(&protocols[0].1).unwrap().generation, 1);
    // Who is not known any more has no generation.
    let join = Story::attempt(&effects);
    story.on(Event::JoinAnswered(join, Err(said(ErrorCode::UnknownMemberId))));
    let effects = story.after(PAUSE);
    let [Effect::SendJoin { member_id, protocols, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(&**member_id, "");
    assert_eq!(MemberSubscription::decode(&protocols[0].1).unwrap().generation, -1);
}

#[test]
fn the_coordinators_word_ends_a_membership() {
    for (code, kept_id) in [(ErrorCode::UnknownMemberId, ""), (ErrorCode::IllegalGeneration, "m")] {
        let mut story = Story::stable(settings(), &[0]);
        let beat = story.beat();
        let effects = story.on(Event::HeartbeatAnswered(beat, Err(said(code))));
        let gone = Effect::Identify { member_id: kept_id.into(), generation: -1 };
        let lost = Effect::CallLost(at(&[0]), story.by());
        assert_eq!(effects, [Effect::StopHandingOut(at(&[0])), gone, lost]);
        let effects = story.on(Event::ListenerReturned);
        let [Effect::Release(_), Effect::SendJoin { member_id, .. }] = &effects[..] else {
            panic!("{effects:?}")
        };
        assert_eq!(&**member_id, kept_id);
    }
    let mut story = Story::stable(settings(), &[0]);
    let beat = story.beat();
    let effects = story.on(Event::HeartbeatAnswered(beat, Err(said(ErrorCode::FencedInstanceId))));
    assert_eq!(effects.len(), 3);
    let effects = story.on(Event::ListenerReturned);
    let refused = Effect::Report(Report::Refused(ErrorCode::FencedInstanceId));
    assert_eq!(effects, [Effect::Release(at(&[0])), refused, Effect::Done]);
    assert_eq!(story.member.wake_at(), None);
    assert_eq!(story.on(Event::Started), [], "it is over");
}

#[test]
fn a_heartbeat_that_fails_is_sent_again_when_the_coordinator_is_found() {
    for failure in [broken(), said(ErrorCode::NotCoordinator), said(ErrorCode::CoordinatorNotAvailable)] {
        let mut story = Story::stable(settings(), &[0]);
        let beat = story.beat();
        assert_eq!(story.on(Event::HeartbeatAnswered(beat, Err(failure))), [], "after a pause");
        assert_eq!(story.after_pause(), [Effect::FindCoordinator]);
        let effects = story.on(Event::CoordinatorFound);
        assert!(matches!(&effects[..], [Effect::SendHeartbeat { generation: 1, .. }]), "{effects:?}");
    }
    let mut story = Story::stable(settings(), &[0]);
    let beat = story.beat();
    let loading = Err(said(ErrorCode::CoordinatorLoadInProgress));
    assert_eq!(story.on(Event::HeartbeatAnswered(beat, loading)), []);
    assert_eq!(story.after(INTERVAL - TICK), []);
    assert_eq!(story.after(TICK).len(), 1);
}

#[test]
fn joins_and_syncs_that_fail_are_made_again_after_a_pause() {
    for failure in [broken(), said(ErrorCode::NotCoordinator)] {
        let (mut story, join) = Story::joining(settings());
        assert_eq!(story.on(Event::JoinAnswered(join, Err(failure.clone()))), []);
        let effects = story.after(PAUSE);
        assert_eq!(effects[..1], [Effect::FindCoordinator]);
        let effects = story.on(Event::CoordinatorFound);
        assert!(effects.iter().any(|effect| matches!(effect, Effect::SendJoin { .. })), "{effects:?}");
        let again = Story::attempt(&effects);
        let effects = story.on(Event::JoinAnswered(again, Ok(following(1))));
        let sync = Story::attempt(&effects);
        assert_eq!(story.on(Event::SyncAnswered(sync, Err(failure))), []);
        let effects = story.after(Duration::from_millis(130));
        assert_eq!(effects, [Effect::FindCoordinator]);
    }
    for code in
        [ErrorCode::CoordinatorLoadInProgress, ErrorCode::RebalanceInProgress, ErrorCode::UnknownMemberId]
    {
        let (mut story, join) = Story::joining(settings());
        assert_eq!(story.on(Event::JoinAnswered(join, Err(said(code)))), []);
        let effects = story.after_pause();
        assert!(matches!(&effects[..], [Effect::SendJoin { .. }]), "{effects:?}");
    }
    let (mut story, join) = Story::joining(settings());
    let effects = story.on(Event::JoinAnswered(join, Ok(following(1))));
    let sync = Story::attempt(&effects);
    let effects = story.on(Event::SyncAnswered(sync, Err(said(ErrorCode::RebalanceInProgress))));
    assert!(matches!(&effects[..], [Effect::SendJoin { .. }]), "at once: {effects:?}");
}

/// A coordinator that ended every generation before it gave anybody anything was asked as fast as it answered.
#[test]
fn generations_that_end_one_after_the_other_are_joined_at_once_only_so_often() {
    let overtake = |story: &mut Story, join| {
        let effects = story.on(Event::JoinAnswered(join, Ok(following(1))));
        let sync = Story::attempt(&effects);
        story.on(Event::SyncAnswered(sync, Err(said(ErrorCode::RebalanceInProgress))))
    };
    let (mut story, mut join) = Story::joining(settings());
    for _ in 0..5 {
        let effects = overtake(&mut story, join);
        assert!(matches!(&effects[..], [Effect::SendJoin { .. }]), "at once: {effects:?}");
        join = Story::attempt(&effects);
    }
    for _ in 0..3 {
        assert_eq!(overtake(&mut story, join), []);
        assert_eq!(story.after(Duration::from_millis(75)), [], "less than any pause");
        let effects = story.after(PAUSE);
        let effects: Vec<_> =
            effects.into_iter().filter(|effect| matches!(effect, Effect::SendJoin { .. })).collect();
        join = Story::attempt(&effects);
    }
    // With a part in a generation it begins anew.
    let effects = story.on(Event::JoinAnswered(join, Ok(following(2))));
    let sync = Story::attempt(&effects);
    story.on(Event::SyncAnswered(sync, Ok(Vec::new().into())));
    story.on(Event::ListenerReturned);
    let beat = story.beat();
    let effects = story.on(Event::HeartbeatAnswered(beat, Err(said(ErrorCode::RebalanceInProgress))));
    let effects = overtake(&mut story, Story::attempt(&effects));
    assert!(matches!(&effects[..], [Effect::SendJoin { .. }]), "at once: {effects:?}");
}

/// A coordinator that asked for an id and gave none was asked again as fast as it answered.
#[test]
fn an_id_that_is_required_and_not_given_is_final() {
    let (mut story, join) = Story::joining(settings());
    let required = Failure::Coordinator { code: ErrorCode::MemberIdRequired, member_id: Some("".into()) };
    let refused = Effect::Report(Report::Refused(ErrorCode::MemberIdRequired));
    assert_eq!(story.on(Event::JoinAnswered(join, Err(required))), [refused, Effect::Done]);
}

#[test]
fn some_failures_are_final() {
    let refused = |code| [Effect::Report(Report::Refused(code)), Effect::Done];
    let code = ErrorCode::GroupAuthorizationFailed;
    let broker = RequestError::Broker { address: "b".into(), api: ApiKey::FindCoordinator, code };
    let mut story = Story::new(settings());
    story.on(Event::Started);
    assert_eq!(story.on(Event::CoordinatorFailed(broker.into())), refused(code));
    let unsupported = RequestError::Unsupported { address: "b".into(), api: ApiKey::JoinGroup };
    let (mut story, join) = Story::joining(settings());
    let effects = story.on(Event::JoinAnswered(join, Err(unsupported.into())));
    assert_eq!(effects, refused(ErrorCode::UnsupportedVersion));
    let (mut story, join) = Story::joining(settings());
    let effects = story.on(Event::JoinAnswered(join, Err(said(ErrorCode::GroupMaxSizeReached))));
    assert_eq!(effects, refused(ErrorCode::GroupMaxSizeReached));
    // What passes by itself is not, also when the broker's refusal comes as a failure of the way.
    let code = ErrorCode::CoordinatorNotAvailable;
    let passing = RequestError::Broker { address: "b".into(), api: ApiKey::FindCoordinator, code };
    let mut story = Story::new(settings());
    story.on(Event::Started);
    assert_eq!(story.on(Event::CoordinatorFailed(passing.into())), []);
    assert_eq!(story.after_pause(), [Effect::FindCoordinator]);
}

#[test]
fn a_subscription_changes_at_run_time() {
    let mut story = Story::stable(settings(), &[0, 1]);
    assert_eq!(story.on(Event::SubscriptionChanged(vec!["t".into()])), [], "nothing changed");
    let effects = story.on(Event::SubscriptionChanged(vec!["u".into()]));
    let ask = Story::attempt(&effects);
    let looks = Effect::AskTopics { ask, topics: vec!["u".into()], create: true };
    let revoked = Effect::CallRevoked(at(&[0, 1]), story.by());
    assert_eq!(effects, [looks, Effect::StopHandingOut(at(&[0, 1])), revoked]);
    let effects = story.on(Event::ListenerReturned);
    let [Effect::Release(_), Effect::SendJoin { attempt, protocols, .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    let told = MemberSubscription::decode(&protocols[0].1).unwrap();
    assert_eq!((told.topics, told.owned), (vec![Arc::from("u")], vec![]));
    // It changes again while the join waits: the next one follows.
    story.on(Event::SubscriptionChanged(vec!["t".into()]));
    let effects = story.on(Event::JoinAnswered(*attempt, Ok(following(2))));
    let sync = Story::attempt(&effects);
    let effects = story.on(Event::SyncAnswered(sync, Ok(vec![("u", 0).into()].into())));
    assert_eq!(effects, [identify(2), Effect::CallAssigned(vec![], story.by())], "not wanted any more");
    let effects = story.on(Event::ListenerReturned);
    assert!(matches!(&effects[..], [Effect::SendJoin { .. }]), "{effects:?}");
}

#[test]
fn closing_gives_up_then_leaves() {
    let mut story = Story::stable(settings(), &[0]);
    let deadline = story.now + REBALANCE / 2;
    let effects = story.on(Event::Close { deadline, leave: false });
    assert_eq!(effects, [Effect::StopHandingOut(at(&[0])), Effect::CallRevoked(at(&[0]), story.by())]);
    assert_eq!(story.on(Event::Close { deadline: story.now, leave: false }), [], "once");
    let beat = story.beat();
    story.on(Event::HeartbeatAnswered(beat, Ok(())));
    let effects = story.on(Event::ListenerReturned);
    let leave = Effect::SendLeave { member_id: "m".into(), epoch: -1 };
    assert_eq!(effects, [Effect::Release(at(&[0])), leave]);
    assert_eq!(story.member.wake_at(), Some(deadline));
    assert_eq!(story.on(Event::LeaveAnswered), [Effect::Done]);
}

#[test]
fn closing_has_a_deadline() {
    let mut story = Story::stable(settings(), &[0]);
    let deadline = story.now + INTERVAL / 2;
    story.on(Event::Close { deadline, leave: false });
    assert_eq!(story.on(Event::LeaveAnswered), [], "nobody asked");
    assert_eq!(story.after(INTERVAL / 2 - TICK), []);
    let effects = story.after(TICK);
    assert_eq!(effects, [Effect::StopHandingOut(at(&[0])), Effect::Release(at(&[0])), Effect::Done]);
    let mut story = Story::stable(settings(), &[]);
    let deadline = story.now + INTERVAL;
    assert_eq!(story.on(Event::Close { deadline, leave: false }).len(), 1);
    assert_eq!(story.after(INTERVAL - TICK), []);
    assert_eq!(story.after(TICK), [Effect::Done], "the answer to leaving did not come");
    // The same when the group has refused the member, and its listener hangs.
    let mut story = Story::stable(settings(), &[0]);
    let beat = story.beat();
    story.on(Event::HeartbeatAnswered(beat, Err(said(ErrorCode::FencedInstanceId))));
    let deadline = story.now + INTERVAL;
    assert_eq!(story.on(Event::Close { deadline, leave: false }), []);
    assert_eq!(story.after(INTERVAL).last(), Some(&Effect::Done));
}

#[test]
fn a_static_member_stays_unless_it_is_told_to_leave() {
    let deadline = Instant::now() + REBALANCE;
    let mut story = Story::stable(Settings { is_static: true, ..settings() }, &[]);
    assert_eq!(story.on(Event::Close { deadline, leave: false }), [Effect::Done]);
    let mut story = Story::stable(Settings { is_static: true, ..settings() }, &[]);
    let leave = Effect::SendLeave { member_id: "m".into(), epoch: -1 };
    assert_eq!(story.on(Event::Close { deadline, leave: true }), [leave]);
    // One that never joined has nothing to leave.
    let (mut story, join) = Story::joining(settings());
    assert_eq!(story.on(Event::Close { deadline, leave: true }), [Effect::Done]);
    assert_eq!(story.on(Event::JoinAnswered(join, Ok(following(1)))), []);
}

// ---- KIP-848

fn beat(epoch: i32, assignment: Option<&[i32]>) -> Beat {
    Beat { member_id: "m".into(), epoch, interval: 2 * INTERVAL, assignment: assignment.map(at) }
}

impl Story {
    /// A member that has sent its first heartbeat.
    fn entering() -> (Self, u64) {
        let settings = Settings { protocol: GroupProtocol::Consumer, ..settings() };
        let mut story =
            Self { member: Member::new(settings, vec!["t".into()], "m".into()), now: Instant::now() };
        let effects = story.on(Event::Started);
        let ask = Self::attempt(&effects);
        story.on(Event::CoordinatorFound);
        let effects = story.on(Event::TopicsAnswered(ask, Ok(topics(&[("t", 4)]))));
        let attempt = Self::attempt(&effects);
        let topics = Some(vec![Arc::from("t")]);
        let first =
            Effect::SendBeat { attempt, member_id: "m".into(), epoch: 0, topics, owned: Some(vec![]) };
        assert_eq!(effects, [first]);
        (story, attempt)
    }

    /// A member of epoch 1 that owns these, and has told so.
    fn owning(partitions: &[i32]) -> Self {
        let (mut story, first) = Self::entering();
        story.on(Event::BeatAnswered(first, Ok(beat(1, Some(partitions)))));
        let effects = story.on(Event::ListenerReturned);
        let told = Self::attempt(&effects);
        assert_eq!(story.on(Event::BeatAnswered(told, Ok(beat(1, None)))), []);
        story
    }
}

fn tells(attempt: u64, epoch: i32, owned: Option<&[i32]>) -> Effect {
    Effect::SendBeat { attempt, member_id: "m".into(), epoch, topics: None, owned: owned.map(at) }
}

#[test]
fn a_member_follows_its_coordinator_and_tells_when_it_has() {
    let (mut story, first) = Story::entering();
    let effects = story.on(Event::BeatAnswered(first, Ok(beat(1, Some(&[0, 1])))));
    assert_eq!(effects, [identify(1), Effect::CallAssigned(at(&[0, 1]), story.by())]);
    // The listener takes its time: heartbeats go on, in the coordinator's interval.
    assert_eq!(story.after(INTERVAL - TICK), []);
    let effects = story.after(TICK);
    let second = Story::attempt(&effects);
    assert_eq!(effects, [tells(second, 1, None)]);
    assert_eq!(story.on(Event::BeatAnswered(second, Ok(beat(1, None)))), []);
    let effects = story.on(Event::ListenerReturned);
    let third = Story::attempt(&effects);
    assert_eq!(effects, [Effect::StartFetching(at(&[0, 1])), tells(third, 1, Some(&[0, 1]))]);
    let effects = story.on(Event::BeatAnswered(third, Ok(beat(2, Some(&[1])))));
    let revoked = Effect::CallRevoked(at(&[0]), story.by());
    assert_eq!(effects, [identify(2), Effect::StopHandingOut(at(&[0])), revoked]);
    let effects = story.on(Event::ListenerReturned);
    assert_eq!(effects, [Effect::Release(at(&[0])), Effect::CallAssigned(vec![], story.by())]);
    let effects = story.on(Event::ListenerReturned);
    assert_eq!(effects, [tells(Story::attempt(&effects), 2, Some(&[1]))]);
}

#[test]
fn a_fenced_member_loses_everything_and_joins_again_as_itself() {
    for code in [ErrorCode::FencedMemberEpoch, ErrorCode::UnknownMemberId] {
        let mut story = Story::owning(&[0]);
        let effects = story.after(2 * INTERVAL);
        let attempt = effects.iter().find_map(|effect| match effect {
            Effect::SendBeat { attempt, .. } => Some(*attempt),
            _ => None,
        });
        let effects = story.on(Event::BeatAnswered(attempt.unwrap(), Err(said(code))));
        let lost = Effect::CallLost(at(&[0]), story.by());
        assert_eq!(effects, [Effect::StopHandingOut(at(&[0])), identify(-1), lost]);
        assert_eq!(story.on(Event::ListenerReturned), [Effect::Release(at(&[0]))]);
        let effects = story.after(PAUSE);
        let joins = effects.iter().any(|effect| {
            matches!(effect, Effect::SendBeat { epoch: 0, topics: Some(_), owned: Some(owned), .. }
                if owned.is_empty())
        });
        assert!(joins, "{effects:?}");
    }
}

#[test]
fn after_a_failure_everything_is_told_again() {
    let failures = [
        (broken(), true),
        (said(ErrorCode::NotCoordinator), true),
        (said(ErrorCode::CoordinatorLoadInProgress), false),
    ];
    for (failure, finds) in failures {
        let mut story = Story::owning(&[0]);
        let effects = story.after(2 * INTERVAL);
        let attempt = effects.iter().find_map(|effect| match effect {
            Effect::SendBeat { attempt, .. } => Some(*attempt),
            _ => None,
        });
        assert_eq!(story.on(Event::BeatAnswered(attempt.unwrap(), Err(failure))), []);
        let mut effects = story.after_pause();
        assert_eq!(effects.contains(&Effect::FindCoordinator), finds);
        effects.extend(story.on(Event::CoordinatorFound));
        let again = effects.iter().any(|effect| {
            matches!(effect, Effect::SendBeat { epoch: 1, topics: Some(_), owned: Some(owned), .. }
                if *owned == at(&[0]))
        });
        assert!(again, "{effects:?}");
    }
}

/// A pause that was over still counted as something to wake for, until the coordinator answered well: with something to
/// tell and a heartbeat under way the member woke at once, again and again, and its shell heard nothing else.
#[test]
fn a_pause_that_is_over_wakes_nobody() {
    let mut story = Story::owning(&[0]);
    let effects = story.after(2 * INTERVAL);
    let attempt = Story::attempt(&effects[effects.len() - 1..]);
    let loading = said(ErrorCode::CoordinatorLoadInProgress);
    assert_eq!(story.on(Event::BeatAnswered(attempt, Err(loading))), []);
    let effects = story.after_pause();
    let again = Story::attempt(&effects);
    // While it is under way there is more to tell, which waits for its answer.
    let effects = story.on(Event::SubscriptionChanged(vec!["u".into()]));
    assert!(matches!(&effects[..], [Effect::AskTopics { .. }]), "{effects:?}");
    let effects = story.on(Event::BeatAnswered(again, Ok(beat(1, None))));
    assert!(matches!(&effects[..], [Effect::SendBeat { topics: Some(_), .. }]), "{effects:?}");
}

/// It waited for the longest pause that there is, because nothing woke it after its own.
#[test]
fn one_that_could_not_enter_tries_again_after_a_pause() {
    let (mut story, first) = Story::entering();
    let loading = said(ErrorCode::CoordinatorLoadInProgress);
    assert_eq!(story.on(Event::BeatAnswered(first, Err(loading))), []);
    let effects = story.after_pause();
    let again = Story::attempt(&effects);
    let topics = Some(vec![Arc::from("t")]);
    let first =
        Effect::SendBeat { attempt: again, member_id: "m".into(), epoch: 0, topics, owned: Some(vec![]) };
    assert_eq!(effects, [first]);
}

/// Found by the simulation: told in two heartbeats, it was never everything, and the coordinator did not repeat an
/// assignment whose first telling was lost.
#[test]
fn everything_is_told_at_once_also_while_a_listener_runs() {
    let (mut story, first) = Story::entering();
    story.on(Event::BeatAnswered(first, Ok(beat(1, Some(&[0])))));
    let effects = story.after(2 * INTERVAL);
    let attempt = Story::attempt(&effects[effects.len() - 1..]);
    story.on(Event::BeatAnswered(attempt, Err(said(ErrorCode::CoordinatorLoadInProgress))));
    let effects = story.after(PAUSE);
    let all = effects.iter().any(|effect| {
        matches!(effect, Effect::SendBeat { topics: Some(_), owned: Some(owned), .. } if *owned == at(&[0]))
    });
    assert!(all, "{effects:?}");
}

/// Found by the simulation: an assignment that was taken back before it was followed left nothing to tell, and the
/// coordinator waited for the partition for ever.
#[test]
fn an_assignment_that_changes_nothing_is_answered_too() {
    let mut story = Story::owning(&[0]);
    let effects = story.after(2 * INTERVAL);
    let attempt = Story::attempt(&effects[effects.len() - 1..]);
    let effects = story.on(Event::BeatAnswered(attempt, Ok(beat(1, Some(&[0])))));
    assert_eq!(effects, [Effect::CallAssigned(vec![], story.by())]);
    let effects = story.on(Event::ListenerReturned);
    assert_eq!(effects, [tells(Story::attempt(&effects), 1, Some(&[0]))]);
}

#[test]
fn a_new_subscription_is_told_at_once() {
    let mut story = Story::owning(&[0]);
    let effects = story.on(Event::SubscriptionChanged(vec!["u".into()]));
    let told = effects.iter().any(|effect| {
        matches!(effect, Effect::SendBeat { epoch: 1, topics: Some(topics), owned: None, .. }
            if *topics == [Arc::from("u")])
    });
    assert!(told, "{effects:?}");
    // What is not wanted any more goes when the coordinator says so.
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::StopHandingOut(_))));
}

#[test]
fn leaving_says_whether_the_member_comes_back() {
    let deadline = Instant::now() + REBALANCE;
    let mut story = Story::owning(&[]);
    let leave = |epoch| Effect::SendLeave { member_id: "m".into(), epoch };
    assert_eq!(story.on(Event::Close { deadline, leave: false }), [leave(-1)]);
    let settings = Settings { protocol: GroupProtocol::Consumer, is_static: true, ..settings() };
    for (leaves, epoch) in [(false, -2), (true, -1)] {
        let mut story = Story {
            member: Member::new(settings.clone(), vec!["t".into()], "m".into()),
            now: Instant::now(),
        };
        story.on(Event::Started);
        assert_eq!(story.on(Event::Close { deadline, leave: leaves }), [leave(epoch)]);
        assert_eq!(story.on(Event::LeaveAnswered), [Effect::Done]);
    }
}

/// Found by the simulation: what was assigned to a member that was leaving replaced what it was about to give up.
#[test]
fn a_member_that_leaves_takes_nothing_over() {
    let mut story = Story::owning(&[0]);
    let deadline = story.now + REBALANCE;
    let effects = story.on(Event::Close { deadline, leave: false });
    assert_eq!(effects, [Effect::StopHandingOut(at(&[0])), Effect::CallRevoked(at(&[0]), story.by())]);
    let effects = story.after(2 * INTERVAL);
    let attempt = Story::attempt(&effects);
    assert_eq!(story.on(Event::BeatAnswered(attempt, Ok(beat(1, Some(&[0, 1]))))), []);
    let leave = Effect::SendLeave { member_id: "m".into(), epoch: -1 };
    assert_eq!(story.on(Event::ListenerReturned), [Effect::Release(at(&[0])), leave]);
}

#[test]
fn some_refusals_of_a_heartbeat_are_final_and_some_pass() {
    let (mut story, first) = Story::entering();
    let effects = story.on(Event::BeatAnswered(first, Err(said(ErrorCode::GroupAuthorizationFailed))));
    let refused = Effect::Report(Report::Refused(ErrorCode::GroupAuthorizationFailed));
    assert_eq!(effects, [refused, Effect::Done]);
    let (mut story, first) = Story::entering();
    let unsupported = RequestError::Unsupported { address: "b".into(), api: ApiKey::ConsumerGroupHeartbeat };
    let effects = story.on(Event::BeatAnswered(first, Err(unsupported.into())));
    assert_eq!(effects, [Effect::Report(Report::Refused(ErrorCode::UnsupportedVersion)), Effect::Done]);
    // The predecessor of a static member is not gone yet.
    let (mut story, first) = Story::entering();
    assert_eq!(story.on(Event::BeatAnswered(first, Err(said(ErrorCode::UnreleasedInstanceId)))), []);
    let effects = story.after(PAUSE);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::SendBeat { epoch: 0, .. })), "{effects:?}");
}

/// An assignor that notes what it is told.
#[derive(Debug, Default)]
struct Noting(std::sync::Mutex<Vec<(MemberShare, i32)>>);

impl PartitionAssignor for Noting {
    fn name(&self) -> &'static str {
        "noting"
    }

    fn assign(
        &self,
        _members: &[GroupMember],
        _counts: &BTreeMap<Arc<str>, i32>,
    ) -> BTreeMap<Arc<str>, Vec<TopicPartition>> {
        BTreeMap::new()
    }

    fn on_assignment(&self, share: &MemberShare, generation: i32) {
        self.0.lock().unwrap().push((share.clone(), generation));
    }
}

#[test]
fn an_assignor_is_told_what_its_leader_said_before_the_listener_is_called() {
    let noting = Arc::new(Noting::default());
    let strategies = vec![Strategy::Custom(Arc::clone(&noting) as _), Strategy::BuiltIn(Assignor::Range)];
    let (mut story, join) = Story::joining(Settings { strategies, ..settings() });
    let joined = Joined { assignor: "noting".into(), ..following(4) };
    let sync = Story::attempt(&story.on(Event::JoinAnswered(join, Ok(joined))));
    let share = MemberShare { partitions: at(&[1]), user_data: Some(Bytes::from_static(b"more")) };
    assert_eq!(*noting.0.lock().unwrap(), []);
    let effects = story.on(Event::SyncAnswered(sync, Ok(share.clone())));
    assert_eq!(*noting.0.lock().unwrap(), [(share, 4)]);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::CallAssigned(..))), "{effects:?}");
    story.on(Event::ListenerReturned);
    // It is asked to join anew, and the group uses another assignor then, which has nothing to tell.
    let effects = story.on(Event::Rejoin);
    assert!(matches!(effects[..], [Effect::StopHandingOut(_), Effect::CallRevoked(..)]), "{effects:?}");
    let join = Story::attempt(&story.on(Event::ListenerReturned));
    let joined = Joined { assignor: "range".into(), ..following(5) };
    let sync = Story::attempt(&story.on(Event::JoinAnswered(join, Ok(joined))));
    story.on(Event::SyncAnswered(sync, Ok(at(&[2]).into())));
    assert_eq!(noting.0.lock().unwrap().len(), 1);
}
