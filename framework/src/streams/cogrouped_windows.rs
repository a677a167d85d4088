//! Several grouped streams in one aggregate per window or session.

use std::fmt;
use std::sync::Arc;

use super::cogrouped::{CogroupedStream, Initial, Within};
use super::grouped::KGroupedStream;
use super::node::{Emit, Merge};
use super::options::Materialized;
use super::session_windowed;
use super::stream::KStream;
use super::table::KTable;
use super::windowed_by::TimeWindows;
use super::windowed_by::sealed::Sealed;
use super::windows::{
    HoppingWindows, SessionWindows, SlidingWindows, TumblingWindows, UnlimitedWindows, Windowed,
};

/// A kind of windows: what [`CogroupedStream::windowed_by`] takes.
pub trait CogroupedBy<K, A>: Sealed {
    /// The streams in such windows.
    type Stream;

    #[doc(hidden)]
    fn cogrouped(self, cogrouped: CogroupedStream<K, A>) -> Self::Stream;
}

macro_rules! cogrouped_by_time {
    ($($windows:ty),*) => {$(
        impl<K: Clone + 'static, A: 'static> CogroupedBy<K, A> for $windows {
            type Stream = TimeWindowedCogroupedStream<K, A>;

            fn cogrouped(self, cogrouped: CogroupedStream<K, A>) -> Self::Stream {
                TimeWindowedCogroupedStream { cogrouped, windows: self.into(), emit: Emit::OnUpdate }
            }
        }
    )*};
}

cogrouped_by_time!(TumblingWindows, HoppingWindows, SlidingWindows, UnlimitedWindows);

impl<K: Clone + 'static, A: 'static> CogroupedBy<K, A> for SessionWindows {
    type Stream = SessionWindowedCogroupedStream<K, A>;

    fn cogrouped(self, cogrouped: CogroupedStream<K, A>) -> Self::Stream {
        SessionWindowedCogroupedStream { cogrouped, windows: self, emit: Emit::OnUpdate }
    }
}

/// Grouped streams with one aggregate per key and window.
pub struct TimeWindowedCogroupedStream<K, A> {
    cogrouped: CogroupedStream<K, A>,
    windows: TimeWindows,
    emit: Emit,
}

impl<K, A> fmt::Debug for TimeWindowedCogroupedStream<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeWindowedCogroupedStream")
            .field("cogrouped", &self.cogrouped)
            .field("windows", &self.windows)
            .finish_non_exhaustive()
    }
}

impl<K: Clone + 'static, A: 'static> TimeWindowedCogroupedStream<K, A> {
    /// As [`TimeWindowedStream::emit_on_window_close`](crate::streams::TimeWindowedStream::emit_on_window_close).
    #[must_use]
    pub fn emit_on_window_close(mut self) -> Self {
        self.emit = Emit::OnClose;
        self
    }

    /// The records of one of the streams that came too late for all their windows in the first aggregation made of
    /// this, which must be made before. Of a stream that is none of these, `build` says so.
    ///
    /// ```
    /// use std::time::Duration;
    /// use klamm::streams::{StreamsBuilder, TumblingWindows};
    ///
    /// let mut streams = StreamsBuilder::new();
    /// let clicks = streams.stream::<String, String>("clicks").group_by_key();
    /// let sales = streams.stream::<String, i64>("sales").group_by_key();
    /// let minutes = clicks
    ///     .cogroup(|_, _, cents: i64| cents)
    ///     .cogroup(&sales, |_, sale, cents| cents + sale)
    ///     .windowed_by(TumblingWindows::of(Duration::from_secs(60)));
    /// let cents = minutes.aggregate("cents-by-minute", || 0);
    /// minutes.late(&sales).to("late-sales");
    /// # cents.to_stream(); streams.build().unwrap();
    /// ```
    pub fn late<V: 'static>(&self, group: &KGroupedStream<K, V>) -> KStream<K, V> {
        self.cogrouped.late_of(group)
    }

    /// The aggregate of each key and window, from `initial` on.
    pub fn aggregate(
        &self,
        materialized: impl Into<Materialized<A>>,
        initial: impl Fn() -> A + Send + Sync + 'static,
    ) -> KTable<Windowed<K>, A> {
        let (spec, problem) = self.windows.store(self.cogrouped.key_serde(), materialized.into());
        let initial: Initial<A> = Arc::new(initial);
        let within = Within::Time(self.windows, self.emit);
        self.cogrouped.add::<Windowed<K>>(spec, &initial, &within, problem)
    }
}

/// Grouped streams with one aggregate per key and session: a record of any of them joins or begins one.
pub struct SessionWindowedCogroupedStream<K, A> {
    cogrouped: CogroupedStream<K, A>,
    windows: SessionWindows,
    emit: Emit,
}

impl<K, A> fmt::Debug for SessionWindowedCogroupedStream<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionWindowedCogroupedStream")
            .field("cogrouped", &self.cogrouped)
            .field("windows", &self.windows)
            .finish_non_exhaustive()
    }
}

impl<K: Clone + 'static, A: 'static> SessionWindowedCogroupedStream<K, A> {
    /// As [`SessionWindowedStream::emit_on_window_close`](crate::streams::SessionWindowedStream::emit_on_window_close).
    #[must_use]
    pub fn emit_on_window_close(mut self) -> Self {
        self.emit = Emit::OnClose;
        self
    }

    /// The records of one of the streams that came too late for their session in the first aggregation made of this,
    /// which must be made before. Of a stream that is none of these, `build` says so.
    pub fn late<V: 'static>(&self, group: &KGroupedStream<K, V>) -> KStream<K, V> {
        self.cogrouped.late_of(group)
    }

    /// The aggregate of each key and session, from `initial` on; `merge` makes one of two sessions', the older one
    /// first.
    ///
    /// ```
    /// use std::time::Duration;
    /// use klamm::streams::{SessionWindows, StreamsBuilder};
    ///
    /// let mut streams = StreamsBuilder::new();
    /// let clicks = streams.stream::<String, String>("clicks").group_by_key();
    /// let sales = streams.stream::<String, i64>("sales").group_by_key();
    /// let visits = clicks
    ///     .cogroup(|_, _, cents: i64| cents)
    ///     .cogroup(&sales, |_, sale, cents| cents + sale)
    ///     .windowed_by(SessionWindows::of(Duration::from_secs(1800)))
    ///     .aggregate("cents-by-visit", || 0, |_, one, other| one + other);
    /// # visits.to_stream(); streams.build().unwrap();
    /// ```
    pub fn aggregate(
        &self,
        materialized: impl Into<Materialized<A>>,
        initial: impl Fn() -> A + Send + Sync + 'static,
        merge: impl Fn(&K, A, A) -> A + Send + Sync + 'static,
    ) -> KTable<Windowed<K>, A> {
        let (spec, problem) =
            session_windowed::store(self.windows, self.cogrouped.key_serde(), materialized.into());
        let (initial, merge): (Initial<A>, Merge<K, A>) = (Arc::new(initial), Arc::new(merge));
        let within = Within::Sessions(self.windows, self.emit, merge);
        self.cogrouped.add::<Windowed<K>>(spec, &initial, &within, problem)
    }
}
