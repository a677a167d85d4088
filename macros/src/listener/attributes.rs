//! The attributes of `#[kafka_listener(...)]`, as typed values.

use darling::ast::NestedMeta;
use darling::util::SpannedValue;
use darling::{Error as DarlingError, FromMeta};
use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::spanned::Spanned;
use syn::{Error, Expr, Lit, Meta, Result};

/// As written.
#[derive(Debug, FromMeta)]
struct Written {
    #[darling(default)]
    topics: Option<SpannedValue<AnyExpr>>,
    #[darling(default)]
    pattern: Option<SpannedValue<AnyExpr>>,
    #[darling(default)]
    group: Option<AnyExpr>,
    #[darling(default)]
    id: Option<AnyExpr>,
    #[darling(default)]
    concurrency: Option<AnyExpr>,
    #[darling(default)]
    ack: Option<Word>,
    #[darling(default)]
    dispatch: Option<Word>,
    #[darling(default)]
    batch: Option<WrittenBatch>,
    #[darling(default)]
    on_failure: Option<AnyExpr>,
    #[darling(default)]
    send_to: Option<AnyExpr>,
}

/// As checked.
pub(super) struct Attributes {
    pub(super) subscription: Subscription,
    pub(super) group: Expr,
    pub(super) id: Option<Expr>,
    pub(super) concurrency: Option<Expr>,
    pub(super) ack: Option<Ack>,
    pub(super) dispatch: Option<(String, Span)>,
    pub(super) batch: Option<Batch>,
    pub(super) on_failure: Option<Expr>,
    pub(super) send_to: Option<Expr>,
}

pub(super) enum Subscription {
    Topics(Expr),
    Pattern(Expr),
}

