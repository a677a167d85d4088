//! Topics that are known only when a record is there: their ids.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::TopicId;

/// Gives ids to topics that sinks choose by the record, behind those that the topology names. One for all tasks
/// of a topology: what an id stands for is asked where outputs are sent.
#[derive(Debug, Default)]
pub(crate) struct RoutedTopics {
    declared: HashMap<String, TopicId>,
    first: u32,
    names: Mutex<Vec<Arc<str>>>,
}

impl RoutedTopics {
    /// Beside these topics, of which there are `first` with those of the application.
    pub(crate) fn beside(declared: HashMap<String, TopicId>, first: u32) -> Self {
        Self { declared, first, names: Mutex::default() }
    }

    pub(crate) fn id_of(&self, name: &Arc<str>) -> TopicId {
        if let Some(declared) = self.declared.get(&**name) {
            return *declared;
        }
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let place = names.iter().position(|known| known == name).unwrap_or_else(|| {
            names.push(Arc::clone(name));
            names.len() - 1
        });
        TopicId(self.first.saturating_add(u32::try_from(place).unwrap_or(u32::MAX)))
    }

    /// The name of a topic that the topology does not name.
    pub(crate) fn name(&self, id: TopicId) -> Option<Arc<str>> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.get(usize::try_from(id.0.checked_sub(self.first)?).ok()?).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_id() {
        let routed = RoutedTopics::beside([("out".to_owned(), TopicId(1))].into(), 3);
        let id = |name: &str| routed.id_of(&Arc::from(name));
        assert_eq!([id("a"), id("b"), id("out"), id("a")], [TopicId(3), TopicId(4), TopicId(1), TopicId(3)]);
        assert_eq!([3, 4].map(|id| routed.name(TopicId(id)).unwrap()), ["a".into(), "b".into()]);
        assert_eq!([0, 2, 5].map(|id| routed.name(TopicId(id))), [None, None, None]);
    }
}
