//! Queries as bytes, answered from one partition of a store, a page at a time. What is typed becomes this, and what
//! other instances ask is this. It looks at a bounded number of rows for a page, whatever is asked.

use std::sync::Arc;

use bytes::Bytes;
use klamm_client::producer::partition_for_key;

use crate::store::{
    KeyRange, KeyValueStore, Stamped, StateStore, StoreError, VersionedLayout, VersionedStore, WindowLayout,
    WindowStore,
};
use crate::streams::node::StoreLayout;

/// How many entries are taken from the engine at a time.
const CHUNK_ENTRIES: usize = 256;

/// How many entries are looked at for one page; those that are none of the answer's count, too.
const EXAMINED_MAX: usize = 100_000;

/// What is asked of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RawQuery {
    /// One row, by the key that its changelog has.
    Key { key: Bytes },
    /// One row of each of these, in their order.
    Keys { keys: Arc<[AskedKey]> },
    /// What a key was.
    AsOf { key: Bytes, at_ms: i64 },
    /// All that a key was in this time, both ends included, the latest first.
    Versions { key: Bytes, from_ms: i64, to_ms: i64 },
    /// The rows whose keys' bytes lie in this range, `to` excluded; only those that have this value, if there is one.
    Rows { from: Bytes, to: Option<Bytes>, value: Option<Bytes> },
    /// The windows that start in this time, both ends included, or the sessions that overlap it; of one key or of all.
    Windows { key: Option<Bytes>, from_ms: i64, to_ms: i64 },
}

/// One of many keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AskedKey {
    /// Where its row stands among those of the others.
    pub(crate) at: u32,
    /// As the changelog has it.
    pub(crate) key: Bytes,
    /// Where it is looked for; `None`: in every partition that is asked.
    pub(crate) partition: Option<i32>,
}

impl AskedKey {
    fn place(&self) -> Bytes {
        Bytes::copy_from_slice(&self.at.to_be_bytes())
    }

    /// Which of the keys a row is of.
    pub(crate) fn at_place(place: &[u8]) -> Option<usize> {
        usize::try_from(u32::from_be_bytes(place.try_into().ok()?)).ok()
    }
}

impl RawQuery {
    /// The bytes of the one key that it is about: those that choose its partition, unless a partitioner does otherwise.
    pub(crate) fn one_key(&self, layout: StoreLayout) -> Option<Bytes> {
        match (self, layout) {
            (Self::Key { key }, StoreLayout::Window(layout)) => layout.key_of(key),
            (Self::Key { key } | Self::AsOf { key, .. } | Self::Versions { key, .. }, _) => Some(key.clone()),
            (Self::Windows { key, .. }, _) => key.clone(),
            (Self::Rows { .. } | Self::Keys { .. }, _) => None,
        }
    }

    /// What of it these partitions are asked.
    pub(crate) fn of_partitions(&self, partitions: &[i32]) -> Self {
        let Self::Keys { keys } = self else { return self.clone() };
        let is_of = |key: &&AskedKey| key.partition.is_none_or(|partition| partitions.contains(&partition));
        Self::Keys { keys: keys.iter().filter(is_of).cloned().collect() }
    }

    /// The same, with a partition for every key: that which its bytes hash to, unless it is known.
    pub(crate) fn hashed(&self, layout: StoreLayout, count: i32) -> Self {
        let Self::Keys { keys } = self else { return self.clone() };
        let placed = |asked: &AskedKey| {
            let one = Self::Key { key: asked.key.clone() }.one_key(layout).unwrap_or_default();
            let partition = asked.partition.unwrap_or_else(|| partition_for_key(&one, count));
            AskedKey { partition: Some(partition), ..asked.clone() }
        };
        Self::Keys { keys: keys.iter().map(placed).collect() }
    }

