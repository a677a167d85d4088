//! Puts the processors of one task together: children first, each node and each store once.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

pub(crate) use super::called::{Flush, FollowsTime, Punctuates};
use super::expiring_rows::ExpiringRows;
use super::fault::Takes;
use super::{
    Arrivals, Boundary, Calling, Child, Children, GlobalRows, Guarded, GuardedTable, JoinRows, ListTime,
    OrderedStore, Processor, RoutedTopics, Source, Step, StoreCodec, StoreLayout, StoreSpec, TableChild,
    TableChildren, TableProcessor, TableStore, TaskStore, TopicId, VersionedRows,
};
use crate::store::{StateStore, StoreError};
use crate::streams::cache::CacheBudget;
use crate::streams::error::TaskError;
use crate::streams::policy::ErrorPolicy;
use crate::streams::topology::{GlobalTable, Graph, NodeId, NodeKind, TopicName};
use crate::streams::windows::millis;

/// Makes a node's processor. Called once per task.
pub(crate) type NodeFactory = Arc<dyn Fn(&mut Wiring<'_>, NodeId) -> Result<Built, TaskError> + Send + Sync>;

/// A factory of processors that take `K` and `V`.
pub(crate) fn node<K: 'static, V: 'static, P: Processor<K, V> + 'static>(
    factory: impl Fn(&mut Wiring<'_>, NodeId) -> Result<P, TaskError> + Send + Sync + 'static,
) -> NodeFactory {
    Arc::new(move |wiring, id| factory(wiring, id).map(Built::new::<K, V>))
}

/// The same for a processor of the user's.
pub(crate) fn remembering_node<K: 'static, V: 'static, P: Processor<K, V> + 'static>(
    factory: impl Fn(&mut Wiring<'_>, NodeId) -> Result<P, TaskError> + Send + Sync + 'static,
) -> NodeFactory {
    Arc::new(move |wiring, id| factory(wiring, id).map(|made| Built::new::<K, V>(made).remembering()))
}

/// The same for a processor that follows stream time.
pub(crate) fn following_node<K: 'static, V: 'static, P: Processor<K, V> + FollowsTime + 'static>(
    factory: impl Fn(&mut Wiring<'_>, NodeId) -> Result<P, TaskError> + Send + Sync + 'static,
) -> NodeFactory {
    Arc::new(move |wiring, id| {
        let processor = Rc::new(RefCell::new(factory(wiring, id)?));
        wiring.follows_time(Rc::clone(&processor) as Rc<RefCell<dyn FollowsTime>>);
        Ok(Built::shared::<K, V>(processor))
    })
}

/// The same for a processor that needs nothing but what follows it, which takes `K2` and `V2`.
pub(crate) fn inner_node<K, V, K2, V2, P>(
    make: impl Fn(Children<K2, V2>) -> P + Send + Sync + 'static,
) -> NodeFactory
where
    K: 'static,
    V: 'static,
    K2: 'static,
    V2: 'static,
    P: Processor<K, V> + 'static,
{
    node::<K, V, P>(move |wiring, id| Ok(make(wiring.children(id)?)))
}

/// A factory of processors that hear of the changes of a table of `K` and `V`.
pub(crate) fn table_node<K: 'static, V: 'static, P: TableProcessor<K, V> + 'static>(
    factory: impl Fn(&mut Wiring<'_>, NodeId) -> Result<P, TaskError> + Send + Sync + 'static,
) -> NodeFactory {
    Arc::new(move |wiring, id| factory(wiring, id).map(Built::table::<K, V>))
}

/// The same for a view: it needs nothing but the tables that follow it, of `K2` and `V2`, and where its faults end.
pub(crate) fn view_node<K, V, K2, V2, P>(
    make: impl Fn(Boundary, TableChildren<K2, V2>) -> P + Send + Sync + 'static,
) -> NodeFactory
where
    K: 'static,
    V: 'static,
    K2: 'static,
    V2: 'static,
    P: TableProcessor<K, V> + 'static,
{
    table_node::<K, V, P>(move |wiring, id| Ok(make(wiring.boundary(id), wiring.table_children(id)?)))
}

/// A factory of steps that end faults themselves: what they forward to is not called inside their boundary.
pub(crate) fn guarded_node<K, V, K2, V2, S>(
    make: impl Fn(Boundary, Children<K2, V2>) -> S + Send + Sync + 'static,
) -> NodeFactory
where
    K: 'static,
    V: 'static,
    K2: 'static,
    V2: 'static,
    S: Step<K, V> + 'static,
{
    Arc::new(move |wiring, id| {
        let step = make(wiring.boundary(id), wiring.children(id)?);
        Ok(Built::shared::<K, V>(Rc::new(step)).guarding_itself())
    })
}

/// Makes a source's entry point. Called once per task.
pub(crate) type SourceFactory =
    Arc<dyn Fn(&mut Wiring<'_>, NodeId) -> Result<Box<dyn Source>, TaskError> + Send + Sync>;

/// Opens the engine of a store.
pub(crate) type OpenStore<'a> = dyn FnMut(&StoreSpec) -> Result<Arc<dyn StateStore>, StoreError> + 'a;

/// A processor whose types are forgotten until its parent asks for them: a boxed [`Child`] or [`TableChild`].
pub(crate) struct Built {
    child: Box<dyn Any>,
    guards_itself: bool,
    /// It is the user's, and must not be given a record again.
    remembers: bool,
}

impl Built {
    pub(crate) fn new<K: 'static, V: 'static>(processor: impl Processor<K, V> + 'static) -> Self {
        Self::shared::<K, V>(Rc::new(RefCell::new(processor)))
    }

    pub(crate) fn shared<K: 'static, V: 'static>(processor: Child<K, V>) -> Self {
        Self { child: Box::new(processor), guards_itself: false, remembers: false }
    }

    /// No record is to come again.
    pub(crate) fn remembering(self) -> Self {
        Self { remembers: true, ..self }
    }

    /// No boundary needs to be put around it.
    pub(crate) fn guarding_itself(self) -> Self {
        Self { guards_itself: true, ..self }
    }

    pub(crate) fn table<K: 'static, V: 'static>(processor: impl TableProcessor<K, V> + 'static) -> Self {
        let processor: TableChild<K, V> = Rc::new(RefCell::new(processor));
        Self { child: Box::new(processor), guards_itself: false, remembers: false }
    }
}

/// A processor that a boundary can be put around.
trait Shielded: Clone + 'static {
    fn behind(self, boundary: Boundary, takes: Takes) -> Self;
}

impl<K: 'static, V: 'static> Shielded for Child<K, V> {
    fn behind(self, boundary: Boundary, takes: Takes) -> Self {
        Rc::new(RefCell::new(Guarded { inner: self, boundary, takes }))
    }
}

impl<K: 'static, V: 'static> Shielded for TableChild<K, V> {
    fn behind(self, boundary: Boundary, takes: Takes) -> Self {
        Rc::new(RefCell::new(GuardedTable { inner: self, boundary, takes }))
    }
}

/// A store that is read in order, and how what it holds is written.
pub(crate) type OrderedPart<K, V> = (Rc<RefCell<OrderedStore>>, Arc<StoreCodec<K, V>>);

/// A store that keeps versions, and how what it holds is written.
pub(crate) type VersionedPart<K, V> = (Rc<RefCell<VersionedRows>>, Arc<StoreCodec<K, V>>);

/// The list of when rows expire, and how long they live.
pub(crate) type ExpiryList = (Rc<RefCell<OrderedStore>>, i64);

/// The parts of a task while they are put together.
pub(crate) struct Wiring<'a> {
    graph: &'a Graph,
    open: &'a mut OpenStore<'a>,
    topic_ids: &'a HashMap<TopicName, TopicId>,
    nodes: HashMap<NodeId, Built>,
    tables: HashMap<String, Box<dyn Any>>,
    ordered: HashMap<String, Rc<RefCell<OrderedStore>>>,
    versioned: HashMap<String, Rc<RefCell<VersionedRows>>>,
    joined: HashMap<String, Rc<RefCell<JoinRows>>>,
    times: HashMap<String, Rc<Cell<i64>>>,
    pub(super) expiring: HashMap<String, Rc<RefCell<ExpiringRows>>>,
    pub(crate) stores: Vec<Rc<RefCell<dyn TaskStore>>>,
    flushing: Vec<Rc<RefCell<dyn Flush>>>,
    pub(crate) punctuating: Vec<Rc<RefCell<dyn Punctuates>>>,
    following: Vec<Rc<RefCell<dyn FollowsTime>>>,
    budget: &'a Arc<CacheBudget>,
    pub(crate) calling: Vec<Rc<RefCell<dyn Calling>>>,
    pub(crate) arrivals: Arc<Arrivals>,
}

