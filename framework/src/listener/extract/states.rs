//! The states of an app: values that handlers share, found by their type.

use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::serde::AppSerdes;

/// The states of an app by type. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct States(Arc<HashMap<TypeId, Held>>);

#[derive(Clone)]
struct Held {
    type_name: &'static str,
    state: Arc<dyn Any + Send + Sync>,
}

impl States {
    /// Adds a state; one of the same type is replaced.
    pub(crate) fn insert<T: Clone + Send + Sync + 'static>(&mut self, state: T) {
        let held = Held { type_name: type_name::<T>(), state: Arc::new(state) };
        Arc::make_mut(&mut self.0).insert(TypeId::of::<T>(), held);
    }

    pub(crate) fn get<T: Clone + 'static>(&self) -> Option<T> {
        self.0.get(&TypeId::of::<T>())?.state.downcast_ref::<T>().cloned()
    }

    /// The default serdes of this app.
    pub(crate) fn serdes(&self) -> AppSerdes {
        #[cfg(feature = "schema-registry")]
        return AppSerdes::new(self.get());
        #[cfg(not(feature = "schema-registry"))]
        AppSerdes::default()
    }

    pub(crate) fn contains(&self, type_id: TypeId) -> bool {
        self.0.contains_key(&type_id)
    }

    /// The type of a state that was probably meant by this name: one within the other, as `Pool` and `Arc<Pool>`, or of
    /// the same name elsewhere.
    pub(crate) fn like(&self, wanted: &str) -> Option<&'static str> {
        let names = self.0.values().map(|held| held.type_name);
        // The same answer every time.
        names.filter(|name| innermost(name) == innermost(wanted)).min()
    }
}

/// `Pool` of `alloc::sync::Arc<app::db::Pool>`; of several parameters the last.
fn innermost(type_name: &str) -> &str {
    let inner = type_name.trim_end_matches('>');
    inner.rsplit(|separator: char| !separator.is_alphanumeric() && separator != '_').next().unwrap_or(inner)
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "States({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Pool;

    #[test]
    fn what_was_probably_meant_is_found() {
        let mut states = States::default();
        states.insert(7_u64);
        assert_eq!(states.like(type_name::<Pool>()), None);
        states.insert(Arc::new(Pool));
        let found = states.like(type_name::<Pool>()).unwrap();
        assert_eq!(found, type_name::<Arc<Pool>>());
        assert_eq!(states.like(type_name::<Option<Arc<Pool>>>()), Some(found));
        assert_eq!(states.like(type_name::<u64>()), Some("u64"));
        assert_eq!(states.like(type_name::<String>()), None);
    }
}