    /// How many bytes of keys and values it names.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Key { key } | Self::AsOf { key, .. } | Self::Versions { key, .. } => key.len(),
            Self::Keys { keys } => keys.iter().map(|asked| asked.key.len()).sum(),
            Self::Rows { from, to, value } => {
                from.len() + to.as_ref().map_or(0, Bytes::len) + value.as_ref().map_or(0, Bytes::len)
            }
            Self::Windows { key, .. } => key.as_ref().map_or(0, Bytes::len),
        }
    }
}

/// Which part of an answer is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) reverse: bool,
    pub(crate) rows_max: usize,
    /// Of keys and values. A single row may be longer.
    pub(crate) bytes_max: usize,
    /// Goes on behind this place; `true`: with it.
    pub(crate) after: Option<(Bytes, bool)>,
}

/// A row of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawRow {
    /// Where it lies in the order of the store.
    pub(crate) place: Bytes,
    /// As the changelog has it.
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) timestamp_ms: i64,
    /// Until when it was so, of what a key was.
    pub(crate) until_ms: Option<i64>,
}

impl RawRow {
    pub(crate) fn bytes(&self) -> usize {
        self.place.len() + self.key.len() + self.value.len()
    }
}

/// A part of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RawPage {
    pub(crate) rows: Vec<RawRow>,
    /// Behind which place it goes on, if it does.
    pub(crate) next: Option<Bytes>,
}

/// Whether a store of this layout can be asked this; otherwise why not.
pub(crate) fn check(layout: StoreLayout, query: &RawQuery, reverse: bool) -> Result<(), &'static str> {
    match (layout, query) {
        (StoreLayout::KeyValue | StoreLayout::Versioned(_), RawQuery::Windows { .. }) => {
            Err("it holds no windows: ask for a key, or a range of keys")
        }
        (
            StoreLayout::KeyValue | StoreLayout::Window(_),
            RawQuery::AsOf { .. } | RawQuery::Versions { .. },
        ) => Err("it keeps no versions: make its table with `Materialized::versioned`"),
        (StoreLayout::Window(_), RawQuery::Rows { .. }) => {
            Err("its rows lie by time: ask for windows, of one key or of all")
        }
        (_, RawQuery::Versions { .. }) if reverse => Err("versions come with the latest first, and only so"),
        (_, RawQuery::Keys { .. }) if reverse => Err("rows of keys come in the order of these, and only so"),
        _ => Ok(()),
    }
}

/// Reads a page.
pub(crate) fn read(
    engine: &Arc<dyn StateStore>,
    layout: StoreLayout,
    query: &RawQuery,
    page: &Page,
) -> Result<RawPage, StoreError> {
    match (layout, query) {
        (_, RawQuery::Key { key }) => one(key, page, get(engine, layout, key)?),
        (_, RawQuery::Keys { keys }) => Walk::new(engine, page).keys(layout, keys),
        (StoreLayout::Versioned(layout), RawQuery::AsOf { key, at_ms }) => {
            one(key, page, VersionedStore::new(Arc::clone(engine), layout).get_as_of(key, *at_ms)?)
        }
        (StoreLayout::Versioned(layout), RawQuery::Versions { key, from_ms, to_ms }) => {
            Walk::new(engine, page).versions(layout, key, *from_ms, *to_ms)
        }
        (StoreLayout::Versioned(_), RawQuery::Rows { from, to, value }) => {
            Walk::of_value(engine, page, value.as_ref()).latest(from, to.as_deref())
        }
        (StoreLayout::KeyValue, RawQuery::Rows { from, to, value }) => {
            let mut walk = Walk::of_value(engine, page, value.as_ref());
            walk.range(from, to.as_deref(), |key, value| Ok(Some(row(key, key.clone(), value)?)))?;
            Ok(walk.found)
        }
        (StoreLayout::Window(layout), RawQuery::Windows { key, from_ms, to_ms }) => {
            Walk::new(engine, page).windows(layout, key.as_deref(), *from_ms, *to_ms)
        }
        // Refused before, by `check`.
        _ => Ok(RawPage::default()),
    }
}

