//! What extractors ask to be looked up, and the default serdes that ask for it.

use std::any::Any;

#[cfg(feature = "schema-registry")]
use crate::serde::SchemaRegistry;
use crate::serde::{AsksFor, DefaultSerde, Lookup};

use super::{Delivery, Needs, Rejection};

impl AsksFor for Rejection {
    fn lookup(&self) -> Option<&Lookup> {
        match self {
            Self::Key(source) | Self::Value(source) | Self::Header { source, .. } => source.lookup(),
            _ => None,
        }
    }
}

/// Whether a rejection of whatever type asks for something: it is then for the listener and not for the handler.
pub(super) fn asks<R: 'static>(rejection: &R) -> bool {
    (rejection as &dyn Any).downcast_ref::<Rejection>().is_some_and(|rejection| rejection.lookup().is_some())
}

/// The serde of a type in this app.
pub(super) fn serde_of<T: DefaultSerde>(delivery: &Delivery<'_>) -> T::Serde {
    #[cfg(feature = "schema-registry")]
    if T::NEEDS_REGISTRY {
        // What is read says by itself with which schema it was written, a key like a value.
        return delivery.scope.states.serdes().of::<T>(false);
    }
    // The state is not looked for in vain at each record.
    let _ = delivery;
    T::Serde::default()
}

/// What the serde of a type needs from the app.
pub(super) fn needs_of<T: DefaultSerde>(needs: &mut Needs) {
    #[cfg(feature = "schema-registry")]
    if T::NEEDS_REGISTRY {
        needs.state::<SchemaRegistry>();
    }
    let _ = needs;
}
