//! Which records of transactions are read.

/// Which records of transactions a consumer sees (Kafka's `isolation.level`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IsolationLevel {
    /// All records, also of open and aborted transactions. Kafka's default.
    #[default]
    ReadUncommitted,
    /// Only records outside transactions and of committed ones.
    ReadCommitted,
}

impl IsolationLevel {
    pub(crate) fn wire(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        }
    }
}
