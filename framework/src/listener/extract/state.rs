//! Application state: values that handlers share, found by their type.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::{BatchDelivery, Delivery, FromBatch, FromRecord, Needs, Rejection};

/// A clone of the app's state of type `T`: a connection pool, a client, a handle. Put what is
/// expensive to clone into an `Arc`.
///
/// A listener that takes a state which the app was not given is an error when the app starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct State<T>(pub T);

impl<T> Deref for State<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for State<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Clone + Send + Sync + 'static> FromRecord for State<T> {
    type Rejection = Rejection;

    fn from_record(delivery: &Delivery<'_>) -> Result<Self, Rejection> {
        delivery.scope.states.require()
    }

    fn needs(needs: &mut Needs) {
        needs.state::<T>();
    }
}

impl<T: Clone + Send + Sync + 'static> FromBatch for State<T> {
    fn from_batch(delivery: &BatchDelivery<'_>) -> Result<Self, Rejection> {
        delivery.scope.states.require()
    }

    fn needs(needs: &mut Needs) {
        needs.state::<T>();
    }
}

/// The states of an app by type. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct States(Arc<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>);

impl States {
    /// Adds a state; one of the same type is replaced.
    pub(crate) fn insert<T: Clone + Send + Sync + 'static>(&mut self, state: T) {
        Arc::make_mut(&mut self.0).insert(TypeId::of::<T>(), Arc::new(state));
    }

    pub(crate) fn get<T: Clone + 'static>(&self) -> Option<T> {
        self.0.get(&TypeId::of::<T>())?.downcast_ref::<T>().cloned()
    }

    pub(crate) fn contains(&self, type_id: TypeId) -> bool {
        self.0.contains_key(&type_id)
    }

    fn require<T: Clone + 'static>(&self) -> Result<State<T>, Rejection> {
        self.get().map(State).ok_or(Rejection::NoState { type_name: std::any::type_name::<T>() })
    }
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "States({})", self.0.len())
    }
}
