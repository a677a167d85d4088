//! One answer out of those of several partitions. Pure.

use std::cmp::Ordering;

use bytes::Bytes;

use super::raw::{RawPage, RawRow};

/// A row, and the partition it is of.
pub(crate) type PartRow = (i32, RawRow);

/// How far an answer has come in all its partitions: up to this place, and where partitions have the same place, up to
/// this partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) place: Bytes,
    pub(crate) partition: i32,
}

impl Cursor {
    /// Where a partition goes on: behind the place, or (`true`) with it.
    pub(crate) fn of_partition(&self, partition: i32) -> (Bytes, bool) {
        (self.place.clone(), partition > self.partition)
    }

    fn of(row: &PartRow) -> Self {
        Self { place: row.1.place.clone(), partition: row.0 }
    }
}

/// What some partitions answered: rows in order, and how far they came if there is more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) rows: Vec<PartRow>,
    pub(crate) next: Option<Cursor>,
}

impl Found {
    /// What one partition answered.
    pub(crate) fn of(partition: i32, page: RawPage) -> Self {
        let rows = page.rows.into_iter().map(|row| (partition, row)).collect();
        Self { rows, next: page.next.map(|place| Cursor { place, partition }) }
    }
}

/// How long an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) rows: usize,
    /// It ends with the row that fills this.
    pub(crate) bytes: usize,
}

/// The rows of all, in order, as far as every one of them has come, and as there is room for.
pub(crate) fn merge(parts: impl IntoIterator<Item = Found>, room: Room, reverse: bool) -> Found {
    let (mut rows, mut frontier): (Vec<PartRow>, Option<Cursor>) = (Vec::new(), None);
    for part in parts {
        rows.extend(part.rows);
        let cursors = frontier.into_iter().chain(part.next);
        frontier = cursors.min_by(|a, b| order(a, b, reverse));
    }
    rows.sort_by(|a, b| order(&Cursor::of(a), &Cursor::of(b), reverse));
    if let Some(frontier) = &frontier {
        // What lies behind is asked again: somebody may have rows in between.
        let within = |row: &PartRow| order(&Cursor::of(row), frontier, reverse).is_le();
        rows.truncate(rows.partition_point(within));
    }
    let (mut fit, mut bytes) = (0, 0);
    while fit < rows.len() && fit < room.rows.max(1) && (fit == 0 || bytes < room.bytes) {
        bytes += rows[fit].1.bytes();
        fit += 1;
    }
    let is_cut = fit < rows.len();
    rows.truncate(fit);
    let next = if is_cut { rows.last().map(Cursor::of) } else { frontier };
    Found { rows, next }
}

fn order(a: &Cursor, b: &Cursor, reverse: bool) -> Ordering {
    let places = if reverse { b.place.cmp(&a.place) } else { a.place.cmp(&b.place) };
    places.then(a.partition.cmp(&b.partition))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(partition: i32, place: u8) -> PartRow {
        let (place, empty) = (Bytes::copy_from_slice(&[place]), Bytes::new());
        let row = RawRow { place, key: empty.clone(), value: empty, timestamp_ms: 0, until_ms: None };
        (partition, row)
    }

    /// What a partition gives of its rows from a cursor on, at most so many of them.
    fn page(partition: i32, places: &[u8], after: Option<&Cursor>, limit: usize, reverse: bool) -> Found {
        let mut places = places.to_vec();
        places.sort_unstable();
        if reverse {
            places.reverse();
        }
        let after = after.map(|cursor| cursor.of_partition(partition));
        let mut rows: Vec<PartRow> = places.iter().map(|place| row(partition, *place)).collect();
        rows.retain(|(_, row)| {
            after.as_ref().is_none_or(|(place, with_it)| match reverse {
                false => row.place > *place || *with_it && row.place == *place,
                true => row.place < *place || *with_it && row.place == *place,
            })
        });
        let is_cut = rows.len() > limit;
        rows.truncate(limit);
        let next = if is_cut { rows.last().map(Cursor::of) } else { None };
        Found { rows, next }
    }

    proptest! {
        /// Page by page, over partitions that give different numbers of rows at a time, every row comes once and in
        /// order, also those that lie at the same place in several partitions.
        #[test]
        fn pages_of_several_partitions_are_the_whole(
            partitions in prop::collection::vec(prop::collection::btree_set(any::<u8>(), 0..30), 1..5),
            limits in prop::collection::vec(1..7_usize, 5),
            rows_max in 1..9_usize,
            bytes in 1..9_usize,
            reverse: bool,
            by_two: bool,
        ) {
            let (mut found, mut after): (Vec<PartRow>, Option<Cursor>) = (Vec::new(), None);
            let room = Room { rows: rows_max, bytes };
            for _ in 0..1_000 {
                let mut pages: Vec<Found> = partitions.iter().zip(&limits).zip(0..).map(|((places, limit), at)| {
                    let places: Vec<u8> = places.iter().copied().collect();
                    page(at, &places, after.as_ref(), *limit, reverse)
                }).collect();
                if by_two {
                    // As they arrive.
                    while pages.len() > 1 {
                        let (one, two) = (pages.pop().unwrap(), pages.pop().unwrap());
                        pages.push(merge([one, two], room, reverse));
                    }
                }
                let merged = merge(pages, room, reverse);
                prop_assert!(merged.rows.len() <= rows_max && merged.rows.len() <= bytes);
                found.extend(merged.rows);
                after = merged.next;
                if after.is_none() {
                    break;
                }
            }
            let all = partitions.iter().zip(0..);
            let mut all: Vec<PartRow> =
                all.flat_map(|(places, at)| places.iter().map(move |place| row(at, *place))).collect();
            all.sort_by(|a, b| order(&Cursor::of(a), &Cursor::of(b), reverse));
            prop_assert_eq!(found, all);
        }
    }

    #[test]
    fn what_is_behind_the_slowest_is_asked_again() {
        let slow =
            Found { rows: vec![], next: Some(Cursor { place: Bytes::from_static(&[3]), partition: 0 }) };
        let fast = Found { rows: vec![row(1, 2), row(1, 3), row(1, 4)], next: None };
        let merged = merge([slow, fast], Room { rows: 10, bytes: 100 }, false);
        assert_eq!(merged.rows, [row(1, 2)]);
        assert_eq!(merged.next, Some(Cursor { place: Bytes::from_static(&[3]), partition: 0 }));
    }
}
