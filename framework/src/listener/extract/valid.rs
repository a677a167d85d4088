//! Arguments that are checked after they were decoded, by the rules of `garde`.

use std::ops::{Deref, DerefMut};

use garde::Validate;

use super::{Delivery, FromRecord, Needs, Rejection};

/// An argument whose content keeps the rules that its type states: `Valid<Json<Order>>` with
/// `#[derive(garde::Validate)]` on `Order` (feature `garde`). What breaks one is a [`Rejection::Invalid`] that names
/// every field that does, and goes to the failure policy, which does not retry it unless told to.
///
/// ```
/// use garde::Validate;
/// use klamm::listener::Valid;
/// use klamm::prelude::*;
///
/// #[derive(Deserialize, Validate)]
/// struct Order {
///     #[garde(range(min = 1))]
///     cents: i64,
///     #[garde(length(min = 1, max = 40))]
///     customer: String,
/// }
///
/// #[kafka_listener(topics = "orders", group = "billing")]
/// async fn bill(Valid(Json(order)): Valid<Json<Order>>) {
///     println!("{} pays {}", order.customer, order.cents);
/// }
/// ```
///
/// Rules that need a context get its `Default`; for others implement [`FromRecord`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Valid<E>(pub E);

impl<E> Deref for Valid<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.0
    }
}

impl<E> DerefMut for Valid<E> {
    fn deref_mut(&mut self) -> &mut E {
        &mut self.0
    }
}

impl<E> FromRecord for Valid<E>
where
    E: FromRecord + Deref<Target: Validate<Context: Default>>,
{
    type Rejection = Rejection;

    fn from_record(delivery: &Delivery<'_>) -> Result<Self, Rejection> {
        let part = E::from_record(delivery).map_err(Into::into)?;
        match part.validate() {
            Ok(()) => Ok(Self(part)),
            Err(report) => Err(Rejection::Invalid(Box::new(report))),
        }
    }

    fn needs(needs: &mut Needs) {
        E::needs(needs);
    }
}
