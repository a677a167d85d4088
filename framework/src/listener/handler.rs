//! `Handler`: any async fn whose arguments are extractors, and the form without types in which a container keeps it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use klamm_client::ConsumerRecord;

use super::ack::Ack;
use super::extract::{Batch, BatchDelivery, Delivery, FromBatch, FromRecord, Needs, Rejection, Scope};
use super::failed_lookups::FailedLookups;
use super::failure::Failure;
use super::outcome::{Answers, BatchOutcome, IntoBatchOutcome, IntoOutcome};
use super::reply::Answer;
use crate::serde::{AsksFor, Lookup};
use crate::template::Tx;

/// An async function that handles records: up to eight arguments that are extractors ([`FromRecord`]), or a
/// [`Batch<T>`] followed by up to four arguments that belong to the whole batch ([`FromBatch`]).
///
/// `M` tells the argument lists apart and is always inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot handle records",
    label = "not a handler",
    note = "a handler is an `async fn` of up to eight extractors that returns `()` or `Result<(), E>`, \
            or of a `Batch<T>` first that returns `()`, `Result<(), E>` or `BatchOutcome`; its future must be `Send`",
    note = "write `#[kafka_listener(...)]` on the function to learn which argument is wrong"
)]
pub trait Handler<M>: Clone + Send + Sync + 'static {
    /// The form that containers call.
    #[doc(hidden)]
    fn erase(self) -> Erased;
}

/// A handler without its types.
#[doc(hidden)]
#[derive(Clone)]
pub struct Erased {
    pub(crate) call: Call,
    pub(crate) needs: Needs,
    /// The path of the function, as `billing::listeners::bill`; empty where it is not known.
    pub(crate) path: &'static str,
}

impl fmt::Debug for Erased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Erased").field("path", &self.path).field("needs", &self.needs).finish()
    }
}

#[derive(Clone)]
pub(crate) enum Call {
    Record(Arc<RecordCall>),
    Batch(Arc<BatchCall>),
}

