//! What a test wants to happen: rules for the next requests of an API, used up in the order in which they were
//! made. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::frame::{decode_response, encode_response};
use klamm_protocol::{ApiKey, ErrorCode, Request};

use crate::types::TopicPartition;

/// What happens to a request.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Answer {
    /// It is served as if there were no rule: lets some requests pass before the next rule.
    Usual,
    /// Nothing is done, and the answer has this error: for each partition, topic, group or key that the request names
    /// where the API answers for them one by one, else for the request as a whole. A rule for one topic or partition
    /// spoils that one only, and the others are served.
    Error(ErrorCode),
    /// It is carried out at once and answered after this time. What follows on its connection waits, as with a real
    /// broker, which answers the requests of a connection in order.
    Delayed(Duration),
    /// The connection is closed before the request is looked at.
    DisconnectBefore,
    /// The request is carried out, and its connection is closed instead of an answer.
    DisconnectAfter,
    /// The request is carried out and answered, and then its connection is closed.
    ThenDisconnect,
    /// The request is carried out, but neither it nor anything behind it on its connection is ever answered.
    Never,
    /// Nothing is done, and nothing ever comes on this connection again.
    Hang,
    /// These bytes go out instead of an answer, without a length or header before them.
    Bytes(Bytes),
    /// The request is carried out, and the answer goes out as the function leaves it. Made by [`Answer::edited`] and
    /// [`Answer::tampered`].
    Tampered(Tamper),
}

impl Answer {
    /// The answer to `R` goes out as `edit` leaves it: for a broker that lies. Requests of other APIs are answered as
    /// usual.
    ///
    /// ```
    /// use klamm_client::testing::Answer;
    /// use klamm_protocol::messages::FetchRequest;
    ///
    /// let throttled = Answer::edited::<FetchRequest>(|answer| answer.throttle_time_ms = i32::MAX);
    /// ```
    pub fn edited<R: Request>(edit: impl Fn(&mut R::Response) + Send + Sync + 'static) -> Self {
        Self::tampered(move |exchange| {
            let usual = exchange.answer.clone();
            if exchange.api != R::KEY || usual.len() < LENGTH_BYTES {
                return usual;
            }
            // A version in which the answer was written can be read; one that cannot carry the edit is left alone.
            let Ok((id, mut answer)) = decode_response::<R>(usual.slice(LENGTH_BYTES..), exchange.version)
            else {
                return usual;
            };
            edit(&mut answer);
            encode_response(R::KEY, &answer, exchange.version, id).map_or(usual, |encoded| encoded.bytes)
        })
    }

    /// The answer goes out as `tamper` makes it: a whole frame, length included, or anything else.
    pub fn tampered(tamper: impl Fn(&Exchange<'_>) -> Bytes + Send + Sync + 'static) -> Self {
        Self::Tampered(Tamper(Arc::new(tamper)))
    }
}

const LENGTH_BYTES: usize = klamm_protocol::frame::LENGTH_BYTES;

/// A request and its usual answer, for [`Answer::tampered`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Exchange<'a> {
    /// The API asked for.
    pub api: ApiKey,
    /// The version of request and answer.
    pub version: i16,
    /// The request's body, without its header.
    pub request: &'a Bytes,
    /// The frame that would go out, length and header included; empty for a request that is not answered.
    pub answer: &'a Bytes,
}

/// A function that changes answers.
#[derive(Clone)]
pub struct Tamper(Arc<dyn Fn(&Exchange<'_>) -> Bytes + Send + Sync>);

impl Tamper {
    pub(super) fn apply(&self, exchange: &Exchange<'_>) -> Bytes {
        (self.0)(exchange)
    }
}

impl fmt::Debug for Tamper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tamper")
    }
}

/// What a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// Requests that name this topic.
    Topic(Arc<str>),
    /// Requests that name this partition.
    Partition(TopicPartition),
}

impl Target {
    fn is_named(&self, named: &[TopicPartition]) -> bool {
        match self {
            Self::Topic(topic) => named.iter().any(|partition| partition.topic == *topic),
            Self::Partition(wanted) => named.contains(wanted),
        }
    }
}

impl From<&str> for Target {
    fn from(topic: &str) -> Self {
        Self::Topic(Arc::from(topic))
    }
}

