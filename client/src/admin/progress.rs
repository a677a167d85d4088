//! Which items of a call are left to ask, and what was answered of the others (pure).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use klamm_protocol::{ApiKey, ErrorCode, Utf8Bytes};

use super::route::{Destination, Item};
use crate::error::{AdminError, RequestError};

/// Results by what was asked about.
pub type PerItem<K, T> = HashMap<K, Result<T, AdminError>>;

/// What a broker says of one item.
pub(super) type Answer<T> = Result<T, Refusal>;

/// A broker's no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    pub(super) message: Option<Arc<str>>,
}

/// An error code with the broker's own words, as an answer.
pub(super) fn check(code: i16, message: Option<Utf8Bytes>) -> Answer<()> {
    match ErrorCode::from_code(code) {
        ErrorCode::None => Ok(()),
        code => Err(Refusal {
            code,
            message: message.filter(|message| !message.is_empty()).map(|message| Arc::from(&*message)),
        }),
    }
}

/// A call's items. Every one ends with a result, whatever happens.
#[derive(Debug)]
pub(super) struct Progress<K, T> {
    left: BTreeSet<K>,
    done: BTreeMap<K, Result<T, AdminError>>,
    /// Why the latest of those left was not answered.
    last: Option<RequestError>,
}

impl<K: Item, T> Progress<K, T> {
    pub(super) fn new(items: impl IntoIterator<Item = K>) -> Self {
        Self { left: items.into_iter().collect(), done: BTreeMap::new(), last: None }
    }

    /// What is still to be asked, in order.
    pub(super) fn left(&self) -> Vec<K> {
        self.left.iter().cloned().collect()
    }

    /// A broker answered about some items. Those that another attempt may cure stay left, and are given back.
    pub(super) fn answered(
        &mut self,
        asked: &[K],
        (address, api): (&Arc<str>, ApiKey),
        destination: impl Fn(&K) -> Destination,
        answers: Vec<(K, Answer<T>)>,
    ) -> Vec<K> {
        let mut again = Vec::new();
        for (item, answer) in answers {
            match answer {
                Err(refusal) if destination(&item).may_try_again(refusal.code) => {
                    let address = Arc::clone(address);
                    self.last = Some(RequestError::Broker { address, api, code: refusal.code });
                    again.push(item);
                }
                Err(Refusal { code, message }) => {
                    let what = item.name();
                    self.end(&item, Err(AdminError::Broker { what, code, message }));
                }
                Ok(answer) => self.end(&item, Ok(answer)),
            }
        }
        let later: BTreeSet<&K> = again.iter().collect();
        for item in asked.iter().filter(|item| !later.contains(item)) {
            let reason = Arc::from(format!("its answer to {api:?} says nothing of {}", item.name()));
            let error = RequestError::Protocol { address: Arc::clone(address), reason };
            // Only those without a result are left.
            self.end(item, Err(error.into()));
        }
        again
    }

    /// A request about some items got no usable answer.
    pub(super) fn failed(&mut self, asked: &[K], error: &RequestError) {
        if error.is_retriable() {
            self.last = Some(error.clone());
            return;
        }
        for item in asked {
            self.end(item, Err(error.clone().into()));
        }
    }

    /// An item has its result. The first one stays, and what was not asked about is ignored.
    pub(super) fn end(&mut self, item: &K, result: Result<T, AdminError>) {
        if self.left.remove(item) {
            self.done.insert(item.clone(), result);
        }
    }

    /// Nothing is left; or else why.
    pub(super) fn outcome(&mut self) -> Result<(), RequestError> {
        if self.left.is_empty() {
            return Ok(());
        }
        Err(self.last.take().unwrap_or(RequestError::Closed))
    }

    /// The results. What is left failed by `ended`; when no broker said anything of any item, the call as a whole did.
    pub(super) fn finish(mut self, ended: Result<(), RequestError>) -> Result<PerItem<K, T>, AdminError> {
        if let Err(error) = ended {
            for item in self.left() {
                self.end(&item, Err(error.clone().into()));
            }
        }
        let unanswered = |result: &Result<T, AdminError>| matches!(result, Err(AdminError::Request(_)));
        if self.done.values().all(unanswered)
            && let Some(Err(error)) = self.done.pop_first().map(|(_, result)| result)
        {
            return Err(error);
        }
        Ok(self.done.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: ApiKey = ApiKey::DescribeGroups;

    fn items(names: &str) -> Vec<Arc<str>> {
        names.split_whitespace().map(Arc::from).collect()
    }

    fn group(item: &Arc<str>) -> Destination {
        Destination::Coordinator(super::super::route::KeyType::Group, Arc::clone(item))
    }

    fn refused(code: ErrorCode) -> Answer<i32> {
        check(code.code(), Some("because".into())).map(|()| 0)
    }

    fn answer(
        progress: &mut Progress<Arc<str>, i32>,
        asked: &str,
        answers: Vec<(Arc<str>, Answer<i32>)>,
    ) -> Vec<Arc<str>> {
        progress.answered(&items(asked), (&Arc::from("b:1"), AT), group, answers)
    }

    fn closed() -> RequestError {
        RequestError::Disconnected { address: "b:1".into(), reason: "gone".into() }
    }

    fn unsupported() -> RequestError {
        RequestError::Unsupported { address: "b:1".into(), api: AT }
    }

    #[test]
    fn each_item_gets_what_was_said_of_it() {
        let mut progress = Progress::new(items("c a b d"));
        assert_eq!(progress.left(), items("a b c d"));
        let again = answer(
            &mut progress,
            "a b c",
            vec![
                ("a".into(), Ok(1)),
                ("b".into(), refused(ErrorCode::GroupAuthorizationFailed)),
                ("c".into(), refused(ErrorCode::NotCoordinator)),
                ("x".into(), Ok(9)),
            ],
        );
        assert_eq!(again, items("c"));
        assert_eq!(progress.left(), items("c d"));
        let error = progress.outcome().unwrap_err();
        assert!(matches!(error, RequestError::Broker { code: ErrorCode::NotCoordinator, .. }), "{error}");
        assert!(answer(&mut progress, "c d", vec![("c".into(), Ok(3)), ("d".into(), Ok(4))]).is_empty());
        assert!(progress.outcome().is_ok());
        let results = progress.finish(Ok(())).unwrap();
        assert_eq!(results.len(), 4, "{results:?}");
        assert_eq!(results["a"].as_ref().unwrap(), &1);
        assert_eq!(results["d"].as_ref().unwrap(), &4);
        let error = results["b"].as_ref().unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::GroupAuthorizationFailed));
        assert!(error.to_string().starts_with("b: ") && error.to_string().ends_with(": because"), "{error}");
    }

