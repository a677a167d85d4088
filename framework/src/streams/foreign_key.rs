//! Joins of a table with the row of another that its value names.

use std::fmt;
use std::sync::Arc;

use super::builder::key_value_store;
use super::error::TopologyError;
use super::node::{
    AnswerSource, Answers, Kept, Lookup, NodeFactory, SourceCodec, SourceFactory, Subscribe,
    SubscriptionSource, TellSubscribers, Wiring, table_node,
};
use super::options::{Materialized, Serdes};
use super::table::KTable;
use super::topology::{NodeId, TopicName};
use crate::serde::{Bytes, BytesSerde, DefaultSerde, Serde};

/// How the two sides of a foreign-key join write what they send each other.
pub struct ForeignKeyJoined<K, V, KO, VR> {
    left: Serdes<K, V>,
    right: Serdes<KO, VR>,
}

impl<K, V, KO, VR> ForeignKeyJoined<K, V, KO, VR> {
    /// With the serdes of the left table's keys and values, then those of the right one's.
    pub fn with(
        key: impl Serde<K>,
        value: impl Serde<V>,
        foreign_key: impl Serde<KO>,
        foreign_value: impl Serde<VR>,
    ) -> Self {
        Self { left: Serdes::of(key, value), right: Serdes::of(foreign_key, foreign_value) }
    }
}

impl<K: DefaultSerde, V: DefaultSerde, KO: DefaultSerde, VR: DefaultSerde> Default
    for ForeignKeyJoined<K, V, KO, VR>
{
    fn default() -> Self {
        Self { left: Serdes::default(), right: Serdes::default() }
    }
}

impl<K, V, KO, VR> fmt::Debug for ForeignKeyJoined<K, V, KO, VR> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForeignKeyJoined").field("left", &self.left).field("right", &self.right).finish()
    }
}

