//! Joins of two streams: the reference's table row by row, and random records against a model that knows all pairs.

use std::collections::BTreeSet;
use std::time::Duration;

use klamm::streams::{JoinWindows, KStream, StreamsBuilder, TopologyTestDriver};
use proptest::prelude::*;

type Nullable = Option<String>;

fn ms(ms: i64) -> Duration {
    Duration::from_millis(ms as u64)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Inner,
    Left,
    Outer,
}

const KINDS: [Kind; 3] = [Kind::Inner, Kind::Left, Kind::Outer];

fn text(value: Option<&Nullable>) -> &str {
    value.and_then(|value| value.as_deref()).unwrap_or("null")
}

fn join(
    kind: Kind,
    left: &KStream<Nullable, Nullable>,
    right: &KStream<Nullable, Nullable>,
    windows: JoinWindows,
) -> KStream<Nullable, String> {
    match kind {
        Kind::Inner => {
            left.join_within(right, "j", windows, |l, r| format!("{}-{}", text(Some(l)), text(Some(r))))
        }
        Kind::Left => {
            left.left_join_within(right, "j", windows, |l, r| format!("{}-{}", text(Some(l)), text(r)))
        }
        Kind::Outer => left.outer_join_within(right, "j", windows, |l, r| format!("{}-{}", text(l), text(r))),
    }
}

fn driver(kind: Kind, windows: JoinWindows) -> TopologyTestDriver {
    let mut streams = StreamsBuilder::new();
    let (left, right) = (streams.stream("L"), streams.stream("R"));
    join(kind, &left, &right, windows).to("out");
    TopologyTestDriver::new(streams.build().unwrap())
}

/// Pipes a record and gives what comes out, as `key:value@time`.
fn pipe(driver: &TopologyTestDriver, topic: &str, key: Option<&str>, value: &str, at: i64) -> Vec<String> {
    let value = (value != "null").then(|| value.to_owned());
    driver.input::<String, String>(topic).pipe_nullable(key.map(str::to_owned), value).at(at);
    let told = driver.output::<Nullable, String>("out").read_all();
    told.iter().map(|record| format!("{}@{}", record.value, record.timestamp_ms)).collect()
}

const E15: [(&str, &str); 15] = [
    ("L", "null"),
    ("R", "null"),
    ("L", "A"),
    ("R", "a"),
    ("L", "B"),
    ("R", "b"),
    ("L", "null"),
    ("R", "null"),
    ("L", "C"),
    ("R", "c"),
    ("R", "null"),
    ("L", "null"),
    ("R", "null"),
    ("R", "d"),
    ("L", "D"),
];

#[test]
fn reference_2_1_of_two_streams() {
    for kind in KINDS {
        let driver = driver(kind, JoinWindows::of(ms(15)));
        let next = |topic: &str, value: &str, at: i64| pipe(&driver, topic, Some("k"), value, at);
        let told: Vec<String> =
            (1..).zip(E15).map(|(at, (topic, value))| next(topic, value, at).join(" ")).collect();
        let wanted = [
            "",
            "",
            "",
            "A-a@4",
            "B-a@5",
            "A-b@6 B-b@6",
            "",
            "",
            "C-a@9 C-b@9",
            "A-c@10 B-c@10 C-c@10",
            "",
            "",
            "",
            "A-d@14 B-d@14 C-d@14",
            "D-a@15 D-b@15 D-c@15 D-d@15",
        ];
        assert_eq!(told, wanted, "{kind:?}");
        let later: Vec<String> = [("L", "E", 40), ("L", "F", 60), ("R", "f", 80), ("L", "G", 100)]
            .map(|(topic, value, at)| next(topic, value, at).join(" "))
            .to_vec();
        let wanted = match kind {
            Kind::Inner => ["", "", "", ""],
            Kind::Left => ["", "E-null@40", "F-null@60", ""],
            Kind::Outer => ["", "E-null@40", "F-null@60", "null-f@80"],
        };
        assert_eq!(later, wanted, "{kind:?}");
        assert_eq!(driver.dropped().null_value, 7);
    }
}

