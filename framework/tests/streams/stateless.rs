//! Steps without state: outputs as Kafka's own test driver gives them for the same inputs.

use klamm::streams::{StreamsBuilder, TopologyTestDriver};

type Nullable = Option<String>;

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

#[test]
fn a_chain_of_steps() {
    let mut streams = StreamsBuilder::new();
    streams
        .stream::<Nullable, Nullable>("in")
        .filter(|_, value| value.as_deref().is_some_and(|value| value != "x"))
        .non_null()
        .flat_map_values(|value| words(value))
        .map(|key, word| (word.clone(), key.clone()))
        .filter_not(|word, _| word.is_empty())
        .map_values_with_key(|word, key| format!("{}/{}", key.as_deref().unwrap_or("null"), word.len()))
        .to("out");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let input = driver.input::<String, String>("in");
    let output = driver.output::<String, String>("out");

    input.pipe("k1", "a bb").at(5);
    assert_eq!(output.read_all(), [("a", "k1/1", 5), ("bb", "k1/2", 5)]);
    input.pipe_tombstone("k1").at(6);
    assert_eq!(output.read(), None);
    input.pipe_keyless("ccc").at(7);
    assert_eq!(output.read_all(), [("ccc", "null/3", 7)]);
    input.pipe("k2", "x").at(8);
    assert_eq!(output.read(), None);
    input.pipe("k2", " d").at(3);
    assert_eq!(output.read_all(), [("d", "k2/1", 3)]);
}

#[test]
fn a_split_takes_the_first_branch_that_matches() {
    let mut streams = StreamsBuilder::new();
    let mut split = streams.stream::<String, String>("in").split();
    split.branch("long", |_, value| value.len() > 3).to("long");
    split.branch("a", |_, value| value.starts_with('a')).to("a");
    split.otherwise("rest").to("rest");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let input = driver.input::<String, String>("in");
    for (at, value) in (1..).zip(["abcd", "ab", "zz", "a"]) {
        input.pipe("k", value).at(at);
    }
    let read = |topic| driver.output::<String, String>(topic).read_all();
    assert_eq!(read("long"), [("k", "abcd", 1)]);
    assert_eq!(read("a"), [("k", "ab", 2), ("k", "a", 4)]);
    assert_eq!(read("rest"), [("k", "zz", 3)]);
}

#[test]
fn what_no_branch_takes_ends_there() {
    let mut streams = StreamsBuilder::new();
    let mut split = streams.stream::<String, i64>("in").split();
    split.branch("even", |_, number| number % 2 == 0).to("even");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let input = driver.input::<String, i64>("in");
    (1..=4).for_each(|number| input.pipe("k", number).at(number));
    assert_eq!(driver.output::<String, i64>("even").read_all(), [("k", 2), ("k", 4)]);
}

#[test]
fn merge_peek_flat_map_and_select_key() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = std::sync::Arc::clone(&seen);
    let mut streams = StreamsBuilder::new();
    let left = streams.stream::<String, i64>("left");
    let right = streams.stream::<String, i64>(["right", "more"]);
    left.merge(&right)
        .peek(move |key, value| log.lock().unwrap().push(format!("{key}{value}")))
        .flat_map(|key, value| (0..*value).map(|n| (format!("{key}{n}"), n)).collect::<Vec<_>>())
        .select_key(|key, value| format!("{key}/{value}"))
        .to("out");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    driver.input::<String, i64>("left").pipe("l", 1).at(1);
    driver.input::<String, i64>("right").pipe("r", 2).at(2);
    driver.input::<String, i64>("more").pipe("m", 0).at(3);
    let output = driver.output::<String, i64>("out");
    assert_eq!(output.read_all(), [("l0/0", 0, 1), ("r0/0", 0, 2), ("r1/1", 1, 2)]);
    assert_eq!(*seen.lock().unwrap(), ["l1", "r2", "m0"]);
}

#[test]
fn headers_follow_a_record() {
    let mut streams = StreamsBuilder::new();
    streams.stream::<String, String>("in").map_values(|value| value.len() as i64).repartition("r").to("out");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    driver.input::<String, String>("in").pipe("k", "abc").header("trace", "7f").at(1);
    let record = driver.output::<String, i64>("out").read().unwrap();
    assert_eq!(record, ("k", 3, 1));
    assert_eq!(record.headers.last("trace"), Some(Some(&b"7f"[..])));
}

#[test]
fn a_topic_that_is_written_and_read_loops_through() {
    let mut streams = StreamsBuilder::new();
    streams.stream::<String, i64>("a").map_values(|n| n + 1).to("b");
    streams.stream::<String, i64>("b").map_values(|n| n * 10).to("c");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    driver.input::<String, i64>("a").pipe("k", 1).at(1);
    assert_eq!(driver.output::<String, i64>("c").read_all(), [("k", 20)]);
}