pub(super) struct Ack {
    pub(super) word: AckWord,
    pub(super) span: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AckWord {
    Record,
    Batch,
    Manual,
}

impl AckWord {
    pub(super) fn policy(self) -> TokenStream {
        match self {
            Self::Record => quote!(::klamm::AckPolicy::Record),
            Self::Batch => quote!(::klamm::AckPolicy::Batch),
            Self::Manual => quote!(::klamm::AckPolicy::Manual),
        }
    }
}

pub(super) struct Batch {
    pub(super) max: Expr,
    pub(super) wait_ms: u64,
    pub(super) span: Span,
}

impl Attributes {
    pub(super) fn parse(tokens: TokenStream) -> Result<Self> {
        let metas = NestedMeta::parse_meta_list(tokens)?;
        let written = Written::from_list(&metas).map_err(Error::from)?;
        let mut errors = Errors::default();

        let subscription = subscription(written.topics, written.pattern, &mut errors);
        if written.group.is_none() {
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
        let ack = written.ack.and_then(|ack| {
            let word = match &*ack.0 {
                "record" => AckWord::Record,
                "batch" => AckWord::Batch,
                "manual" => AckWord::Manual,
                other => {
                    errors.push(
                        ack.1,
                        &format!("unknown ack policy `{other}`; there are `record`, `batch` and `manual`"),
                    );
                    return None;
                }
            };
            Some(Ack { word, span: ack.1 })
        });
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

        errors.into_result()?;
        let (Some(subscription), Some(group)) = (subscription, written.group) else {
            // Both lacks were reported above.
            return Err(Error::new(Span::call_site(), "incomplete #[kafka_listener]"));
        };
        Ok(Self {
            subscription,
            group: group.0,
            id: written.id.map(|id| id.0),
            concurrency: written.concurrency.map(|concurrency| concurrency.0),
            ack,
            dispatch: dispatch.map(|word| (word.0, word.1)),
            batch,
            on_failure: written.on_failure.map(|policy| policy.0),
            send_to: written.send_to.map(|topic| topic.0),
        })
    }
}

fn subscription(
    topics: Option<SpannedValue<AnyExpr>>,
    pattern: Option<SpannedValue<AnyExpr>>,
    errors: &mut Errors,
) -> Option<Subscription> {
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

/// Names that are written out can be checked here; all others when the app starts.
fn check_names(topics: &Expr, errors: &mut Errors) {
    match topics {
        Expr::Array(array) if array.elems.is_empty() => {
            errors.push(topics.span(), "a listener needs at least one topic");
        }
        Expr::Array(array) => array.elems.iter().for_each(|name| check_names(name, errors)),
        Expr::Reference(reference) => check_names(&reference.expr, errors),
        Expr::Lit(literal) => {
            let Lit::Str(text) = &literal.lit else { return };
            let name = text.value();
            if name.contains("${") {
                // Known when the app starts.
                check_placeholders(&name, topics.span(), errors);
                return;
            }
            let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
            let legal = (1..=249).contains(&name.len()) && !matches!(&*name, "." | "..");
            if legal && name.bytes().all(letter) {
                return;
            }
            let hint = match name.contains(',') {
                true => "; several topics are an array: `topics = [\"a\", \"b\"]`",
                false => "",
            };
            let message =
                format!("no topic can be called \"{name}\": 1 to 249 letters, digits, `.`, `_` or `-`{hint}");
            errors.push(topics.span(), &message);
        }
        _ => {}
    }
}

/// As the app will read them: `${name}` or `${name:default}`, one in the other's default.
fn check_placeholders(text: &str, span: Span, errors: &mut Errors) {
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let is_plain = rest[..at].ends_with('\\');
        rest = &rest[at + 2..];
        let name = rest.split([':', '}']).next().unwrap_or_default();
        if !is_plain && (name.trim().is_empty() || name.len() == rest.len()) {
            errors.push(span, "a placeholder is written `${name}` or `${name:default}`");
            return;
        }
    }
}

/// Any expression, taken as it is: a literal, an array, a constant, a call.
#[derive(Debug)]
struct AnyExpr(Expr);

impl FromMeta for AnyExpr {
    fn from_meta(meta: &Meta) -> darling::Result<Self> {
        match meta {
            Meta::NameValue(pair) => Ok(Self(pair.value.clone())),
            other => Err(DarlingError::custom("expected `name = value`").with_span(other)),
        }
    }
}

/// A bare word, as in `ack = manual`; quotes are forgiven.
#[derive(Debug)]
struct Word(String, Span);

impl FromMeta for Word {
    fn from_meta(meta: &Meta) -> darling::Result<Self> {
        let Meta::NameValue(pair) = meta else {
            return Err(DarlingError::custom("expected `name = word`").with_span(meta));
        };
        let span = pair.value.span();
        match &pair.value {
            Expr::Path(path) if path.path.get_ident().is_some() => {
                Ok(Self(path.path.get_ident().map(ToString::to_string).unwrap_or_default(), span))
            }
            Expr::Lit(literal) if matches!(literal.lit, Lit::Str(_)) => match &literal.lit {
                Lit::Str(text) => Ok(Self(text.value(), span)),
                _ => Err(DarlingError::custom("expected a word").with_span(&span)),
            },
            _ => Err(DarlingError::custom("expected a word").with_span(&span)),
        }
    }
}

/// `batch`, or `batch(max = 500, wait = "50ms")`.
#[derive(Debug)]
struct WrittenBatch {
    max: Option<AnyExpr>,
    wait: Option<AnyExpr>,
    span: Span,
}

#[derive(Debug, FromMeta)]
struct BatchList {
    #[darling(default)]
    max: Option<AnyExpr>,
    #[darling(default)]
    wait: Option<AnyExpr>,
}

impl FromMeta for WrittenBatch {
    fn from_meta(meta: &Meta) -> darling::Result<Self> {
        let span = meta.span();
        match meta {
            Meta::Path(_) => Ok(Self { max: None, wait: None, span }),
            Meta::List(list) => {
                let metas = NestedMeta::parse_meta_list(list.tokens.clone())?;
                let BatchList { max, wait } = BatchList::from_list(&metas)?;
                Ok(Self { max, wait, span })
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
        Some(Batch { max, wait_ms, span: self.span })
    }
}

fn is_zero(expr: &Expr) -> bool {
    let Expr::Lit(literal) = expr else { return false };
    matches!(&literal.lit, Lit::Int(int) if int.base10_parse::<u64>().is_ok_and(|n| n == 0))
}

/// `"50ms"`, `"2s"`, `"1m"`, `"1h"` in milliseconds.
pub(crate) fn duration_ms(expr: &Expr) -> Option<u64> {
    let Expr::Lit(literal) = expr else { return None };
    let Lit::Str(text) = &literal.lit else { return None };
    let text = text.value();
    let unit_at = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let unit_ms = match unit.trim_start() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit_ms)
}

/// Errors gathered, so that one compilation shows them all.
#[derive(Default)]
struct Errors(Option<Error>);

impl Errors {
    fn push(&mut self, span: Span, message: &str) {
        let error = Error::new(span, message);
        match &mut self.0 {
            Some(all) => all.combine(error),
            None => self.0 = Some(error),
        }
    }

    fn into_result(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}
