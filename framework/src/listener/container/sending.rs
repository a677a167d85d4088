//! What to do about an output that was not acknowledged. Pure: it is told the error and a random number.

use std::sync::Arc;
use std::time::Duration;

use klamm_client::{ErrorCode, ProduceError};

use crate::listener::failure::{Backoff, Unsendable};

/// How often something is tried again that was refused for good.
const HALTED_RETRY: Duration = Duration::from_secs(60);
/// How much of a failure's text goes along, at first, when the record is too large with it, and in the end.
const TEXT_BYTES: [usize; 3] = [usize::MAX, 256, 0];

/// One output on its way.
#[derive(Debug)]
pub(super) struct Sending {
    /// None: what is refused for good goes back to the failure policy.
    policy: Option<Unsendable>,
    backoff: Backoff,
    failures: u32,
    /// An index into `TEXT_BYTES`.
    trimmed: usize,
    parked: bool,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Send it again after this time; the world may heal.
    Again(Duration),
    /// Send it again with less text.
    Trimmed,
    /// Send it to another topic.
    Elsewhere,
    /// Nothing helps but somebody who sees to it; the partition stands still, and it is sent again after this time.
    Halt(Duration),
    Skip,
    Stop,
    /// It is a failure of its record.
    Back,
}

impl Sending {
    pub(super) fn new(policy: Option<Unsendable>) -> Self {
        let backoff = Backoff::exponential(Duration::from_secs(1)).jitter(0.2).forever();
        Self { policy, backoff, failures: 0, trimmed: 0, parked: false }
    }

    /// How much of the failure's text may go along.
    pub(super) fn text_bytes_max(&self) -> usize {
        TEXT_BYTES.get(self.trimmed).copied().unwrap_or(0)
    }

    /// The topic that it goes to instead of its own.
    pub(super) fn elsewhere(&self) -> Option<&Arc<str>> {
        match &self.policy {
            Some(Unsendable::Park(topic)) if self.parked => Some(topic),
            _ => None,
        }
    }

    pub(super) fn failed(&mut self, error: &ProduceError, random: u64) -> Next {
        self.failures = self.failures.saturating_add(1);
        if !is_for_good(error) {
            return Next::Again(
                self.backoff.delay(self.failures, Duration::ZERO, random).unwrap_or_default(),
            );
        }
        let Some(policy) = &self.policy else { return Next::Back };
        if is_too_large(error) && self.trimmed + 1 < TEXT_BYTES.len() {
            self.trimmed += 1;
            return Next::Trimmed;
        }
        match policy {
            Unsendable::Park(_) if !self.parked => {
                (self.parked, self.trimmed) = (true, 0);
                Next::Elsewhere
            }
            Unsendable::Halt | Unsendable::Park(_) => Next::Halt(HALTED_RETRY),
            Unsendable::Skip => Next::Skip,
            Unsendable::Stop => Next::Stop,
        }
    }
}

/// What is wrong, and what helps.
pub(super) fn advice(error: &ProduceError) -> &'static str {
    if is_too_large(error) {
        return " (it is too large: raise the topic's `max.message.bytes` and the producer's `max_request_bytes`, or \
                say what becomes of it with `FailurePolicy::unsendable`)";
    }
    match error {
        ProduceError::Broker { code, .. } => match code {
            ErrorCode::TopicAuthorizationFailed | ErrorCode::ClusterAuthorizationFailed => {
                " (allow this user to write there, or say what becomes of it with `FailurePolicy::unsendable`)"
            }
            ErrorCode::UnknownTopicOrPartition | ErrorCode::InvalidTopicException => {
                " (create the topic, or set `auto.create.topics.enable` on the brokers)"
            }
            _ => "",
        },
        ProduceError::Blocked { .. } => {
            " (does the topic exist? create it, or set `auto.create.topics.enable` on the brokers)"
        }
        _ => "",
    }
}

fn is_for_good(error: &ProduceError) -> bool {
    match error {
        // The producer ends only with the app: there is nobody left to try.
        ProduceError::Closed { .. } => false,
        // It may come to exist; and a broker that does not know what went wrong says nothing about the next try, and
        // nothing for which a record may be skipped.
        ProduceError::Broker {
            code: ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownServerError,
            ..
        } => false,
        error => !error.is_retriable(),
    }
}

fn is_too_large(error: &ProduceError) -> bool {
    match error {
        ProduceError::RecordTooLarge { .. } => true,
        ProduceError::Broker { code, .. } => {
            matches!(code, ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use klamm_client::TopicPartition;

    use super::*;

    fn broker(code: ErrorCode) -> ProduceError {
        let partition = TopicPartition::new("t-dlt", 0);
        ProduceError::Broker { partition, code, message: None, possibly_written: false }
    }

    fn too_large() -> ProduceError {
        ProduceError::RecordTooLarge { size: 2, limit: 1 }
    }

    #[test]
    fn what_may_heal_is_tried_again_ever_more_slowly() {
        let mut sending = Sending::new(Some(Unsendable::Skip));
        let mut waited = Vec::new();
        for _ in 0..8 {
            match sending.failed(&broker(ErrorCode::NotEnoughReplicas), 0) {
                Next::Again(wait) => waited.push(wait.as_secs()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(waited, [1, 2, 4, 8, 16, 30, 30, 30]);
        for code in [ErrorCode::UnknownTopicOrPartition, ErrorCode::UnknownServerError] {
            assert!(matches!(sending.failed(&broker(code), 0), Next::Again(_)));
        }
    }

    #[test]
    fn what_is_too_large_loses_its_text_first() {
        let steps = |policy: Unsendable| {
            let mut sending = Sending::new(Some(policy));
            let mut texts = vec![sending.text_bytes_max()];
            loop {
                match sending.failed(&too_large(), 0) {
                    Next::Trimmed => texts.push(sending.text_bytes_max()),
                    Next::Elsewhere => texts.push(sending.text_bytes_max()),
                    last => return (texts, last, sending.elsewhere().cloned()),
                }
            }
        };
        let whole = vec![usize::MAX, 256, 0];
        assert_eq!(steps(Unsendable::Halt), (whole.clone(), Next::Halt(HALTED_RETRY), None));
        assert_eq!(steps(Unsendable::Skip), (whole.clone(), Next::Skip, None));
        assert_eq!(steps(Unsendable::Stop), (whole.clone(), Next::Stop, None));
        let parked = [whole.clone(), whole].concat();
        let lot = Some("lot".into());
        assert_eq!(steps(Unsendable::Park("lot".into())), (parked, Next::Halt(HALTED_RETRY), lot));
    }

    #[test]
    fn what_is_forbidden_is_not_trimmed() {
        let mut sending = Sending::new(Some(Unsendable::Halt));
        let forbidden = broker(ErrorCode::TopicAuthorizationFailed);
        assert_eq!(sending.failed(&forbidden, 0), Next::Halt(HALTED_RETRY));
        assert!(
            advice(&forbidden).contains("allow this user") && advice(&too_large()).contains("max.message")
        );
    }

    #[test]
    fn without_a_policy_of_its_own_what_is_refused_goes_back() {
        let mut sending = Sending::new(None);
        assert_eq!(sending.failed(&too_large(), 0), Next::Back);
        assert!(matches!(sending.failed(&broker(ErrorCode::NotEnoughReplicas), 0), Next::Again(_)));
    }
}
