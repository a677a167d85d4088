//! Joins of a stream with a table: outputs as Kafka's own test driver gives them for the same inputs.

use klamm::streams::{Joined, KStream, KTable, StreamsBuilder, TopologyTestDriver};

type Nullable = Option<String>;

/// `L` writes the stream, `R` the table; times count from 1; `-` is null.
const EVENTS: [(char, &str); 15] = [
    ('L', "-"),
    ('R', "-"),
    ('L', "A"),
    ('R', "a"),
    ('L', "B"),
    ('R', "b"),
    ('L', "-"),
    ('R', "-"),
    ('L', "C"),
    ('R', "c"),
    ('R', "-"),
    ('L', "-"),
    ('R', "-"),
    ('R', "d"),
    ('L', "D"),
];

/// The same, out of order.
const LATE_EVENTS: [(char, &str, i64); 10] = [
    ('R', "d", 7),
    ('L', "D", 6),
    ('L', "-", 2),
    ('R', "-", 3),
    ('R', "e", 14),
    ('L', "E", 15),
    ('L', "-", 10),
    ('R', "-", 9),
    ('L', "F", 4),
    ('R', "f", 3),
];

fn driver(
    join: impl FnOnce(KStream<Nullable, Nullable>, KTable<String, String>) -> KStream<Nullable, String>,
) -> TopologyTestDriver {
    let mut streams = StreamsBuilder::new();
    let (left, right) = (streams.stream("left"), streams.table("right"));
    join(left, right).to("out");
    TopologyTestDriver::new(streams.build().unwrap())
}

fn inner() -> TopologyTestDriver {
    driver(|left, right| left.join(&right, |l, r| format!("{}-{r}", l.as_deref().unwrap_or("null"))))
}

fn left() -> TopologyTestDriver {
    driver(|left, right| {
        left.left_join(&right, |l, r| {
            format!("{}-{}", l.as_deref().unwrap_or("null"), r.map_or("null", String::as_str))
        })
    })
}

fn pipe(driver: &TopologyTestDriver, key: Option<&str>, (side, value, at): (char, &str, i64)) -> Vec<String> {
    let topic = if side == 'L' { "left" } else { "right" };
    let value = (value != "-").then(|| value.to_owned());
    driver.input::<String, String>(topic).pipe_nullable(key.map(str::to_owned), value).at(at);
    let output = driver.output::<Nullable, String>("out").read_all();
    output.iter().map(|record| format!("{}@{}", record.value, record.timestamp_ms)).collect()
}

fn run(driver: &TopologyTestDriver) -> Vec<String> {
    EVENTS
        .iter()
        .zip(1..)
        .flat_map(|((side, value), at)| pipe(driver, Some("k"), (*side, value, at)))
        .collect()
}

#[test]
fn only_the_stream_triggers() {
    let driver = inner();
    assert_eq!(run(&driver), ["B-a@5", "D-d@15"]);
    assert!(pipe(&driver, None, ('L', "E", 16)).is_empty());
    assert_eq!((driver.dropped().null_key, driver.dropped().null_value), (1, 3));
}

#[test]
fn a_left_join_keeps_records_without_a_row() {
    let driver = left();
    assert_eq!(run(&driver), ["A-null@3", "B-a@5", "C-null@9", "D-d@15"]);
    assert_eq!(pipe(&driver, None, ('L', "E", 16)), ["E-null@16"]);
}

#[test]
fn a_table_takes_updates_out_of_order() {
    for (driver, last) in [(inner(), ""), (left(), "F-null@4")] {
        let ordered = EVENTS[..13].iter().zip(1..).map(|((side, value), at)| (*side, *value, at));
        ordered.for_each(|event| drop(pipe(&driver, Some("k"), event)));
        let found: Vec<_> = LATE_EVENTS.iter().flat_map(|event| pipe(&driver, Some("k"), *event)).collect();
        let expected: Vec<_> =
            ["D-d@6", "E-e@15", last].into_iter().filter(|line| !line.is_empty()).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn a_stream_that_changed_its_key_is_repartitioned_before_the_join() {
    let mut streams = StreamsBuilder::new();
    let users = streams.table::<String, String>("users");
    streams
        .stream::<String, String>("clicks")
        .select_key(|_, user| user.clone())
        .join(&users, |click, user| format!("{click}={user}"))
        .to("out");
    let topology = streams.build().unwrap();
    assert_eq!(topology.describe().sub_topologies.len(), 2);
    let driver = TopologyTestDriver::new(topology);
    driver.input::<String, String>("users").pipe("u", "Ada").at(1);
    driver.input::<String, String>("clicks").pipe("x", "u").at(2);
    assert_eq!(driver.output::<String, String>("out").read_all(), [("u", "u=Ada", 2)]);
    assert_eq!(
        driver.output::<String, String>("clicks.select_key.join.users-table-repartition").read_all().len(),
        1
    );
}

#[test]
fn views_are_looked_through() {
    let mut streams = StreamsBuilder::new();
    let prices = streams.table::<String, i64>("prices");
    let view = prices.filter(|_, price| *price > 10).map_values(|price| price * 2);
    view.to_stream().to("changes");
    view.materialize("kept");
    streams
        .stream::<String, i64>("orders")
        .left_join_with(&view, |count, price| price.map_or(-1, |price| count * price), Joined::in_place())
        .to("out");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let (prices, orders) = (driver.input::<String, i64>("prices"), driver.input::<String, i64>("orders"));
    prices.pipe("a", 20).at(1);
    orders.pipe("a", 3).at(2);
    assert_eq!(driver.store::<String, i64>("kept").get("a"), Some(40));
    prices.pipe("a", 5).at(3);
    orders.pipe("a", 3).at(4);
    assert_eq!(driver.output::<String, i64>("out").read_all(), [("a", 120), ("a", -1)]);
    let changes = driver.output::<String, Option<i64>>("changes").read_all();
    assert_eq!(changes, [("a".to_owned(), Some(40)), ("a".to_owned(), None)]);
    assert_eq!(driver.store::<String, i64>("kept").all(), []);
    assert_eq!(driver.store::<String, i64>("prices-table").all(), [("a".to_owned(), 5)]);
}

#[test]
fn a_stream_joined_with_the_table_made_of_it() {
    let mut streams = StreamsBuilder::new();
    let clicks = streams.stream::<String, i64>("clicks");
    let counts = clicks.group_by_key().count("counts");
    counts.to_stream().non_null().join(&counts, |new, stored| new * 100 + stored).to("out");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let clicks = driver.input::<String, i64>("clicks");
    clicks.pipe("k", 1).at(1);
    clicks.pipe("k", 1).at(2);
    assert_eq!(driver.output::<String, i64>("out").read_all(), [("k", 101), ("k", 202)]);
}

#[test]
fn a_stream_becomes_a_table() {
    let mut streams = StreamsBuilder::new();
    let table = streams.stream::<String, i64>("in").to_table("latest");
    table.to_stream().to("out");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let input = driver.input::<String, i64>("in");
    input.pipe("k", 1).at(5);
    input.pipe("k", 2).at(3);
    assert_eq!(driver.output::<String, i64>("out").read_all(), [("k", 1, 5), ("k", 2, 3)]);
    assert_eq!(driver.store::<String, i64>("latest").get("k"), Some(2));
}
