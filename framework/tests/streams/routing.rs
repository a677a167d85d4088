//! Where records go, and what steps know of them: topics and partitions chosen by the record, its place, time and
//! headers, and streams that come together.

use klamm::client::{Headers, OffsetReset};
use klamm::serde::{Bytes, HeaderList, Serde, SerdeError, StringSerde};
use klamm::streams::{
    Consumed, ErrorPolicy, Joined, Partitions, Produced, Repartitioned, StreamsBuilder, Timestamps, Topology,
    TopologyTestDriver,
};

fn by_country() -> Topology {
    let mut streams = StreamsBuilder::new();
    let orders = streams.stream::<String, String>("orders");
    orders.to_chosen(|at, country, _| match (at.offset(), &**country) {
        (_, "nowhere") => String::new(),
        (Some(3), _) => "fourth".to_owned(),
        (_, country) => format!("orders-{country}"),
    });
    streams.stream::<String, String>("orders-at").to("austrian");
    streams.build().unwrap()
}

#[test]
fn a_record_chooses_its_topic() {
    let driver = TopologyTestDriver::with_policy(by_country(), ErrorPolicy::skip());
    let input = driver.input::<String, String>("orders");
    for country in ["at", "de", "nowhere", "at", "at"] {
        input.pipe(country, "x").at(1);
    }
    let keys = |topic| driver.output::<String, String>(topic).read_all().len();
    assert_eq!(["orders-at", "orders-de", "fourth", "orders-fr"].map(keys), [2, 1, 1, 0]);
    assert_eq!(keys("austrian"), 2, "what is written to a topic that is read is read");
    assert_eq!(driver.dropped().failed, 1, "a topic without a name");
    assert!(
        by_country().describe().to_string().contains("Sink: orders.to_chosen (topic chosen by the record)")
    );
}

#[test]
fn a_partitioner_sends_to_one_to_several_or_to_none() {
    let mut streams = StreamsBuilder::new();
    let choose = |_: &str, _: &String, copies: &i64, count: i32| match copies {
        -1 => Partitions::from(count),
        -2 => Partitions::ByKey,
        copies => Partitions::These(vec![0; usize::try_from(*copies).unwrap()]),
    };
    let numbers = streams.stream::<String, i64>("in");
    numbers.to_with("out", Produced::default().partitioner(choose));
    numbers.repartition(Repartitioned::named("there").partitioner(choose)).to("behind");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let input = driver.input::<String, i64>("in");
    for copies in [0, 1, 3, -2] {
        input.pipe("k", copies).at(1);
    }
    let expected = [("k", 1), ("k", 3), ("k", 3), ("k", 3), ("k", -2)];
    assert_eq!(driver.output::<String, i64>("out").read_all(), expected);
    assert_eq!(driver.output::<String, i64>("behind").read_all(), expected);
    let error = input.pipe("k", -1).try_at(2).unwrap_err().to_string();
    assert!(error.contains("its partitioner chose partition 1 of out, which has 1"), "{error}");
}

#[test]
fn a_closure_sees_the_records_place_and_sets_its_time_and_headers() {
    let mut streams = StreamsBuilder::new();
    let input = streams.stream::<String, String>(["a", "b"]);
    let marked = input.map_values_in_context(|at, _, value| {
        let place = format!("{}-{}@{}", at.topic().unwrap(), at.partition().unwrap(), at.offset().unwrap());
        at.set_timestamp_ms(at.timestamp_ms() + 100);
        at.headers_mut().push("place", Some(place.clone().into()));
        Ok(format!("{value} {place}"))
    });
    marked.filter_in_context(|at, _, _| Ok(at.headers().last("place").is_some())).to("marked");
    input.filter_in_context(|at, _, _| Ok(at.headers().last("place").is_none())).to("plain");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    driver.input::<String, String>("b").pipe("k", "x").at(1);
    driver.input::<String, String>("b").pipe("k", "y").at(2);
    driver.input::<String, String>("a").pipe("k", "z").at(3);
    let marked = driver.output::<String, String>("marked").read_all();
    assert_eq!(marked, [("k", "x b-0@0", 101), ("k", "y b-0@1", 102), ("k", "z a-0@0", 103)]);
    assert_eq!(marked[1].headers.last("place"), Some(Some(&b"b-0@1"[..])));
    let plain = driver.output::<String, String>("plain").read_all();
    assert_eq!(plain, [("k", "x", 1), ("k", "y", 2), ("k", "z", 3)], "what one branch sets is its own");
}

