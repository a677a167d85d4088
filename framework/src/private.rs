//! What the macros' output needs. Not for anybody else: it changes without notice.

pub use inventory;

pub use crate::app::Declared;

/// Bounds as functions: naming one of them with a type is an error at that type if it does not hold.
pub mod check {
    use crate::listener::{Batch, FromBatch, FromRecord, IntoBatchOutcome, IntoOutcome};

    pub fn record_argument<T: FromRecord>() {}

    pub fn argument_beside_batch<T: FromBatch>() {}

    pub fn batch_argument<T: IsBatch>() {}

    pub fn record_result<T: IntoOutcome>() {}

    pub fn batch_result<T: IntoBatchOutcome>() {}

    pub trait IsBatch {}

    impl<T: FromRecord> IsBatch for Batch<T> {}
}
