//! Which calls of an asynchronous operator may begin, which are under way, and what must not be committed meanwhile.
//! Pure: calls are numbers.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::TopicId;

/// The calls of one operator that have not ended.
#[derive(Debug)]
pub(crate) struct InFlight {
    limit: usize,
    next: u64,
    calls: BTreeMap<u64, Call>,
    /// The calls of each key that has any, in their order; the first of them is the one that may run.
    lanes: HashMap<u64, VecDeque<u64>>,
    /// Those that may begin.
    may_begin: BTreeSet<u64>,
    running: usize,
}

#[derive(Debug)]
struct Call {
    lane: Option<u64>,
    /// Topic and offset of the record that it is of.
    place: Option<(TopicId, i64)>,
    is_running: bool,
}

impl InFlight {
    /// Of which at most `limit` run at a time.
    pub(crate) fn new(limit: usize) -> Self {
        let (calls, lanes, may_begin) = (BTreeMap::new(), HashMap::new(), BTreeSet::new());
        Self { limit: limit.max(1), next: 0, calls, lanes, may_begin, running: 0 }
    }

    /// A call that is to be made; after all that were added before it to the same lane.
    pub(crate) fn add(&mut self, lane: Option<u64>, place: Option<(TopicId, i64)>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.calls.insert(number, Call { lane, place, is_running: false });
        let is_first = match lane {
            Some(lane) => {
                let calls = self.lanes.entry(lane).or_default();
                calls.push_back(number);
                calls.len() == 1
            }
            None => true,
        };
        if is_first {
            self.may_begin.insert(number);
        }
        number
    }

    /// The next call that begins now, if one may.
    pub(crate) fn begin(&mut self) -> Option<u64> {
        if self.running >= self.limit {
            return None;
        }
        let number = self.may_begin.pop_first()?;
        self.calls.get_mut(&number)?.is_running = true;
        self.running += 1;
        Some(number)
    }

    /// A call has ended, with all that follows from it.
    pub(crate) fn end(&mut self, number: u64) {
        let Some(call) = self.calls.remove(&number) else { return };
        match call.is_running {
            true => self.running -= 1,
            false => {
                self.may_begin.remove(&number);
            }
        }
        let Some(lane) = call.lane else { return };
        let Some(calls) = self.lanes.get_mut(&lane) else { return };
        calls.retain(|other| *other != number);
        match calls.front() {
            Some(first) if self.calls.get(first).is_some_and(|call| !call.is_running) => {
                self.may_begin.insert(*first);
            }
            Some(_) => {}
            None => {
                self.lanes.remove(&lane);
            }
        }
    }

    /// Whether no more records may come: as many calls are known as may run.
    pub(crate) fn is_full(&self) -> bool {
        self.calls.len() >= self.limit
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// The first offset of a topic whose call has not ended: nothing behind it may be committed.
    pub(crate) fn lowest(&self, topic: TopicId) -> Option<i64> {
        let of_topic = |call: &Call| call.place.filter(|(of, _)| *of == topic).map(|(_, offset)| offset);
        self.calls.values().filter_map(of_topic).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Add(Option<u64>, u32),
        Begin,
        /// The call at this place among those that run.
        End(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (prop::option::weighted(0.8, 0..4_u64), 0..2_u32).prop_map(|(lane, topic)| Step::Add(lane, topic)),
            4 => Just(Step::Begin),
            3 => (0..8_usize).prop_map(Step::End),
        ];
        prop::collection::vec(step, 1..120)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Against a list of all calls: who runs, in which order a key's calls begin, what may be committed.
        #[test]
        fn calls_begin_in_the_order_of_their_keys_and_hold_commits_back(steps in steps(), limit in 1..6_usize) {
            let mut in_flight = InFlight::new(limit);
            // Number, lane, topic, offset, whether it runs.
            let mut model: Vec<(u64, Option<u64>, TopicId, i64, bool)> = Vec::new();
            for (offset, step) in (0_i64..).zip(steps) {
                match step {
                    Step::Add(lane, topic) => {
                        let topic = TopicId(topic);
                        let number = in_flight.add(lane, Some((topic, offset)));
                        prop_assert!(model.iter().all(|(known, ..)| *known < number));
                        model.push((number, lane, topic, offset, false));
                    }
                    Step::Begin => {
                        let running = model.iter().filter(|(.., runs)| *runs).count();
                        let first_of_lane = |at: usize| {
                            let lane = model[at].1;
                            lane.is_none() || !model[..at].iter().any(|(_, other, ..)| *other == lane)
                        };
                        let next = (0..model.len()).find(|at| !model[*at].4 && first_of_lane(*at));
                        let next = next.filter(|_| running < limit);
                        let begun = in_flight.begin();
                        prop_assert_eq!(begun, next.map(|at| model[at].0));
                        if let Some(at) = next {
                            model[at].4 = true;
                        }
                    }
                    Step::End(which) => {
                        let running: Vec<usize> = (0..model.len()).filter(|at| model[*at].4).collect();
                        if let Some(at) = running.get(which % running.len().max(1)) {
                            in_flight.end(model.remove(*at).0);
                        }
                    }
                }
                prop_assert_eq!(in_flight.is_empty(), model.is_empty());
                prop_assert_eq!(in_flight.is_full(), model.len() >= limit);
                for topic in [TopicId(0), TopicId(1), TopicId(2)] {
                    let lowest = model.iter().filter(|(_, _, of, ..)| *of == topic).map(|call| call.3).min();
                    prop_assert_eq!(in_flight.lowest(topic), lowest);
                }
            }
        }
    }

    #[test]
    fn what_never_began_can_end_and_the_next_of_its_key_takes_its_place() {
        let mut in_flight = InFlight::new(0);
        let [first, second] = [(); 2].map(|()| in_flight.add(Some(1), None));
        in_flight.end(first);
        in_flight.end(first);
        assert_eq!((in_flight.begin(), in_flight.begin()), (Some(second), None), "one at least");
        in_flight.end(second);
        assert!(in_flight.is_empty() && in_flight.lowest(TopicId(0)).is_none());
    }
}
