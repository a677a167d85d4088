//! The seams through which time, randomness, the network and tasks enter the client and the broker.
//!
//! Everything above this module is written against these small traits, so that the same code runs on TCP and the system
//! clock, and, in a test, on an in-memory network with tokio's paused clock.

mod clock;
mod memory_net;
mod net;
mod rng;
mod tasks;

pub use clock::{Clock, SystemClock, TokioClock};
pub use memory_net::MemoryNet;
pub use net::{Listener, Net, Stream, TcpNet};
pub use rng::{Rng, SeededRng};
pub use tasks::Tasks;
