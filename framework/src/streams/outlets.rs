//! Where a stream goes: to topics of the user, and through topics of the application.

use std::collections::HashMap;
use std::sync::Arc;

use super::builder::add_stream_source;
use super::node::{Built, Destination, RecordContext, Sink, TopicId, Wiring};
use super::on_error::StreamEnd;
use super::options::{Produced, Repartitioned, Serdes};
use super::routing::{ChooseTopic, StreamPartitioner};
use super::stream::KStream;
use super::topology::{Graph, NodeId, TopicName};
use crate::serde::DefaultSerde;

impl<K: 'static, V: 'static> KStream<K, V> {
    /// Writes the stream to a topic, which should exist, with the types' default serdes. A key's hash chooses the
    /// partition as in Kafka's Java client; of a windowed key only the key inside.
    pub fn to(&self, topic: impl Into<String>) -> StreamEnd
    where
        K: DefaultSerde,
        V: DefaultSerde,
    {
        self.to_with(topic, Produced::default())
    }

    /// [`to`](Self::to), written as `produced` says.
    pub fn to_with(&self, topic: impl Into<String>, produced: Produced<K, V>) -> StreamEnd {
        let node = self.graph.edit(|graph| {
            let outlet = Outlet { topic: Some(TopicName::User(topic.into())), ..Outlet::of(produced) };
            add_sink(graph, self.node, outlet)
        });
        StreamEnd::new(self.graph.clone(), node)
    }

    /// Writes each record to the topic that `choose` names; it should exist.
    ///
    /// ```
    /// # use klamm::streams::{StreamsBuilder, TopologyTestDriver};
    /// # let mut streams = StreamsBuilder::new();
    /// streams.stream::<String, i64>("orders").to_chosen(|_, country, _| format!("orders-{country}"));
    /// # let driver = TopologyTestDriver::new(streams.build().unwrap());
    /// # driver.input::<String, i64>("orders").pipe("at", 5).at(1);
    /// # assert_eq!(driver.output::<String, i64>("orders-at").read_all(), [("at", 5)]);
    /// ```
    pub fn to_chosen<T: Into<Arc<str>>>(
        &self,
        choose: impl Fn(&RecordContext<'_>, &K, &V) -> T + Send + Sync + 'static,
    ) -> StreamEnd
    where
        K: DefaultSerde,
        V: DefaultSerde,
    {
        self.to_chosen_with(choose, Produced::default())
    }

    /// [`to_chosen`](Self::to_chosen), written as `produced` says.
    pub fn to_chosen_with<T: Into<Arc<str>>>(
        &self,
        choose: impl Fn(&RecordContext<'_>, &K, &V) -> T + Send + Sync + 'static,
        produced: Produced<K, V>,
    ) -> StreamEnd {
        let choose: ChooseTopic<K, V> = Arc::new(move |at, key, value| {
            let topic: Arc<str> = choose(at, key, value).into();
            if topic.is_empty() { Err("no topic was chosen: its name is empty".into()) } else { Ok(topic) }
        });
        let node = self.graph.edit(|graph| {
            add_sink(graph, self.node, Outlet { choose: Some(choose), ..Outlet::of(produced) })
        });
        StreamEnd::new(self.graph.clone(), node)
    }

    /// Sends the stream through a topic of the application, so that records with equal keys come to one task. Records
    /// without a key are dropped and counted.
    pub fn repartition(&self, repartitioned: impl Into<Repartitioned<K, V>>) -> Self {
        let Repartitioned { serdes, name, partitions, partitioner } = repartitioned.into();
        let node = self.graph.edit(|graph| {
            let topic = graph.repartition(&name, partitions);
            add_sink(graph, self.node, Outlet { partitioner, ..Outlet::inside(&topic, &serdes) });
            add_stream_source(graph, vec![topic], &serdes)
        });
        Self::new(self.graph.clone(), node, false)
    }
}

/// What a sink is made of.
struct Outlet<K, V> {
    topic: Option<TopicName>,
    choose: Option<ChooseTopic<K, V>>,
    serdes: Serdes<K, V>,
    partitioner: Option<StreamPartitioner<K, V>>,
    drops_null_keys: bool,
}

impl<K, V> Outlet<K, V> {
    fn of(produced: Produced<K, V>) -> Self {
        let Produced { serdes, partitioner } = produced;
        Self { topic: None, choose: None, serdes, partitioner, drops_null_keys: false }
    }

    /// To a topic of the application.
    fn inside(topic: &TopicName, serdes: &Serdes<K, V>) -> Self {
        let (topic, serdes) = (Some(topic.clone()), serdes.clone());
        Self { topic, choose: None, serdes, partitioner: None, drops_null_keys: true }
    }
}

fn add_sink<K: 'static, V: 'static>(graph: &mut Graph, parent: NodeId, outlet: Outlet<K, V>) -> NodeId {
    let Outlet { topic, choose, serdes, partitioner, drops_null_keys } = outlet;
    let factory = Arc::new(move |wiring: &mut Wiring<'_>, node: NodeId| {
        let to = match &choose {
            None => Destination::Topic(wiring.sink_topic(node).unwrap_or(TopicId(u32::MAX))),
            Some(choose) => {
                let (choose, known) = (Arc::clone(choose), HashMap::new());
                Destination::Chosen { choose, known, routed: wiring.routed() }
            }
        };
        let (boundary, partitioner) = (wiring.boundary(node), partitioner.clone());
        let (key, value) = (Arc::clone(&serdes.key), Arc::clone(&serdes.value));
        let sink = Sink { boundary, to, key, value, partitioner, drops_null_keys };
        Ok(Built::new::<K, V>(sink).guarding_itself())
    });
    graph.sink(parent, topic, factory)
}

/// Ends the sub-topology of `parent` in a repartition topic and begins one with it; gives the new source.
pub(crate) fn add_repartition<K: 'static, V: 'static>(
    graph: &mut Graph,
    parent: NodeId,
    name: &str,
    partitions: Option<i32>,
    serdes: &Serdes<K, V>,
) -> NodeId {
    let topic = graph.repartition(name, partitions);
    add_sink(graph, parent, Outlet::inside(&topic, serdes));
    add_stream_source(graph, vec![topic], serdes)
}

/// The same where records without a key may have to go on: a left join keeps them.
pub(crate) fn add_repartition_keeping<K: 'static, V: 'static>(
    graph: &mut Graph,
    parent: NodeId,
    name: &str,
    keeps_null_keys: bool,
    serdes: &Serdes<K, V>,
) -> NodeId {
    let topic = graph.repartition(name, None);
    add_sink(graph, parent, Outlet { drops_null_keys: !keeps_null_keys, ..Outlet::inside(&topic, serdes) });
    add_stream_source(graph, vec![topic], serdes)
}
