//! Tests of the broker through its public face: storage on its own, and the server through real frames.

mod alloc;
mod hostile;
mod promises;
mod server;
mod simulation;
mod storage;
