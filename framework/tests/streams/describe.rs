//! Topologies as data: the description, stable names, and mistakes that `build` tells.

use std::time::Duration;

use klamm::streams::{
    Joined, Materialized, StreamsBuilder, Topology, TopologyError, TopologyTestDriver, TumblingWindows,
};

fn word_count() -> Topology {
    let mut streams = StreamsBuilder::new();
    streams
        .stream::<String, String>("lines")
        .flat_map_values(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .group_by(|_, word| word.clone())
        .count("counts")
        .to_stream()
        .to("word-counts");
    streams.build().unwrap()
}

#[test]
fn a_topology_describes_itself() {
    let expected = "\
Topologies:
   Sub-topology: 0
    Source: lines (topics: [lines])
      --> lines.flat_map_values
    Processor: lines.flat_map_values (stores: [])
      --> lines.flat_map_values.select_key
      <-- lines
    Processor: lines.flat_map_values.select_key (stores: [])
      --> lines.flat_map_values.select_key.to(counts-repartition)
      <-- lines.flat_map_values
    Sink: lines.flat_map_values.select_key.to(counts-repartition) (topic: counts-repartition)
      <-- lines.flat_map_values.select_key
   Sub-topology: 1
    Source: counts-repartition (topics: [counts-repartition])
      --> counts-repartition.count
    Processor: counts-repartition.count (stores: [counts])
      --> counts-repartition.count.to_stream
      <-- counts-repartition
    Processor: counts-repartition.count.to_stream (stores: [])
      --> counts-repartition.count.to_stream.to(word-counts)
      <-- counts-repartition.count
    Sink: counts-repartition.count.to_stream.to(word-counts) (topic: word-counts)
      <-- counts-repartition.count.to_stream
";
    assert_eq!(word_count().describe().to_string(), expected);
    assert_eq!(word_count().describe(), word_count().describe());
}

#[test]
fn a_step_elsewhere_renames_nothing() {
    let build = |with_audit: bool| {
        let mut streams = StreamsBuilder::new();
        if with_audit {
            streams.stream::<String, String>("audit").filter(|_, _| true).to("audited");
        }
        let users = streams.table::<String, String>("users");
        let clicks = streams.stream::<String, String>("clicks");
        clicks.select_key(|_, user| user.clone()).join(&users, |click, _| click.clone()).to("out");
        streams.build().unwrap().describe().to_string()
    };
    let (before, after) = (build(false), build(true));
    for line in before.lines().filter(|line| line.contains("clicks")) {
        assert!(after.contains(line), "{line}");
    }
}

#[test]
fn a_name_begins_a_new_path() {
    let mut streams = StreamsBuilder::new();
    streams.stream::<String, String>("a").filter(|_, _| true).named("clean").filter(|_, _| true).to("b");
    let text = streams.build().unwrap().describe().to_string();
    assert!(text.contains("Processor: clean.filter (stores: [])"), "{text}");
}

#[test]
fn stores_and_topics_connect_what_runs_together() {
    let mut streams = StreamsBuilder::new();
    let users = streams.table::<String, String>("users");
    streams.stream::<String, String>("clicks").join(&users, |click, _| click.clone()).to("out");
    streams.stream::<String, String>("other").to("elsewhere");
    assert_eq!(streams.build().unwrap().describe().sub_topologies.len(), 2);
}

#[track_caller]
fn check_error(build: impl FnOnce(&mut StreamsBuilder), expected: TopologyError) {
    let mut streams = StreamsBuilder::new();
    build(&mut streams);
    assert_eq!(streams.build().unwrap_err(), expected);
}

#[test]
fn mistakes_are_told_by_build() {
    check_error(|_| {}, TopologyError::NoSource);
    check_error(
        |streams| {
            let group = streams.stream::<String, String>("a").group_by_key();
            group.count("x");
            group.count("x");
        },
        TopologyError::DuplicateStore("x".to_owned()),
    );
    check_error(
        |streams| {
            let stream = streams.stream::<String, String>("a");
            stream.repartition("x");
            stream.repartition("x");
        },
        TopologyError::DuplicateRepartition("x".to_owned()),
    );
    check_error(
        |streams| drop(streams.stream::<String, String>("a").group_by_key().count("a/b")),
        TopologyError::BadName("a/b".to_owned()),
    );
    check_error(
        |streams| {
            let table = streams.table::<String, String>("t");
            let stream = streams.stream::<String, String>("s").select_key(|key, _| key.clone());
            stream.join_with(&table, |a, _| a.clone(), Joined::in_place()).to("out");
        },
        TopologyError::MissingSerdes { node: "s.select_key.join".to_owned() },
    );
    let windows = TumblingWindows::of(Duration::from_secs(10)).grace(Duration::from_secs(5));
    check_error(
        |streams| {
            let group = streams.stream::<String, String>("a").group_by_key();
            group.windowed_by(windows).count(Materialized::named("w").retention(Duration::from_secs(14)));
        },
        TopologyError::RetentionTooShort {
            store: "w".to_owned(),
            retention: Duration::from_secs(14),
            needed: Duration::from_secs(15),
        },
    );
    check_error(
        |streams| {
            let mut other = StreamsBuilder::new();
            streams.stream::<String, String>("a").merge(&other.stream("b"));
        },
        TopologyError::OtherBuilder("a.merge".to_owned()),
    );
}

#[test]
#[should_panic(expected = "the topology does not read `liens`, but: lines, counts-repartition")]
fn the_driver_knows_the_topics() {
    TopologyTestDriver::new(word_count()).input::<String, String>("liens");
}

#[test]
#[should_panic(expected = "state store `counts` holds `(alloc::string::String, i64)`, not")]
fn the_driver_knows_a_stores_types() {
    TopologyTestDriver::new(word_count()).store::<String, i32>("counts");
}
