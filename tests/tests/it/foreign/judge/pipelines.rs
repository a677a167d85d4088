//! The pipelines, as Klamm's users write them. tests/foreign/java/Judge.java has the same under the same names.

use std::time::Duration;

use klamm::listener::BoxError;
use klamm::streams::{
    BufferLimit, Consumed, HoppingWindows, InRecord, JoinWindows, Joined, KGroupedStream, KStream, KTable,
    Materialized, Processor, ProcessorContext, Punctuation, PunctuationType, SessionWindows, SlidingWindows,
    StoreName, StoreRef, StreamsBuilder, Suppressed, TumblingWindows, Windowed,
};

use super::records::{Shape, Times};

/// A pipeline from `left`, and perhaps `right`, to `out`.
pub(super) struct Pipeline {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) build: fn(&mut StreamsBuilder),
    pub(super) order: Order,
}

/// What order what is told has to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Equal,
    /// What comes of one record has one for each key only: it changes several windows.
    OfEachKey,
    /// None. Kafka Streams tells of some unmatched records several records after their windows have closed.
    Any,
}

const TEN: Duration = Duration::from_secs(10);
const FIVE: Duration = Duration::from_secs(5);
const THREE: Duration = Duration::from_secs(3);

const STREAM: Shape = Shape { left_is_table: false, right_is_table: None, times: Times::Late };
const STREAMS: Shape = Shape { left_is_table: false, right_is_table: Some(false), times: Times::Late };
const TABLE: Shape = Shape { left_is_table: true, right_is_table: None, times: Times::Late };
const TABLES: Shape = Shape { left_is_table: true, right_is_table: Some(true), times: Times::Late };
const LOOK_UP: Shape = Shape { left_is_table: false, right_is_table: Some(true), times: Times::Late };

// What Klamm does differently, on purpose, and Kafka Streams is not asked about:
// - It takes the time of one input, or of a window store, for that of a join or a cogroup: a late record meets what
//   happens to be there. With Klamm it is late.
// - A sliding window that begins after a late record, and holds others, is not made.
const NEVER_LATE: Shape = Shape { times: Times::WithinGrace, ..STREAM };
const NEVER_LATE_STREAMS: Shape = Shape { times: Times::WithinGrace, ..STREAMS };
// - Sessions that were told when they closed are told again as parts of others.
const IN_ORDER: Shape = Shape { times: Times::InOrder, ..STREAM };
// - A row that is joined by a foreign key has the time of the foreign row where that has changed, also an earlier one
//   than its own row; with Klamm the later of both, as in every other join.
const IN_ORDER_TABLES: Shape = Shape { times: Times::InOrder, ..TABLES };

const fn pipeline(name: &'static str, shape: Shape, build: fn(&mut StreamsBuilder)) -> Pipeline {
    Pipeline { name, shape, build, order: Order::Equal }
}

const fn ordered(name: &'static str, shape: Shape, order: Order, build: fn(&mut StreamsBuilder)) -> Pipeline {
    Pipeline { order, ..pipeline(name, shape, build) }
}

