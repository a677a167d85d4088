//! What stands behind the `=` of an attribute: expressions, words, durations; and errors, gathered.

use darling::{Error as DarlingError, FromMeta};
use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::spanned::Spanned;
use syn::{Error, Expr, Lit, Meta, Result};

/// Any expression, taken as it is: a literal, an array, a constant, a call.
#[derive(Debug)]
pub(super) struct AnyExpr(pub(super) Expr);

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
pub(super) struct Word(pub(super) String, pub(super) Span);

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

pub(super) fn is_zero(expr: &Expr) -> bool {
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
pub(super) struct Errors(Option<Error>);

impl Errors {
    pub(super) fn push(&mut self, span: Span, message: &str) {
        let error = Error::new(span, message);
        match &mut self.0 {
            Some(all) => all.combine(error),
            None => self.0 = Some(error),
        }
    }

    pub(super) fn into_result(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

/// One of several words, as in `offset_reset = latest`, or any expression that makes the same.
#[derive(Debug)]
pub(super) enum Choice {
    Word(String, Span),
    Expr(Expr),
}

impl FromMeta for Choice {
    fn from_meta(meta: &Meta) -> darling::Result<Self> {
        match Word::from_meta(meta) {
            Ok(Word(word, span)) => Ok(Self::Word(word, span)),
            Err(_) => AnyExpr::from_meta(meta).map(|expr| Self::Expr(expr.0)),
        }
    }
}

impl Choice {
    /// The expression that is meant. `words` are those that there are, each with its own.
    pub(super) fn check(
        self,
        name: &str,
        words: &[(&str, TokenStream)],
        errors: &mut Errors,
    ) -> Option<TokenStream> {
        let (word, span) = match self {
            Self::Expr(expr) => return Some(quote!(#expr)),
            Self::Word(word, span) => (word, span),
        };
        if let Some((_, meant)) = words.iter().find(|(known, _)| *known == word) {
            return Some(meant.clone());
        }
        let known: Vec<String> = words.iter().map(|(known, _)| format!("`{known}`")).collect();
        let message = format!("unknown {name} `{word}`; there are {}, or an expression", known.join(", "));
        errors.push(span, &message);
        None
    }
}

/// A duration as text, or any expression that makes one.
pub(super) fn duration(expr: &Expr, errors: &mut Errors) -> Option<TokenStream> {
    let is_text = matches!(expr, Expr::Lit(literal) if matches!(literal.lit, Lit::Str(_) | Lit::Int(_)));
    match duration_ms(expr) {
        Some(ms) => Some(quote!(::core::time::Duration::from_millis(#ms))),
        None if is_text => {
            errors
                .push(expr.span(), "a duration is a number with a unit: \"50ms\", \"2s\", \"1m\" or \"1h\"");
            None
        }
        None => Some(quote!(#expr)),
    }
}
