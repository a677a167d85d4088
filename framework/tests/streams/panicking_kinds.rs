//! An operator of each kind whose closure calls a check that may panic: aggregations, joins and tables.

use std::sync::Arc;
use std::time::Duration;

use klamm::serde::{Bytes, Serde, SerdeError, StringSerde};
use klamm::streams::{
    Consumed, ErrorPolicy, HoppingWindows, JoinWindows, Joined, KStream, KTable, Materialized,
    SessionWindows, SlidingWindows, StreamsBuilder, Windowed,
};

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Panics at what it is to panic at.
pub(crate) type Check = Arc<dyn Fn(&str) + Send + Sync>;

/// Adds an operator to what reads `in`, and `right`.
pub(crate) type Build = fn(&mut StreamsBuilder, ErrorPolicy, Check);

pub(crate) fn input(streams: &mut StreamsBuilder) -> KStream<String, String> {
    streams.stream("in")
}

pub(crate) fn told(table: KTable<String, String>) {
    table.to_stream().to("out");
}

fn told_of_windows(table: KTable<Windowed<String>, String>) {
    table.to_stream_with(|at, _| format!("{}@{}-{}", at.key, at.window.start_ms, at.window.end_ms)).to("out");
}

pub(crate) fn append(check: &Check, value: &str, all: String) -> String {
    check(value);
    all + value + ";"
}