pub(super) static ALL: [Pipeline; 35] = [
    pipeline("word-count", STREAM, |streams| {
        let words =
            left(streams).flat_map_values(|line| line.split('-').map(str::to_owned).collect::<Vec<_>>());
        numbers(&words.group_by(|_, word| word.clone()).count("counts").to_stream());
    }),
    pipeline("branches", STREAM, |streams| {
        let mut branches = left(streams).split();
        let short = branches.branch("short", |_, value| value.len() < 4);
        let _b = branches.branch("b", |_, value| value.starts_with('b'));
        let rest = branches.otherwise("rest").map_values(|value| format!("{value}!"));
        short.merge(&rest).filter_not(|key, _| key == "a").to("out");
    }),
    pipeline("reduce", STREAM, |streams| {
        let grouped = left(streams).select_key(|_, value| initial(value)).group_by_key();
        grouped.reduce("reduced", |all, value| all + value).to_stream().to("out");
    }),
    pipeline("table-view", TABLE, |streams| {
        let long = streams.table::<String, String>("left").filter(|_, value| value.len() > 3);
        long.map_values(|value| value.to_uppercase()).to_stream().to("out");
    }),
    pipeline("table-kept", TABLE, |streams| {
        let long = streams.table::<String, String>("left").filter(|_, value| value.len() > 3);
        long.materialize("kept").to_stream().to("out");
    }),
    pipeline("regroup", TABLE, |streams| {
        let rows = streams.table::<String, String>("left");
        let grouped = rows.group_by(|_, value| (initial(value), value.clone()));
        let all = grouped.aggregate(
            "all",
            String::new,
            |_, value, all: String| all + value + ";",
            |_, value, all: String| all.replacen(&format!("{value};"), "", 1),
        );
        all.to_stream().to("out");
    }),
    pipeline("regroup-count", TABLE, |streams| {
        let rows = streams.table::<String, String>("left");
        let counts = rows.group_by(|_, value| (initial(value), value.clone())).count("counts");
        numbers(&counts.to_stream());
    }),
    pipeline("tumbling", STREAM, |streams| {
        let windows = TumblingWindows::of(TEN).grace(THREE);
        numbers(&windowed(&grouped(streams).windowed_by(windows).count("windows")));
    }),
    pipeline("tumbling-close", STREAM, |streams| {
        let windows = TumblingWindows::of(TEN).grace(THREE);
        numbers(&windowed(&grouped(streams).windowed_by(windows).emit_on_window_close().count("windows")));
    }),
    pipeline("hopping", STREAM, |streams| {
        let windows = HoppingWindows::of(TEN, THREE).grace(FIVE);
        let joined = grouped(streams).windowed_by(windows).reduce("windows", |all, value| all + value);
        windowed(&joined).to("out");
    }),
    pipeline("hopping-close", STREAM, |streams| {
        let windows = grouped(streams).windowed_by(HoppingWindows::of(TEN, THREE).grace(FIVE));
        windowed(&windows.emit_on_window_close().reduce("windows", |all, value| all + value)).to("out");
    }),
    ordered("sliding", NEVER_LATE, Order::OfEachKey, |streams| {
        let windows = grouped(streams).windowed_by(SlidingWindows::of(FIVE).grace(THREE));
        windowed(&windows.reduce("windows", |all, value| all + value)).to("out");
    }),
    ordered("sliding-close", NEVER_LATE, Order::OfEachKey, |streams| {
        let windows = grouped(streams).windowed_by(SlidingWindows::of(FIVE).grace(THREE));
        numbers(&windowed(&windows.emit_on_window_close().count("windows")));
    }),
    pipeline("sessions", STREAM, |streams| {
        let windows = grouped(streams).windowed_by(SessionWindows::of(FIVE).grace(THREE));
        let joined = windows.aggregate(
            "sessions",
            String::new,
            |_, value, all| all + value,
            |_, one, other| one + &other,
        );
        windowed(&joined).to("out");
    }),
    pipeline("sessions-close", IN_ORDER, |streams| {
        let windows =
            grouped(streams).windowed_by(SessionWindows::of(FIVE).grace(THREE)).emit_on_window_close();
        let joined = windows.aggregate(
            "sessions",
            String::new,
            |_, value, all| all + value,
            |_, one, other| one + &other,
        );
        windowed(&joined).to("out");
    }),
    pipeline("stream-join", NEVER_LATE_STREAMS, |streams| {
        let windows = JoinWindows::of(FIVE).grace(THREE);
        left(streams).join_within(&right(streams), "join", windows, |one, other| both(one, other)).to("out");
    }),
    pipeline("stream-join-after", NEVER_LATE_STREAMS, |streams| {
        let windows = JoinWindows::of(Duration::ZERO).after(FIVE).grace(THREE);
        left(streams).join_within(&right(streams), "join", windows, |one, other| both(one, other)).to("out");
    }),
    ordered("stream-left-join", NEVER_LATE_STREAMS, Order::Any, |streams| {
        let windows = JoinWindows::of(FIVE).grace(THREE);
        left(streams)
            .left_join_within(&right(streams), "join", windows, |one, other| maybe(one, other))
            .to("out");
    }),
    ordered("stream-outer-join", NEVER_LATE_STREAMS, Order::Any, |streams| {
        let windows = JoinWindows::of(FIVE).grace(THREE);
        left(streams).outer_join_within(&right(streams), "join", windows, either).to("out");
    }),
    pipeline("lookup", LOOK_UP, |streams| {
        let rows = streams.table::<String, String>("right");
        left(streams).join(&rows, |one, other| both(one, other)).to("out");
    }),
    pipeline("left-lookup", LOOK_UP, |streams| {
        let rows = streams.table::<String, String>("right");
        left(streams).left_join(&rows, |one, other| maybe(one, other)).to("out");
    }),
    pipeline("global-lookup", LOOK_UP, |streams| {
        let rows = streams.global_table::<String, String>("right");
        let key = |key: &String, _: &String| Some(key.clone());
        left(streams).left_join_global(&rows, key, |one, other| maybe(one, other)).to("out");
    }),
    pipeline("table-join", TABLES, |streams| {
        let (one, other) = tables(streams);
        one.join(&other, |one, other| both(one, other)).to_stream().to("out");
    }),
    pipeline("table-left-join", TABLES, |streams| {
        let (one, other) = tables(streams);
        one.left_join(&other, |one, other| maybe(one, other)).to_stream().to("out");
    }),
    pipeline("table-outer-join", TABLES, |streams| {
        let (one, other) = tables(streams);
        one.outer_join(&other, either).to_stream().to("out");
    }),
    pipeline("foreign-key-join", IN_ORDER_TABLES, |streams| {
        let (one, other) = tables(streams);
        let joined =
            one.foreign_key_join(&other, "joined", |_, row| initial(row), |one, other| both(one, other));
        joined.to_stream().to("out");
    }),
    pipeline("foreign-key-left-join", IN_ORDER_TABLES, |streams| {
        let (one, other) = tables(streams);
        let joined = one.left_foreign_key_join(
            &other,
            "joined",
            |_, row| initial(row),
            |one, other| maybe(one, other),
        );
        joined.to_stream().to("out");
    }),
    pipeline("cogroup", STREAMS, |streams| {
        let others = right(streams).group_by_key();
        let all = grouped(streams).cogroup(|_, value, all: String| all + "l" + value);
        let all = all.cogroup(&others, |_, value, all: String| all + "r" + value);
        all.aggregate("all", String::new).to_stream().to("out");
    }),
    pipeline("cogroup-windows", NEVER_LATE_STREAMS, |streams| {
        let others = right(streams).group_by_key();
        let all = grouped(streams).cogroup(|_, value, all: String| all + "l" + value);
        let all = all.cogroup(&others, |_, value, all: String| all + "r" + value);
        let windows = TumblingWindows::of(TEN).grace(THREE);
        windowed(&all.windowed_by(windows).aggregate("all", String::new)).to("out");
    }),
    pipeline("suppress-close", STREAM, |streams| {
        let windows = grouped(streams).windowed_by(TumblingWindows::of(TEN).grace(THREE));
        let told = windows.count("windows").suppress(Suppressed::until_window_closes("waiting"));
        numbers(&windowed(&told));
    }),
    pipeline("suppress-time", TABLE, |streams| {
        let wait = Suppressed::until_time_limit("waiting", FIVE);
        let rows = streams.table::<String, String>("left");
        rows.suppress(wait.emit_early_when_full(BufferLimit::records(3))).to_stream().to("out");
    }),
    pipeline("versioned-lookup", LOOK_UP, |streams| {
        let rows = versions(streams, "right");
        left(streams).left_join(&rows, |one, other| maybe(one, other)).to("out");
    }),
    // Records of the same time that have waited: with Kafka Streams in the order of their keys, with Klamm as they
    // came.
    ordered("versioned-lookup-grace", LOOK_UP, Order::OfEachKey, |streams| {
        let rows = versions(streams, "right");
        let joined = Joined::default().grace("waiting", THREE);
        left(streams).left_join_with(&rows, |one, other| maybe(one, other), joined).to("out");
    }),
    pipeline("versioned-table", TABLE, |streams| {
        versions(streams, "left").to_stream().to("out");
    }),
    pipeline("punctuate", STREAM, |streams| {
        let latest: StoreRef<String, String> = streams.key_value_store("latest");
        left(streams).process(move || Latest { rows: latest.clone() }).to("out");
    }),
];