impl<'a> Wiring<'a> {
    pub(crate) fn new(
        graph: &'a Graph,
        topic_ids: &'a HashMap<TopicName, TopicId>,
        open: &'a mut OpenStore<'a>,
        budget: &'a Arc<CacheBudget>,
    ) -> Self {
        Self {
            graph,
            open,
            topic_ids,
            nodes: HashMap::new(),
            tables: HashMap::new(),
            ordered: HashMap::new(),
            versioned: HashMap::new(),
            joined: HashMap::new(),
            times: HashMap::new(),
            expiring: HashMap::new(),
            stores: Vec::new(),
            flushing: Vec::new(),
            punctuating: Vec::new(),
            following: Vec::new(),
            budget,
            calling: Vec::new(),
            arrivals: Arc::default(),
        }
    }

    /// What follows `node`, in the order in which it was declared.
    pub(crate) fn children<K: 'static, V: 'static>(
        &mut self,
        node: NodeId,
    ) -> Result<Children<K, V>, TaskError> {
        self.built::<Child<K, V>>(&self.graph.node(node).children).map(Children)
    }

    /// Those of them that have a name, by that.
    pub(crate) fn named_children<K: 'static, V: 'static>(
        &mut self,
        node: NodeId,
    ) -> Result<BTreeMap<&'a str, Children<K, V>>, TaskError> {
        let (graph, mut named) = (self.graph, BTreeMap::new());
        for (name, child) in &graph.node(node).named {
            let children = named.entry(name.as_str()).or_insert_with(|| Children(Vec::new()));
            children.0.extend(self.built::<Child<K, V>>(std::slice::from_ref(child))?);
        }
        Ok(named)
    }

    /// Those who want what `node` leaves out because it came too late.
    pub(crate) fn late_children<K: 'static, V: 'static>(
        &mut self,
        node: NodeId,
    ) -> Result<Children<K, V>, TaskError> {
        self.built::<Child<K, V>>(&self.graph.node(node).late).map(Children)
    }

    /// The same below a node that is a table.
    pub(crate) fn table_children<K: 'static, V: 'static>(
        &mut self,
        node: NodeId,
    ) -> Result<TableChildren<K, V>, TaskError> {
        let want_old = self.graph.node(node).sends_old_values;
        Ok(TableChildren {
            children: self.built::<TableChild<K, V>>(&self.graph.node(node).children)?,
            want_old,
        })
    }

    fn built<C: Shielded>(&mut self, nodes: &'a [NodeId]) -> Result<Vec<C>, TaskError> {
        let graph = self.graph;
        let mut children = Vec::new();
        for &child in nodes {
            if !self.nodes.contains_key(&child) {
                let (NodeKind::Step { factory } | NodeKind::Sink { factory, .. }) = &graph.node(child).kind
                else {
                    continue;
                };
                let built = factory(self, child)?;
                self.nodes.insert(child, built);
            }
            let built = self.nodes.get(&child);
            let guards_itself = built.is_some_and(|built| built.guards_itself);
            let again = !built.is_some_and(|built| built.remembers);
            let takes = Takes { writes: graph.node(child).writes, again };
            let typed = built.and_then(|built| built.child.downcast_ref::<C>());
            let inner = typed.expect("the typed builder connects nodes of the same types only").clone();
            children.push(match guards_itself {
                true => inner,
                false => inner.behind(self.boundary(child), takes),
            });
        }
        Ok(children)
    }

    /// The store `name`, shared by everything in the task that uses it.
    pub(crate) fn store<K: 'static, V: 'static>(
        &mut self,
        name: &str,
    ) -> Result<Rc<RefCell<TableStore<K, V>>>, TaskError> {
        const TYPED: &str = "the typed builder hands a store only to nodes of its types";
        if let Some(table) = self.tables.get(name) {
            return Ok(Rc::clone(table.downcast_ref().expect(TYPED)));
        }
        let spec = self.graph.stores.get(name).expect("a node names only stores of its topology");
        let codec = Arc::clone(&spec.codec).downcast::<StoreCodec<K, V>>().map_err(drop).expect(TYPED);
        let engine = (self.open)(spec)?;
        let topic = self.topic(&TopicName::changelog(name));
        let remembers = self.graph.remembering.contains(name);
        let table =
            Rc::new(RefCell::new(TableStore::open(spec, codec, engine, topic, remembers, self.budget)?));
        self.tables.insert(name.to_owned(), Box::new(Rc::clone(&table)));
        self.stores.push(Rc::clone(&table) as Rc<RefCell<dyn TaskStore>>);
        Ok(table)
    }

    /// The store `name`, read in order; `listed` lists its rows by a time.
    pub(crate) fn ordered_store<K: 'static, V: 'static>(
        &mut self,
        name: &str,
        listed: Option<ListTime>,
    ) -> Result<OrderedPart<K, V>, TaskError> {
        const TYPED: &str = "the typed builder hands a store only to nodes of its types";
        let (store, spec) = self.open_ordered(name, listed)?;
        let codec = Arc::clone(&spec.codec).downcast::<StoreCodec<K, V>>().map_err(drop).expect(TYPED);
        Ok((store, codec))
    }

    /// The store `name`, read in order, and what the topology says of it.
    pub(crate) fn any_ordered_store(
        &mut self,
        name: &str,
    ) -> Result<(Rc<RefCell<OrderedStore>>, &'a StoreSpec), TaskError> {
        self.open_ordered(name, None)
    }

    fn open_ordered(
        &mut self,
        name: &str,
        listed: Option<ListTime>,
    ) -> Result<(Rc<RefCell<OrderedStore>>, &'a StoreSpec), TaskError> {
        let spec = self.graph.stores.get(name).expect("a node names only stores of its topology");
        if let Some(store) = self.ordered.get(name) {
            return Ok((Rc::clone(store), spec));
        }
        let engine = (self.open)(spec)?;
        let topic = self.topic(&TopicName::changelog(name));
        let store = Rc::new(RefCell::new(OrderedStore::open(spec, engine, topic, listed)?));
        self.ordered.insert(name.to_owned(), Rc::clone(&store));
        self.stores.push(Rc::clone(&store) as Rc<RefCell<dyn TaskStore>>);
        Ok((store, spec))
    }

    /// The store `name`, which keeps versions, shared by everything in the task that uses it.
    pub(crate) fn versioned_store<K: 'static, V: 'static>(
        &mut self,
        name: &str,
    ) -> Result<VersionedPart<K, V>, TaskError> {
        const TYPED: &str = "the typed builder hands a store only to nodes of its types";
        let (store, spec) = self.any_versioned_store(name)?;
        let codec = Arc::clone(&spec.codec).downcast::<StoreCodec<K, V>>().map_err(drop).expect(TYPED);
        Ok((store, codec))
    }

    /// The store `name`, which keeps versions, and what the topology says of it.
    pub(crate) fn any_versioned_store(
        &mut self,
        name: &str,
    ) -> Result<(Rc<RefCell<VersionedRows>>, &'a StoreSpec), TaskError> {
        let spec = self.graph.stores.get(name).expect("a node names only stores of its topology");
        if let Some(store) = self.versioned.get(name) {
            return Ok((Rc::clone(store), spec));
        }
        let StoreLayout::Versioned(layout) = spec.layout else {
            unreachable!("the builder hands stores of versions only to those who keep them")
        };
        let engine = (self.open)(spec)?;
        let topic = self.topic(&TopicName::changelog(name));
        let store = Rc::new(RefCell::new(VersionedRows::open(spec, layout, engine, topic)?));
        self.versioned.insert(name.to_owned(), Rc::clone(&store));
        self.stores.push(Rc::clone(&store) as Rc<RefCell<dyn TaskStore>>);
        Ok((store, spec))
    }

    /// The store `name`: one side of a join of two streams.
    pub(crate) fn join_rows(&mut self, name: &str) -> Result<Rc<RefCell<JoinRows>>, TaskError> {
        let spec = self.graph.stores.get(name).expect("a node names only stores of its topology");
        if let Some(store) = self.joined.get(name) {
            return Ok(Rc::clone(store));
        }
        let StoreLayout::Window(layout) = spec.layout else {
            unreachable!("joins declare stores of windows")
        };
        let engine = (self.open)(spec)?;
        let topic = self.topic(&TopicName::changelog(name));
        let store = Rc::new(RefCell::new(JoinRows::open(spec, layout, engine, topic, self.budget)?));
        self.joined.insert(name.to_owned(), Rc::clone(&store));
        self.stores.push(Rc::clone(&store) as Rc<RefCell<dyn TaskStore>>);
        Ok(store)
    }

    /// Whether a store keeps what its rows were.
    pub(crate) fn is_versioned(&self, name: &str) -> bool {
        self.graph.stores.get(name).is_some_and(StoreSpec::is_versioned)
    }

    /// The list of when the rows of store `name` expire, and how long they live, if they do.
    pub(crate) fn expiry(&mut self, name: &str) -> Result<Option<ExpiryList>, TaskError> {
        let spec = self.graph.stores.get(name).expect("a node names only stores of its topology");
        let Some(time) = spec.time_to_live else { return Ok(None) };
        let (list, _) = self.open_ordered(&Graph::expiry_of(name), None)?;
        Ok(Some((list, millis(time))))
    }

    /// Lets the clocks call `punctuates`.
    pub(crate) fn punctuates(&mut self, punctuates: Rc<RefCell<dyn Punctuates>>) {
        self.punctuating.push(punctuates);
    }

    /// Lets stream time that goes on without records reach `follows`. Call it after the children are wired.
    pub(crate) fn follows_time(&mut self, follows: Rc<RefCell<dyn FollowsTime>>) {
        self.following.push(follows);
    }

    /// What follows stream time, upstream before downstream.
    pub(crate) fn time_order(&mut self) -> Vec<Rc<RefCell<dyn FollowsTime>>> {
        let mut order = std::mem::take(&mut self.following);
        order.reverse();
        order
    }

    /// A time that all users of the store `name` share, nothing at first.
    pub(crate) fn shared_time(&mut self, name: &str) -> Rc<Cell<i64>> {
        Rc::clone(self.times.entry(name.to_owned()).or_insert_with(|| Rc::new(Cell::new(i64::MIN))))
    }

    /// Where the faults of a node end.
    pub(crate) fn boundary(&self, node: NodeId) -> Boundary {
        let policy = self.graph.policy_of(node);
        let letters = policy.dead_letter_topic().map(|topic| self.topic(&TopicName::User(topic.to_owned())));
        let operator = self.graph.node(node).name.as_str().into();
        let goes_on = **policy != ErrorPolicy::fail();
        Boundary { index: node.0, operator, policy: Arc::clone(policy), letters, goes_on }
    }

    /// The topic of a sink, if it is not for the record to choose.
    pub(crate) fn sink_topic(&self, node: NodeId) -> Option<TopicId> {
        match &self.graph.node(node).kind {
            NodeKind::Sink { topic, .. } => topic.as_ref().map(|topic| self.topic(topic)),
            NodeKind::Source { .. } | NodeKind::Step { .. } => None,
        }
    }

    /// The ids of topics that records choose.
    pub(crate) fn routed(&self) -> Arc<RoutedTopics> {
        Arc::clone(&self.graph.routed)
    }

    /// The rows of the global table of a topic.
    pub(crate) fn global<K: 'static, V: 'static>(&self, topic: &str) -> GlobalRows<K, V> {
        const TYPED: &str = "the typed builder hands a global table only to nodes of its types";
        let table = self.graph.globals.get(topic).expect("a node names only tables of its topology");
        let codec = Arc::clone(&table.spec.codec).downcast::<StoreCodec<K, V>>().map_err(drop).expect(TYPED);
        GlobalRows { topic: topic.into(), codec, engine: Arc::clone(&table.engine) }
    }

    /// All global tables, by topic: every processor may read them.
    pub(super) fn globals(&self) -> &'a BTreeMap<String, GlobalTable> {
        &self.graph.globals
    }

    pub(crate) fn topic(&self, name: &TopicName) -> TopicId {
        *self.topic_ids.get(name).expect("every topic of a topology has an id")
    }

    /// Lets `processor` flush at commits. Call it after the processor's children are wired.
    pub(crate) fn flush_at_commit(&mut self, processor: Rc<RefCell<dyn Flush>>) {
        self.flushing.push(processor);
    }

    /// What flushes at a commit, upstream before downstream: children were wired first, so the reverse of that.
    pub(crate) fn flush_order(&mut self) -> Vec<Rc<RefCell<dyn Flush>>> {
        let mut order = std::mem::take(&mut self.flushing);
        order.reverse();
        order
    }
}