impl<K: 'static, V: 'static> KTable<K, V> {
    /// Joins each row with the row of `other` that `foreign_key` finds in it; a row without one has no result. A change
    /// of either table changes the results: of the other table, of all rows that name the changed one.
    ///
    /// The results are kept in a store. The tables may have different numbers of partitions: each row's foreign key
    /// goes through the topic `<store>-subscription-registration-topic` to where the other table's row lies, and the
    /// answer comes through `<store>-subscription-response-topic`.
    ///
    /// ```
    /// # use klamm::streams::StreamsBuilder;
    /// # let mut streams = StreamsBuilder::new();
    /// let orders = streams.table::<String, String>("orders"); // order number -> user
    /// let users = streams.table::<String, String>("users"); // user -> name
    /// orders
    ///     .foreign_key_join(&users, "order-names", |_, user| user.clone(), |user, name| format!("{user}: {name}"))
    ///     .to_stream()
    ///     .to("order-names");
    /// # streams.build().unwrap();
    /// ```
    pub fn foreign_key_join<KO: DefaultSerde, VR: DefaultSerde, VO: 'static, R: Into<Option<KO>>>(
        &self,
        other: &KTable<KO, VR>,
        materialized: impl Into<Materialized<VO>>,
        foreign_key: impl Fn(&K, &V) -> R + Send + Sync + 'static,
        joiner: impl Fn(&V, &VR) -> VO + Send + Sync + 'static,
    ) -> KTable<K, VO>
    where
        K: DefaultSerde,
        V: DefaultSerde,
    {
        self.foreign_key_join_with(other, materialized, foreign_key, joiner, ForeignKeyJoined::default())
    }

    /// [`foreign_key_join`](Self::foreign_key_join), written as `joined` says.
    pub fn foreign_key_join_with<KO: 'static, VR: 'static, VO: 'static, R: Into<Option<KO>>>(
        &self,
        other: &KTable<KO, VR>,
        materialized: impl Into<Materialized<VO>>,
        foreign_key: impl Fn(&K, &V) -> R + Send + Sync + 'static,
        joiner: impl Fn(&V, &VR) -> VO + Send + Sync + 'static,
        joined: ForeignKeyJoined<K, V, KO, VR>,
    ) -> KTable<K, VO> {
        let extractor = move |key: &K, row: &V| foreign_key(key, row).into();
        let joiner = move |left: &V, right: Option<&VR>| right.map(|right| joiner(left, right));
        self.foreign_key_rows(other, materialized.into(), false, extractor, joiner, joined)
    }

    /// [`foreign_key_join`](Self::foreign_key_join) that also has results of rows without a row of `other`, and of rows
    /// without a foreign key.
    pub fn left_foreign_key_join<KO: DefaultSerde, VR: DefaultSerde, VO: 'static, R: Into<Option<KO>>>(
        &self,
        other: &KTable<KO, VR>,
        materialized: impl Into<Materialized<VO>>,
        foreign_key: impl Fn(&K, &V) -> R + Send + Sync + 'static,
        joiner: impl Fn(&V, Option<&VR>) -> VO + Send + Sync + 'static,
    ) -> KTable<K, VO>
    where
        K: DefaultSerde,
        V: DefaultSerde,
    {
        self.left_foreign_key_join_with(other, materialized, foreign_key, joiner, ForeignKeyJoined::default())
    }

    /// [`left_foreign_key_join`](Self::left_foreign_key_join), written as `joined` says.
    pub fn left_foreign_key_join_with<KO: 'static, VR: 'static, VO: 'static, R: Into<Option<KO>>>(
        &self,
        other: &KTable<KO, VR>,
        materialized: impl Into<Materialized<VO>>,
        foreign_key: impl Fn(&K, &V) -> R + Send + Sync + 'static,
        joiner: impl Fn(&V, Option<&VR>) -> VO + Send + Sync + 'static,
        joined: ForeignKeyJoined<K, V, KO, VR>,
    ) -> KTable<K, VO> {
        let extractor = move |key: &K, row: &V| foreign_key(key, row).into();
        let joiner = move |left: &V, right: Option<&VR>| Some(joiner(left, right));
        self.foreign_key_rows(other, materialized.into(), true, extractor, joiner, joined)
    }

    fn foreign_key_rows<KO: 'static, VR: 'static, VO: 'static>(
        &self,
        other: &KTable<KO, VR>,
        materialized: Materialized<VO>,
        keeps_unmatched: bool,
        extractor: impl Fn(&K, &V) -> Option<KO> + Send + Sync + 'static,
        joiner: impl Fn(&V, Option<&VR>) -> Option<VO> + Send + Sync + 'static,
        joined: ForeignKeyJoined<K, V, KO, VR>,
    ) -> KTable<K, VO> {
        let spec = key_value_store(Arc::clone(&joined.left.key), materialized);
        let store = spec.name.to_string();
        let join = Join { left: self, other, joined, names: Names::of(&store), store: store.clone() };
        let subscribe = join.subscribe::<VO>(extractor, keeps_unmatched);
        let (keep, tell) = (join.keep_subscriptions(), join.tell_subscribers());
        let results = join.results(joiner);
        let subscriptions = key_value_store::<Bytes, Bytes>(
            Arc::new(BytesSerde),
            Materialized::with(join.names.store.clone(), BytesSerde),
        );
        let node = self.graph.edit(|graph| {
            if !self.graph.is(&other.graph) {
                let path = graph.path(&[self.node], "foreign_key_join");
                graph.errors.push(TopologyError::OtherBuilder(path));
            }
            graph.send_old_values(self.node);
            graph.remembering.extend(self.stores.iter().chain(&other.stores).cloned());
            let registrations = graph.adopting(&join.names.registrations);
            let answers = graph.adopting(&join.names.answers);
            let subscribe = graph.sink(self.node, Some(registrations.clone()), subscribe);
            let keep = graph.source(vec![registrations], keep);
            graph.store(subscriptions, keep);
            other.stores.iter().for_each(|store| graph.connect_store(keep, store));
            if self.graph.is(&other.graph) {
                let tell = graph.sink(other.node, Some(answers.clone()), tell);
                graph.connect_store(tell, &join.names.store);
            }
            let results = graph.source(vec![answers], results);
            self.stores.iter().for_each(|store| graph.connect_store(results, store));
            graph.store(spec, results);
            graph.connect_store(subscribe, &store);
            graph.does_for(&[subscribe], results);
            results
        });
        KTable::stored(self.graph.clone(), node, store)
    }
}

/// What a join is called between its sides.
struct Names {
    registrations: String,
    answers: String,
    store: String,
}

