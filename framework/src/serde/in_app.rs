//! The default serdes of types, as they are in one app.

use super::DefaultSerde;
#[cfg(feature = "schema-registry")]
use super::SchemaRegistry;

/// What an app gives to default serdes. Whatever reads or writes in an app takes its serdes from here.
#[derive(Debug, Clone, Default)]
pub struct AppSerdes {
    #[cfg(feature = "schema-registry")]
    registry: Option<SchemaRegistry>,
}

impl AppSerdes {
    /// Those of an app with this registry, if it has one.
    #[cfg(feature = "schema-registry")]
    pub(crate) fn new(registry: Option<SchemaRegistry>) -> Self {
        Self { registry }
    }

    /// For keys, or for values.
    pub(crate) fn of<T: DefaultSerde>(&self, is_key: bool) -> T::Serde {
        #[cfg(feature = "schema-registry")]
        if T::NEEDS_REGISTRY {
            return T::serde_with(self.registry.as_ref(), is_key);
        }
        let _ = is_key;
        T::Serde::default()
    }
}
