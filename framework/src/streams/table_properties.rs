//! Random topologies of table operators over random inputs: every table must be what the same operators make of the
//! last values of its sources, with a cache and without, and after a restore.
#![allow(clippy::unwrap_used)] // A failing step is a failing test.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::table_rig::TableRig;
use super::{Joined, KTable, StreamsBuilder, Topology, TopologyError};

const SOURCES: usize = 3;
const KEYS: usize = 4;
const VALUES: i64 = 11;

/// What a table is made of; numbers choose among the tables so far.
#[derive(Debug, Clone)]
enum Operator {
    Filter(usize, i64),
    Map(usize, i64),
    Materialize(usize),
    Join(usize, usize, bool),
    LeftJoin(usize, usize, bool),
    OuterJoin(usize, usize, bool),
    Group(usize, i64),
    Reduce(usize, i64),
    ForeignKey(usize, usize, bool),
    ToStreamAndBack(usize),
}

#[derive(Debug, Clone)]
enum Step {
    Write { source: usize, key: usize, value: Option<i64>, timestamp_ms: i64 },
    Commit,
    Restore,
}

type Rows = BTreeMap<String, i64>;
type Table = KTable<String, i64>;

fn operators() -> impl Strategy<Value = Vec<Operator>> {
    let one = 0..100_usize;
    let operator = prop_oneof![
        (one.clone(), 0..3_i64).prop_map(|(table, rest)| Operator::Filter(table, rest)),
        (one.clone(), 0..5_i64).prop_map(|(table, plus)| Operator::Map(table, plus)),
        one.clone().prop_map(Operator::Materialize),
        (one.clone(), one.clone(), any::<bool>()).prop_map(|(l, r, kept)| Operator::Join(l, r, kept)),
        (one.clone(), one.clone(), any::<bool>()).prop_map(|(l, r, kept)| Operator::LeftJoin(l, r, kept)),
        (one.clone(), one.clone(), any::<bool>()).prop_map(|(l, r, kept)| Operator::OuterJoin(l, r, kept)),
        (one.clone(), 1..4_i64).prop_map(|(table, groups)| Operator::Group(table, groups)),
        (one.clone(), 1..4_i64).prop_map(|(table, groups)| Operator::Reduce(table, groups)),
        (one.clone(), one.clone(), any::<bool>()).prop_map(|(l, r, left)| Operator::ForeignKey(l, r, left)),
        one.prop_map(Operator::ToStreamAndBack),
    ];
    prop::collection::vec(operator, 1..7)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let write = (0..SOURCES, 0..KEYS, prop::option::weighted(0.7, 0..VALUES), 0..50_i64)
        .prop_map(|(source, key, value, timestamp_ms)| Step::Write { source, key, value, timestamp_ms });
    prop::collection::vec(prop_oneof![12 => write, 3 => Just(Step::Commit), 1 => Just(Step::Restore)], 1..40)
}

fn joined(left: Option<&i64>, right: Option<&i64>) -> i64 {
    (left.map_or(3, |l| l * 2) + right.map_or(5, |r| r * 3)) % VALUES
}

fn group(row: i64, groups: i64) -> String {
    key((row % groups) as usize)
}

fn key(number: usize) -> String {
    format!("k{number}")
}

/// A row names the right row of this key, or none.
fn foreign_key(row: i64) -> Option<String> {
    let number = row as usize % (KEYS + 1);
    (number < KEYS).then(|| key(number))
}

/// Not 0 for any number of rows but none.
fn entered(aggregate: i64, row: i64) -> i64 {
    aggregate + 1_000 + row
}

