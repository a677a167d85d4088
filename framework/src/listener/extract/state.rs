//! Application state as an argument.

use std::ops::{Deref, DerefMut};

use super::states::States;
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
        required(&delivery.scope.states)
    }

    fn needs(needs: &mut Needs) {
        needs.state::<T>();
    }
}

impl<T: Clone + Send + Sync + 'static> FromBatch for State<T> {
    fn from_batch(delivery: &BatchDelivery<'_>) -> Result<Self, Rejection> {
        required(&delivery.scope.states)
    }

    fn needs(needs: &mut Needs) {
        needs.state::<T>();
    }
}

fn required<T: Clone + 'static>(states: &States) -> Result<State<T>, Rejection> {
    states.get().map(State).ok_or(Rejection::NoState { type_name: std::any::type_name::<T>() })
}
