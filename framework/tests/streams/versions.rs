//! Versioned tables: what rows were, joins by time, updates out of order.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm::streams::{
    Consumed, Joined, KStream, KTable, Materialized, StreamsBuilder, TopologyError, TopologyTestDriver,
};
use proptest::prelude::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn versioned(history: Duration) -> Materialized<i64> {
    Materialized::named("rows").versioned(history)
}

fn rows(history_ms: u64) -> TopologyTestDriver {
    let mut streams = StreamsBuilder::new();
    let table = streams.table_with::<String, i64>("in", Consumed::default(), versioned(ms(history_ms)));
    table.to_stream().to("changes");
    table.group_by(|_, n| ("all".to_owned(), *n)).aggregate(
        "sum",
        || 0,
        |_, n, sum| sum + n,
        |_, n, sum| sum - n,
    );
    table.filter(|_, n| n % 2 == 0).materialize("even");
    TopologyTestDriver::new(streams.build().unwrap())
}

fn write(driver: &TopologyTestDriver, key: &str, value: Option<i64>, at: i64) {
    driver.input::<String, i64>("in").pipe_nullable(Some(key.to_owned()), value).at(at);
}

#[test]
fn s1_8_what_a_row_was_can_be_asked() {
    let driver = rows(100);
    for (value, at) in [(Some(1), 10), (Some(3), 30), (None, 40), (Some(2), 20)] {
        write(&driver, "k", value, at);
    }
    let rows = driver.store::<String, i64>("rows");
    let at = |at| rows.get_as_of("k", at);
    assert_eq!(
        [9, 10, 19, 20, 29, 30, 39, 40, 1_000].map(at),
        [None, Some(1), Some(1), Some(2), Some(2), Some(3), Some(3), None, None]
    );
    assert_eq!((rows.get("k"), rows.all()), (None, Vec::new()));
}

/// They go to readers of all changes, and nowhere else.
#[test]
fn s1_8_updates_out_of_order_do_not_change_what_is_made_of_the_rows() {
    let driver = rows(100);
    for (key, value, at) in
        [("a", Some(4), 50), ("a", Some(2), 20), ("a", None, 30), ("b", Some(8), 60), ("b", None, 55)]
    {
        write(&driver, key, value, at);
    }
    assert_eq!(driver.store::<String, i64>("sum").get("all"), Some(12));
    assert_eq!(driver.store::<String, i64>("even").all(), [("a".to_owned(), 4), ("b".to_owned(), 8)]);
    let changes = driver.output::<String, Option<i64>>("changes").read_all();
    let changes: Vec<_> = changes.into_iter().map(|record| (record.value, record.timestamp_ms)).collect();
    assert_eq!(changes, [(Some(4), 50), (Some(2), 20), (None, 30), (Some(8), 60), (None, 55)]);
    write(&driver, "a", Some(6), 50);
    assert_eq!(driver.store::<String, i64>("sum").get("all"), Some(14), "of the same time: the latest");
}

#[test]
fn s1_8_what_is_older_than_the_history_is_dropped_and_forgotten() {
    let driver = rows(100);
    for (key, value, at) in
        [("a", Some(1), 10), ("a", Some(2), 20), ("old", Some(5), 15), ("z", Some(0), 130)]
    {
        write(&driver, key, value, at);
    }
    let rows = driver.store::<String, i64>("rows");
    assert_eq!(
        (rows.get_as_of("a", 29), rows.get_as_of("a", 30)),
        (Some(2), Some(2)),
        "it is the latest still"
    );
    assert_eq!(rows.get_as_of("a", 19), None, "before the history");
    assert_eq!(rows.get_as_of("old", 15), Some(5));
    write(&driver, "a", Some(3), 29);
    assert_eq!((driver.dropped().late, rows.get("a")), (1, Some(2)));
    write(&driver, "a", Some(3), 30);
    assert_eq!(rows.get_as_of("a", 30), Some(3));
}

