//! What the macros' output needs. Not for anybody else: it changes without notice.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};

pub use inventory;
// For derives in crates that do not depend on serde.
pub use serde;

pub use crate::app::Declared;
#[cfg(feature = "asyncapi")]
pub use crate::asyncapi::{DeclaredSchemas, HasNoSchema, HasSchema, SchemaOf};
use crate::listener::{
    Answer, Answers, Batch, BatchDelivery, BatchOutcome, Call, Delivery, Erased, Failure, FromBatch,
    FromRecord, IntoBatchOutcome, IntoOutcome, Needs, Rejection, prepare_batch,
};

/// How one argument is made. The methods have no bounds: the functions that give these have, and
/// fail at the argument's place.
pub struct RecordMaker<T> {
    needs: fn(&mut Needs),
    make: fn(&Delivery<'_>) -> Result<T, Rejection>,
}

/// How one argument beside a batch is made.
pub struct BatchMaker<T> {
    needs: fn(&mut Needs),
    make: fn(&BatchDelivery<'_>) -> Result<T, Rejection>,
}

// Not derived: `T` need not be `Copy`.
impl<T> Clone for RecordMaker<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for RecordMaker<T> {}

impl<T> Clone for BatchMaker<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for BatchMaker<T> {}

pub fn record_argument<T: FromRecord>() -> RecordMaker<T> {
    RecordMaker { needs: T::needs, make: |delivery| T::from_record(delivery).map_err(Into::into) }
}

pub fn batch_argument<T: FromBatch>() -> BatchMaker<T> {
    BatchMaker { needs: T::needs, make: T::from_batch }
}

impl<T> RecordMaker<T> {
    pub fn needs(&self, needs: &mut Needs) {
        (self.needs)(needs);
    }

    pub fn make(&self, delivery: &Delivery<'_>) -> Result<T, Rejection> {
        (self.make)(delivery)
    }
}

impl<T> BatchMaker<T> {
    pub fn needs(&self, needs: &mut Needs) {
        (self.needs)(needs);
    }

    pub fn make(&self, delivery: &BatchDelivery<'_>) -> Result<T, Rejection> {
        (self.make)(delivery)
    }
}

/// A call of a handler; `A` says whether it answers.
pub struct Handling<A> {
    call: BoxFuture<'static, Result<Option<Box<Answer>>, Failure>>,
    answers: PhantomData<fn() -> A>,
}

pub fn record_result<R: IntoOutcome + 'static>(
    handling: impl Future<Output = R> + Send + 'static,
) -> Handling<R::Answers> {
    Handling { call: handling.map(IntoOutcome::into_answer).boxed(), answers: PhantomData }
}

pub fn batch_result<R: IntoBatchOutcome + 'static>(
    handling: impl Future<Output = R> + Send + 'static,
) -> BoxFuture<'static, BatchOutcome> {
    handling.map(IntoBatchOutcome::into_batch_outcome).boxed()
}

pub fn record_handler<A: Answers>(
    add_needs: impl FnOnce(&mut Needs),
    call: impl Fn(&Delivery<'_>) -> Result<Handling<A>, Rejection> + Send + Sync + 'static,
) -> Erased {
    let mut needs = Needs { answers: A::EVER, ..Needs::default() };
    needs.reads.replies = A::payloads();
    add_needs(&mut needs);
    let call = move |delivery: &Delivery<'_>| call(delivery).map(|handling| handling.call);
    Erased { call: Call::Record(Arc::new(call)), needs, path: "" }
}

/// A `Batch<T>`, of which only the `T` is of interest.
pub trait IsBatch {
    type Record: FromRecord;
}

impl<T: FromRecord> IsBatch for Batch<T> {
    type Record = T;
}

pub fn batch_handler<B: IsBatch>(
    add_needs: impl FnOnce(&mut Needs),
    call: impl Fn(Batch<B::Record>, &BatchDelivery<'_>) -> Result<BoxFuture<'static, BatchOutcome>, Rejection>
    + Send
    + Sync
    + 'static,
) -> Erased {
    let mut needs = Needs::default();
    B::Record::needs(&mut needs);
    add_needs(&mut needs);
    Erased { call: Call::Batch(Arc::new(move |input| prepare_batch(&input, &call))), needs, path: "" }
}
