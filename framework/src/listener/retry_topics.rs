//! Retry topics: where records wait that are tried again later, so that nothing else waits for them. Their names, the
//! steps from one to the next, and the headers of a record on that way. Pure.
//!
//! A listener reads its retry topics itself, in its own group: one consumer for all of them. Their names hold the
//! group, behind the delay so that no two listeners can mean the same topic: another group did not fail. All records of
//! a retry topic wait equally long, so that whoever is first in a partition is due first.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_client::Headers;

use super::topics::Topics;
use crate::dead_letters::{OwnedHeaders, integer};

/// Spring's: the number of the delivery that comes next, counted from the record's first.
const ATTEMPTS: &str = "retry_topic-attempts";
/// Spring's: when it is due, in milliseconds since the Unix epoch.
const DUE: &str = "retry_topic-backoff-timestamp";
/// Ours: how many steps were taken; two steps of the same delay share a topic.
const STEPS: &str = "klamm_retry-steps";
/// Between the name of a topic and the delay of its retry topic.
const INFIX: &str = "-retry-";

/// The retry topics of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RetryTopics {
    group: Arc<str>,
    delays: Vec<Duration>,
    /// As the names hold them.
    labels: Vec<String>,
}

impl RetryTopics {
    /// Without delays nothing is sent there; what an earlier policy sent there is read all the same.
    pub(crate) fn new(group: &Arc<str>, delays: &[Duration]) -> Self {
        let labels = delays.iter().map(|delay| label(*delay)).collect();
        Self { group: Arc::clone(group), delays: delays.to_vec(), labels }
    }

    /// Where records of `source` wait before their next step; `None` after the last.
    pub(crate) fn step(&self, source: &str, steps_taken: usize) -> Option<(Arc<str>, Duration)> {
        let delay = self.delays.get(steps_taken)?;
        Some((self.name(source, self.labels.get(steps_taken)?), *delay))
    }

    /// All topics that `source` has, with how long its records wait there.
    pub(crate) fn of(&self, source: &str) -> Vec<(Arc<str>, Duration)> {
        self.distinct().map(|(label, delay)| (self.name(source, label), delay)).collect()
    }

    /// What is listened on, with the retry topics of each.
    pub(crate) fn with(&self, topics: &Topics) -> Topics {
        match topics {
            Topics::Names(names) => {
                let retries = names.iter().flat_map(|name| self.of(name)).map(|(name, _)| name);
                let mut all = names.clone();
                for name in retries {
                    if !all.contains(&name) {
                        all.push(name);
                    }
                }
                Topics::Names(all)
            }
            Topics::Pattern(pattern) => {
                let group = regex_lite::escape(&self.group);
                // Of any delay: those that the policy had once may hold records still.
                Topics::Pattern(format!("(?:{pattern})(?:-retry-[0-9]+(?:ms|s|m|h|d)-{group})?").into())
            }
        }
    }

