//! The attributes of `#[kafka_listener(...)]`, as typed values.

use darling::ast::NestedMeta;
use darling::util::{Flag, SpannedValue};
use darling::{Error as DarlingError, FromMeta};
use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::spanned::Spanned;
use syn::{Error, Expr, Meta, Result};

use super::plain::Plain;
use super::topic_names::check_names;
use super::transactional::{Transactional, WrittenTransactional};
use super::values::{AnyExpr, Choice, Errors, Word, duration_ms, is_zero};

/// As written.
#[derive(Debug, FromMeta)]
struct Written {
    #[darling(default)]
    topics: Option<SpannedValue<AnyExpr>>,
    #[darling(default)]
    pattern: Option<SpannedValue<AnyExpr>>,
    #[darling(default)]
    partitions: Option<SpannedValue<AnyExpr>>,
    #[darling(default)]
    group: Option<AnyExpr>,
    #[darling(default)]
    id: Option<AnyExpr>,
    #[darling(default)]
    concurrency: Option<AnyExpr>,
    #[darling(default)]
    ack: Option<Choice>,
    #[darling(default)]
    dispatch: Option<Word>,
    #[darling(default)]
    batch: Option<WrittenBatch>,
    #[darling(default)]
    on_failure: Option<AnyExpr>,
    #[darling(default)]
    send_to: Option<AnyExpr>,
    #[darling(default)]
    offset_reset: Option<Choice>,
    #[darling(default)]
    commit_on_assign: Option<Choice>,
    #[darling(default)]
    max_in_flight: Option<AnyExpr>,
    #[darling(default)]
    max_in_flight_bytes: Option<AnyExpr>,
    #[darling(default)]
    revoke_deadline: Option<AnyExpr>,
    #[darling(default)]
    idle_after: Option<AnyExpr>,
    #[darling(default)]
    slow_after: Option<AnyExpr>,
    #[darling(default)]
    intercept: Option<AnyExpr>,
    #[darling(default)]
    auto_start: Option<AnyExpr>,
    #[darling(default)]
    container_group: Option<AnyExpr>,
    #[darling(default)]
    restart: Option<AnyExpr>,
    #[darling(default)]
    isolation: Option<Choice>,
    #[darling(default)]
    transactional: Option<WrittenTransactional>,
    #[darling(default)]
    transaction_timeout: Option<AnyExpr>,
}

