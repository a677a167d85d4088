//! The seams through which time, randomness, the network, blocking work and tasks enter the client, the broker and
//! the framework.
//!
//! Everything above this crate is written against these small traits, so that the same code runs on TCP and the system
//! clock, and, in a test, on an in-memory network with tokio's paused clock.
//!
//! | seam | production | tests |
//! |---|---|---|
//! | [`Clock`] | [`SystemClock`] | [`TokioClock`], which follows tokio's paused clock |
//! | [`Net`] | [`TcpNet`] | [`MemoryNet`], which stands still when idle |
//! | [`Rng`] | [`SeededRng::from_os`] | [`SeededRng::new`] |
//! | [`Tasks`], [`Blocking`] | the current tokio runtime | the same |
//!
//! [`settings`] is how what a user writes into a file enters, [`metrics`] how what operators watch leaves.

mod blocking;
mod clock;
mod memory_net;
pub mod metrics;
mod net;
mod rng;
pub mod settings;
mod tasks;

pub use blocking::{Blocking, Panicked, read_text_file};
pub use clock::{Clock, SystemClock, TokioClock};
pub use memory_net::MemoryNet;
pub use net::{Listener, Net, Stream, TcpNet};
pub use rng::{Rng, SeededRng};
pub use tasks::Tasks;