#[test]
fn a_negative_time_is_an_error_of_the_operator_that_set_it() {
    let mut streams = StreamsBuilder::new();
    streams.stream::<String, String>("in").peek_in_context(|at, _, _| {
        at.set_timestamp_ms(-1);
        Ok(())
    });
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let error = driver.input::<String, String>("in").pipe("k", "v").try_at(0).unwrap_err().to_string();
    assert!(error.contains("`in.peek`") && error.contains("timestamp -1, which is negative"), "{error}");
}

#[test]
fn many_streams_become_one() {
    let mut streams = StreamsBuilder::new();
    let [a, b, c] = ["a", "b", "c"].map(|topic| streams.stream::<String, i64>(topic));
    let b = b.select_key(|key, _| key.clone());
    a.merge_all([&b, &c]).group_by_key().count("counts").to_stream().to("out");
    let topology = streams.build().unwrap();
    assert!(
        topology.describe().to_string().contains("counts-repartition"),
        "the key of one may have changed"
    );
    let driver = TopologyTestDriver::new(topology);
    for topic in ["a", "b", "c"] {
        driver.input::<String, i64>(topic).pipe("k", 0).at(1);
    }
    assert_eq!(driver.output::<String, i64>("out").read_all(), [("k", 1), ("k", 2), ("k", 3)]);
}

#[test]
fn values_with_their_key_and_the_end_of_a_stream() {
    let mut streams = StreamsBuilder::new();
    let input = streams.stream::<String, i64>("in");
    input.print("seen").named("printed");
    let copies = |key: &String, n: &i64| vec![format!("{key}{n}"); usize::try_from(*n).unwrap()];
    input.flat_map_values_with_key(copies).to("out").named("written");
    let topology = streams.build().unwrap();
    let text = topology.describe().to_string();
    assert!(text.contains("Processor: printed") && text.contains("Sink: written (topic: out)"), "{text}");
    let driver = TopologyTestDriver::new(topology);
    driver.input::<String, i64>("in").pipe("k", 2).at(1);
    assert_eq!(driver.output::<String, String>("out").read_all(), [("k", "k2"), ("k", "k2")]);
}

/// The null key says that there is nothing to look up; a left join emits the record all the same, though its key
/// changed and it goes through a repartition topic.
#[test]
fn a_key_that_becomes_null_is_joined_with_nothing_by_a_left_join() {
    let driver = |left: bool| {
        let mut streams = StreamsBuilder::new();
        let table = streams.table::<String, String>("table");
        let stream = streams.stream::<String, String>("in");
        let keyless = stream.select_key(|key, _| if key == "null" { None } else { Some(key.clone()) });
        if left {
            keyless
                .left_join(&table, |value, row| format!("{value}+{}", row.map_or("null", |row| row)))
                .to("out");
        } else {
            keyless.join_with(&table, |value, row| format!("{value}+{row}"), Joined::default()).to("out");
        }
        let driver = TopologyTestDriver::new(streams.build().unwrap());
        driver.input::<String, String>("table").pipe("k", "t").at(1);
        driver.input::<String, String>("in").pipe("null", "v").at(2);
        driver.input::<String, String>("in").pipe("k", "v").at(3);
        driver
    };
    let out = |driver: &TopologyTestDriver| driver.output::<Option<String>, String>("out").read_all();
    let left = driver(true);
    assert_eq!(out(&left), [(None, "v+null".to_owned()), (Some("k".to_owned()), "v+t".to_owned())]);
    assert_eq!(left.dropped().null_key, 0);
    let inner = driver(false);
    assert_eq!(out(&inner), [(Some("k".to_owned()), "v+t".to_owned())]);
    assert_eq!(inner.dropped().null_key, 1);
}

