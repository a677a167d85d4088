//! Joins of a stream with a global table: outputs as Kafka's own test driver gives them for the same inputs.

use klamm::streams::{GlobalKTable, KStream, StreamsBuilder, TopologyError, TopologyTestDriver};

type Nullable = Option<String>;

/// `L` writes the stream, `R` the global table; `-` is null.
const EVENTS: [(char, &str, &str, i64); 11] = [
    ('L', "k", "A1", 1),
    ('R', "A", "x", 2),
    ('L', "k", "A2", 3),
    ('L', "-", "A3", 4),
    ('L', "k", "nokey", 5),
    ('L', "k", "-", 6),
    ('R', "A", "-", 7),
    ('L', "k", "A4", 8),
    ('R', "-", "z", 9),
    ('R', "B", "y", 10),
    ('L', "k", "B5", 2),
];

fn named(_: &Nullable, value: &Nullable) -> Nullable {
    value.as_ref().filter(|value| *value != "nokey").map(|value| value[..1].to_owned())
}

fn driver(
    join: impl FnOnce(KStream<Nullable, Nullable>, GlobalKTable<String, String>) -> KStream<Nullable, String>,
) -> TopologyTestDriver {
    let mut streams = StreamsBuilder::new();
    let (stream, table) = (streams.stream("left"), streams.global_table("right"));
    join(stream, table).to("out");
    TopologyTestDriver::new(streams.build().unwrap())
}

#[track_caller]
fn expect(driver: &TopologyTestDriver, expected: &str) {
    let expected: Vec<_> = expected.split(" · ").collect();
    assert_eq!(expected.len(), EVENTS.len());
    for ((side, key, value, at), expected) in EVENTS.into_iter().zip(expected) {
        let null = |text: &str| (text != "-").then(|| text.to_owned());
        let topic = if side == 'L' { "left" } else { "right" };
        driver.input::<String, String>(topic).pipe_nullable(null(key), null(value)).at(at);
        let output = driver.output::<Nullable, String>("out").read_all();
        let show = |record: &klamm::streams::TestRecord<Nullable, String>| {
            let key = if record.key.is_none() { "(null key)" } else { "" };
            format!("{key}{}@{}", record.value, record.timestamp_ms)
        };
        let found = output.iter().map(show).collect::<Vec<_>>().join(" ");
        assert_eq!(found, expected.replace('-', "").replace('/', "-"), "after {side} {key} {value}");
    }
}

#[test]
fn s2_6_inner() {
    let driver = driver(|left, right| {
        left.join_global(&right, named, |l, r| format!("{}-{r}", l.as_deref().unwrap_or("null")))
    });
    expect(&driver, "- · - · A2/x@3 · (null key)A3/x@4 · - · - · - · - · - · - · B5/y@2");
    assert_eq!((driver.dropped().null_key, driver.dropped().null_value), (1, 1));
    assert_eq!(driver.store::<String, String>("right-global").all(), [("B".to_owned(), "y".to_owned())]);
}

#[test]
fn s2_6_left() {
    let driver = driver(|left, right| {
        left.left_join_global(&right, named, |l, r| {
            format!("{}-{}", l.as_deref().unwrap_or("null"), r.map_or("null", String::as_str))
        })
    });
    expect(
        &driver,
        "A1/null@1 · - · A2/x@3 · (null key)A3/x@4 · nokey/null@5 · - · - · A4/null@8 · - · - · B5/y@2",
    );
}

#[test]
fn s1_1_two_drivers_of_one_topology_have_global_tables_of_their_own() {
    let mut streams = StreamsBuilder::new();
    let table = streams.global_table::<String, String>("right");
    let left = streams.stream::<String, String>("left");
    left.join_global(&table, |_, value| value.clone(), |l, r| format!("{l}{r}")).to("out");
    let topology = streams.build().unwrap();
    let drivers = [TopologyTestDriver::new(topology.clone()), TopologyTestDriver::new(topology)];
    drivers[0].input::<String, String>("right").pipe("A", "x").at(1);
    for driver in &drivers {
        driver.input::<String, String>("left").pipe("k", "A").at(2);
    }
    let out = drivers.map(|driver| driver.output::<String, String>("out").read_all().len());
    assert_eq!(out, [1, 0]);
}

#[test]
fn s1_1_a_global_table_needs_no_equal_partitions_and_is_declared_once() {
    let mut streams = StreamsBuilder::new();
    let _ = streams.global_table::<String, String>("right");
    let table = streams.global_table::<String, i64>("right");
    let left = streams.stream::<String, String>("left");
    left.join_global(&table, |_, value| value.clone(), |l, r| format!("{l}{r}")).to("out");
    assert_eq!(streams.build().unwrap_err(), TopologyError::DuplicateStore("right-global".to_owned()));
}
