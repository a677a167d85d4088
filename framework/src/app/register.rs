//! How listeners get into an app: as a value, by the name of an annotated function, or by discovery.

#[cfg(feature = "macros")]
use std::any::TypeId;

use super::StartError;
#[cfg(feature = "macros")]
use crate::listener::Handler;
use crate::listener::Listener;

/// What [`App::listener`](crate::App::listener) takes: a [`Listener`], or a function under `#[kafka_listener]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a listener",
    label = "neither a `Listener` nor a function under `#[kafka_listener]`",
    note = "annotate the function, or add `Listener::on(\"topic\").group(\"group\").handle(function)`"
)]
pub trait IntoListener<M> {
    /// The listener.
    ///
    /// # Errors
    /// When it is a function without `#[kafka_listener]`.
    #[doc(hidden)]
    fn into_listener(self) -> Result<Listener, StartError>;
}

impl IntoListener<()> for Listener {
    fn into_listener(self) -> Result<Listener, StartError> {
        Ok(self)
    }
}

/// A function under `#[kafka_listener]`. The function itself stays a plain function; its type,
/// which is its own, leads here.
#[cfg(feature = "macros")]
#[doc(hidden)]
#[derive(Debug)]
pub struct Declared {
    function: fn() -> (TypeId, &'static str),
    listener: fn() -> Listener,
}

#[cfg(feature = "macros")]
impl Declared {
    #[doc(hidden)]
    pub const fn new(function: fn() -> (TypeId, &'static str), listener: fn() -> Listener) -> Self {
        Self { function, listener }
    }

    /// The type of a function, which cannot be named, and its path.
    #[doc(hidden)]
    pub fn type_of<F: 'static>(_function: F) -> (TypeId, &'static str) {
        (TypeId::of::<F>(), std::any::type_name::<F>())
    }

    fn make(&self) -> Listener {
        Listener { path: (self.function)().1, ..(self.listener)() }
    }
}

#[cfg(feature = "macros")]
inventory::collect!(Declared);

#[cfg(feature = "macros")]
#[doc(hidden)]
#[derive(Debug)]
pub struct Annotated;

#[cfg(feature = "macros")]
impl<F, M> IntoListener<(Annotated, M)> for F
where
    F: Handler<M>,
{
    fn into_listener(self) -> Result<Listener, StartError> {
        let function = TypeId::of::<F>();
        let declared =
            inventory::iter::<Declared>.into_iter().find(|declared| (declared.function)().0 == function);
        match declared {
            Some(declared) => Ok(declared.make()),
            None => Err(StartError::NotAnnotated { function: std::any::type_name::<F>() }),
        }
    }
}

/// The listeners under `#[kafka_listener]` that are not in `present`. Two functions of the same name are two.
#[cfg(feature = "macros")]
pub(super) fn declared(present: &[Listener]) -> Vec<Listener> {
    let mut found: Vec<Listener> = inventory::iter::<Declared>
        .into_iter()
        .map(Declared::make)
        .filter(|listener| {
            present.iter().all(|known| (&known.id, known.path) != (&listener.id, listener.path))
        })
        .collect();
    // The linker's order is nobody's.
    found.sort_by(|a, b| (&a.id, a.path).cmp(&(&b.id, b.path)));
    found
}
