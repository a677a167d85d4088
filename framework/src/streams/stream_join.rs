//! Joins of two streams: what a [`KStream`] offers beside its joins with tables.

use std::sync::Arc;

use super::builder::store_spec;
use super::error::TopologyError;
use super::node::{
    Joiner, Medium, NodeFactory, Pass, Side, StoreLayout, StoreSpec, StreamStreamJoin, Unmatched,
    following_node, inner_node,
};
use super::options::{Materialized, Serdes};
use super::outlets::add_repartition;
use super::stream::KStream;
use super::topology::{Graph, NodeId};
use super::windows::JoinWindows;
use crate::serde::{Bytes, BytesSerde, DefaultSerde, Serde};
use crate::store::{StoreEngine, WindowLayout};

/// How two streams are joined: the name of the stores that their records wait in, and how those are written.
///
/// The stores are `<name>-this-join-store`, `<name>-other-join-store` and, of a left or outer join,
/// `<name>-left-shared-join-store` or `<name>-outer-shared-join-store`; repartition topics, where a key may have
/// changed, `<name>-left` and `<name>-right`. A plain name stands for the types' default serdes and stores on disk.
#[derive(Debug, Clone)]
pub struct StreamJoined<K, V, W> {
    name: String,
    key: Arc<dyn Serde<K>>,
    value: Arc<dyn Serde<V>>,
    other: Arc<dyn Serde<W>>,
    medium: Medium,
}

impl<K, V, W> StreamJoined<K, V, W> {
    /// With these serdes: of the key, of this stream's values and of the other one's.
    pub fn with(
        name: impl Into<String>,
        key: impl Serde<K>,
        value: impl Serde<V>,
        other_value: impl Serde<W>,
    ) -> Self {
        let (key, value, other) = (Arc::new(key), Arc::new(value), Arc::new(other_value));
        Self { name: name.into(), key, value, other, medium: Medium::Disk }
    }

    /// Keeps the stores in memory: faster to write, and restored from the changelogs at every start.
    #[must_use]
    pub fn in_memory(mut self) -> Self {
        self.medium = Medium::Memory;
        self
    }

    /// Keeps the stores in an engine of one's own; see [`Materialized::stored_in`].
    #[must_use]
    pub fn stored_in(mut self, engine: impl StoreEngine) -> Self {
        self.medium = Medium::Own(Arc::new(engine));
        self
    }

    fn store<T: 'static>(&self, part: &str, layout: StoreLayout, value: Arc<dyn Serde<T>>) -> StoreSpec {
        let name = format!("{}-{part}", self.name);
        let materialized =
            Materialized { medium: self.medium.clone(), ..Materialized::written_by(name, value) };
        store_spec::<Bytes, T>(layout, Arc::new(BytesSerde), materialized)
    }
}

impl<K: DefaultSerde, V: DefaultSerde, W: DefaultSerde> From<&str> for StreamJoined<K, V, W> {
    fn from(name: &str) -> Self {
        Self::with(name, K::Serde::default(), V::Serde::default(), W::Serde::default())
    }
}

impl<K: DefaultSerde, V: DefaultSerde, W: DefaultSerde> From<String> for StreamJoined<K, V, W> {
    fn from(name: String) -> Self {
        Self::from(&*name)
    }
}

/// Which records go out although they met nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Inner,
    Left,
    Outer,
}

impl Kind {
    fn operation(self) -> &'static str {
        match self {
            Self::Inner => "join_within",
            Self::Left => "left_join_within",
            Self::Outer => "outer_join_within",
        }
    }

    fn keeps(self, side: Side) -> bool {
        match side {
            Side::Left => self != Self::Inner,
            Side::Right => self == Self::Outer,
        }
    }

    fn shared_store(self) -> Option<&'static str> {
        match self {
            Self::Inner => None,
            Self::Left => Some("left-shared-join-store"),
            Self::Outer => Some("outer-shared-join-store"),
        }
    }
}

impl<K: 'static, V: 'static> KStream<K, V> {
    /// Joins each record with those of `other` that have its key and lie within `windows`; both sides trigger. The
    /// result has the later of the two times. Records without key or value are dropped and counted.
    ///
    /// ```
    /// use std::time::Duration;
    /// use klamm::streams::{JoinWindows, StreamsBuilder};
    ///
    /// let mut streams = StreamsBuilder::new();
    /// let orders = streams.stream::<String, String>("orders");
    /// let payments = streams.stream::<String, i64>("payments");
    /// let an_hour = JoinWindows::of(Duration::from_secs(3600));
    /// orders.join_within(&payments, "paid", an_hour, |order, cents| format!("{order}: {cents}")).to("paid-orders");
    /// # streams.build().unwrap();
    /// ```
    pub fn join_within<W: 'static, VO: 'static>(
        &self,
        other: &KStream<K, W>,
        joined: impl Into<StreamJoined<K, V, W>>,
        windows: JoinWindows,
        joiner: impl Fn(&V, &W) -> VO + Send + Sync + 'static,
    ) -> KStream<K, VO> {
        let joiner = move |left: Option<&V>, right: Option<&W>| Some(joiner(left?, right?));
        self.join_streams(other, joined.into(), windows, Kind::Inner, joiner)
    }

    /// [`join_within`](Self::join_within) that also forwards records of this stream that met nothing: once nothing can
    /// come any more that would, and never besides a joined one. A record without a key meets nothing.
    pub fn left_join_within<W: 'static, VO: 'static>(
        &self,
        other: &KStream<K, W>,
        joined: impl Into<StreamJoined<K, V, W>>,
        windows: JoinWindows,
        joiner: impl Fn(&V, Option<&W>) -> VO + Send + Sync + 'static,
    ) -> KStream<K, VO> {
        let joiner = move |left: Option<&V>, right: Option<&W>| Some(joiner(left?, right));
        self.join_streams(other, joined.into(), windows, Kind::Left, joiner)
    }