pub(crate) type RecordCall =
    dyn Fn(&Delivery<'_>) -> Result<BoxFuture<'static, Answered>, Rejection> + Send + Sync;
/// A record is handled, perhaps with an answer; or handling it failed.
pub(crate) type Answered = Result<Option<Box<Answer>>, Failure>;
pub(crate) type BatchCall = dyn Fn(BatchInput<'_>) -> PreparedBatch + Send + Sync;

/// The records of a batch as they came, each with its attempt.
pub(crate) struct BatchInput<'a> {
    pub(crate) records: Vec<(&'a ConsumerRecord, u32)>,
    pub(crate) scope: &'a Scope,
    pub(crate) ack: Option<&'a Ack>,
    pub(crate) tx: Option<&'a Tx>,
    /// What is known not to be there for those who ask.
    pub(crate) failed: Option<&'a FailedLookups>,
}

/// A batch whose records are decoded.
pub(crate) struct PreparedBatch {
    /// Records that were refused, by index.
    pub(crate) rejected: Vec<(usize, Rejection)>,
    /// The indexes of the records in the handler's batch, in its order.
    pub(crate) accepted: Vec<usize>,
    /// The call; `None` when no record was accepted.
    pub(crate) handling: Option<Result<BoxFuture<'static, BatchOutcome>, Rejection>>,
    /// What must be looked up before the batch can be decoded; the rest then says nothing.
    pub(crate) asked_for: Option<Lookup>,
}

#[doc(hidden)]
#[derive(Debug)]
pub struct OfRecord;

#[doc(hidden)]
#[derive(Debug)]
pub struct OfBatch;

/// What the macro makes, argument by argument.
impl Handler<()> for Erased {
    fn erase(self) -> Erased {
        self
    }
}

macro_rules! record_handlers {
    ($($argument:ident),*) => {
        #[allow(non_snake_case, unused_mut, unused_variables)]
        impl<F, Fut, $($argument,)*> Handler<(OfRecord, ($($argument,)*))> for F
        where
            F: Fn($($argument),*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output: IntoOutcome> + Send + 'static,
            $($argument: FromRecord,)*
        {
            fn erase(self) -> Erased {
                let mut needs = Needs::default();
                $($argument::needs(&mut needs);)*
                needs.answers = <<Fut::Output as IntoOutcome>::Answers as Answers>::EVER;
                needs.reads.replies = <<Fut::Output as IntoOutcome>::Answers as Answers>::payloads();
                let call = move |delivery: &Delivery<'_>| {
                    $(let $argument = $argument::from_record(delivery).map_err(Into::into)?;)*
                    Ok(self($($argument),*).map(IntoOutcome::into_answer).boxed())
                };
                Erased { call: Call::Record(Arc::new(call)), needs, path: std::any::type_name::<F>() }
            }
        }
    };
}

record_handlers!();
record_handlers!(A);
record_handlers!(A, B);
record_handlers!(A, B, C);
record_handlers!(A, B, C, D);
record_handlers!(A, B, C, D, E);
record_handlers!(A, B, C, D, E, G);
record_handlers!(A, B, C, D, E, G, H);
record_handlers!(A, B, C, D, E, G, H, I);

macro_rules! batch_handlers {
    ($($argument:ident),*) => {
        #[allow(non_snake_case, unused_variables)]
        impl<F, Fut, T, $($argument,)*> Handler<(OfBatch, T, ($($argument,)*))> for F
        where
            F: Fn(Batch<T>, $($argument),*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output: IntoBatchOutcome> + Send + 'static,
            T: FromRecord,
            $($argument: FromBatch,)*
        {
            fn erase(self) -> Erased {
                let mut needs = Needs::default();
                T::needs(&mut needs);
                $($argument::needs(&mut needs);)*
                let call = move |input: BatchInput<'_>| {
                    prepare_batch::<T>(&input, |batch, delivery| {
                        $(let $argument = $argument::from_batch(delivery)?;)*
                        Ok(self(batch, $($argument),*).map(IntoBatchOutcome::into_batch_outcome).boxed())
                    })
                };
                Erased { call: Call::Batch(Arc::new(call)), needs, path: std::any::type_name::<F>() }
            }
        }
    };
}

batch_handlers!();
batch_handlers!(A);
batch_handlers!(A, B);
batch_handlers!(A, B, C);
batch_handlers!(A, B, C, D);

/// Decodes the records of a batch, and begins the call with those that decode.
pub(crate) fn prepare_batch<T: FromRecord>(
    input: &BatchInput<'_>,
    call: impl FnOnce(Batch<T>, &BatchDelivery<'_>) -> Result<BoxFuture<'static, BatchOutcome>, Rejection>,
) -> PreparedBatch {
    let (mut rejected, mut accepted, mut batch) = (Vec::new(), Vec::new(), Vec::new());
    for (index, (record, attempt)) in input.records.iter().enumerate() {
        // An `Ack` inside of `Batch<...>` would acknowledge the whole batch; it is a further argument instead.
        let delivery = Delivery { record, attempt: *attempt, scope: input.scope, ack: None, tx: input.tx };
        match T::from_record(&delivery) {
            Ok(made) => {
                accepted.push(index);
                batch.push(made);
            }
            Err(rejection) => {
                let rejection = rejection.into();
                if let Some(asked_for) = rejection.lookup().cloned() {
                    if let Some(error) = input.failed.and_then(|failed| failed.of(&asked_for)) {
                        rejected.push((index, Rejection::other(error)));
                        continue;
                    }
                    let (rejected, accepted) = (Vec::new(), Vec::new());
                    return PreparedBatch { rejected, accepted, handling: None, asked_for: Some(asked_for) };
                }
                rejected.push((index, rejection));
            }
        }
    }
    let delivery = BatchDelivery { scope: input.scope, ack: input.ack, tx: input.tx };
    let handling = (!batch.is_empty()).then(|| call(Batch::new(batch), &delivery));
    PreparedBatch { rejected, accepted, handling, asked_for: None }
}