/// With their names and stores, and whether a cache has them run at the commit.
pub(crate) const OPERATORS: [(&str, &[&str], bool, Build); 20] = [
    ("reduce", &["s"], false, |streams, policy, check| {
        let reduced = input(streams).group_by_key().reduce("s", move |all, value| append(&check, value, all));
        told(reduced.on_error(policy));
    }),
    ("aggregate", &["s"], false, |streams, policy, check| {
        let add = move |_: &String, value: &String, all| append(&check, value, all);
        told(input(streams).group_by_key().aggregate("s", String::new, add).on_error(policy));
    }),
    ("expiring", &["s"], false, |streams, policy, check| {
        let add = move |_: &String, value: &String, all| append(&check, value, all);
        let kept = Materialized::named("s").time_to_live(ms(9));
        told(input(streams).group_by_key().aggregate(kept, String::new, add).on_error(policy));
    }),
    ("cogroup", &["s"], false, |streams, policy, check| {
        let add = move |_: &String, value: &String, all| append(&check, value, all);
        told(input(streams).group_by_key().cogroup(add).aggregate("s", String::new).on_error(policy));
    }),
    ("hopping", &["s"], false, |streams, policy, check| {
        let windows = HoppingWindows::of(ms(10), ms(5)).grace(ms(100));
        let windowed = input(streams).group_by_key().windowed_by(windows);
        told_of_windows(windowed.aggregate("s", String::new, second_window(check)).on_error(policy));
    }),
    ("hopping, finally", &["s"], false, |streams, policy, check| {
        let windows = HoppingWindows::of(ms(10), ms(5)).grace(ms(2));
        let windowed = input(streams).group_by_key().windowed_by(windows).emit_on_window_close();
        told_of_windows(windowed.aggregate("s", String::new, second_window(check)).on_error(policy));
    }),
    ("sliding", &["s"], false, |streams, policy, check| {
        let windowed = input(streams).group_by_key().windowed_by(SlidingWindows::of(ms(10)).grace(ms(50)));
        told_of_windows(windowed.aggregate("s", String::new, second_window(check)).on_error(policy));
    }),
    ("sessions", &["s"], false, |streams, policy, check| {
        let windowed = input(streams).group_by_key().windowed_by(SessionWindows::of(ms(10)).grace(ms(50)));
        let merge = |_: &String, one: String, other: String| one + &other;
        let add = move |_: &String, value: &String, all| append(&check, value, all);
        told_of_windows(windowed.aggregate("s", String::new, add, merge).on_error(policy));
    }),
    ("merged sessions", &["s"], false, |streams, policy, check| {
        let windowed = input(streams).group_by_key().windowed_by(SessionWindows::of(ms(10)).grace(ms(50)));
        let add = move |_: &String, value: &String, all: String| {
            // The sessions that it joins are merged by now.
            check(value);
            all + value
        };
        let merge = |_: &String, one: String, other: String| one + &other;
        let reduced = windowed.aggregate("s", String::new, add, merge).on_error(policy);
        told_of_windows(reduced);
    }),
    ("grouped table", &["s"], true, |streams, policy, check| {
        let grouped =
            streams.table::<String, String>("in").group_by(|_, value| ("all".to_owned(), value.clone()));
        let add = move |_: &String, value: &String, all| append(&check, value, all);
        let subtract = |_: &String, value: &String, all: String| all.replace(&format!("{value};"), "");
        told(grouped.aggregate("s", String::new, add, subtract).on_error(policy));
    }),
    ("stream-table join", &["right-table"], false, |streams, policy, check| {
        let table = streams.table::<String, String>("right");
        let joiner = move |value: &String, row: Option<&String>| append(&check, value, format!("{row:?}"));
        input(streams).left_join(&table, joiner).on_error(policy).to("out");
    }),
    ("global join", &[], false, |streams, policy, check| {
        let table = streams.global_table::<String, String>("right");
        let joiner = move |value: &String, row: Option<&String>| append(&check, value, format!("{row:?}"));
        let joined = input(streams).left_join_global(&table, |key, _| key.clone(), joiner);
        joined.on_error(policy).to("out");
    }),
    ("join in time", &["waits"], false, |streams, policy, check| {
        let kept = Materialized::named("versions").versioned(ms(100));
        let table = streams.table_with::<String, String>("right", Consumed::default(), kept);
        let joiner = move |value: &String, row: Option<&String>| append(&check, value, format!("{row:?}"));
        // A record that is met at once, and has no key of its own time before it.
        let joined = Joined::default().grace("waits", Duration::ZERO);
        input(streams).left_join_with(&table, joiner, joined).on_error(policy).to("out");
    }),
    ("join within", &["j-this-join-store", "j-other-join-store"], false, |streams, policy, check| {
        let right = streams.stream::<String, String>("right");
        // The second of those that it meets.
        let joiner = move |value: &String, other: &String| {
            if other == "r2" { append(&check, value, other.clone()) } else { format!("{value}{other}") }
        };
        let joined = input(streams).join_within(&right, "j", JoinWindows::of(ms(100)), joiner);
        joined.on_error(policy).to("out");
    }),
    ("table join", &[], true, |streams, policy, check| {
        let (left, right) = (streams.table::<String, String>("in"), streams.table::<String, String>("right"));
        let joiner = move |value: &String, row: Option<&String>| append(&check, value, format!("{row:?}"));
        told(left.left_join(&right, joiner).on_error(policy));
    }),
    ("foreign key", &["s"], true, |streams, policy, check| {
        let (left, right) = (streams.table::<String, String>("in"), streams.table::<String, String>("right"));
        let of = move |_: &String, value: &String| {
            check(value);
            "k".to_owned()
        };
        told(left.foreign_key_join(&right, "s", of, |one, other| format!("{one}{other}")).on_error(policy));
    }),
    ("foreign joiner", &["s"], true, |streams, policy, check| {
        let (left, right) = (streams.table::<String, String>("in"), streams.table::<String, String>("right"));
        let joiner = move |value: &String, row: &String| append(&check, value, row.clone());
        told(left.foreign_key_join(&right, "s", |_, _| "k".to_owned(), joiner).on_error(policy));
    }),
    ("table filter", &["m"], true, |streams, policy, check| {
        let accepts = move |_: &String, value: &String| {
            check(value);
            true
        };
        told(streams.table::<String, String>("in").filter(accepts).on_error(policy).materialize("m"));
    }),
    ("table values", &["m"], true, |streams, policy, check| {
        let mapper = move |value: &String| append(&check, value, String::new());
        told(streams.table::<String, String>("in").map_values(mapper).on_error(policy).materialize("m"));
    }),
    ("to table", &["m"], false, |streams, policy, check| {
        let kept = Materialized::with("m", Picky(check));
        told(input(streams).to_table(kept).on_error(policy));
    }),
];

/// Panics in the second window of a record, when the first one has it already.
fn second_window(check: Check) -> impl Fn(&String, &String, String) -> String + Send + Sync + 'static {
    move |_, value, all| if all.is_empty() { append(&check, value, all) } else { all + value + ";" }
}

/// Writes strings, and panics at some.
pub(crate) struct Picky(pub(crate) Check);

impl std::fmt::Debug for Picky {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Picky")
    }
}

impl Serde<String> for Picky {
    fn serialize(&self, topic: &str, value: &String) -> Result<Bytes, SerdeError> {
        (self.0)(value);
        StringSerde.serialize(topic, value)
    }

    fn deserialize(&self, topic: &str, bytes: &Bytes) -> Result<String, SerdeError> {
        StringSerde.deserialize(topic, bytes)
    }
}
