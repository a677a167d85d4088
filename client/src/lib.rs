//! An asynchronous Kafka client: `Producer`, `Consumer` and `Admin` on one shared connection pool.

pub mod runtime;
