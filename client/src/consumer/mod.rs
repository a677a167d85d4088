//! Reading: background fetching, group membership, offsets.

mod builder;
mod handle;
mod listener;
mod record;
mod stream;

pub use builder::{Assignor, ConsumerBuilder, OffsetReset};
pub use handle::{ConsumerHandle, GroupMetadata};
pub use listener::RebalanceListener;
pub use record::{ConsumerRecord, ConsumerRecords};
pub use stream::Consumer;
