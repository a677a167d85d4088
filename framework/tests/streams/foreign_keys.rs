//! Foreign-key joins: outputs as Kafka's own test driver gives them for the same inputs.

use bytes::Bytes;
use klamm::streams::{KTable, StreamsBuilder, TopologyTestDriver};

type Nullable = Option<String>;

/// `L` writes the left table, whose value is the foreign key or `nil`; `R` the right one; times count from 0.
const EVENTS: [(char, &str, &str); 14] = [
    ('R', "1", "foo"),
    ('L', "k", "1"),
    ('L', "k", "2"),
    ('L', "k", "3"),
    ('R', "3", "bar"),
    ('L', "k", "nil"),
    ('L', "k", "1"),
    ('L', "q", "10"),
    ('L', "r", "10"),
    ('R', "10", "baz"),
    ('R', "10", "-"),
    ('L', "q", "-"),
    ('L', "k", "1"),
    ('L', "zz", "-"),
];

type Table = KTable<String, String>;

fn foreign_key(_: &String, value: &String) -> Nullable {
    (value != "nil").then(|| value.clone())
}

fn inner(left: &Table, right: &Table) -> Table {
    left.foreign_key_join(right, "joined", foreign_key, |l, r| format!("{l}-{r}"))
}

fn left(left: &Table, right: &Table) -> Table {
    left.left_foreign_key_join(right, "joined", foreign_key, |l, r| {
        format!("{l}-{}", r.map_or("null", String::as_str))
    })
}

fn driver(join: impl FnOnce(&Table, &Table) -> Table) -> TopologyTestDriver {
    let mut streams = StreamsBuilder::new();
    let (left, right) = (streams.table("left"), streams.table("right"));
    join(&left, &right).to_stream().to("out");
    TopologyTestDriver::new(streams.build().unwrap())
}

fn pipe(driver: &TopologyTestDriver, (side, key, value): (char, &str, &str), at: i64) -> String {
    let topic = if side == 'L' { "left" } else { "right" };
    let value = (value != "-").then(|| value.to_owned());
    driver.input::<String, String>(topic).pipe_nullable(Some(key.to_owned()), value).at(at);
    let output = driver.output::<String, Nullable>("out").read_all();
    let show = |record: &klamm::streams::TestRecord<String, Nullable>| {
        format!("{}:{}", record.key, record.value.as_deref().unwrap_or("null"))
    };
    output.iter().map(show).collect::<Vec<_>>().join(", ")
}

#[track_caller]
fn expect(driver: &TopologyTestDriver, expected: &str) {
    let expected: Vec<_> = expected.split(" · ").map(|text| if text == "-" { "" } else { text }).collect();
    assert_eq!(expected.len(), EVENTS.len());
    for ((event, expected), at) in EVENTS.iter().zip(expected).zip(0..) {
        assert_eq!(pipe(driver, *event, at), expected, "after {event:?}");
    }
}

#[test]
fn s2_5_inner() {
    let driver = driver(inner);
    expect(
        &driver,
        "- · k:1-foo · k:null · k:null · k:3-bar · k:null · k:1-foo · - · - · q:10-baz, r:10-baz · q:null, r:null · \
         q:null · k:1-foo · -",
    );
    assert_eq!(driver.dropped().null_key, 1, "a row without a foreign key");
    assert_eq!(driver.store::<String, String>("joined").all(), [("k".to_owned(), "1-foo".to_owned())]);
    let subscriptions = driver.store::<Bytes, Bytes>("joined-subscription-store").all();
    let keys: Vec<_> = subscriptions.iter().map(|(key, _)| key.to_vec()).collect();
    assert_eq!(keys, [b"\0\0\0\x011k".to_vec(), b"\0\0\0\x0210r".to_vec()], "those of now, and no others");
}

#[test]
fn s2_5_left() {
    expect(
        &driver(left),
        "- · k:1-foo · k:2-null · k:3-null · k:3-bar · k:nil-null · k:1-foo · q:10-null · r:10-null · \
         q:10-baz, r:10-baz · q:10-null, r:10-null · q:null · k:1-foo · -",
    );
}

#[test]
fn s1_6_the_time_of_a_result_is_the_larger_of_both() {
    let driver = driver(inner);
    let (left, right) = (driver.input::<String, String>("left"), driver.input::<String, String>("right"));
    let out = driver.output::<String, Nullable>("out");
    right.pipe("1", "foo").at(9);
    left.pipe("k", "1").at(5);
    assert_eq!(out.read().unwrap().timestamp_ms, 9);
    right.pipe("1", "bar").at(3);
    assert_eq!(out.read().unwrap().timestamp_ms, 5);
}

#[test]
fn s1_6_a_right_value_without_bytes_is_a_value() {
    let driver = driver(left);
    pipe(&driver, ('L', "k", "1"), 0);
    assert_eq!(pipe(&driver, ('R', "1", ""), 1), "k:1-", "Kafka takes it for null");
}

#[test]
fn s1_6_subscriptions_are_found_by_their_whole_foreign_key() {
    let driver = driver(inner);
    for (at, (row, key)) in (0..).zip([("b", "1"), ("a", "1"), ("c", "11"), ("1", "")]) {
        pipe(&driver, ('L', row, key), at);
    }
    assert_eq!(pipe(&driver, ('R', "1", "x"), 9), "a:1-x, b:1-x", "in the order of their keys");
    assert_eq!(pipe(&driver, ('R', "", "x"), 9), "1:-x");
}

#[test]
fn s1_6_an_answer_to_what_a_row_was_before_is_left_out() {
    let driver = driver(inner);
    pipe(&driver, ('L', "k", "1"), 0);
    pipe(&driver, ('R', "1", "foo"), 1);
    let late = Bytes::from([&[0][..], &[7; 16], b"old"].concat());
    driver.input::<String, Bytes>("joined-subscription-response-topic").pipe("k", late).at(2);
    assert_eq!(driver.output::<String, String>("out").read(), None);
    assert_eq!(driver.store::<String, String>("joined").get("k"), Some("1-foo".to_owned()));
}

#[test]
fn s1_6_a_table_joins_itself() {
    let mut streams = StreamsBuilder::new();
    let people: Table = streams.table("people");
    let manager = |_: &String, value: &String| Some(value.clone());
    people.foreign_key_join(&people, "managers", manager, |a, b| format!("{a}>{b}")).to_stream().to("out");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let people = driver.input::<String, String>("people");
    people.pipe("ann", "bob").at(1);
    people.pipe("bob", "cleo").at(2);
    people.pipe("cleo", "cleo").at(3);
    people.pipe_tombstone("cleo").at(4);
    let store = driver.store::<String, String>("managers");
    assert_eq!(store.all(), [("ann".to_owned(), "bob>cleo".to_owned())]);
}

#[test]
fn s1_6_a_result_is_grouped_and_joined_further() {
    let mut streams = StreamsBuilder::new();
    let (left, right): (Table, Table) = (streams.table("left"), streams.table("right"));
    let joined = inner(&left, &right);
    joined.group_by(|_, value| (value.clone(), 1_i64)).count("counts");
    joined.left_join(&left, |joined, left| format!("{joined}/{left:?}")).to_stream().to("out");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    pipe(&driver, ('R', "1", "a"), 0);
    pipe(&driver, ('L', "k", "1"), 1);
    pipe(&driver, ('R', "1", "b"), 2);
    let counts = driver.store::<String, i64>("counts").all();
    assert_eq!(counts, [("1-a".to_owned(), 0), ("1-b".to_owned(), 1)]);
}
