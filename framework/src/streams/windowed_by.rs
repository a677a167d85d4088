//! The kinds of windows that grouped streams can be put into.

use std::sync::Arc;
use std::time::Duration;

use super::builder::store_spec;
use super::error::TopologyError;
use super::grouped::KGroupedStream;
use super::node::{Emit, StoreLayout, StoreSpec};
use super::options::Materialized;
use super::session_windowed::SessionWindowedStream;
use super::windowed::TimeWindowedStream;
use super::windows::serde::WindowStoreKeySerde;
use super::windows::{
    AlignedWindows, HoppingWindows, SessionWindows, SlidingWindows, TumblingWindows, UnlimitedWindows,
    Windowed,
};
use crate::serde::Serde;
use crate::store::WindowLayout;

pub(super) mod sealed {
    pub trait Sealed {}
}

/// A kind of windows: what [`KGroupedStream::windowed_by`] takes.
pub trait WindowedBy<K, V>: sealed::Sealed {
    /// The stream in such windows.
    type Stream;

    #[doc(hidden)]
    fn windowed(self, group: KGroupedStream<K, V>) -> Self::Stream;
}

macro_rules! windowed_by_time {
    ($($windows:ty => $kind:expr),*) => {$(
        impl sealed::Sealed for $windows {}

        impl<K: Clone + 'static, V: 'static> WindowedBy<K, V> for $windows {
            type Stream = TimeWindowedStream<K, V>;

            fn windowed(self, group: KGroupedStream<K, V>) -> Self::Stream {
                TimeWindowedStream::within(group, self.into(), Emit::OnUpdate)
            }
        }

        impl From<$windows> for TimeWindows {
            fn from(windows: $windows) -> Self {
                $kind(windows)
            }
        }
    )*};
}

windowed_by_time!(
    TumblingWindows => |windows: TumblingWindows| Self::Aligned(windows.into()),
    HoppingWindows => |windows: HoppingWindows| Self::Aligned(windows.into()),
    UnlimitedWindows => |windows: UnlimitedWindows| Self::Aligned(windows.into()),
    SlidingWindows => Self::Sliding
);

impl sealed::Sealed for SessionWindows {}

impl<K: Clone + 'static, V: 'static> WindowedBy<K, V> for SessionWindows {
    type Stream = SessionWindowedStream<K, V>;

    fn windowed(self, group: KGroupedStream<K, V>) -> Self::Stream {
        SessionWindowedStream::within(group, self, Emit::OnUpdate)
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum TimeWindows {
    Aligned(AlignedWindows),
    Sliding(SlidingWindows),
}

impl TimeWindows {
    pub(super) fn size_ms(self) -> i64 {
        match self {
            Self::Aligned(windows) => windows.size_ms,
            Self::Sliding(windows) => windows.difference_ms(),
        }
    }

    /// How long after its end a window can change no more; the end of a sliding window is in it.
    pub(super) fn closes_after_ms(self) -> i64 {
        match self {
            Self::Aligned(windows) => windows.grace_ms,
            Self::Sliding(windows) => windows.grace_ms().saturating_add(1),
        }
    }

    fn lifetime(self) -> Duration {
        match self {
            Self::Aligned(windows) => windows.lifetime(),
            Self::Sliding(windows) => windows.lifetime(),
        }
    }

    /// The store of what is aggregated in these windows, and what is wrong with it.
    pub(super) fn store<K: 'static, A: 'static>(
        self,
        inner: Arc<dyn Serde<K>>,
        materialized: Materialized<A>,
    ) -> (StoreSpec, Option<TopologyError>) {
        let retention = materialized.retention.unwrap_or_else(|| self.lifetime());
        let problem = self.problem(&materialized.name, retention);
        let layout = StoreLayout::Window(WindowLayout::new(retention));
        let key = Arc::new(WindowStoreKeySerde { inner, size_ms: self.size_ms() });
        (store_spec::<Windowed<K>, A>(layout, key, materialized), problem)
    }

    fn problem(self, store: &str, retention: Duration) -> Option<TopologyError> {
        let store = store.to_owned();
        if let Self::Aligned(AlignedWindows { size_ms, advance_ms, .. }) = self {
            if size_ms < 1 {
                return Some(TopologyError::EmptyWindow { store });
            }
            if advance_ms < 1 || advance_ms > size_ms {
                return Some(TopologyError::BadAdvance { store, size_ms, advance_ms });
            }
        }
        let needed = self.lifetime();
        (retention < needed).then_some(TopologyError::RetentionTooShort { store, retention, needed })
    }
}
