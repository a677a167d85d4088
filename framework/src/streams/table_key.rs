//! How the key of a stream finds a row of a table.

/// What a stream's key is in a table: itself, or what an optional key holds.
pub trait TableKey<K> {
    /// The table's key; `None` where the record has none.
    fn table_key(&self) -> Option<&K>;
}

impl<K> TableKey<K> for K {
    fn table_key(&self) -> Option<&K> {
        Some(self)
    }
}

impl<K> TableKey<K> for Option<K> {
    fn table_key(&self) -> Option<&K> {
        self.as_ref()
    }
}
