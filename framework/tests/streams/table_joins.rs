//! Joins of two tables: outputs as Kafka's own test driver gives them for the same inputs.

use klamm::streams::{KTable, StreamsBuilder, TopologyTestDriver};

type Nullable = Option<String>;

/// `L` writes the left table, `R` the right one; times count from 1; `-` is null.
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

/// What follows the first 13 of them, out of order.
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

type Table = KTable<String, String>;

fn inner(left: &Table, right: &Table) -> Table {
    left.join(right, |l, r| format!("{l}-{r}"))
}

fn left(left: &Table, right: &Table) -> Table {
    left.left_join(right, |l, r| format!("{l}-{}", r.map_or("null", String::as_str)))
}

fn outer(left: &Table, right: &Table) -> Table {
    let text = |row: Option<&String>| row.map_or("null".to_owned(), String::clone);
    left.outer_join(right, move |l, r| format!("{}-{}", text(l), text(r)))
}

fn driver(join: impl FnOnce(&Table, &Table) -> Table) -> TopologyTestDriver {
    let mut streams = StreamsBuilder::new();
    let (left, right) = (streams.table("left"), streams.table("right"));
    join(&left, &right).to_stream().to("out");
    TopologyTestDriver::new(streams.build().unwrap())
}

fn pipe(driver: &TopologyTestDriver, (side, value, at): (char, &str, i64)) -> String {
    let topic = if side == 'L' { "left" } else { "right" };
    let value = (value != "-").then(|| value.to_owned());
    driver.input::<String, String>(topic).pipe_nullable(Some("k".to_owned()), value).at(at);
    let output = driver.output::<String, Nullable>("out").read_all();
    let show = |record: &klamm::streams::TestRecord<String, Nullable>| {
        format!("{}@{}", record.value.as_deref().unwrap_or("null"), record.timestamp_ms)
    };
    output.iter().map(show).collect::<Vec<_>>().join(" ")
}

/// One word for each event; `-` is no output. A word without a time has the event's.
fn expect(driver: &TopologyTestDriver, events: &[(char, &str, i64)], expected: &str) {
    for (event, expected) in events.iter().zip(expected.split(" · ")) {
        let expected = match expected {
            "-" => String::new(),
            timed if timed.contains('@') => timed.to_owned(),
            plain => format!("{plain}@{}", event.2),
        };
        assert_eq!(pipe(driver, *event), expected, "after {event:?}");
    }
}

fn ordered(count: usize) -> Vec<(char, &'static str, i64)> {
    EVENTS[..count].iter().zip(1..).map(|((side, value), at)| (*side, *value, at)).collect()
}

#[test]
fn s2_3_inner() {
    let expected = "- · - · - · A-a · B-a · B-b · null · - · - · C-c · null · - · - · - · D-d";
    expect(&driver(inner), &ordered(15), expected);
    expect(&driver(|l, r| inner(l, r).materialize("joined")), &ordered(15), expected);
}

#[test]
fn s2_3_left() {
    let expected = "- · - · A-null · A-a · B-a · B-b · null · - · C-null · C-c · C-null · null · - · - · D-d";
    expect(&driver(left), &ordered(15), expected);
    expect(&driver(|l, r| left(l, r).materialize("joined")), &ordered(15), expected);
}

#[test]
fn s2_3_outer() {
    let expected = "- · - · A-null · A-a · B-a · B-b · null-b · null · C-null · C-c · C-null · null · - · \
                    null-d · D-d";
    expect(&driver(outer), &ordered(15), expected);
    expect(&driver(|l, r| outer(l, r).materialize("joined")), &ordered(15), expected);
}