fn get(
    engine: &Arc<dyn StateStore>,
    layout: StoreLayout,
    key: &Bytes,
) -> Result<Option<Stamped>, StoreError> {
    let engine = Arc::clone(engine);
    match layout {
        StoreLayout::KeyValue => KeyValueStore::new(engine).get(key),
        StoreLayout::Window(layout) => WindowStore::new(engine, layout).row(key),
        StoreLayout::Versioned(layout) => VersionedStore::new(engine, layout).get(key),
    }
}

fn one(key: &Bytes, page: &Page, found: Option<Stamped>) -> Result<RawPage, StoreError> {
    // Who goes on behind a single row finds nothing more.
    let found = found.filter(|_| page.after.as_ref().is_none_or(|(_, with_it)| *with_it));
    let row = found.map(|found| stamped(key, key.clone(), found));
    Ok(RawPage { rows: row.into_iter().collect(), next: None })
}

fn row(place: &Bytes, key: Bytes, stored: Bytes) -> Result<RawRow, StoreError> {
    Ok(stamped(place, key, Stamped::decode(stored)?))
}

fn stamped(place: &Bytes, key: Bytes, Stamped { timestamp_ms, value }: Stamped) -> RawRow {
    RawRow { place: place.clone(), key, value, timestamp_ms, until_ms: None }
}

/// The key right behind another in the order of bytes.
pub(crate) fn behind(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// Collects a page while it goes through a store.
struct Walk<'a> {
    engine: &'a Arc<dyn StateStore>,
    page: &'a Page,
    /// Rows with other values are passed over.
    value: Option<&'a Bytes>,
    found: RawPage,
    bytes: usize,
    examined: usize,
    /// The last place that was looked at.
    last: Option<Bytes>,
}

impl<'a> Walk<'a> {
    fn new(engine: &'a Arc<dyn StateStore>, page: &'a Page) -> Self {
        Self::of_value(engine, page, None)
    }

    fn of_value(engine: &'a Arc<dyn StateStore>, page: &'a Page, value: Option<&'a Bytes>) -> Self {
        Self { engine, page, value, found: RawPage::default(), bytes: 0, examined: 0, last: None }
    }

    fn is_full(&self) -> bool {
        self.found.rows.len() >= self.page.rows_max.max(1)
            || self.bytes >= self.page.bytes_max
            || self.examined >= EXAMINED_MAX
    }

    /// Goes through a part of the range that begins or ends where the page does; whether that was all of it.
    fn range(
        &mut self,
        from: &[u8],
        to: Option<&[u8]>,
        mut row: impl FnMut(&Bytes, Bytes) -> Result<Option<RawRow>, StoreError>,
    ) -> Result<bool, StoreError> {
        let (mut from, mut to) = (from.to_vec(), to.map(<[u8]>::to_vec));
        if let Some((place, with_it)) = &self.page.after {
            match self.page.reverse {
                false => from = from.max(if *with_it { place.to_vec() } else { behind(place) }),
                true => {
                    let end = if *with_it { behind(place) } else { place.to_vec() };
                    to = Some(to.map_or(end.clone(), |to| to.min(end)));
                }
            }
        }
        loop {
            let range = KeyRange { from: &from, to: to.as_deref() };
            let wanted = CHUNK_ENTRIES.min(self.page.rows_max.saturating_add(1));
            let chunk = match self.page.reverse {
                false => self.engine.scan(range, wanted)?,
                true => self.engine.scan_reverse(range, wanted)?,
            };
            let is_last = chunk.len() < wanted;
            for (place, stored) in chunk {
                if self.is_full() {
                    self.found.next = self.last.take();
                    return Ok(false);
                }
                let row = row(&place, stored)?;
                self.looked_at(place, row.filter(|row| self.value.is_none_or(|value| row.value == value)));
            }
            if is_last {
                return Ok(true);
            }
            if let Some(last) = &self.last {
                match self.page.reverse {
                    false => from = behind(last),
                    true => to = Some(last.to_vec()),
                }
            }
        }
    }

    fn looked_at(&mut self, place: Bytes, row: Option<RawRow>) {
        self.examined += 1;
        self.bytes += row.as_ref().map_or(0, RawRow::bytes);
        self.found.rows.extend(row);
        self.last = Some(place);
    }