impl From<(&str, i32)> for Target {
    fn from(partition: (&str, i32)) -> Self {
        Self::Partition(partition.into())
    }
}

impl From<TopicPartition> for Target {
    fn from(partition: TopicPartition) -> Self {
        Self::Partition(partition)
    }
}

/// The rules that are not used up.
#[derive(Debug, Default)]
pub(super) struct Script {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    api: ApiKey,
    target: Option<Target>,
    /// How many requests it is still for; `None` for all.
    left: Option<usize>,
    answer: Answer,
}

/// What happens to one request.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// What is not an error.
    pub(super) answer: Option<Answer>,
    whole: Option<ErrorCode>,
    topics: BTreeMap<Arc<str>, ErrorCode>,
    partitions: BTreeMap<TopicPartition, ErrorCode>,
}

impl Script {
    pub(super) fn add(&mut self, api: ApiKey, target: Option<Target>, left: Option<usize>, answer: Answer) {
        if left != Some(0) {
            self.rules.push(Rule { api, target, left, answer });
        }
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    /// How many rules wait for requests.
    pub(super) fn len(&self) -> usize {
        self.rules.len()
    }

    /// What happens to a request of `api` that names these partitions. It uses up one turn of the first rule for all
    /// requests, and one of the first rule of each target that it names.
    pub(super) fn verdict(&mut self, api: ApiKey, named: &[TopicPartition]) -> Verdict {
        let mut verdict = Verdict::default();
        let mut used: Vec<Option<Target>> = Vec::new();
        for rule in self.rules.iter_mut().filter(|rule| rule.api == api) {
            let concerned = rule.target.as_ref().is_none_or(|target| target.is_named(named));
            if !concerned || used.contains(&rule.target) {
                continue;
            }
            used.push(rule.target.clone());
            if let Some(left) = &mut rule.left {
                *left -= 1;
            }
            match (&rule.answer, &rule.target) {
                (Answer::Error(code), None) => verdict.whole = Some(*code),
                (Answer::Error(code), Some(Target::Topic(topic))) => {
                    verdict.topics.insert(Arc::clone(topic), *code);
                }
                (Answer::Error(code), Some(Target::Partition(partition))) => {
                    verdict.partitions.insert(partition.clone(), *code);
                }
                (Answer::Usual, _) => {}
                // The first one counts.
                (answer, _) if verdict.answer.is_none() => verdict.answer = Some(answer.clone()),
                _ => {}
            }
        }
        self.rules.retain(|rule| rule.left != Some(0));
        verdict
    }
}

impl Verdict {
    /// The request is refused as a whole.
    pub(super) fn refusing(code: ErrorCode) -> Self {
        Self { whole: Some(code), ..Self::default() }
    }

    /// The error of the request, or of something that it names.
    pub(super) fn any_error(&self) -> Option<ErrorCode> {
        self.whole.or_else(|| self.topics.values().chain(self.partitions.values()).next().copied())
    }

    /// The error of the request as a whole.
    pub(super) fn whole(&self) -> Option<ErrorCode> {
        self.whole
    }

    /// The error of a topic.
    pub(super) fn topic(&self, topic: &str) -> Option<ErrorCode> {
        self.topics.get(topic).copied().or(self.whole)
    }

    /// The error of a partition.
    pub(super) fn partition(&self, topic: &str, partition: i32) -> Option<ErrorCode> {
        self.own(topic, partition).or_else(|| self.topic(topic))
    }