/// The topology, and each table's `out` and `probe` topic. Joins that cannot say what their rows were are kept if
/// `keep_all`.
fn build(operators: &[Operator], keep_all: bool) -> Result<Topology, TopologyError> {
    let mut streams = StreamsBuilder::new();
    let mut tables: Vec<Table> =
        (0..SOURCES).map(|source| streams.table(format!("source{source}"))).collect();
    for (index, operator) in operators.iter().enumerate() {
        let at = |number: usize| &tables[number % tables.len()];
        let name = format!("kept{index}");
        let keep =
            |table: Table, keep: bool| if keep || keep_all { table.materialize(name.clone()) } else { table };
        let table = match *operator {
            Operator::Filter(table, rest) => at(table).filter(move |_, row| row % 3 != rest),
            Operator::Map(table, plus) => at(table).map_values(move |row| (row * 2 + plus) % VALUES),
            Operator::Materialize(table) => at(table).materialize(name),
            Operator::Join(l, r, kept) => keep(at(l).join(at(r), |l, r| joined(Some(l), Some(r))), kept),
            Operator::LeftJoin(l, r, kept) => keep(at(l).left_join(at(r), |l, r| joined(Some(l), r)), kept),
            Operator::OuterJoin(l, r, kept) => keep(at(l).outer_join(at(r), joined), kept),
            Operator::Group(table, groups) => at(table)
                .group_by(move |_, row| (group(*row, groups), *row))
                .aggregate(name, || 0, |_, row, sum| entered(sum, *row), |_, row, sum| sum - entered(0, *row))
                .filter(|_, sum| *sum != 0)
                .map_values(|sum| sum % VALUES),
            Operator::Reduce(table, groups) => at(table)
                .map_values(|row| entered(0, *row))
                .group_by(move |key, row| (group(row + key.len() as i64, groups), *row))
                .reduce(name, |sum, row| sum + row, |sum, row| Some(sum - row).filter(|sum| *sum != 0))
                .map_values(|sum| sum % VALUES),
            Operator::ForeignKey(l, r, false) => at(l).foreign_key_join(
                at(r),
                name,
                |_, row| foreign_key(*row),
                |l, r| joined(Some(l), Some(r)),
            ),
            Operator::ForeignKey(l, r, true) => at(l).left_foreign_key_join(
                at(r),
                name,
                |_, row| foreign_key(*row),
                |l, r| joined(Some(l), r),
            ),
            Operator::ToStreamAndBack(table) => {
                let back = at(table).to_stream().map_values(|row| row.unwrap_or(-1)).to_table(name);
                back.filter(|_, row| *row >= 0)
            }
        };
        tables.push(table);
    }
    for (index, table) in tables.iter().enumerate() {
        table.to_stream().to(format!("out{index}"));
        let probe = streams.stream::<String, i64>(format!("probe{index}"));
        let look = |_: &i64, row: Option<&i64>| row.copied();
        probe.left_join_with(table, look, Joined::in_place()).to(format!("probed{index}"));
    }
    streams.build()
}

/// Every table, made from scratch.
fn model(operators: &[Operator], sources: &[Rows]) -> Vec<Rows> {
    let mut tables: Vec<Rows> = sources.to_vec();
    for operator in operators {
        let at = |number: usize| tables[number % tables.len()].clone();
        let join = |l: usize, r: usize, keeps_left: bool, keeps_right: bool| {
            let (left, right) = (at(l), at(r));
            let keys = left.keys().chain(right.keys());
            let kept = keys.filter(|key| {
                (keeps_left || right.contains_key(*key)) && (keeps_right || left.contains_key(*key))
            });
            kept.map(|key| (key.clone(), joined(left.get(key), right.get(key)))).collect()
        };
        let aggregate = |table: usize, group: &dyn Fn(&str, i64) -> String| -> Rows {
            let mut sums = Rows::new();
            for (key, row) in at(table) {
                let sum = sums.entry(group(&key, row)).or_insert(0);
                *sum = entered(*sum, row);
            }
            sums.into_iter().map(|(key, sum)| (key, sum % VALUES)).collect()
        };
        let table: Rows = match *operator {
            Operator::Filter(table, rest) => {
                at(table).into_iter().filter(|(_, row)| row % 3 != rest).collect()
            }
            Operator::Map(table, plus) => {
                at(table).into_iter().map(|(key, row)| (key, (row * 2 + plus) % VALUES)).collect()
            }
            Operator::Materialize(table) | Operator::ToStreamAndBack(table) => at(table),
            Operator::Join(l, r, _) => join(l, r, false, false),
            Operator::LeftJoin(l, r, _) => join(l, r, true, false),
            Operator::OuterJoin(l, r, _) => join(l, r, true, true),
            Operator::Group(table, groups) => aggregate(table, &|_, row| group(row, groups)),
            Operator::Reduce(table, groups) => {
                aggregate(table, &|key, row| group(entered(0, row) + key.len() as i64, groups))
            }
            Operator::ForeignKey(l, r, keeps_left) => {
                let right = at(r);
                let result = |(key, row): (String, i64)| {
                    let found = foreign_key(row).and_then(|key| right.get(&key));
                    (keeps_left || found.is_some()).then(|| (key, joined(Some(&row), found)))
                };
                at(l).into_iter().filter_map(result).collect()
            }
        };
        tables.push(table);
    }
    tables
}