    /// The rows of these keys, which are in order.
    fn keys(mut self, layout: StoreLayout, keys: &[AskedKey]) -> Result<RawPage, StoreError> {
        for asked in keys {
            let place = asked.place();
            let is_told = |(after, with_it): &(Bytes, bool)| place < after || place == after && !with_it;
            if self.page.after.as_ref().is_some_and(is_told) {
                continue;
            }
            if self.is_full() {
                self.found.next = self.last.take();
                break;
            }
            let row = get(self.engine, layout, &asked.key)?;
            let row = row.map(|found| stamped(&place, asked.key.clone(), found));
            self.looked_at(place, row);
        }
        Ok(self.found)
    }

    /// The latest row of each key in a range, shorter keys first.
    fn latest(mut self, from: &[u8], to: Option<&[u8]>) -> Result<RawPage, StoreError> {
        let (first, after) = VersionedLayout::versions();
        let (engine, reverse) = (Arc::clone(self.engine), self.page.reverse);
        // A page may go on among the versions of a key.
        let resumed = self.page.after.as_ref().and_then(|(place, _)| Some(VersionedLayout::split(place)?.0));
        let mut last = None;
        self.range(&first, Some(&after), |place, stored| {
            let corrupt = StoreError::Corrupt { what: "the key of a version" };
            let (key, from_ms) = VersionedLayout::split(place).ok_or(corrupt)?;
            let is_within = &*key >= from && to.is_none_or(|to| &*key < to);
            // Backwards, the latest comes last.
            let is_older = match reverse || resumed.as_ref() == Some(&key) {
                false => last.as_ref() == Some(&key),
                true => is_within && !is_latest(&engine, &key, from_ms)?,
            };
            last = Some(key.clone());
            if !is_within || is_older {
                return Ok(None);
            }
            version(place, key, stored, None)
        })?;
        Ok(self.found)
    }