#[test]
fn a_record_without_a_key_meets_nothing() {
    let windows = JoinWindows::of(ms(10_000)).grace(ms(86_400_000));
    for kind in KINDS {
        let driver = driver(kind, windows);
        let left = pipe(&driver, "L", None, "E", 16);
        let right = pipe(&driver, "R", None, "e", 17);
        let wanted: [&[&str]; 2] = match kind {
            Kind::Inner => [&[], &[]],
            Kind::Left => [&["E-null@16"], &[]],
            Kind::Outer => [&["E-null@16"], &["null-e@17"]],
        };
        assert_eq!(
            [left, right],
            wanted.map(|told| told.iter().map(|told| (*told).to_owned()).collect::<Vec<_>>())
        );
    }
}

#[test]
fn a_stream_joined_with_itself() {
    let mut streams = StreamsBuilder::new();
    let stream = streams.stream("L");
    join(Kind::Inner, &stream, &stream, JoinWindows::of(ms(10_000))).to("out");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let values = ["null", "A", "B", "null", "C", "null", "D"];
    let told: Vec<String> = (1..)
        .zip(values)
        .map(|(at, value)| {
            let told = pipe(&driver, "L", Some("k"), value, at);
            told.iter().map(|told| told.split('@').next().unwrap()).collect::<Vec<_>>().join(" ")
        })
        .collect();
    let wanted = ["", "A-A", "B-A A-B B-B", "", "C-A C-B A-C B-C C-C", "", "D-A D-B D-C A-D B-D C-D D-D"];
    assert_eq!(told, wanted);
}

/// KAFKA-19536: a row out of order is told of alone, and joined later.
#[test]
fn a_record_out_of_order_waits_for_its_grace() {
    let driver = driver(Kind::Left, JoinWindows::of(ms(10)).grace(ms(100)));
    assert_eq!(pipe(&driver, "R", Some("x"), "r", 50), [""; 0]);
    assert_eq!(pipe(&driver, "L", Some("k"), "A", 20), [""; 0], "its window is over, its grace is not");
    assert_eq!(pipe(&driver, "R", Some("k"), "a", 25), ["A-a@25"]);
    assert_eq!(pipe(&driver, "L", Some("y"), "B", 1_000), [""; 0], "A has met somebody");
}

#[test]
fn keys_that_changed_meet_through_repartition_topics() {
    let mut streams = StreamsBuilder::new();
    let by_value =
        |stream: KStream<Nullable, Nullable>| stream.select_key(|_, value: &Nullable| value.clone());
    let (left, right) = (by_value(streams.stream("L")), by_value(streams.stream("R")));
    join(Kind::Inner, &left, &right, JoinWindows::of(ms(10))).to("out");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    pipe(&driver, "L", Some("1"), "v", 1);
    assert_eq!(pipe(&driver, "R", Some("2"), "v", 2), ["v-v@2"]);
    assert_eq!(driver.output::<String, String>("j-left-repartition").read_all(), [("v", "v", 1)]);
    assert_eq!(driver.output::<String, String>("j-right-repartition").read_all(), [("v", "v", 2)]);
}

#[derive(Debug, Clone, Copy)]
struct Event {
    left: bool,
    key: &'static str,
    at: i64,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = (any::<bool>(), prop_oneof![Just("k"), Just("kk"), Just("")], 0..80_i64);
    proptest::collection::vec(event.prop_map(|(left, key, at)| Event { left, key, at }), 1..50)
}

