//! `#[derive(Message)]`: one annotated struct becomes the codec of every version of a Kafka message.
//!
//! Read by klamm-protocol only; its documentation shows the attributes in use. `model` reads and checks them, `expand`
//! writes the code: one function that encodes and one that decodes, with one version test a field at most, so that the
//! size of the code follows the number of fields and not the number of versions.

mod expand;
mod model;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Derives `Field` and `Default`, and for a struct with `#[message(..)]` also `Message` (and
/// `Request`, if it has a key).
///
/// On the struct, for whole requests and responses only:
///
/// * `versions = 3..=13`: the versions there are. Required.
/// * `flexible = 9..`: the first version with compact lengths and tagged fields. Without it there is none.
/// * `key = 0`: makes `XRequest` a request of this API, answered by `XResponse`.
///
/// On a field, `#[field(..)]`:
///
/// * `versions = 3..`, `..=12` or `3..=12`: the versions that have the field. Without it: all.
/// * `nullable = 3..`: the versions that may leave an `Option` null. Without it: all; such a
///   field is `Option<_>` always.
/// * `default = -1`: its default, if not that of its type. `empty` in an `Option` stands for an empty, present value.
/// * `ignorable`: versions without the field drop its value silently. Otherwise a value that is not
///   the default is an error.
/// * `tag = 0`: a tagged field. It is left out if it equals its default, because some clients cannot read it otherwise.
///
/// Every struct has a field `unknown_tags: UnknownTags`.
#[proc_macro_derive(Message, attributes(message, field))]
pub fn derive_message(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    model::Structure::read(&input)
        .map(|structure| expand::expand(&structure))
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