    /// Whose retry topic this is; also if it is of a delay that the policy has no more.
    pub(crate) fn source_of<'a>(&self, topic: &'a str) -> Option<&'a str> {
        Some(self.parts(topic)?.0)
    }

    /// Those of `topics` where records of `sources` wait for a delay that the policy has no more.
    pub(crate) fn left_over<'a>(
        &self,
        sources: &[Arc<str>],
        topics: impl IntoIterator<Item = &'a Arc<str>>,
    ) -> Vec<Arc<str>> {
        let is_left = |topic: &&Arc<str>| {
            let Some((source, label)) = self.parts(topic) else { return false };
            sources.iter().any(|name| **name == *source)
                && !self.labels.iter().any(|own| own == label)
                && !sources.contains(topic)
        };
        topics.into_iter().filter(is_left).cloned().collect()
    }

    fn parts<'a>(&self, topic: &'a str) -> Option<(&'a str, &'a str)> {
        let (source, label) = topic.strip_suffix(&*self.group)?.strip_suffix('-')?.rsplit_once(INFIX)?;
        (!source.is_empty() && delay_of(label).is_some()).then_some((source, label))
    }

    /// How far a record has come: the topic that it was sent to first, and the steps that it has taken.
    pub(crate) fn stage<'a>(&self, topic: &'a str, headers: &Headers) -> (&'a str, usize) {
        let Some((source, label)) = self.parts(topic) else { return (topic, 0) };
        let told =
            headers.last(STEPS).flatten().and_then(integer).and_then(|told| usize::try_from(told).ok());
        let steps = match self.labels.iter().position(|own| own == label) {
            // What the topic says is sure; the header tells steps of equal delays apart.
            Some(at) => told.filter(|told| *told <= self.delays.len()).unwrap_or(0).max(at + 1),
            // The policy was another one, whose steps count like ours.
            None => told.unwrap_or(1).clamp(1, self.delays.len().max(1)),
        };
        (source, steps)
    }

    /// How long a record has to wait still. Whatever its header says, no longer than its topic says: clocks differ, and
    /// headers may be anybody's.
    pub(crate) fn wait(&self, topic: &str, headers: &Headers, now_ms: i64) -> Option<Duration> {
        let delay = delay_of(self.parts(topic)?.1)?;
        let due_ms = headers.last(DUE).flatten().and_then(integer)?;
        let wait = Duration::from_millis(u64::try_from(due_ms.saturating_sub(now_ms)).unwrap_or(0));
        Some(wait.min(delay))
    }

    /// How often the record was delivered before it came here.
    pub(crate) fn deliveries_before(&self, topic: &str, headers: &Headers) -> u32 {
        if self.parts(topic).is_none() {
            return 0;
        }
        let next = headers.last(ATTEMPTS).flatten().and_then(integer).unwrap_or(1);
        u32::try_from(next.saturating_sub(1)).unwrap_or(0)
    }

    fn name(&self, source: &str, label: &str) -> Arc<str> {
        format!("{source}{INFIX}{label}-{}", self.group).into()
    }

    fn distinct(&self) -> impl Iterator<Item = (&str, Duration)> {
        let is_first = |at: usize, label: &String| !self.labels[..at].contains(label);
        let labels = self.labels.iter().enumerate().filter(move |(at, label)| is_first(*at, label));
        labels.map(|(at, label)| (label.as_str(), self.delays[at]))
    }
}

/// A record that is to wait in a retry topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// How many were taken with this one.
    pub(crate) steps: usize,
    /// How often it was delivered.
    pub(crate) deliveries: u32,
    pub(crate) due_ms: i64,
}

/// Says in the headers of a record what it waits for. `headers` say where it came from and why it failed.
pub(crate) fn with_step(mut headers: OwnedHeaders, step: Step) -> OwnedHeaders {
    headers.retain(|(name, _)| ![ATTEMPTS, DUE, STEPS].contains(&&**name));
    let mut add = |name: &str, value: &[u8]| headers.push((name.into(), Some(Bytes::copy_from_slice(value))));
    let next = i32::try_from(step.deliveries).unwrap_or(i32::MAX).saturating_add(1);
    add(ATTEMPTS, &next.to_be_bytes());
    add(DUE, &step.due_ms.to_be_bytes());
    add(STEPS, &u32::try_from(step.steps).unwrap_or(u32::MAX).to_be_bytes());
    headers
}

/// Whose retry topics of other groups than `group` this may be: the topics that its name would lead back to.
pub(crate) fn sources_elsewhere<'a>(topic: &'a str, group: &str) -> impl Iterator<Item = &'a str> {
    let sources = topic.match_indices(INFIX).filter_map(move |(at, infix)| {
        let (label, of) = topic[at + infix.len()..].split_once('-')?;
        let (source, is_one) = (&topic[..at], delay_of(label).is_some() && !of.is_empty());
        (is_one && !source.is_empty()).then_some((source, of))
    });
    let group = group.to_owned();
    sources.filter(move |(_, of)| **of != *group).map(|(source, _)| source)
}