    /// [`left_join_within`](Self::left_join_within) for records of both streams.
    pub fn outer_join_within<W: 'static, VO: 'static>(
        &self,
        other: &KStream<K, W>,
        joined: impl Into<StreamJoined<K, V, W>>,
        windows: JoinWindows,
        joiner: impl Fn(Option<&V>, Option<&W>) -> VO + Send + Sync + 'static,
    ) -> KStream<K, VO> {
        let joiner = move |left: Option<&V>, right: Option<&W>| Some(joiner(left, right));
        self.join_streams(other, joined.into(), windows, Kind::Outer, joiner)
    }

    fn join_streams<W: 'static, VO: 'static>(
        &self,
        other: &KStream<K, W>,
        joined: StreamJoined<K, V, W>,
        windows: JoinWindows,
        kind: Kind,
        joiner: impl Fn(Option<&V>, Option<&W>) -> Option<VO> + Send + Sync + 'static,
    ) -> KStream<K, VO> {
        let layout = StoreLayout::Window(WindowLayout::new(windows.lifetime()));
        let left = joined.store("this-join-store", layout, Arc::clone(&joined.value));
        let right = joined.store("other-join-store", layout, Arc::clone(&joined.other));
        let shared = kind
            .shared_store()
            .map(|part| joined.store::<Bytes>(part, StoreLayout::KeyValue, Arc::new(BytesSerde)));
        let stores = Stores {
            left: left.name.to_string(),
            right: right.name.to_string(),
            shared: shared.as_ref().map(|spec| spec.name.to_string()),
        };
        let joiner = Arc::new(joiner);
        let turned = Arc::clone(&joiner);
        let (key, value, other_value) = (&joined.key, &joined.value, &joined.other);
        let left_factory = side(
            Side::Left,
            kind,
            windows,
            &stores,
            (key, value, other_value),
            Arc::new(move |left, right| joiner(left, right)),
        );
        let right_factory = side(
            Side::Right,
            kind,
            windows.turned(),
            &stores,
            (key, other_value, value),
            Arc::new(move |right, left| turned(left, right)),
        );
        let node = self.graph.edit(|graph| {
            let operation = kind.operation();
            if !self.graph.is(&other.graph) {
                let path = graph.path(&[self.node], operation);
                graph.errors.push(TopologyError::OtherBuilder(path));
                return self.node;
            }
            let from = in_place(graph, self, &format!("{}-left", joined.name), key, value);
            let from_other = in_place(graph, other, &format!("{}-right", joined.name), key, other_value);
            let this = graph.step(&[from], &format!("{operation}-this"), left_factory);
            let that = graph.step(&[from_other], &format!("{operation}-other"), right_factory);
            for (index, spec) in [left, right].into_iter().chain(shared).enumerate() {
                let name = spec.name.to_string();
                graph.store(spec, if index == 1 { that } else { this });
                graph.write_store(this, &name);
                graph.write_store(that, &name);
            }
            let pass = inner_node::<K, VO, _, _, _>(|children| Pass { children });
            let node = graph.step(&[this, that], operation, pass);
            graph.does_for(&[this, that], node);
            node
        });
        KStream::new(self.graph.clone(), node, false)
    }
}

fn in_place<K: 'static, V: 'static>(
    graph: &mut Graph,
    stream: &KStream<K, V>,
    name: &str,
    key: &Arc<dyn Serde<K>>,
    value: &Arc<dyn Serde<V>>,
) -> NodeId {
    match stream.key_changed {
        true => {
            let serdes = Serdes { key: Arc::clone(key), value: Arc::clone(value) };
            add_repartition(graph, stream.node, name, None, &serdes)
        }
        false => stream.node,
    }
}

struct Stores {
    left: String,
    right: String,
    shared: Option<String>,
}

type SideSerdes<'a, K, V, W> = (&'a Arc<dyn Serde<K>>, &'a Arc<dyn Serde<V>>, &'a Arc<dyn Serde<W>>);

fn side<K: 'static, V: 'static, W: 'static, VO: 'static>(
    side: Side,
    kind: Kind,
    windows: JoinWindows,
    stores: &Stores,
    serdes: SideSerdes<'_, K, V, W>,
    joiner: Joiner<V, W, VO>,
) -> NodeFactory {
    let (own, other) = match side {
        Side::Left => (stores.left.clone(), stores.right.clone()),
        Side::Right => (stores.right.clone(), stores.left.clone()),
    };
    let shared = stores.shared.clone();
    let (key, value, other_value) = (Arc::clone(serdes.0), Arc::clone(serdes.1), Arc::clone(serdes.2));
    following_node::<K, V, _>(move |wiring, id| {
        let children = wiring.children(id)?;
        let unmatched = match &shared {
            Some(shared) => {
                let store = wiring.ordered_store::<Bytes, Bytes>(shared, None)?.0;
                let earliest_ms = wiring.shared_time(shared);
                let (of_this_side, of_other_side) = (kind.keeps(side), kind.keeps(side.other()));
                Some(Unmatched { store, earliest_ms, of_this_side, of_other_side })
            }
            None => None,
        };
        Ok(StreamStreamJoin {
            side,
            windows,
            own: wiring.join_rows(&own)?,
            other: wiring.join_rows(&other)?,
            unmatched,
            key_serde: Arc::clone(&key),
            value_serde: Arc::clone(&value),
            other_serde: Arc::clone(&other_value),
            joiner: Arc::clone(&joiner),
            boundary: wiring.boundary(id),
            children,
            met: Vec::new(),
        })
    })
}
