//! ListTransactions, key 66: versions 0 to 2. What is durable of all transactional ids: by state, by producer id, from
//! version 1 on by how long the transaction is open, and from version 2 on by a pattern that the whole id matches.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::messages::list_transactions::TransactionState;
use klamm_protocol::messages::{ListTransactionsRequest, ListTransactionsResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes};
use regex_lite::Regex;

use super::{Answer, Call, Context, Refusal};
use crate::txn::{Description, State};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=2;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: ListTransactionsRequest = call.decode()?;
    let (reply, context) = (call.reply(), context.clone());
    let (filter, unknown) = match Filter::new(&request) {
        Ok(filter) => filter,
        Err(error) => {
            let error_code = error.code();
            return call.answer(&ListTransactionsResponse { error_code, ..Default::default() });
        }
    };
    let held_bytes = size_of::<Filter>() + unknown.iter().map(|name| 64 + name.len()).sum::<usize>();
    Ok(Answer::later(held_bytes, async move {
        let mut response = ListTransactionsResponse {
            unknown_state_filters: unknown.into_iter().map(Utf8Bytes::from).collect(),
            ..ListTransactionsResponse::default()
        };
        match context.transactions().list().await {
            Ok(all) => {
                let now_ms = context.now_ms();
                let found = all.into_iter().filter(|found| filter.takes(found, now_ms));
                response.transaction_states = found.map(state).collect();
            }
            Err(error) => response.error_code = error.code(),
        }
        reply.encode(&response).map(Some)
    }))
}

fn state(found: Description) -> TransactionState {
    TransactionState {
        transactional_id: found.id.into(),
        producer_id: found.producer.id,
        transaction_state: Utf8Bytes::from_static(found.state.name()),
        ..TransactionState::default()
    }
}

/// Which ones are asked for.
struct Filter {
    /// Nothing for all states.
    states: Option<BTreeSet<State>>,
    /// Nothing for all producers.
    producer_ids: Option<BTreeSet<i64>>,
    /// Open for longer than this; negative for any.
    open_for_ms: i64,
    /// Nothing for all ids.
    pattern: Option<Regex>,
}

impl Filter {
    /// What is asked for, and the names of states that there are none of.
    fn new(request: &ListTransactionsRequest) -> Result<(Self, BTreeSet<String>), ErrorCode> {
        let (mut states, mut unknown) = (BTreeSet::new(), BTreeSet::new());
        for name in &request.state_filters {
            match State::of_name(name) {
                Some(state) => drop(states.insert(state)),
                None => drop(unknown.insert(name.to_string())),
            }
        }
        let pattern = request.transactional_id_pattern.as_deref().filter(|pattern| !pattern.is_empty());
        let whole = pattern.map(|pattern| Regex::new(&format!(r"\A(?:{pattern})\z"))).transpose();
        let producer_ids: BTreeSet<i64> = request.producer_id_filters.iter().copied().collect();
        let filter = Self {
            states: (!request.state_filters.is_empty()).then_some(states),
            producer_ids: (!producer_ids.is_empty()).then_some(producer_ids),
            open_for_ms: request.duration_filter,
            pattern: whole.map_err(|_| ErrorCode::InvalidRegularExpression)?,
        };
        Ok((filter, unknown))
    }

    fn takes(&self, found: &Description, now_ms: i64) -> bool {
        let open_for_ms = now_ms.saturating_sub(found.started_at_ms);
        self.states.as_ref().is_none_or(|states| states.contains(&found.state))
            && self.producer_ids.as_ref().is_none_or(|ids| ids.contains(&found.producer.id))
            && (self.open_for_ms < 0 || open_for_ms > self.open_for_ms)
            && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(&found.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txn::{Partitions, ProducerIdAndEpoch};

    fn found(id: &str, state: State, started_at_ms: i64) -> Description {
        Description {
            id: id.to_owned(),
            state,
            producer: ProducerIdAndEpoch { id: 7, epoch: 0 },
            timeout_ms: 60_000,
            started_at_ms,
            partitions: Partitions::new(),
        }
    }

    fn takes(request: ListTransactionsRequest, found: &Description) -> bool {
        Filter::new(&request).unwrap().0.takes(found, 10_000)
    }

    #[test]
    fn no_filter_takes_all() {
        assert!(takes(ListTransactionsRequest::default(), &found("a", State::Empty, -1)));
    }

    #[test]
    fn states_are_known_by_name_and_others_are_told() {
        let state_filters = vec!["Ongoing".into(), "Nothing".into(), "ongoing".into()];
        let request = ListTransactionsRequest { state_filters, ..Default::default() };
        let (filter, unknown) = Filter::new(&request).unwrap();
        assert_eq!(unknown.into_iter().collect::<Vec<_>>(), ["Nothing", "ongoing"]);
        assert!(filter.takes(&found("a", State::Ongoing, 1), 2));
        assert!(!filter.takes(&found("a", State::CompleteAbort, 1), 2));
        let none = ListTransactionsRequest { state_filters: vec!["Nothing".into()], ..Default::default() };
        assert!(!takes(none, &found("a", State::Ongoing, 1)), "of no state that there is");
    }

    #[test]
    fn producers_and_durations() {
        let of = |ids: &[i64]| ListTransactionsRequest {
            producer_id_filters: ids.to_vec(),
            ..ListTransactionsRequest::default()
        };
        assert!(takes(of(&[6, 7]), &found("a", State::Ongoing, 1)));
        assert!(!takes(of(&[6]), &found("a", State::Ongoing, 1)));
        let longer = |duration_filter| ListTransactionsRequest {
            duration_filter,
            ..ListTransactionsRequest::default()
        };
        let open = found("a", State::Ongoing, 9_000);
        assert!(takes(longer(999), &open) && !takes(longer(1_000), &open) && takes(longer(-1), &open));
    }

    #[test]
    fn a_pattern_matches_whole_ids() {
        let of = |pattern: &str| ListTransactionsRequest {
            transactional_id_pattern: Some(pattern.into()),
            ..ListTransactionsRequest::default()
        };
        let one = found("pay-12", State::Empty, -1);
        for (pattern, matches) in [
            ("", true),
            ("pay-.*", true),
            ("pay", false),
            ("a|pay-12", true),
            ("ay-12", false),
            (r"pay-\d\d", true),
        ] {
            assert_eq!(takes(of(pattern), &one), matches, "{pattern}");
        }
        let error = Filter::new(&of("(")).err();
        assert_eq!(error, Some(ErrorCode::InvalidRegularExpression));
    }
}
