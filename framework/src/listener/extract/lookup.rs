//! What extractors ask to be looked up, and the default serdes that ask for it.

use std::any::Any;
use std::error::Error;

#[cfg(feature = "schema-registry")]
use crate::serde::SchemaRegistry;
use crate::serde::{AsksFor, DefaultSerde, Lookup, SerdeError};

use super::{Delivery, FromRecord, Needs, Rejection};

impl AsksFor for Rejection {
    fn lookup(&self) -> Option<&Lookup> {
        match self {
            Self::Key(source) | Self::Value(source) | Self::Header { source, .. } => source.lookup(),
            // An extractor of the user's own has made another error of ours.
            Self::Other(error) => lookup_in(&**error),
            _ => None,
        }
    }
}

/// What an error asks for, or one of those that caused it.
fn lookup_in<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Lookup> {
    let mut next = Some(error);
    while let Some(error) = next {
        let of_serde = error.downcast_ref::<SerdeError>().and_then(AsksFor::lookup);
        let found = of_serde.or_else(|| error.downcast_ref::<Rejection>().and_then(AsksFor::lookup));
        if found.is_some() {
            return found;
        }
        next = error.source();
    }
    None
}

/// What `E` is made of, or its rejection, for a handler that wants to see it. One that asks for something is for the
/// listener and not for the handler.
pub(super) fn made_or_rejected<E: FromRecord>(
    delivery: &Delivery<'_>,
) -> Result<Result<E, E::Rejection>, Rejection>
where
    E::Rejection: 'static,
{
    let rejection = match E::from_record(delivery) {
        Ok(made) => return Ok(Ok(made)),
        Err(rejection) => rejection,
    };
    let asks = match (&rejection as &dyn Any).downcast_ref::<Rejection>() {
        Some(ours) => ours.lookup().is_some(),
        // It only tells as one of ours, and is then gone: another one is made.
        None => match E::from_record(delivery) {
            Ok(made) => return Ok(Ok(made)),
            Err(again) => Into::<Rejection>::into(again).lookup().is_some(),
        },
    };
    if asks { Err(rejection.into()) } else { Ok(Err(rejection)) }
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