fn pairs_of(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |left| (0..count).map(move |right| (left, right)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// With a grace that nothing outlasts, every pair within the windows is joined once, and what is left alone at the
    /// end is exactly what met nothing. With less grace, nothing is ever told both alone and joined, and nothing twice.
    #[test]
    fn every_record_meets_all_it_can_or_goes_alone(
        events in events(),
        before_ms in 0..20_i64,
        after_ms in 0..20_i64,
        grace_ms in prop_oneof![Just(10_000_i64), 0..40_i64],
    ) {
        for kind in KINDS {
            let windows = JoinWindows::of(ms(0)).before(ms(before_ms)).after(ms(after_ms)).grace(ms(grace_ms));
            let driver = driver(kind, windows);
            let mut told = Vec::new();
            for (number, event) in events.iter().enumerate() {
                let topic = if event.left { "L" } else { "R" };
                told.extend(pipe(&driver, topic, Some(event.key), &number.to_string(), event.at));
            }
            // Nothing can come any more.
            told.extend(pipe(&driver, "L", Some("end"), "end", 1_000_000));
            let mut pairs = BTreeSet::new();
            let mut alone = BTreeSet::new();
            for told in &told {
                let (pair, at) = told.split_once('@').unwrap();
                let (left, right) = pair.split_once('-').unwrap();
                let number = |text: &str| text.parse::<usize>().ok();
                match (number(left), number(right)) {
                    (Some(l), Some(r)) => {
                        prop_assert!(pairs.insert((l, r)), "{} twice", told);
                        prop_assert_eq!(at.parse(), Ok(events[l].at.max(events[r].at)));
                    }
                    (Some(one), None) | (None, Some(one)) => prop_assert!(alone.insert(one), "{} twice", told),
                    (None, None) => {}
                }
            }
            let meets = |l: usize, r: usize| {
                let (left, right) = (events[l], events[r]);
                let is_near = left.at - before_ms <= right.at && right.at <= left.at + after_ms;
                left.left && !right.left && left.key == right.key && is_near
            };
            let numbers = 0..events.len();
            let all: BTreeSet<_> =
                pairs_of(events.len()).filter(|(l, r)| meets(*l, *r)).collect();
            prop_assert!(pairs.is_subset(&all));
            let joined: BTreeSet<_> = pairs.iter().flat_map(|(l, r)| [*l, *r]).collect();
            let keeps = |number: usize| match kind {
                Kind::Inner => false,
                Kind::Left => events[number].left,
                Kind::Outer => true,
            };
            let wanted_alone: BTreeSet<_> =
                numbers.filter(|number| keeps(*number) && !joined.contains(number)).collect();
            prop_assert_eq!(&alone, &wanted_alone, "{:?}: {:?}", kind, told);
            if grace_ms == 10_000 {
                prop_assert_eq!(pairs, all);
            }
        }
    }
}

/// The numbers of rows of one key and time went round after 128 rows of a record (64 where they may go alone), and
/// after 16 topics: the later row replaced the earlier one.
#[test]
fn rows_of_one_key_and_time_do_not_replace_each_other() {
    for kind in KINDS {
        let mut streams = StreamsBuilder::new();
        let many = streams.stream::<Nullable, Nullable>("L").flat_map_values(|value: &Nullable| {
            let value = value.clone().unwrap_or_default();
            (0..300).map(move |number| Some(format!("{value}{number}"))).collect::<Vec<_>>()
        });
        join(kind, &many, &streams.stream("R"), JoinWindows::of(ms(10))).to("out");
        let driver = TopologyTestDriver::new(streams.build().unwrap());
        pipe(&driver, "L", Some("k"), "A", 5);
        pipe(&driver, "L", Some("k"), "B", 5);
        let told = BTreeSet::from_iter(pipe(&driver, "R", Some("k"), "r", 5));
        assert_eq!(told.len(), 600, "{kind:?}");
    }
    for kind in KINDS {
        let topics: Vec<String> = (0..20).map(|number| format!("L{number}")).collect();
        let mut streams = StreamsBuilder::new();
        let left = streams.stream(topics.clone());
        join(kind, &left, &streams.stream("R"), JoinWindows::of(ms(10))).to("out");
        let driver = TopologyTestDriver::new(streams.build().unwrap());
        for topic in &topics {
            pipe(&driver, topic, Some("k"), topic, 5);
        }
        assert_eq!(pipe(&driver, "R", Some("k"), "r", 5).len(), 20, "{kind:?}");
    }
}

#[test]
fn records_meet_at_the_end_of_time() {
    for kind in KINDS {
        let driver = driver(kind, JoinWindows::of(ms(10)));
        assert_eq!(pipe(&driver, "L", Some("k"), "A", i64::MAX), [""; 0]);
        let wanted = [format!("A-a@{}", i64::MAX)];
        assert_eq!(pipe(&driver, "R", Some("k"), "a", i64::MAX), wanted, "{kind:?}");
    }
}