    /// The error of a partition where topics have one of their own.
    pub(super) fn own(&self, topic: &str, partition: i32) -> Option<ErrorCode> {
        if self.partitions.is_empty() {
            return None;
        }
        self.partitions.get(&TopicPartition::new(topic, partition)).copied()
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

    use super::*;

    const CODE: ErrorCode = ErrorCode::NotLeaderOrFollower;
    const OTHER: ErrorCode = ErrorCode::RequestTimedOut;

    fn named(partitions: &[(&str, i32)]) -> Vec<TopicPartition> {
        partitions.iter().map(|&partition| partition.into()).collect()
    }

    #[test]
    fn rules_are_used_up_in_order_and_by_api() {
        let mut script = Script::default();
        script.add(ApiKey::Produce, None, Some(2), Answer::Error(CODE));
        script.add(ApiKey::Produce, None, Some(1), Answer::Usual);
        script.add(ApiKey::Produce, None, Some(1), Answer::Error(OTHER));
        script.add(ApiKey::Produce, None, Some(0), Answer::Error(CODE));
        assert_eq!(script.len(), 3);
        assert_eq!(script.verdict(ApiKey::Fetch, &[]).whole(), None);
        let told: Vec<_> = (0..5).map(|_| script.verdict(ApiKey::Produce, &[]).whole()).collect();
        assert_eq!(told, [Some(CODE), Some(CODE), None, Some(OTHER), None]);
        assert_eq!(script.len(), 0);
    }

    #[test]
    fn what_has_no_number_stays_until_it_is_cleared() {
        let mut script = Script::default();
        script.add(ApiKey::Fetch, None, None, Answer::Never);
        for _ in 0..3 {
            let verdict = script.verdict(ApiKey::Fetch, &[]);
            assert!(matches!(verdict.answer, Some(Answer::Never)) && verdict.whole().is_none());
        }
        script.clear();
        assert!(script.verdict(ApiKey::Fetch, &[]).answer.is_none());
    }

    #[test]
    fn a_target_is_spoilt_alone() {
        let mut script = Script::default();
        script.add(ApiKey::Produce, Some(("a", 1).into()), Some(1), Answer::Error(CODE));
        script.add(ApiKey::Produce, Some("b".into()), Some(1), Answer::Error(OTHER));
        let untouched = script.verdict(ApiKey::Produce, &named(&[("a", 0), ("c", 1)]));
        assert_eq!((untouched.partition("a", 1), untouched.topic("b")), (None, None));
        let verdict = script.verdict(ApiKey::Produce, &named(&[("a", 0), ("a", 1), ("b", 7)]));
        assert_eq!(verdict.partition("a", 0), None);
        assert_eq!((verdict.partition("a", 1), verdict.own("a", 1)), (Some(CODE), Some(CODE)));
        assert_eq!((verdict.partition("b", 7), verdict.own("b", 7)), (Some(OTHER), None));
        assert_eq!((verdict.topic("b"), verdict.topic("a"), verdict.whole()), (Some(OTHER), None, None));
        assert_eq!(script.len(), 0, "both are used up by one request");
    }

    #[test]
    fn rules_for_all_and_for_one_count_together_and_the_narrower_wins() {
        let mut script = Script::default();
        script.add(ApiKey::Fetch, None, Some(1), Answer::Error(CODE));
        script.add(ApiKey::Fetch, Some(("a", 0).into()), Some(1), Answer::Error(OTHER));
        script.add(ApiKey::Fetch, Some(("a", 0).into()), Some(1), Answer::Delayed(Duration::from_secs(1)));
        let verdict = script.verdict(ApiKey::Fetch, &named(&[("a", 0), ("a", 1)]));
        assert_eq!((verdict.partition("a", 0), verdict.partition("a", 1)), (Some(OTHER), Some(CODE)));
        assert!(verdict.answer.is_none(), "the second rule of a target waits for the next request");
        let verdict = script.verdict(ApiKey::Fetch, &named(&[("a", 0)]));
        assert!(matches!(verdict.answer, Some(Answer::Delayed(_))));
    }

    #[test]
    fn an_edit_changes_its_api_only() {
        let usual = HeartbeatResponse { error_code: 5, ..Default::default() };
        let frame = encode_response(ApiKey::Heartbeat, &usual, 4, 77).unwrap().bytes;
        let Answer::Tampered(tamper) = Answer::edited::<HeartbeatRequest>(|answer| answer.error_code += 1)
        else {
            unreachable!("edited is tampered")
        };
        let request = Bytes::new();
        let exchange = |api, version, answer| Exchange { api, version, request: &request, answer };
        let edited = tamper.apply(&exchange(ApiKey::Heartbeat, 4, &frame));
        let (id, answer) = decode_response::<HeartbeatRequest>(edited.slice(LENGTH_BYTES..), 4).unwrap();
        assert_eq!((id, answer.error_code), (77, 6));
        assert_eq!(tamper.apply(&exchange(ApiKey::Fetch, 4, &frame)), frame);
        assert_eq!(tamper.apply(&exchange(ApiKey::Heartbeat, 4, &request)), request, "nothing to edit");
        assert_eq!(tamper.apply(&exchange(ApiKey::Heartbeat, 99, &frame)), frame, "no such version");
    }
}
