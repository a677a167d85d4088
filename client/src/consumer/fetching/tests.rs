//! Tests of `fetching.rs`: which partitions go into which fetch.

use klamm_protocol::messages::fetch::{FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint};
use klamm_protocol::records::{BatchBuilder, BatchOptions};

use super::super::partitions::Rules;
use super::super::positions::{Pauses, Start};
use super::super::settings::OffsetReset;
use super::*;
use crate::cluster::testing;
use crate::types::TopicPartition;

const WAIT: Duration = Duration::from_millis(500);
const PATIENT: Way = Way { node: 1, line: Line::Patient };
const PROMPT: Way = Way { node: 1, line: Line::Prompt };

/// Both cores, and the shell's part of what they agree on.
struct Side {
    fetching: Fetching,
    partitions: Partitions,
    now: Instant,
    topic_id: Uuid,
    leaders: Vec<(i32, i32)>,
}

fn name(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn side(leaders: &[(i32, i32)]) -> Side {
    let reading =
        Reading { check_crcs: true, max_batch_bytes: 1 << 20, committed_only: false, together_bytes: 100 };
    let pauses = Pauses { first: ms(100), longest: ms(1_000) };
    let mut partitions = Partitions::new(Rules {
        prefetch_bytes: 4_000,
        partition_bytes: 500,
        reset: OffsetReset::Earliest,
        has_group: false,
        pauses,
    });
    for partition in 0..leaders.len() as i32 {
        partitions.add(name(partition), Start::At(0), false);
        partitions.seek(&name(partition), Start::At(0), None);
    }
    let fetching = Fetching::new(FetchRules {
        max_wait: WAIT,
        min_bytes: 7,
        max_bytes: 3_000,
        partition_bytes: 500,
        isolation: 1,
        rack: Arc::from("r"),
        replica_age: ms(9_000),
        reading,
    });
    Side { fetching, partitions, now: Instant::now(), topic_id: Uuid::from_u128(1), leaders: leaders.into() }
}

impl Side {
    fn send(&mut self) -> (Vec<Fetch>, Option<Instant>) {
        let view = testing::view_with_id("t", self.topic_id, &self.leaders);
        let plan = self.partitions.plan(&view, self.now);
        self.fetching.send(&mut self.partitions, plan.fetch, self.now)
    }

    /// The one fetch that is sent now.
    fn one(&mut self) -> Fetch {
        let mut fetches = self.send().0;
        assert_eq!(fetches.len(), 1, "{fetches:?}");
        fetches.remove(0)
    }

    fn answer(&mut self, way: Way, parts: Vec<PartitionData>) -> bool {
        let topic =
            FetchableTopicResponse { topic_id: self.topic_id, partitions: parts, ..Default::default() };
        let answer = FetchResponse { session_id: 5, responses: vec![topic], ..Default::default() };
        self.fetching.answered(&mut self.partitions, way, Ok(answer), self.now)
    }

    fn refuse(&mut self, way: Way, code: ErrorCode) -> bool {
        let answer = FetchResponse { error_code: code.code(), ..Default::default() };
        self.fetching.answered(&mut self.partitions, way, Ok(answer), self.now)
    }

    fn seek(&mut self, partition: i32, offset: i64) {
        assert!(self.partitions.seek(&name(partition), Start::At(offset), None));
    }

    /// All is fetched once and there was nothing: the patient line is held.
    fn settle(&mut self) {
        self.one();
        self.now += WAIT;
        assert!(!self.answer(PATIENT, Vec::new()));
        let held = self.one();
        assert_eq!((held.way, held.request.max_wait_ms), (PATIENT, 500));
    }
}

fn records(partition: i32, base_offset: i64, bytes: usize) -> PartitionData {
    let mut batch = BatchBuilder::new(BatchOptions { base_offset, ..BatchOptions::default() });
    let value = vec![0; bytes];
    batch.append(0, None, Some(&value), std::iter::empty::<(&str, Option<&[u8]>)>()).unwrap();
    PartitionData {
        partition_index: partition,
        high_watermark: base_offset + 1,
        records: Some(Records::Bytes(batch.build().unwrap())),
        ..Default::default()
    }
}

fn error(partition: i32, code: ErrorCode) -> PartitionData {
    PartitionData { partition_index: partition, error_code: code.code(), ..Default::default() }
}

/// Partition and offset of what a request names.
fn named(fetch: &Fetch) -> Vec<(i32, i64)> {
    let parts = fetch.request.topics.iter().flat_map(|topic| &topic.partitions);
    parts.map(|part| (part.partition, part.fetch_offset)).collect()
}

#[test]
fn the_first_fetch_begins_a_session_and_says_everything() {
    let mut side = side(&[(1, 3), (1, -1)]);
    let fetch = side.one();
    assert_eq!((fetch.way, fetch.cap, fetch.in_session), (PATIENT, i16::MAX, false));
    let request = &fetch.request;
    assert_eq!((request.max_wait_ms, request.min_bytes, request.max_bytes), (500, 7, 3_000));
    assert_eq!((request.isolation_level, request.session_id, request.session_epoch), (1, 0, 0));
    assert_eq!(&*request.rack_id, "r");
    assert_eq!(request.topics.len(), 1);
    assert_eq!((&*request.topics[0].topic, request.topics[0].topic_id), ("t", Uuid::from_u128(1)));
    let parts = &request.topics[0].partitions;
    assert_eq!((parts[0].current_leader_epoch, parts[1].current_leader_epoch), (3, -1));
    assert_eq!(parts[0].partition_max_bytes, 500);
    assert_eq!(side.fetching.reserved(), 3_000);
    assert!(side.answer(PATIENT, vec![records(0, 0, 10)]));
    assert_eq!(side.fetching.reserved(), 0);
    let fetch = side.one();
    assert_eq!((fetch.request.session_id, fetch.request.session_epoch, fetch.in_session), (5, 1, true));
    assert_eq!(named(&fetch), [(0, 1)], "the other one is known");
}

#[test]
fn topics_without_ids_go_by_name() {
    let mut side = side(&[(1, 0)]);
    side.topic_id = Uuid::ZERO;
    assert_eq!(side.one().cap, 12);
    let topic = FetchableTopicResponse {
        topic: "t".into(),
        partitions: vec![records(0, 0, 10), records(9, 0, 10)],
        ..Default::default()
    };
    let other = FetchableTopicResponse { topic: "u".into(), ..topic.clone() };
    let answer = FetchResponse { responses: vec![other, topic], ..Default::default() };
    assert!(side.fetching.answered(&mut side.partitions, PATIENT, Ok(answer), side.now));
    assert_eq!(side.partitions.take().unwrap().0.next.offset, 1);
    assert!(side.partitions.take().is_none());
}

#[test]
fn while_one_fetch_is_held_another_goes_over_the_prompt_line() {
    let mut side = side(&[(1, 0), (1, 0)]);
    side.settle();
    assert_eq!(side.fetching.reserved(), 500, "little is set aside for what is idle");
    assert!(side.send().0.is_empty());
    side.seek(0, 0);
    let fetch = side.one();
    assert_eq!((fetch.way, fetch.request.max_wait_ms), (PROMPT, 0));
    assert_eq!((fetch.request.session_id, fetch.request.session_epoch, fetch.in_session), (0, -1, false));
    assert_eq!(named(&fetch), [(0, 0)]);
    side.seek(1, 0);
    assert!(side.send().0.is_empty(), "both lines are taken");
    assert!(side.answer(PROMPT, vec![records(0, 0, 10)]));
    assert_eq!(named(&side.one()), [(1, 0), (0, 1)], "who was not served goes first");
    assert!(!side.answer(PROMPT, Vec::new()));
    // Both have nothing: they are looked at again, with pauses, until the patient line takes them over.
    let (none, at) = side.send();
    assert!(none.is_empty());
    assert_eq!(at, Some(side.now + ms(10)));
    side.now += ms(9);
    assert!(side.send().0.is_empty());
    side.now += ms(1);
    assert_eq!(named(&side.one()), [(1, 0), (0, 1)]);
    side.answer(PROMPT, Vec::new());
    assert_eq!(side.send().1, Some(side.now + ms(20)));
    side.now += WAIT;
    side.answer(PATIENT, Vec::new());
    let fetch = side.one();
    assert_eq!(
        (fetch.way, named(&fetch)),
        (PATIENT, vec![(0, 1)]),
        "1 is at the offset that the session has"
    );
}

#[test]
fn brokers_share_the_room_and_small_rooms_are_not_worth_a_fetch() {
    let mut three = side(&[(1, 0), (2, 0), (3, 0)]);
    let sizes: Vec<i32> = three.send().0.iter().map(|fetch| fetch.request.max_bytes).collect();
    assert_eq!(sizes, [1_333, 1_333, 1_334]);
    // A quarter of the budget is worth a fetch, where that is less than one partition's fetch.
    let filled = |waiting: usize| {
        let mut side = self::side(&[(1, 0), (1, 0)]);
        side.partitions.rules.prefetch_bytes = 1_200;
        side.one();
        let overhead = records(0, 0, 800).records.and_then(Records::into_bytes).unwrap().len() - 800;
        side.answer(PATIENT, vec![records(0, 0, waiting - overhead)]);
        assert_eq!(side.partitions.buffered(), waiting);
        side.seek(1, 5);
        side
    };
    assert_eq!(filled(900).one().request.max_bytes, 300);
    let mut side = filled(901);
    assert!(side.send().0.is_empty());
    side.partitions.take().unwrap();
    assert_eq!(side.one().request.max_bytes, 1_200);
}

/// Where nothing is expected half of the room stays for others, and brokers share the other half.
#[test]
fn little_is_set_aside_for_what_is_idle() {
    let mut two = side(&[(1, 0), (2, 0)]);
    assert_eq!(two.send().0.len(), 2);
    two.now += WAIT;
    for node in [1, 2] {
        two.answer(Way { node, line: Line::Patient }, Vec::new());
    }
    two.partitions.rules.prefetch_bytes = 600;
    let sizes: Vec<i32> = two.send().0.iter().map(|fetch| fetch.request.max_bytes).collect();
    assert_eq!(sizes, [150, 225]);
}

#[test]
fn a_full_buffer_asks_nothing_even_of_the_idle() {
    let mut side = side(&[(1, 0), (1, 0)]);
    side.one();
    side.answer(PATIENT, vec![records(0, 0, 5_000)]);
    assert_eq!(side.partitions.room(), 0);
    side.now += WAIT;
    assert!(side.send().0.is_empty());
    side.partitions.take().unwrap();
    assert_eq!(named(&side.one()), [(0, 1)]);
}

#[test]
fn a_broker_that_throttles_is_left_alone_on_both_lines() {
    let mut side = side(&[(1, 0), (1, 0)]);
    side.settle();
    side.seek(0, 0);
    side.one();
    let throttled =
        |throttle_time_ms| Ok(FetchResponse { throttle_time_ms, session_id: 5, ..Default::default() });
    side.fetching.answered(&mut side.partitions, PROMPT, throttled(50), side.now);
    let until = side.now + ms(50);
    side.fetching.answered(&mut side.partitions, PATIENT, throttled(20), side.now);
    side.seek(0, 0);
    for wait in [0, 49] {
        side.now += ms(wait);
        let (fetches, at) = side.send();
        assert!(fetches.is_empty());
        assert_eq!(at, Some(until), "the longer one counts");
    }
    side.now += ms(1);
    assert_eq!(side.one().way, PATIENT);
    side.fetching.answered(&mut side.partitions, PATIENT, throttled(-5), side.now);
    side.seek(0, 0);
    side.now += ms(100);
    assert_eq!(side.one().way, PATIENT);
}

/// One that means it says so again; one that does not would otherwise stop its partitions for 25 days.
#[test]
fn no_throttle_time_lasts_for_ever() {
    let mut side = side(&[(1, 0)]);
    side.settle();
    side.seek(0, 0);
    side.one();
    let answer = FetchResponse { throttle_time_ms: i32::MAX, session_id: 5, ..Default::default() };
    side.fetching.answered(&mut side.partitions, PROMPT, Ok(answer.clone()), side.now);
    side.fetching.answered(&mut side.partitions, PATIENT, Ok(answer), side.now);
    side.seek(0, 0);
    assert_eq!(side.send().1, Some(side.now + LONGEST_THROTTLE));
    side.now += LONGEST_THROTTLE;
    assert_eq!(side.one().way, PATIENT);
}

#[test]
fn held_fetches_that_come_back_early_and_empty_are_calmed_down() {
    let mut side = side(&[(1, 0)]);
    for pause in [2, 4, 8, 16, 32, 64, 100, 100] {
        assert_eq!(side.one().way, PATIENT);
        side.now += ms(249);
        assert!(!side.answer(PATIENT, Vec::new()));
        let (fetches, at) = side.send();
        assert!(fetches.is_empty());
        assert_eq!(at, Some(side.now + ms(pause)));
        side.now += ms(pause);
    }
    side.one();
    side.now += ms(250);
    side.answer(PATIENT, Vec::new());
    side.one();
    side.answer(PATIENT, Vec::new());
    assert_eq!(side.send().1, Some(side.now + ms(2)), "half the wait was long enough");
    side.now += ms(2);
    side.one();
    side.answer(PATIENT, vec![records(0, 0, 10)]);
    assert_eq!(side.one().way, PATIENT, "records are no reason");
    side.answer(PATIENT, vec![error(0, ErrorCode::NotLeaderOrFollower)]);
    side.seek(0, 0);
    assert_eq!(side.one().way, PATIENT, "nor are errors, which have pauses of their own");
    side.answer(PATIENT, vec![error(0, ErrorCode::None)]);
    assert_eq!(side.send().1, Some(side.now + ms(2)), "a part without records is as empty as none");
    // Nor is a word about a nearer replica, which the partition goes to.
    let mut two = self::side(&[(1, 0), (1, 0)]);
    two.one();
    two.answer(PATIENT, vec![PartitionData { preferred_read_replica: 0, ..error(0, ErrorCode::None) }]);
    let ways: Vec<Way> = two.send().0.iter().map(|fetch| fetch.way).collect();
    assert_eq!(ways, [Way { node: 0, line: Line::Patient }, PATIENT]);
}

#[test]
fn a_session_that_is_refused_is_begun_anew_at_once_but_not_for_ever() {
    for (code, id) in [
        (ErrorCode::FetchSessionIdNotFound, 0),
        (ErrorCode::InvalidFetchSessionEpoch, 5),
        (ErrorCode::FetchSessionTopicIdError, 5),
    ] {
        let mut side = side(&[(1, 0)]);
        side.settle();
        assert!(!side.refuse(PATIENT, code));
        for _ in 0..2 {
            let fetch = side.one();
            assert_eq!((fetch.request.session_id, fetch.request.session_epoch), (id, 0), "{code}");
            assert_eq!(named(&fetch), [(0, 0)]);
            side.refuse(PATIENT, code);
        }
        side.one();
        side.refuse(PATIENT, code);
        assert!(side.partitions.stale);
        assert!(side.send().0.is_empty(), "the fourth in a row waits");
        side.now += ms(100);
        side.one();
        side.answer(PATIENT, Vec::new());
        side.now += ms(2);
        side.one();
        side.refuse(PATIENT, code);
        side.one();
    }
}

#[test]
fn a_session_does_not_survive_its_connection() {
    let mut side = side(&[(1, 0)]);
    side.settle();
    assert!(!side.fetching.answered(&mut side.partitions, PATIENT, Err(NoAnswer::SessionGone), side.now));
    let fetch = side.one();
    assert_eq!((fetch.request.session_id, fetch.request.session_epoch), (0, 0));
    side.answer(PATIENT, Vec::new());
    side.now += ms(2);
    side.one();
    assert!(!side.fetching.answered(&mut side.partitions, PATIENT, Err(NoAnswer::Failed), side.now));
    assert!(side.partitions.stale && side.send().0.is_empty(), "after a pause");
    side.now += ms(100);
    let fetch = side.one();
    assert_eq!((fetch.request.session_id, fetch.request.session_epoch), (5, 0), "the old one is replaced");
    assert_eq!(side.fetching.reserved(), 3_000);
}

#[test]
fn a_prompt_fetch_that_fails_leaves_the_session_alone() {
    let mut side = side(&[(1, 0)]);
    side.settle();
    side.seek(0, 0);
    side.one();
    side.fetching.answered(&mut side.partitions, PROMPT, Err(NoAnswer::Failed), side.now);
    side.now += WAIT;
    side.answer(PATIENT, Vec::new());
    assert_eq!(side.one().request.session_epoch, 2);
}

#[test]
fn a_fetch_refused_as_a_whole_is_tried_later_or_told() {
    let mut side = side(&[(1, 0)]);
    side.one();
    assert!(!side.refuse(PATIENT, ErrorCode::UnknownTopicId));
    assert!(side.partitions.stale && side.send().0.is_empty());
    side.now += ms(100);
    side.one();
    assert!(side.refuse(PATIENT, ErrorCode::TopicAuthorizationFailed));
    assert!(side.partitions.take_error().is_some());
    side.now += ERROR_PAUSE - ms(1);
    assert!(side.send().0.is_empty());
    side.now += ms(1);
    side.one();
    assert!(
        !side.fetching.answered(&mut side.partitions, PROMPT, Err(NoAnswer::Failed), side.now),
        "none is out"
    );
    let other = Way { node: 9, line: Line::Patient };
    assert!(!side.fetching.answered(&mut side.partitions, other, Err(NoAnswer::Failed), side.now));
    assert!(!side.partitions.has_errors());
}

#[test]
fn errors_count_by_partition() {
    let mut side = side(&[(1, 0); 6]);
    side.one();
    let news = side.answer(
        PATIENT,
        vec![
            error(0, ErrorCode::OffsetOutOfRange),
            error(1, ErrorCode::CorruptMessage),
            error(2, ErrorCode::UnknownTopicOrPartition),
            error(3, ErrorCode::TopicAuthorizationFailed),
            records(4, 0, 10),
        ],
    );
    assert!(news && side.partitions.stale);
    let told: Vec<String> =
        std::iter::from_fn(|| side.partitions.take_error()).map(|error| error.to_string()).collect();
    assert_eq!(
        told,
        [
            "t-1: the batch at offset 0 is corrupt: the broker found it corrupt",
            "t-3: the broker answered TOPIC_AUTHORIZATION_FAILED",
        ]
    );
    let fetch = side.one();
    assert_eq!(named(&fetch), [(4, 1)], "5 is known, the others rest");
    assert_eq!(fetch.request.forgotten_topics_data[0].partitions, [0, 1, 2, 3]);
    for (code, news) in [
        (ErrorCode::NotLeaderOrFollower, false),
        (ErrorCode::InvalidRequest, true),
        (ErrorCode::OffsetOutOfRange, true),
        (ErrorCode::CorruptMessage, true),
    ] {
        let mut side = self::side(&[(1, 0)]);
        side.one();
        assert_eq!(side.answer(PATIENT, vec![error(0, code)]), news, "{code}");
    }
}

#[test]
fn a_nearer_replica_is_gone_to() {
    let mut side = side(&[(1, 0)]);
    let prefers = |node| PartitionData { preferred_read_replica: node, ..error(0, ErrorCode::None) };
    side.one();
    assert!(!side.answer(PATIENT, vec![prefers(2)]));
    let fetch = side.one();
    assert_eq!(fetch.way, Way { node: 2, line: Line::Patient }, "at once");
    assert!(side.answer(fetch.way, vec![records(0, 0, 10)]));
    assert_eq!(side.one().way.node, 2);
    side.now += ms(9_000);
    side.answer(fetch.way, Vec::new());
    assert_eq!(side.one().way.node, 1, "the leader is asked again");
    side.now += WAIT;
    side.answer(PATIENT, vec![prefers(1)]);
    assert_eq!(side.one().way.node, 1, "itself is no other");
    side.answer(PATIENT, vec![PartitionData { preferred_read_replica: 2, ..records(0, 1, 10) }]);
    assert_eq!(side.one().way.node, 1, "it had records after all");
}

#[test]
fn committed_readers_see_the_last_stable_offset() {
    for (committed_only, end) in [(false, 8), (true, 6)] {
        let mut side = side(&[(1, 0)]);
        side.fetching.rules.reading.committed_only = committed_only;
        side.one();
        let part = PartitionData { high_watermark: 8, last_stable_offset: 6, ..error(0, ErrorCode::None) };
        side.answer(PATIENT, vec![part]);
        assert_eq!(side.partitions.end_offset(&name(0)), Some(end));
    }
}

/// KIP-951: no metadata has to be asked for.
#[test]
fn a_broker_that_does_not_lead_any_more_may_say_who_does() {
    let told = |code: ErrorCode, leader_id| PartitionData {
        current_leader: LeaderIdAndEpoch { leader_id, leader_epoch: 6, ..Default::default() },
        ..error(0, code)
    };
    let node = |node_id| NodeEndpoint { node_id, host: "h".into(), port: 9, ..Default::default() };
    let ask = |by_name: bool, part: PartitionData| {
        let mut side = side(&[(1, 5)]);
        side.one();
        let topic = FetchableTopicResponse {
            topic_id: if by_name { Uuid::ZERO } else { side.topic_id },
            topic: if by_name { "t".into() } else { "".into() },
            partitions: vec![part],
            ..Default::default()
        };
        let (responses, node_endpoints) = (vec![topic], vec![node(2), node(3)]);
        let answer = FetchResponse { session_id: 5, responses, node_endpoints, ..Default::default() };
        side.fetching.answered(&mut side.partitions, PATIENT, Ok(answer), side.now);
        let hints = side.fetching.hints();
        assert!(side.fetching.hints().is_empty(), "told once");
        (side, hints)
    };
    for by_name in [true, false] {
        let (mut side, hints) = ask(by_name, told(ErrorCode::NotLeaderOrFollower, 3));
        let endpoint = Some((Arc::from("h"), 9));
        assert_eq!(hints, [LeaderHint { partition: name(0), leader: 3, leader_epoch: 6, endpoint }]);
        side.leaders = vec![(3, 6)];
        assert_eq!(side.one().way.node, 3, "at once");
    }
    assert!(ask(true, told(ErrorCode::NotLeaderOrFollower, 4)).1.is_empty(), "nobody knows where that is");
    assert!(ask(true, told(ErrorCode::None, 3)).1.is_empty());
    let other = PartitionData { partition_index: 1, ..told(ErrorCode::NotLeaderOrFollower, 3) };
    assert!(ask(true, other).1.is_empty(), "not asked for");
}

#[test]
fn what_an_answer_brought_is_told_once() {
    let mut side = side(&[(1, 3), (1, -1)]);
    side.one();
    let part = records(0, 0, 20);
    let bytes = part.records.as_ref().map_or(0, |records| records.clone().into_bytes().unwrap().len());
    assert!(bytes > 20);
    assert!(side.answer(PATIENT, vec![part, PartitionData { partition_index: 1, ..Default::default() }]));
    assert_eq!(side.fetching.take_brought(), [Brought { topic: Arc::from("t"), records: 1, bytes }]);
    assert_eq!(side.fetching.take_brought(), []);
}