fn parts<'a>(l: &'a str, r: Option<&'a String>) -> String {
    format!("{l}-{}", r.map_or("null", String::as_str))
}

type Nullable = Option<String>;
type Join = fn(
    &KStream<Nullable, Nullable>,
    &KTable<String, String>,
    Joined<Nullable, Nullable>,
) -> KStream<Nullable, String>;

type Texts = KTable<String, String>;
type JoinTables = fn(&Texts, &Texts) -> Texts;

const INNER: Join = |left, right, joined| {
    left.join_with(right, |l, r| parts(l.as_deref().unwrap_or("null"), Some(r)), joined)
};
const LEFT: Join =
    |left, right, joined| left.left_join_with(right, |l, r| parts(l.as_deref().unwrap_or("null"), r), joined);

/// `L` writes the stream, `R` the table; `-` is null.
const EVENTS: [(char, &str, i64); 23] = [
    ('L', "-", 1),
    ('R', "-", 2),
    ('L', "A", 3),
    ('R', "a", 4),
    ('L', "B", 5),
    ('R', "b", 6),
    ('L', "-", 7),
    ('R', "-", 8),
    ('L', "C", 9),
    ('R', "c", 10),
    ('R', "-", 11),
    ('L', "-", 12),
    ('R', "-", 13),
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

/// What each event told, in order.
fn trace(driver: &TopologyTestDriver) -> Vec<String> {
    let mut told = Vec::new();
    for (side, value, at) in EVENTS {
        let topic = if side == 'L' { "left" } else { "right" };
        let value = (value != "-").then(|| value.to_owned());
        driver.input::<String, String>(topic).pipe_nullable(Some("k".to_owned()), value).at(at);
        for record in driver.output::<Nullable, Nullable>("out").read_all() {
            let value = record.value.unwrap_or_else(|| "null".to_owned());
            told.push(format!("{side}@{at} {value}@{}", record.timestamp_ms));
        }
    }
    told
}

fn stream_table(join: Join, joined: Joined<Nullable, Nullable>) -> TopologyTestDriver {
    let mut streams = StreamsBuilder::new();
    let kept = Materialized::named("right").versioned(Duration::from_secs(300));
    let right = streams.table_with::<String, String>("right", Consumed::default(), kept);
    join(&streams.stream("left"), &right, joined).to("out");
    TopologyTestDriver::new(streams.build().unwrap())
}

#[test]
fn s2_4_a_stream_meets_the_row_of_its_own_time() {
    let inner = trace(&stream_table(INNER, Joined::default()));
    assert_eq!(inner, ["L@5 B-a@5", "L@6 D-b@6", "L@15 E-e@15", "L@4 F-a@4"]);
    let left = trace(&stream_table(LEFT, Joined::default()));
    let wanted = ["L@3 A-null@3", "L@5 B-a@5", "L@9 C-null@9", "L@6 D-b@6", "L@15 E-e@15", "L@4 F-a@4"];
    assert_eq!(left, wanted);
}

#[test]
fn s2_4_with_a_grace_records_wait_and_are_put_in_order() {
    let joined = || Joined::default().grace("waiting", ms(2));
    assert_eq!(trace(&stream_table(INNER, joined())), ["L@9 B-a@5", "L@6 D-b@6", "L@4 F-a@4"]);
    let left = ["L@5 A-null@3", "L@9 B-a@5", "L@6 D-b@6", "L@15 C-null@9", "L@4 F-a@4"];
    assert_eq!(trace(&stream_table(LEFT, joined())), left);
}

#[test]
fn s2_4_tables_of_versions_are_joined_by_their_latest_rows() {
    let tables = |join: JoinTables| {
        let mut streams = StreamsBuilder::new();
        let mut table = |topic: &str| {
            let kept = Materialized::named(topic).versioned(Duration::from_secs(300));
            streams.table_with::<String, String>(topic, Consumed::default(), kept)
        };
        let (left, right) = (table("left"), table("right"));
        join(&left, &right).to_stream().to("out");
        trace(&TopologyTestDriver::new(streams.build().unwrap()))
    };
    let inner = tables(|left, right| left.join(right, |l, r| parts(l, Some(r))));
    assert_eq!(inner[inner.len() - 1], "L@15 E-e@15");
    assert_eq!(inner[inner.len() - 2], "R@11 null@11", "nothing else comes of what is out of order");
    let left = tables(|left, right| left.left_join(right, |l, r| parts(l, r)));
    assert_eq!(left[left.len() - 2..], ["L@12 null@12", "L@15 E-e@15"]);
    let outer =
        tables(|left, right| left.outer_join(right, |l, r| parts(l.map_or("null", String::as_str), r)));
    assert_eq!(outer[outer.len() - 2..], ["R@14 null-e@14", "L@15 E-e@15"]);
}

#[test]
fn what_needs_versions_says_so() {
    let build = |join: fn(KStream<String, String>, KTable<String, String>)| {
        let mut streams = StreamsBuilder::new();
        let (left, right) = (streams.stream("left"), streams.table("right"));
        join(left, right);
        streams.build().unwrap_err().to_string()
    };
    let error = build(|left, right| {
        left.join_with(&right, |l, _| l.clone(), Joined::default().grace("waiting", ms(5)));
    });
    assert!(error.starts_with("`left.join` has a grace, so it needs a table that knows"), "{error}");
    let error = build(|left, right| {
        left.group_by_key().count(Materialized::named("counts").versioned(ms(5)));
        drop(right);
    });
    assert!(error.contains("`counts` cannot have `Materialized::versioned`"), "{error}");
    let mut streams = StreamsBuilder::new();
    let right = streams.table_with::<String, i64>("right", Consumed::default(), versioned(ms(10)));
    let left = streams.stream::<String, i64>("left");
    left.join_with(&right, |l, _| *l, Joined::default().grace("waiting", ms(11)));
    assert!(matches!(streams.build(), Err(TopologyError::GraceWithoutVersions { .. })));
    let mut streams = StreamsBuilder::new();
    let right = streams.table_with::<String, i64>("right", Consumed::default(), versioned(ms(10)));
    let left = streams.stream::<String, i64>("left");
    left.join_with(&right, |l, _| *l, Joined::in_place().grace("waiting", ms(5)));
    assert!(matches!(streams.build(), Err(TopologyError::GraceWithoutSerdes { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn versions_are_those_of_a_map_by_time(
        writes in prop::collection::vec((0..3_usize, prop::option::weighted(0.7, 0..9_i64), 0..200_i64), 1..60),
        commit_every in 1..9_usize,
        cached in any::<bool>(),
    ) {
        const HISTORY: i64 = 60;
        let mut streams = StreamsBuilder::new();
        let kept = Materialized::<Option<i64>>::named("rows").versioned(ms(HISTORY as u64));
        streams.stream::<String, Option<i64>>("in").to_table(kept);
        let topology = streams.build().unwrap();
        let mut driver = match cached {
            true => TopologyTestDriver::cached(topology, 1 << 20),
            false => TopologyTestDriver::new(topology),
        };
        let mut model: BTreeMap<(usize, i64), Option<i64>> = BTreeMap::new();
        let mut stream_time = -1;
        for (number, (key, value, at)) in writes.iter().enumerate() {
            driver.input::<String, i64>("in").pipe_nullable(Some(format!("k{key}")), *value).at(*at);
            stream_time = stream_time.max(*at);
            if *at >= stream_time - HISTORY {
                model.insert((*key, *at), *value);
            }
            if number % commit_every == 0 {
                driver.commit();
            }
        }
        driver.commit();
        let store = driver.store::<String, Option<i64>>("rows");
        for key in 0..3 {
            for at in (stream_time - HISTORY).max(0)..=stream_time {
                let wanted = model.range((key, 0)..=(key, at)).next_back().and_then(|(_, value)| *value);
                prop_assert_eq!(store.get_as_of(format!("k{key}"), at).flatten(), wanted, "k{} at {}", key, at);
            }
        }
    }
}