#[test]
fn a_stream_of_options_as_a_table_and_a_stream_again() {
    let mut streams = StreamsBuilder::new();
    let table = streams.stream::<String, Option<i64>>("in").to_table("kept");
    table.to_stream().flatten().to("out");
    table.to_stream().to("nested");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let input = driver.input::<String, i64>("in");
    input.pipe("k", 1).at(1);
    input.pipe_tombstone("k").at(2);
    for topic in ["out", "nested"] {
        let records = driver.output::<String, Option<i64>>(topic).read_all();
        assert_eq!(records, [("k".to_owned(), Some(1)), ("k".to_owned(), None)], "{topic}");
    }
}

fn stamped(timestamps: Timestamps, policy: ErrorPolicy) -> TopologyTestDriver {
    let mut streams = StreamsBuilder::new();
    let consumed = Consumed::<String, String>::default().timestamps(timestamps);
    streams.stream_with("in", consumed).to("out");
    TopologyTestDriver::with_policy(streams.build().unwrap(), policy)
}

fn times(driver: &TopologyTestDriver) -> Vec<i64> {
    driver.output::<String, String>("out").read_all().into_iter().map(|record| record.timestamp_ms).collect()
}

#[test]
fn a_negative_time_is_what_the_source_makes_of_it() {
    let pipe =
        |driver: &TopologyTestDriver, at| driver.input::<String, String>("in").pipe("k", "v").try_at(at);
    let driver = stamped(Timestamps::FailIfNegative, ErrorPolicy::fail());
    pipe(&driver, 5).unwrap();
    let error = pipe(&driver, -3).unwrap_err().to_string();
    assert!(error.contains("operator `in` failed at the record at in-0 offset 1"), "{error}");
    assert!(error.contains("its timestamp -3 is negative"), "{error}");
    let driver = stamped(Timestamps::FailIfNegative, ErrorPolicy::dead_letter("dlt"));
    [4, -3, 0].into_iter().for_each(|at| pipe(&driver, at).unwrap());
    assert_eq!((times(&driver), driver.dropped().dead_lettered), (vec![4, 0], 1));
    let letter = driver.output::<String, String>("dlt").read().unwrap();
    assert_eq!(letter.timestamp_ms, 0, "of the driver, it is always 1970; no broker would take -3");

    let driver = stamped(Timestamps::PartitionTimeIfNegative, ErrorPolicy::fail());
    [-1, 7, 3, -1].into_iter().for_each(|at| pipe(&driver, at).unwrap());
    assert_eq!(times(&driver), [7, 3, 7]);
    assert_eq!(driver.dropped().negative_timestamp, 1, "there was no time yet");
}

#[test]
fn a_time_out_of_the_value_decides_which_record_is_next() {
    let mut streams = StreamsBuilder::new();
    let consumed = Consumed::<String, Option<i64>>::default().timestamp_of(|value| match value {
        Some(13) => panic!("a bad number"),
        value => value.unwrap_or(-1),
    });
    streams.stream_with(["a", "b"], consumed).on_error(ErrorPolicy::skip()).to("out");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let input = driver.input::<String, i64>("a");
    [40, -5, 13, 20].into_iter().for_each(|value| input.pipe("k", value).at(1));
    input.pipe_tombstone("k").at(9);
    driver.input::<String, String>("b").pipe("k", "no number").at(2);
    let out = driver.output::<String, Option<i64>>("out").read_all();
    let times: Vec<_> = out.into_iter().map(|record| (record.value, record.timestamp_ms)).collect();
    assert_eq!(times, [(Some(40), 40), (Some(20), 20), (None, 9)]);
    let dropped = driver.dropped();
    assert_eq!((dropped.negative_timestamp, dropped.failed, dropped.unreadable), (1, 1, 1));
}

/// Says in a header how a number is written.
#[derive(Debug, Default)]
struct Base;

impl Serde<i64> for Base {
    fn serialize(&self, _: &str, _: &i64) -> Result<Bytes, SerdeError> {
        Err(SerdeError::serialize::<i64>("number", "without a header nobody could read it"))
    }

    fn deserialize(&self, _: &str, bytes: &Bytes) -> Result<i64, SerdeError> {
        Err(SerdeError::deserialize::<i64>("number", bytes.len(), "there is no header"))
    }

    fn serialize_record(&self, _: &str, headers: &mut HeaderList, value: &i64) -> Result<Bytes, SerdeError> {
        headers.push(("base".into(), Some("16".into())));
        Ok(format!("{value:x}").into())
    }

