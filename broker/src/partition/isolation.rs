//! How far readers see: a word that requests, reads and waits share.

/// How far a reader may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the high watermark: consumers by default.
    ReadUncommitted,
    /// Up to the last stable offset: consumers of transactions.
    ReadCommitted,
    /// Up to the log's end, durable or not: coordinators that load their own records, followers.
    Log,
}
