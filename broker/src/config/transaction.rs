//! The settings of the transaction coordinator.

/// The settings of the transaction coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionConfig {
    /// `transaction.max.timeout.ms`
    pub max_timeout_ms: i32,
    /// `transactional.id.expiration.ms`
    pub id_expiration_ms: i64,
}

impl Default for TransactionConfig {
    fn default() -> Self {
        Self { max_timeout_ms: 900_000, id_expiration_ms: 7 * 24 * 60 * 60 * 1_000 }
    }
}