fn rows(written: BTreeMap<Bytes, Bytes>) -> Rows {
    let read = |(key, value): (Bytes, Bytes)| {
        let row = i64::from_be_bytes((&*value).try_into().unwrap());
        (String::from_utf8(key.to_vec()).unwrap(), row)
    };
    written.into_iter().map(read).collect()
}

fn number(value: i64) -> Bytes {
    Bytes::copy_from_slice(&value.to_be_bytes())
}

fn check(rig: &mut TableRig, operators: &[Operator], sources: &[Rows]) -> Result<(), TestCaseError> {
    for (index, expected) in model(operators, sources).into_iter().enumerate() {
        let found = rows(rig.latest(&format!("out{index}")));
        prop_assert_eq!(&found, &expected, "table {} as its stream of changes tells", index);
        for probe in 0..KEYS {
            rig.write(&format!("probe{index}"), &key(probe), Some(number(0)), 0);
        }
        rig.commit();
        let found = rows(rig.latest(&format!("probed{index}")));
        prop_assert_eq!(&found, &expected, "table {} as a lookup sees it", index);
    }
    Ok(())
}

fn run(operators: &[Operator], steps: &[Step], cache_bytes: usize) -> Result<(), TestCaseError> {
    let topology = match build(operators, false) {
        Err(TopologyError::OldValuesUnknown { .. }) => build(operators, true),
        other => other,
    };
    let mut rig = TableRig::new(topology.unwrap(), cache_bytes);
    let mut sources = vec![Rows::new(); SOURCES];
    for step in steps {
        match *step {
            Step::Write { source, key: number_of_key, value, timestamp_ms } => {
                let key = key(number_of_key);
                rig.write(&format!("source{source}"), &key, value.map(number), timestamp_ms);
                match value {
                    Some(value) => sources[source].insert(key, value),
                    None => sources[source].remove(&key),
                };
            }
            Step::Commit => {
                rig.commit();
                check(&mut rig, operators, &sources)?;
            }
            Step::Restore => {
                rig.commit();
                rig.restore();
            }
        }
    }
    rig.commit();
    check(&mut rig, operators, &sources)
}

/// Each change of a row outdates the answers to those before it, so one that takes a result away must be asked for until
/// it is gone. Kafka asks once.
#[test]
fn s1_6_a_row_that_changes_before_the_answer_comes_keeps_no_result() {
    let write = |source, number, value| Step::Write { source, key: number, value, timestamp_ms: 0 };
    let joined = [write(0, 0, Some(0)), write(0, 1, Some(5)), Step::Commit];
    // Key 5 names row 0, 4 names none, 6 names row 1, which is not there.
    for then in
        [&[Some(4), None][..], &[Some(4), Some(9)], &[None, Some(4)], &[Some(6), Some(6)], &[None, Some(6)]]
    {
        let changes = then.iter().map(|value| write(0, 1, *value));
        let steps: Vec<_> = joined.iter().cloned().chain(changes).collect();
        run(&[Operator::ForeignKey(0, 0, false)], &steps, 0).unwrap();
        let other = |step: &Step| match step.clone() {
            Step::Write { key: 0, value, .. } => write(1, 0, value),
            step => step,
        };
        let steps: Vec<_> = steps.iter().map(other).collect();
        run(&[Operator::ForeignKey(0, 1, false)], &steps, 0).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn tables_are_what_their_operators_make_of_the_sources(operators in operators(), steps in steps()) {
        run(&operators, &steps, 0)?;
    }

    #[test]
    fn tables_with_a_cache_are_what_their_operators_make_of_the_sources(
        operators in operators(), steps in steps(), cache_bytes in prop_oneof![Just(1_usize), Just(1 << 20)],
    ) {
        run(&operators, &steps, cache_bytes)?;
    }
}