/// Units of delays in names, the largest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A delay as a part of a name: in the largest unit in which it is a whole number.
fn label(delay: Duration) -> String {
    let ms = delay.as_millis();
    let whole = UNITS.into_iter().find(|(_, unit_ms)| ms > 0 && ms.is_multiple_of(u128::from(*unit_ms)));
    let (unit, unit_ms) = whole.unwrap_or(("ms", 1));
    format!("{}{unit}", ms / u128::from(unit_ms))
}

/// What [`label`] was made of.
fn delay_of(text: &str) -> Option<Duration> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (count, unit) = text.split_at(digits);
    let (_, unit_ms) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    let delay = Duration::from_millis(count.parse::<u64>().ok()?.checked_mul(unit_ms)?);
    (label(delay) == text).then_some(delay)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::topics::IntoTopics;

    const SECONDS: fn(u64) -> Duration = Duration::from_secs;

    fn retries(delays: &[Duration]) -> RetryTopics {
        RetryTopics::new(&"billing".into(), delays)
    }

    #[test]
    fn names_hold_the_delay_and_the_group() {
        let delays = [
            Duration::from_millis(1_500),
            SECONDS(10),
            SECONDS(60),
            SECONDS(90),
            SECONDS(7_200),
            SECONDS(86_400),
        ];
        let names = retries(&delays).of("orders");
        let names: Vec<&str> = names.iter().map(|(name, _)| &**name).collect();
        let labels = ["1500ms", "10s", "1m", "90s", "2h", "1d"];
        assert_eq!(names, labels.map(|label| format!("orders-retry-{label}-billing")));
        for (delay, label) in delays.into_iter().zip(labels) {
            assert_eq!(delay_of(label), Some(delay));
        }
        for strange in ["", "s", "10", "-10s", "60s", "010s", "10 s", "10w", "99999999999999999999d", "1.5s"]
        {
            assert_eq!(delay_of(strange), None, "{strange}");
        }
    }

    #[test]
    fn steps_lead_from_topic_to_topic_and_end() {
        let retries = retries(&[SECONDS(10), SECONDS(10), SECONDS(60)]);
        let of = |steps| retries.step("orders", steps).map(|(name, _)| name);
        let names = ["orders-retry-10s-billing", "orders-retry-10s-billing", "orders-retry-1m-billing"];
        assert_eq!([0, 1, 2].map(of), names.map(|name| Some(name.into())));
        assert_eq!(of(3), None);
        assert_eq!(retries.of("orders").len(), 2);
    }

    #[test]
    fn what_is_listened_on_holds_the_retry_topics_once() {
        let retries = retries(&[SECONDS(10), SECONDS(10), SECONDS(60)]);
        let names = Topics::Names(["a", "a-retry-1m-billing"].into_topics());
        let all = ["a", "a-retry-1m-billing", "a-retry-10s-billing"];
        let Topics::Names(found) = retries.with(&names) else { panic!("names") };
        for name in all {
            assert_eq!(found.iter().filter(|found| ***found == *name).count(), 1, "{name}");
        }
        let Topics::Pattern(pattern) = retries.with(&Topics::Pattern("a|b-.*".into())) else {
            panic!("a pattern")
        };
        let matches =
            |topic: &str| regex_lite::Regex::new(&format!("^(?:{pattern})$")).unwrap().is_match(topic);
        assert!(["a", "b-1", "a-retry-10s-billing", "b-x-retry-5m-billing"].into_iter().all(matches));
        assert!(
            !["c", "c-retry-10s-billing", "a-retry-10s-audit", "a-retry-s-billing"].into_iter().any(matches)
        );
    }

    #[test]
    fn no_two_listeners_mean_the_same_topic() {
        let one = RetryTopics::new(&"eu-billing".into(), &[SECONDS(10)]);
        let other = retries(&[SECONDS(10)]);
        let of_one = &one.of("orders")[0].0;
        assert_eq!((one.source_of(of_one), other.source_of(of_one)), (Some("orders"), None));
        for topic in
            ["orders", "orders-retry-10s", "-retry-10s-billing", "orders-retry-10-billing", "billing"]
        {
            assert_eq!(other.source_of(topic), None, "{topic}");
        }
    }

    #[test]
    fn headers_tell_steps_apart_and_are_not_believed_beyond_what_the_topic_says() {
        let retries = retries(&[SECONDS(10), SECONDS(10), SECONDS(60)]);
        let topic = "orders-retry-10s-billing";
        let step =
            |steps, due_ms| Headers::from(with_step(Vec::new(), Step { steps, deliveries: 4, due_ms }));
        assert_eq!(retries.stage(topic, &step(2, 0)), ("orders", 2));
        assert_eq!(retries.stage("orders-retry-1m-billing", &step(1, 0)), ("orders", 3));
        for strange in [Headers::new(), step(17, 0), step(usize::MAX, 0)] {
            assert_eq!(retries.stage(topic, &strange).0, "orders");
            assert!((1..=3).contains(&retries.stage(topic, &strange).1));
        }
        assert_eq!(retries.stage("orders", &step(2, 0)), ("orders", 0), "sent on by somebody");

        let wait = |due_ms| retries.wait(topic, &step(1, due_ms), 1_000);
        assert_eq!(wait(4_000), Some(SECONDS(3)));
        assert_eq!([i64::MIN, 0, 1_000].map(wait), [Some(Duration::ZERO); 3]);
        assert_eq!([i64::MAX, 20_000].map(wait), [Some(SECONDS(10)); 2]);
        assert_eq!(retries.wait(topic, &Headers::new(), 0), None);
        assert_eq!(retries.wait("orders", &step(1, 4_000), 0), None);
        assert_eq!(retries.deliveries_before(topic, &step(1, 0)), 4);
        assert_eq!(retries.deliveries_before("orders", &step(1, 0)), 0);
        // Of a policy that had a delay more.
        let before = |steps| retries.stage("orders-retry-2h-billing", &step(steps, 0));
        assert_eq!([0, 1, 2, 17].map(before), [1, 1, 2, 3].map(|steps| ("orders", steps)));
        assert_eq!(retries.wait("orders-retry-2h-billing", &step(1, i64::MAX), 0), Some(SECONDS(7_200)));

        let next = Headers::from(with_step(step(1, 7).to_vec(), Step { steps: 2, deliveries: 9, due_ms: 8 }));
        assert_eq!(
            (next.iter().count(), retries.deliveries_before(topic, &next)),
            (3, 9),
            "headers do not grow"
        );
    }

    #[test]
    fn what_waits_for_delays_that_are_gone_is_found() {
        let sources = ["orders".into(), "orders-retry-1h-billing".into()];
        let there =
            ["orders", "orders-retry-10s-billing", "orders-retry-2h-billing", "other-retry-2h-billing"]
                .into_iter()
                .chain(["orders-retry-2h-audit", "orders-retry-1h-billing"])
                .map(Arc::from)
                .collect::<Vec<_>>();
        assert_eq!(retries(&[SECONDS(10)]).left_over(&sources, &there), ["orders-retry-2h-billing".into()]);
    }

    #[test]
    fn retry_topics_of_others_lead_back_to_their_topics() {
        let of = |topic| sources_elsewhere(topic, "billing").collect::<Vec<_>>();
        assert_eq!(of("orders-retry-10s-audit"), ["orders"]);
        assert_eq!(of("a-retry-1m-b-retry-10s-audit"), ["a", "a-retry-1m-b"]);
        for own in
            ["orders", "orders-retry-10s-billing", "orders-retry-0", "orders-retry-10s-", "-retry-1s-a"]
        {
            assert!(of(own).is_empty(), "{own}");
        }
    }
}