impl Names {
    fn of(join: &str) -> Self {
        Self {
            registrations: format!("{join}-subscription-registration-topic"),
            answers: format!("{join}-subscription-response-topic"),
            store: format!("{join}-subscription-store"),
        }
    }
}

/// A join while its nodes are made.
struct Join<'a, K, V, KO, VR> {
    left: &'a KTable<K, V>,
    other: &'a KTable<KO, VR>,
    joined: ForeignKeyJoined<K, V, KO, VR>,
    names: Names,
    store: String,
}

impl<K: 'static, V: 'static, KO: 'static, VR: 'static> Join<'_, K, V, KO, VR> {
    fn left_codec(&self) -> SourceCodec<K, V> {
        let Serdes { key, value } = self.joined.left.clone();
        SourceCodec { key, value }
    }

    fn subscribe<VO: 'static>(
        &self,
        extractor: impl Fn(&K, &V) -> Option<KO> + Send + Sync + 'static,
        keeps_unmatched: bool,
    ) -> NodeFactory {
        let topic = TopicName::Internal(self.names.registrations.clone());
        let (codec, foreign_key) = (self.left_codec(), Arc::clone(&self.joined.right.key));
        let (extractor, store) = (Arc::new(extractor), self.store.clone());
        table_node::<K, V, _>(move |wiring, id| {
            let joined: Box<dyn Lookup<K, VO>> = Box::new(wiring.store::<K, VO>(&store)?);
            let (codec, foreign_key, extractor) =
                (codec.clone(), Arc::clone(&foreign_key), Arc::clone(&extractor));
            let (topic, boundary) = (wiring.topic(&topic), wiring.boundary(id));
            Ok(Subscribe { topic, codec, foreign_key, extractor, keeps_unmatched, boundary, joined })
        })
    }

    fn answers(&self) -> impl Fn(&Wiring<'_>) -> Answers<VR> + Send + Sync + 'static {
        let topic = TopicName::Internal(self.names.answers.clone());
        let value = Arc::clone(&self.joined.right.value);
        move |wiring| Answers { topic: wiring.topic(&topic), value: Arc::clone(&value) }
    }

    fn keep_subscriptions(&self) -> SourceFactory {
        let (store, answers) = (self.names.store.clone(), self.answers());
        let (foreign_key, right) = (Arc::clone(&self.joined.right.key), Arc::clone(&self.other.lookup));
        Arc::new(move |wiring: &mut Wiring<'_>, _: NodeId| {
            let (subscriptions, _) = wiring.ordered_store::<Bytes, Bytes>(&store, None)?;
            let (foreign_key, right, answers) = (Arc::clone(&foreign_key), right(wiring)?, answers(wiring));
            Ok(Box::new(SubscriptionSource { subscriptions, foreign_key, right, answers }) as Box<_>)
        })
    }

    fn tell_subscribers(&self) -> NodeFactory {
        let (store, answers) = (self.names.store.clone(), self.answers());
        let foreign_key = Arc::clone(&self.joined.right.key);
        table_node::<KO, VR, _>(move |wiring, _| {
            let (subscriptions, _) = wiring.ordered_store::<Bytes, Bytes>(&store, None)?;
            let (foreign_key, answers) = (Arc::clone(&foreign_key), answers(wiring));
            Ok(TellSubscribers { subscriptions, foreign_key, answers })
        })
    }

    fn results<VO: 'static>(
        &self,
        joiner: impl Fn(&V, Option<&VR>) -> Option<VO> + Send + Sync + 'static,
    ) -> SourceFactory {
        let subscriptions = TopicName::Internal(self.names.registrations.clone());
        let (codec, right_value) = (self.left_codec(), Arc::clone(&self.joined.right.value));
        let (left, joiner, store) = (Arc::clone(&self.left.lookup), Arc::new(joiner), self.store.clone());
        Arc::new(move |wiring: &mut Wiring<'_>, node: NodeId| {
            let kept = Kept::<K, VO>::wire(wiring, node, &store)?;
            let (codec, right_value) = (codec.clone(), Arc::clone(&right_value));
            let (left, joiner) = (left(wiring)?, Arc::clone(&joiner));
            let subscriptions = wiring.topic(&subscriptions);
            Ok(Box::new(AnswerSource { codec, right_value, left, joiner, kept, subscriptions }) as Box<_>)
        })
    }
}