    /// What a key was.
    fn versions(
        mut self,
        layout: VersionedLayout,
        key: &Bytes,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<RawPage, StoreError> {
        let horizon_ms = layout.horizon_ms(self.engine.position()?.stream_time_ms);
        let first = VersionedLayout::version_key(key, to_ms);
        let newest = VersionedLayout::version_key(key, i64::MAX);
        // The one that came after the first of these ended it.
        let began = match &self.page.after {
            Some((place, false)) => Some(place.clone()),
            _ => {
                let newer = KeyRange { from: &newest, to: Some(&first) };
                self.engine.scan_reverse(newer, 1)?.pop().map(|(place, _)| place)
            }
        };
        let mut until_ms = began.and_then(|place| Some(VersionedLayout::split(&place)?.1));
        let oldest_ms = from_ms.max(0).max(horizon_ms);
        if to_ms < 0 || to_ms < from_ms {
            return Ok(self.found);
        }
        self.range(&first, Some(&VersionedLayout::versions_end(key)), |place, stored| {
            let corrupt = StoreError::Corrupt { what: "the key of a version" };
            let (key, began_ms) = VersionedLayout::split(place).ok_or(corrupt)?;
            let ended_ms = until_ms.replace(began_ms);
            let is_over = ended_ms.is_some_and(|ended_ms| ended_ms <= oldest_ms);
            if is_over { Ok(None) } else { version(place, key, stored, ended_ms) }
        })?;
        Ok(self.found)
    }

    /// Windows lie in segments of time; those that have none of the answer are jumped over.
    fn windows(
        mut self,
        layout: WindowLayout,
        key: Option<&[u8]>,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<RawPage, StoreError> {
        let stream_time_ms = self.engine.position()?.stream_time_ms;
        let visible_ms = stream_time_ms.saturating_sub(layout.retention_ms()).saturating_add(1);
        let from_ms = from_ms.max(visible_ms).max(0);
        // A session lies where it ends, and begins as late as its end.
        let last_ms = if layout.is_of_sessions() { i64::MAX } else { to_ms };
        let (mut first, mut last) = (layout.segment_of(from_ms), layout.segment_of(last_ms));
        if to_ms < from_ms && !layout.is_of_sessions() || to_ms < 0 {
            return Ok(self.found);
        }
        if let Some(segment) = self.page.after.as_ref().and_then(|(place, _)| segment_at(place)) {
            match self.page.reverse {
                false => first = first.max(segment),
                true => last = last.min(segment),
            }
        }
        while let Some(segment) = self.next_segment(first, last)? {
            let prefix = segment.to_be_bytes();
            let key_of = key.unwrap_or_default();
            let (from, to) = match key {
                Some(_) => (
                    [&prefix, key_of, &from_ms.to_be_bytes()].concat(),
                    // What follows a time begins with a smaller byte than this.
                    [&prefix, key_of, &last_ms.to_be_bytes()[..], &[u8::MAX]].concat(),
                ),
                None => (prefix.to_vec(), (segment + 1).to_be_bytes().to_vec()),
            };
            let times = (from_ms, to_ms, last_ms);
            let ended =
                self.range(&from, Some(&to), |place, stored| window(layout, key, times, place, stored))?;
            if !ended {
                break;
            }
            match self.page.reverse {
                false => first = segment + 1,
                true => last = segment - 1,
            }
        }
        Ok(self.found)
    }

    /// The next segment that has anything, in the order of the page.
    fn next_segment(&self, first: i64, last: i64) -> Result<Option<i64>, StoreError> {
        if first > last {
            return Ok(None);
        }
        let (from, to) = (first.to_be_bytes(), (last + 1).to_be_bytes());
        let range = KeyRange { from: &from, to: Some(&to) };
        let found = match self.page.reverse {
            false => self.engine.scan(range, 1)?,
            true => self.engine.scan_reverse(range, 1)?,
        };
        Ok(found.first().and_then(|(place, _)| segment_at(place)))
    }
}

fn segment_at(place: &[u8]) -> Option<i64> {
    place.first_chunk::<8>().map(|segment| i64::from_be_bytes(*segment))
}

/// A window, if it is of this key and time: `(from, to, last)`.
fn window(
    layout: WindowLayout,
    key: Option<&[u8]>,
    (from_ms, to_ms, last_ms): (i64, i64, i64),
    place: &Bytes,
    stored: Bytes,
) -> Result<Option<RawRow>, StoreError> {
    let corrupt = || StoreError::Corrupt { what: "a window key that is too short" };
    let changelog_key = if place.len() >= 8 { place.slice(8..) } else { return Err(corrupt()) };
    let time_ms = layout.time_of(&changelog_key).ok_or_else(corrupt)?;
    // A longer key can sort between two windows of this one.
    let is_key = key.is_none_or(|key| layout.key_of(&changelog_key).as_deref() == Some(key));
    let starts = || match layout.is_of_sessions() {
        true => {
            WindowLayout::split_session_key(&changelog_key).is_some_and(|(_, start_ms, _)| start_ms <= to_ms)
        }
        false => true,
    };
    if !is_key || !(from_ms..=last_ms).contains(&time_ms) || !starts() {
        return Ok(None);
    }
    row(place, changelog_key, stored).map(Some)
}

/// A version, unless it says that there was no row.
fn version(
    place: &Bytes,
    key: Bytes,
    stored: Bytes,
    until_ms: Option<i64>,
) -> Result<Option<RawRow>, StoreError> {
    let Stamped { timestamp_ms, value } = Stamped::decode(stored)?;
    let value = VersionedLayout::row_of(value)?;
    Ok(value.map(|value| RawRow { place: place.clone(), key, value, timestamp_ms, until_ms }))
}

fn is_latest(engine: &Arc<dyn StateStore>, key: &[u8], from_ms: i64) -> Result<bool, StoreError> {
    let newest = VersionedLayout::version_key(key, i64::MAX);
    let this = VersionedLayout::version_key(key, from_ms);
    Ok(engine.scan(KeyRange { from: &newest, to: Some(&this) }, 1)?.is_empty())
}
