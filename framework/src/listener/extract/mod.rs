//! Arguments of listeners: how each is made from a record, in the manner of axum's extractors.

mod ack;
mod batch;
mod context;
mod headers;
mod lookup;
mod parts;
mod rejection;
mod state;
mod states;
mod template;
mod tx;
#[cfg(feature = "garde")]
mod valid;

pub use batch::{Batch, FromBatch};
#[cfg(feature = "asyncapi")]
pub(crate) use context::HeaderField;
pub(crate) use context::Scope;
pub use context::{BatchDelivery, Delivery, Needs};
pub use parts::{Header, HeaderName, Key, RecordMeta, Value};
pub use rejection::Rejection;
pub use state::State;
pub(crate) use states::States;
#[cfg(feature = "garde")]
pub use valid::Valid;

/// An argument of a listener that is made from one record.
///
/// Wrap one in `Option` to get `None` where the part is missing (no key, a tombstone, no such header), and in
/// `Result<_, Rejection>` to look at a failure instead of leaving it to the failure policy. Tuples of extractors are
/// extractors, which serves [`Batch`]: `Batch<(RecordMeta, Json<Click>)>`.
///
/// ```
/// use klamm::listener::{Delivery, FromRecord, Rejection};
///
/// struct Tenant(String);
///
/// impl FromRecord for Tenant {
///     type Rejection = Rejection;
///
///     fn from_record(delivery: &Delivery<'_>) -> Result<Self, Rejection> {
///         let topic = &delivery.record().topic;
///         let (tenant, _) = topic.split_once('.').ok_or_else(|| Rejection::other("no tenant in the topic"))?;
///         Ok(Self(tenant.to_owned()))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a listener",
    label = "not an extractor",
    note = "arguments are `Json<T>`, `Value<T>`, `Key<K>`, `Header<N, T>`, `Headers`, `RecordMeta`, `ConsumerRecord`, \
     `Ack`, `Tx`, `Template<K, V>` and `State<T>`; a part that may be missing in `Option<...>`; and types of yours \
     that implement `FromRecord`",
    note = "a payload is taught how it is written: `#[derive(Record)] #[record(json)] struct {Self}`, or wrapped: \
     `Json<{Self}>`; application state is wrapped: `State<{Self}>`; headers are a struct with `#[derive(Headers)]`"
)]
pub trait FromRecord: Sized + Send + 'static {
    /// What it is when the record does not have it. Our own extractors all have [`Rejection`].
    type Rejection: Into<Rejection>;

    /// Makes the argument. Record bytes come from outside: return a rejection, do not panic.
    ///
    /// # Errors
    /// When the record has no such part, or it does not decode. The rejection goes to the listener's
    /// [`FailurePolicy`](crate::FailurePolicy).
    fn from_record(delivery: &Delivery<'_>) -> Result<Self, Self::Rejection>;

    /// What the app must provide for this argument; a lack is an error when the app starts.
    fn needs(needs: &mut Needs) {
        let _ = needs;
    }
}

impl<E: FromRecord> FromRecord for Option<E> {
    type Rejection = Rejection;

    fn from_record(delivery: &Delivery<'_>) -> Result<Self, Rejection> {
        match E::from_record(delivery).map_err(Into::into) {
            Ok(part) => Ok(Some(part)),
            Err(rejection) if rejection.is_missing() => Ok(None),
            Err(rejection) => Err(rejection),
        }
    }

    fn needs(needs: &mut Needs) {
        needs.optional(E::needs);
    }
}

impl<E: FromRecord<Rejection: Send + 'static>> FromRecord for Result<E, E::Rejection> {
    type Rejection = Rejection;

    fn from_record(delivery: &Delivery<'_>) -> Result<Self, Rejection> {
        lookup::made_or_rejected(delivery)
    }

    fn needs(needs: &mut Needs) {
        E::needs(needs);
    }
}

macro_rules! tuples {
    ($($part:ident),*) => {
        impl<$($part: FromRecord),*> FromRecord for ($($part,)*) {
            type Rejection = Rejection;

            fn from_record(delivery: &Delivery<'_>) -> Result<Self, Rejection> {
                Ok(($($part::from_record(delivery).map_err(Into::into)?,)*))
            }

            fn needs(needs: &mut Needs) {
                $($part::needs(needs);)*
            }
        }
    };
}

tuples!(A, B);
tuples!(A, B, C);
tuples!(A, B, C, D);
