//! Names of topics that are written out, looked at while compiling.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::{Expr, Lit};

use super::values::Errors;

/// Names that are written out can be checked here; all others when the app starts.
pub(super) fn check_names(topics: &Expr, errors: &mut Errors) {
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
