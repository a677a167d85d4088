//! The macros of klamm: comfort over the builders of the crate `klamm`, which re-exports them. Everything works without them.

use proc_macro::TokenStream;

mod record;

/// Teaches a type how it is written to records: `#[derive(Record)] #[record(json)]`, or `bincode`, or `postcard`.
///
/// The type must also be `serde::Serialize` and `serde::Deserialize`, and klamm's feature of the format's name must be on. The
/// type then works wherever a `klamm::serde::DefaultSerde` is asked for: as `Value<T>`, in templates and in streams.
#[proc_macro_derive(Record, attributes(record))]
pub fn derive_record(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    record::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
