//! Topologies as data: the description, stable names, and mistakes that `build` tells.

use std::time::Duration;

use klamm::serde::StringSerde;
use klamm::streams::{
    Consumed, Joined, Materialized, StreamsBuilder, Topology, TopologyDescription, TopologyError,
    TopologyTestDriver, TumblingWindows, Windowed, WindowedSerde,
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

#[test]
#[should_panic(
    expected = "the topology does not write `word-count`, but: counts-changelog, counts-repartition, word-counts"
)]
fn the_driver_knows_what_is_written() {
    TopologyTestDriver::new(word_count()).output::<String, i64>("word-count");
}

#[test]
fn a_source_reads_something() {
    check_error(|streams| drop(streams.stream::<String, String>(Vec::<String>::new())), no_topics(""));
    check_error(|streams| drop(streams.stream::<String, String>("")), no_topics(""));
    check_error(|streams| drop(streams.stream::<String, String>(["a", ""])), no_topics("a+"));
    check_error(|streams| drop(streams.table::<String, String>("")), no_topics(""));
}

fn no_topics(name: &str) -> TopologyError {
    TopologyError::NoTopics(name.to_owned())
}

#[test]
fn a_store_without_windows_has_no_retention() {
    let retention = Duration::from_secs(5);
    check_error(
        |streams| {
            let group = streams.stream::<String, String>("a").group_by_key();
            group.count(Materialized::named("plain").retention(retention));
        },
        TopologyError::RetentionOfPlainStore { store: "plain".to_owned(), retention },
    );
}

/// The driver passed such a topology, and the application fell over it at its first commit.
#[test]
fn a_key_that_cannot_be_read_back_is_refused() {
    let windows = TumblingWindows::of(Duration::from_secs(10));
    let mut streams = StreamsBuilder::new();
    let counts = streams.stream::<String, String>("a").group_by_key().windowed_by(windows).count("counts");
    counts.filter(|_, count| *count > 5).materialize("many");
    let error = streams.build().unwrap_err().to_string();
    assert!(error.starts_with("`many` would write what it cannot read back"), "{error}");
    assert!(error.contains("WindowedSerde::of"), "{error}");
    let mut streams = StreamsBuilder::new();
    streams.stream::<Windowed<String>, String>("windowed");
    assert!(matches!(streams.build(), Err(TopologyError::WriteOnly { .. })));
    let mut streams = StreamsBuilder::new();
    let key = WindowedSerde::of(StringSerde, Duration::from_secs(10));
    streams.stream_with::<Windowed<String>, String>("windowed", Consumed::with(key, StringSerde));
    streams.build().unwrap();
}

#[test]
fn a_description_is_a_document_and_back() {
    let description = word_count().describe();
    let document = description.to_json();
    assert_eq!(document["sub_topologies"][0]["nodes"][0]["topics"][0], "lines");
    assert_eq!(document["sub_topologies"][1]["nodes"][1]["stores"][0], "counts");
    let text = document.to_string();
    assert_eq!(TopologyDescription::from_json(&serde_json::from_str(&text).unwrap()), Ok(description));
    for wrong in ["null", "{}", r#"{"sub_topologies":[{}]}"#, r#"{"sub_topologies":[{"id":0,"nodes":[{}]}]}"#]
    {
        let error = TopologyDescription::from_json(&serde_json::from_str(wrong).unwrap()).unwrap_err();
        assert!(error.to_string().starts_with("this is no description of a topology"), "{error}");
    }
}

#[test]
fn a_topology_is_drawn() {
    let drawing = word_count().describe().to_svg();
    assert!(drawing.starts_with("<svg xmlns=") && drawing.ends_with("</svg>\n"), "{drawing}");
    assert_eq!(drawing.matches("class=\"group\"").count(), 2);
    assert_eq!(drawing.matches("<g>").count(), 8, "a box for each node");
    assert_eq!(drawing.matches("<line").count(), 6, "a line for each edge");
    for part in ["reads lines", "keeps counts", "writes word-counts", ">flat_map_values<", "sub-topology 1"] {
        assert!(drawing.contains(part), "{part}: {drawing}");
    }
    let mut streams = StreamsBuilder::new();
    streams.stream::<String, String>("a").filter(|_, _| true).named("a < b & \"c\"").to("b");
    let drawing = streams.build().unwrap().describe().to_svg();
    assert!(drawing.contains("a &lt; b &amp; &quot;c&quot;") && !drawing.contains("a < b"), "{drawing}");
}

/// Whichever line is written first, topics between sub-topologies keep their names.
#[test]
fn repartition_topics_keep_their_names_when_lines_change_places() {
    let topics = |reordered: bool| {
        let mut streams = StreamsBuilder::new();
        let users = streams.table::<String, String>("users");
        let shops = streams.table::<String, String>("shops");
        let clicks = streams.stream::<String, String>("clicks").select_key(|_, user| user.clone());
        let group = clicks.group_by_key();
        let counts = || drop(group.count("counts"));
        let first = || drop(group.reduce("a-first", |first, _| first));
        let with_users = || drop(clicks.join(&users, |click, _| click.clone()).to("a"));
        let with_shops = || drop(clicks.left_join(&shops, |click, _| click.clone()).to("b"));
        let mut lines: Vec<&dyn Fn()> = vec![&counts, &first, &with_users, &with_shops];
        if reordered {
            lines.reverse();
        }
        lines.iter().for_each(|line| line());
        let description = streams.build().unwrap().describe();
        let mut topics: Vec<String> = description
            .to_string()
            .lines()
            .filter_map(|line| Some(line.split_once("(topic: ")?.1.trim_end_matches(')').to_owned()))
            .filter(|topic| topic.ends_with("-repartition"))
            .collect();
        topics.sort();
        topics
    };
    let expected = [
        "a-first-repartition",
        "clicks.select_key.join.users-table-repartition",
        "clicks.select_key.left_join.shops-table-repartition",
    ];
    assert_eq!(topics(false), expected);
    assert_eq!(topics(true), expected);
}

/// Two joins that only the order of lines tells apart would swap their records if the lines changed places.
#[test]
fn what_only_the_order_of_lines_tells_apart_wants_a_name() {
    check_error(
        |streams| {
            let users = streams.table::<String, String>("users");
            let clicks = streams.stream::<String, String>("clicks");
            for _ in 0..2 {
                let keyed = clicks.select_key(|_, user| user.clone());
                keyed.join(&users, |click, _| click.clone()).to("out");
            }
        },
        TopologyError::DuplicateRepartition("clicks.select_key.join.users-table".to_owned()),
    );
}
