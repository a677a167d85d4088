//! Which brokers an operator was told of. Everything that is made from one client shares this: a producer, a consumer
//! and its group would each tell of the same broker otherwise.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// More brokers than this are not told of at once.
const MOST_TOLD: usize = 1_000;

/// The addresses that cannot be reached, as far as was told.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<BTreeSet<Arc<str>>>);

impl Faults {
    /// A broker cannot be reached. Whether this is news.
    pub(super) fn begin(&self, address: &Arc<str>) -> bool {
        let mut told = self.told();
        told.len() < MOST_TOLD && told.insert(Arc::clone(address))
    }

    /// It can be. Whether it was told that it cannot.
    pub(super) fn end(&self, address: &str) -> bool {
        self.told().remove(address)
    }

    fn told(&self) -> MutexGuard<'_, BTreeSet<Arc<str>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_news_once() {
        let faults = Faults::default();
        let (a, b) = (Arc::from("a:1"), Arc::from("b:1"));
        assert!(!faults.end(&a));
        assert!(faults.begin(&a) && faults.begin(&b) && !faults.begin(&a));
        assert!(faults.end(&a) && !faults.end(&a));
        assert!(faults.begin(&a) && !faults.begin(&b));
    }

    #[test]
    fn a_cluster_full_of_faults_is_bounded() {
        let faults = Faults::default();
        let told = (0..2 * MOST_TOLD).filter(|number| faults.begin(&Arc::from(number.to_string()))).count();
        assert_eq!(told, MOST_TOLD);
        assert!(faults.end("0") && faults.begin(&Arc::from("new")));
    }
}