/// As checked.
pub(super) struct Attributes {
    pub(super) subscription: Subscription,
    /// Without one, offsets of named partitions are not committed.
    pub(super) group: Option<Expr>,
    pub(super) id: Option<Expr>,
    pub(super) concurrency: Option<Expr>,
    pub(super) ack: Option<Ack>,
    pub(super) dispatch: Option<(String, Span)>,
    pub(super) batch: Option<Batch>,
    pub(super) on_failure: Option<Expr>,
    pub(super) send_to: Option<Expr>,
    /// Where it says `transactional`, and how.
    pub(super) transactional: Option<Transactional>,
    /// Builder calls that take what is written as it is: the name and the argument.
    pub(super) plain: Vec<(&'static str, TokenStream)>,
}

pub(super) enum Subscription {
    Topics(Expr),
    Pattern(Expr),
    Partitions(Expr),
}

/// Whose `Ack`s the handler takes or not, as far as it can be seen here.
#[derive(Debug, Clone, Copy)]
pub(super) enum Manual {
    Yes(Span),
    No,
    /// An expression says.
    Perhaps,
}

pub(super) struct Ack {
    pub(super) manual: Manual,
    pub(super) policy: TokenStream,
    pub(super) span: Span,
}

impl Ack {
    fn of(choice: Choice, errors: &mut Errors) -> Option<Self> {
        let (manual, span) = match &choice {
            Choice::Word(word, span) if word == "manual" => (Manual::Yes(*span), *span),
            Choice::Word(_, span) => (Manual::No, *span),
            Choice::Expr(expr) => (Manual::Perhaps, expr.span()),
        };
        let words = [
            ("record", quote!(::klamm::AckPolicy::Record)),
            ("batch", quote!(::klamm::AckPolicy::Batch)),
            ("manual", quote!(::klamm::AckPolicy::Manual)),
        ];
        Some(Self { manual, policy: choice.check("ack policy", &words, errors)?, span })
    }
}

pub(super) struct Batch {
    pub(super) max: Expr,
    pub(super) wait_ms: u64,
    pub(super) across_partitions: bool,
    pub(super) span: Span,
}

impl Attributes {
    pub(super) fn parse(tokens: TokenStream) -> Result<Self> {
        let metas = NestedMeta::parse_meta_list(tokens)?;
        let written = Written::from_list(&metas).map_err(Error::from)?;
        let mut errors = Errors::default();

        let needs_group = written.partitions.is_none();
        let subscription = subscription(written.topics, written.pattern, written.partitions, &mut errors);
        if needs_group && written.group.is_none() {
            errors.push(
                Span::call_site(),
                "a listener needs `group = \"name\"`: the consumer group it commits under",
            );
        }
        if let Some(concurrency) = &written.concurrency
            && is_zero(&concurrency.0)
        {
            errors
                .push(concurrency.0.span(), "`concurrency = 0` would never handle anything; the least is 1");
        }
        let ack = written.ack.and_then(|choice| Ack::of(choice, &mut errors));
        let dispatch = written.dispatch.filter(|dispatch| {
            let known = ["by_partition", "by_key", "unordered"].contains(&&*dispatch.0);
            if !known {
                let message = format!(
                    "unknown dispatch `{}`; there are `by_partition`, `by_key` and `unordered`",
                    dispatch.0
                );
                errors.push(dispatch.1, &message);
            }
            known
        });
        let batch = written.batch.and_then(|batch| batch.check(&mut errors));
        let plain = Plain {
            offset_reset: written.offset_reset,
            commit_on_assign: written.commit_on_assign,
            max_in_flight: written.max_in_flight,
            max_in_flight_bytes: written.max_in_flight_bytes,
            revoke_deadline: written.revoke_deadline,
            idle_after: written.idle_after,
            slow_after: written.slow_after,
            intercept: written.intercept,
            auto_start: written.auto_start,
            container_group: written.container_group,
            restart: written.restart,
            isolation: written.isolation,
            transaction_timeout: written.transaction_timeout,
        };
        let transactional = written.transactional.map(|written| written.check(&mut errors));
        let plain = plain.check(&mut errors);

        errors.into_result()?;
        let Some(subscription) = subscription else {
            // That was reported above.
            return Err(Error::new(Span::call_site(), "incomplete #[kafka_listener]"));
        };
        Ok(Self {
            subscription,
            group: written.group.map(|group| group.0),
            id: written.id.map(|id| id.0),
            concurrency: written.concurrency.map(|concurrency| concurrency.0),
            ack,
            dispatch: dispatch.map(|word| (word.0, word.1)),
            batch,
            on_failure: written.on_failure.map(|policy| policy.0),
            send_to: written.send_to.map(|topic| topic.0),
            transactional,
            plain,
        })
    }
}

fn subscription(
    topics: Option<SpannedValue<AnyExpr>>,
    pattern: Option<SpannedValue<AnyExpr>>,
    partitions: Option<SpannedValue<AnyExpr>>,
    errors: &mut Errors,
) -> Option<Subscription> {
    if let Some(partitions) = partitions {
        if topics.is_some() || pattern.is_some() {
            let message = "`partitions` names their topics: leave out `topics` and `pattern`";
            errors.push(partitions.span(), message);
            return None;
        }
        return Some(Subscription::Partitions(partitions.into_inner().0));
    }
    match (topics, pattern) {
        (Some(topics), None) => {
            let topics = topics.into_inner().0;
            check_names(&topics, errors);
            return Some(Subscription::Topics(topics));
        }
        (None, Some(pattern)) => return Some(Subscription::Pattern(pattern.into_inner().0)),
        (Some(_), Some(pattern)) => errors
            .push(pattern.span(), "`topics` and `pattern` exclude one another; a listener has one of them"),
        (None, None) => errors.push(
            Span::call_site(),
            "a listener needs `topics = \"name\"`, `topics = [\"a\", \"b\"]` or `pattern = \"regex\"`",
        ),
    }
    None
}

/// `batch`, or `batch(max = 500, wait = "50ms", across_partitions)`.
#[derive(Debug)]
struct WrittenBatch {
    max: Option<AnyExpr>,
    wait: Option<AnyExpr>,
    across_partitions: bool,
    span: Span,
}

#[derive(Debug, FromMeta)]
struct BatchList {
    #[darling(default)]
    max: Option<AnyExpr>,
    #[darling(default)]
    wait: Option<AnyExpr>,
    #[darling(default)]
    across_partitions: Flag,
}

impl FromMeta for WrittenBatch {
    fn from_meta(meta: &Meta) -> darling::Result<Self> {
        let span = meta.span();
        match meta {
            Meta::Path(_) => Ok(Self { max: None, wait: None, across_partitions: false, span }),
            Meta::List(list) => {
                let metas = NestedMeta::parse_meta_list(list.tokens.clone())?;
                let BatchList { max, wait, across_partitions } = BatchList::from_list(&metas)?;
                Ok(Self { max, wait, across_partitions: across_partitions.is_present(), span })
            }
            Meta::NameValue(_) => {
                Err(DarlingError::custom("write `batch` or `batch(max = 500, wait = \"50ms\")`")
                    .with_span(&span))
            }
        }
    }
}

impl WrittenBatch {
    fn check(self, errors: &mut Errors) -> Option<Batch> {
        // Kafka's `max.poll.records`, as in the builder.
        let max = self.max.map_or_else(|| syn::parse_quote!(500), |max| max.0);
        if is_zero(&max) {
            errors.push(max.span(), "batches of 0 records would never be handled; the least is 1");
            return None;
        }
        let wait_ms = match &self.wait {
            None => 0,
            Some(wait) => match duration_ms(&wait.0) {
                Some(wait_ms) => wait_ms,
                None => {
                    errors.push(
                        wait.0.span(),
                        "a duration is a number with a unit: \"50ms\", \"2s\", \"1m\" or \"1h\"",
                    );
                    return None;
                }
            },
        };
        Some(Batch { max, wait_ms, across_partitions: self.across_partitions, span: self.span })
    }
}
