//! What happens to a record whose handler fails: the failure itself, how long to wait, and the policy that decides.

mod backoff;
mod cause;
mod policy;
mod trouble;

pub use backoff::Backoff;
pub use cause::{BoxError, Failure, FailureKind};
pub use policy::FailurePolicy;
pub(crate) use policy::{Decision, Delivered, Ending};
pub use trouble::{Unreadable, Unsendable};