#[test]
fn s2_4_out_of_order_updates_are_applied_and_times_are_the_larger_ones() {
    type Join = fn(&Table, &Table) -> Table;
    let cases: [(Join, &str); 3] = [
        (inner, "- · D-d@7 · null@7 · - · - · E-e@15 · null@14 · - · - · F-f@4"),
        (left, "- · D-d@7 · null@7 · - · - · E-e@15 · null@14 · - · F-null@4 · F-f@4"),
        (
            outer,
            "null-d@7 · D-d@7 · null-d@7 · null@3 · null-e@14 · E-e@15 · null-e@14 · null@9 · F-null@4 · F-f@4",
        ),
    ];
    for (join, expected) in cases {
        let driver = driver(join);
        ordered(13).into_iter().for_each(|event| drop(pipe(&driver, event)));
        expect(&driver, &LATE_EVENTS, expected);
    }
}

#[test]
fn joined_tables_are_filtered_joined_again_grouped_and_looked_up() {
    let mut streams = StreamsBuilder::new();
    let tables: Vec<Table> = ["a", "b", "c"].map(|topic| streams.table(topic)).into();
    let joined = outer(&inner(&tables[0], &tables[1]).filter(|_, v| v != "x-y"), &tables[2]);
    joined.to_stream().to("out");
    joined.group_by(|_, value| (value.clone(), 1_i64)).count("counts");
    streams.stream::<String, String>("s").join(&joined, |s, row| format!("{s}:{row}")).to("looked-up");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let pipe = |topic: &str, value: &str| {
        let value = (value != "-").then(|| value.to_owned());
        driver.input::<String, String>(topic).pipe_nullable(Some("k".to_owned()), value).at(1);
        driver.input::<String, String>("s").pipe("k", "s").at(1);
        driver.output::<String, String>("looked-up").read().map(|record| record.value)
    };
    assert_eq!(pipe("a", "1"), None);
    assert_eq!(pipe("b", "2").unwrap(), "s:1-2-null");
    assert_eq!(pipe("c", "3").unwrap(), "s:1-2-3");
    assert_eq!(pipe("a", "x").unwrap(), "s:x-2-3");
    assert_eq!(pipe("b", "y").unwrap(), "s:null-3", "the filter hides the joined row");
    assert_eq!(pipe("c", "-"), None);
    let counts: Vec<_> = driver.store::<String, i64>("counts").all();
    assert!(counts.iter().all(|(_, count)| *count == 0), "each row left its group: {counts:?}");
    assert_eq!(counts.len(), 4);
}

#[test]
fn s1_6_tables_that_are_made_of_the_same_rows() {
    let mut streams = StreamsBuilder::new();
    let table: Table = streams.table("in");
    let kept = table.filter(|_, value| value != "x").materialize("kept");
    inner(&table, &table.filter(|_, value| value != "x")).to_stream().to("view");
    inner(&table, &kept).to_stream().to("store");
    inner(&kept, &table).to_stream().to("turned");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let last = |topic: &str| {
        let records = driver.output::<String, Nullable>(topic).read_all();
        records.last().map(|record| record.value.clone())
    };
    for (value, expected) in
        [(Some("a"), Some("a-a")), (Some("x"), None), (Some("b"), Some("b-b")), (None, None)]
    {
        driver
            .input::<String, String>("in")
            .pipe_nullable(Some("k".to_owned()), value.map(str::to_owned))
            .at(1);
        for topic in ["view", "store", "turned"] {
            assert_eq!(last(topic), Some(expected.map(str::to_owned)), "{topic} after {value:?}");
        }
    }
}

#[test]
fn s1_6_both_tables_run_in_one_task_and_come_from_one_builder() {
    let mut streams = StreamsBuilder::new();
    let (left, right): (Table, Table) = (streams.table("left"), streams.table("right"));
    inner(&left, &right).to_stream().to("out");
    let topology = streams.build().unwrap();
    assert_eq!(topology.describe().sub_topologies.len(), 1);
    let text = topology.describe().to_string();
    assert!(text.contains("Processor: left.join (stores: [])"), "{text}");

    let mut streams = StreamsBuilder::new();
    let left: Table = streams.table("left");
    inner(&left, &StreamsBuilder::new().table("right")).to_stream().to("out");
    assert!(streams.build().unwrap_err().to_string().contains("left.join"), "told which");
}