    #[test]
    fn what_an_answer_leaves_out_is_the_brokers_fault_and_the_first_answer_counts() {
        let mut progress = Progress::new(items("a b"));
        assert!(answer(&mut progress, "a b", vec![("a".into(), Ok(1)), ("a".into(), Ok(2))]).is_empty());
        assert!(progress.outcome().is_ok());
        let results = progress.finish(Ok(())).unwrap();
        assert_eq!(results["a"].as_ref().unwrap(), &1);
        let error = results["b"].as_ref().unwrap_err();
        assert!(matches!(error, AdminError::Request(RequestError::Protocol { .. })), "{error}");
    }

    #[test]
    fn failures_that_can_be_cured_leave_items_and_others_end_them() {
        let mut progress = Progress::<Arc<str>, i32>::new(items("a b c"));
        progress.failed(&items("a b"), &closed());
        assert_eq!(progress.left(), items("a b c"));
        assert!(matches!(progress.outcome(), Err(RequestError::Disconnected { .. })));
        assert!(matches!(progress.outcome(), Err(RequestError::Closed)), "a reason counts once");
        progress.failed(&items("a"), &unsupported());
        assert_eq!(progress.left(), items("b c"));
        answer(&mut progress, "b", vec![("b".into(), Ok(2))]);
        let results = progress.finish(Err(closed())).unwrap();
        assert!(matches!(results["a"], Err(AdminError::Request(RequestError::Unsupported { .. }))));
        assert_eq!(results["b"].as_ref().unwrap(), &2);
        assert!(matches!(results["c"], Err(AdminError::Request(RequestError::Disconnected { .. }))));
    }

    #[test]
    fn a_call_that_no_broker_answered_fails_as_a_whole() {
        let mut progress = Progress::<Arc<str>, i32>::new(items("a b"));
        progress.failed(&items("a"), &unsupported());
        let error = progress.finish(Err(closed())).unwrap_err();
        assert!(matches!(error, AdminError::Request(RequestError::Unsupported { .. })), "{error}");
        let nothing = Progress::<Arc<str>, i32>::new([]);
        assert!(nothing.finish(Ok(())).unwrap().is_empty());
    }

    thread_local! {
        static COMPARED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    /// An item that counts what it is compared with.
    #[derive(Debug, Clone)]
    struct Counted(u32);

    impl std::hash::Hash for Counted {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }

    impl Ord for Counted {
        fn cmp(&self, other: &Self) -> std::cmp::Ordering {
            COMPARED.set(COMPARED.get() + 1);
            self.0.cmp(&other.0)
        }
    }

    impl PartialOrd for Counted {
        fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }

    impl PartialEq for Counted {
        fn eq(&self, other: &Self) -> bool {
            self.cmp(other).is_eq()
        }
    }

    impl Eq for Counted {}

    impl Item for Counted {
        fn name(&self) -> Arc<str> {
            self.0.to_string().into()
        }
    }

    /// A coordinator that loads answers that of all its groups at once: each was looked for among all others, and
    /// 10,000 of them took 50 million comparisons.
    #[test]
    fn many_items_that_are_tried_again_together_are_not_compared_with_each_other() {
        const ITEMS: u32 = 10_000;
        let asked: Vec<Counted> = (0..ITEMS).map(Counted).collect();
        let mut progress = Progress::<Counted, i32>::new(asked.clone());
        let coordinator = |item: &Counted| group(&item.name());
        let answers =
            asked.iter().map(|item| (item.clone(), refused(ErrorCode::CoordinatorLoadInProgress))).collect();
        COMPARED.set(0);
        let again = progress.answered(&asked, (&Arc::from("b:1"), AT), coordinator, answers);
        assert_eq!(again.len(), asked.len());
        // A set of so many is some 14 comparisons deep.
        assert!(COMPARED.get() < 50 * ITEMS as usize, "{} comparisons", COMPARED.get());
    }

    #[test]
    fn empty_words_are_no_words() {
        assert_eq!(check(0, Some("fine".into())), Ok(()));
        let refusal = check(ErrorCode::InvalidConfig.code(), Some("".into())).unwrap_err();
        assert_eq!(refusal, Refusal { code: ErrorCode::InvalidConfig, message: None });
    }
}