    fn deserialize_record(&self, _: &str, headers: &Headers, bytes: &Bytes) -> Result<i64, SerdeError> {
        let base = if headers.last("base").is_some() { 16 } else { 10 };
        let number = std::str::from_utf8(bytes).ok().and_then(|text| i64::from_str_radix(text, base).ok());
        number.ok_or_else(|| SerdeError::deserialize::<i64>("number", bytes.len(), "it is no number"))
    }
}

#[test]
fn formats_that_use_headers_get_them() {
    let mut streams = StreamsBuilder::new();
    let numbers = streams.stream_with("in", Consumed::<String, i64>::with(StringSerde, Base));
    numbers.to_with("out", Produced::with(StringSerde, Base));
    streams.table_with("rows", Consumed::<String, i64>::with(StringSerde, Base), "kept");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    driver.input::<String, String>("in").pipe("k", "255").header("a", "b").at(1);
    driver.input::<String, String>("in").pipe("k", "10").header("base", "16").at(2);
    driver.input::<String, String>("rows").pipe("k", "ff").header("base", "16").at(3);
    let out = driver.output::<String, String>("out").read_all();
    assert_eq!(out, [("k", "ff"), ("k", "10")]);
    assert_eq!(out[0].headers.last("a"), Some(Some(&b"b"[..])));
    assert_eq!(out[0].headers.last("base"), Some(Some(&b"16"[..])));
    assert_eq!(driver.store::<String, i64>("kept").get("k"), Some(255));
}

/// One topic is read once, whatever is made of it.
#[test]
fn sources_of_one_topic_are_one() {
    let mut streams = StreamsBuilder::new();
    streams.stream::<String, String>("in").to("a");
    streams.stream::<String, i64>(["in", "more"]).on_error(ErrorPolicy::skip()).to("b");
    streams.table::<String, String>("in");
    let topology = streams.build().unwrap();
    assert_eq!(topology.describe().sub_topologies.len(), 1);
    let driver = TopologyTestDriver::new(topology);
    driver.input::<String, String>("in").pipe("k", "8 bytes!").at(1);
    driver.input::<String, String>("in").pipe("k", "other").at(2);
    assert_eq!(driver.output::<String, String>("a").read_all().len(), 2);
    assert_eq!(driver.output::<String, i64>("b").read_all().len(), 1);
    assert_eq!(driver.store::<String, String>("in-table").all(), [("k".to_owned(), "other".to_owned())]);

    let from = |reset| Consumed::<String, String>::default().offset_reset(reset);
    let build = |second| {
        let mut streams = StreamsBuilder::new();
        streams.stream_with("in", from(OffsetReset::Latest)).to("a");
        streams.stream_with(["in", "more"], from(second)).to("b");
        streams.build()
    };
    build(OffsetReset::Latest).unwrap();
    let error = build(OffsetReset::Earliest).unwrap_err().to_string();
    assert!(
        error.starts_with("the sources `in`, `in+more` read topic `in`, which can begin at one place"),
        "{error}"
    );
}

/// A source's policy is about reading. What panics behind it and has no boundary of its own may have half happened.
#[test]
fn a_sources_retries_are_for_reading_only() {
    let mut streams = StreamsBuilder::new();
    let table = streams.table::<String, String>("in");
    let table = table.on_error(ErrorPolicy::skip().retry(3, std::time::Duration::ZERO));
    let seen = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = std::sync::Arc::clone(&seen);
    let view = table.map_values(move |value| {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        assert_ne!(value, "bad");
        value.clone()
    });
    view.to_stream().to("out");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let error = driver.input::<String, String>("in").pipe("k", "bad").try_at(1).unwrap_err().to_string();
    assert!(error.contains("panicked"), "{error}");
    assert_eq!(seen.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn a_topics_records_have_one_time() {
    let mut streams = StreamsBuilder::new();
    streams.stream::<String, String>("in").to("a");
    let consumed = Consumed::<String, String>::default().timestamps(Timestamps::WallClock);
    streams.stream_with("in", consumed).to("b");
    let error = streams.build().unwrap_err().to_string();
    assert!(error.starts_with("the sources `in`, `in-2` read topic `in`"), "{error}");
}
