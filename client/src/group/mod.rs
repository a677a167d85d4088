//! Consumer groups: membership, assignments, offsets.
//!
//! ```text
//! coordinator.rs   the way to a group's coordinator
//! requests.rs      a member's requests
//! assignors.rs     how a leader shares out partitions         (pure)
//! protocol.rs      what members tell each other               (pure)
//! offsets.rs       committing and fetching committed offsets
//! ```

pub(crate) mod assignors;
mod coordinator;
pub(crate) mod offsets;
mod protocol;
mod requests;

pub use assignors::Assignor;
pub(crate) use coordinator::{CoordinatorLink, moved};
pub(crate) use protocol::{MemberSubscription, decode_assignment};
pub(crate) use requests::{MemberError, MemberSettings, Requests};