/// Remembers the latest value of each key, and tells all of them every ten seconds of the records' time.
struct Latest {
    rows: StoreRef<String, String>,
}

impl Processor<String, String> for Latest {
    type Key = String;
    type Value = String;

    fn stores(&self) -> Vec<StoreName> {
        vec![self.rows.name()]
    }

    fn init(&mut self, context: &mut ProcessorContext<'_, String, String>) -> Result<(), BoxError> {
        context.schedule(TEN, PunctuationType::StreamTime);
        Ok(())
    }

    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, String>,
        record: InRecord<'_, String, String>,
    ) -> Result<(), BoxError> {
        context.store(&self.rows)?.put(record.key, record.value)?;
        Ok(())
    }

    fn punctuate(
        &mut self,
        context: &mut ProcessorContext<'_, String, String>,
        punctuation: Punctuation,
    ) -> Result<(), BoxError> {
        let all: Vec<(String, String)> = context.store(&self.rows)?.all().collect::<Result<_, _>>()?;
        for (key, value) in &all {
            context.forward_at(key, value, punctuation.timestamp_ms)?;
        }
        Ok(())
    }
}

fn left(streams: &mut StreamsBuilder) -> KStream<String, String> {
    streams.stream("left")
}

fn right(streams: &mut StreamsBuilder) -> KStream<String, String> {
    streams.stream("right")
}

fn grouped(streams: &mut StreamsBuilder) -> KGroupedStream<String, String> {
    left(streams).group_by_key()
}

fn tables(streams: &mut StreamsBuilder) -> (KTable<String, String>, KTable<String, String>) {
    (streams.table("left"), streams.table("right"))
}

fn versions(streams: &mut StreamsBuilder, topic: &str) -> KTable<String, String> {
    let kept = Materialized::named("versions").versioned(Duration::from_secs(3_600));
    streams.table_with(topic, Consumed::default(), kept)
}

fn windowed<V: 'static>(table: &KTable<Windowed<String>, V>) -> KStream<String, Option<V>> {
    table.to_stream_with(|windowed, _| {
        format!("{}@{}-{}", windowed.key, windowed.window.start_ms, windowed.window.end_ms)
    })
}

fn numbers(stream: &KStream<String, Option<i64>>) {
    stream.map_values(|number| number.map(|number| number.to_string())).to("out");
}

fn initial(value: &str) -> String {
    value.chars().take(1).collect()
}

fn both(one: &str, other: &str) -> String {
    format!("{one}+{other}")
}

fn maybe(one: &str, other: Option<&String>) -> String {
    format!("{one}+{}", other.map_or("null", String::as_str))
}

fn either(one: Option<&String>, other: Option<&String>) -> String {
    maybe(one.map_or("null", String::as_str), other)
}
