//! `#[klamm::test]`: an async test with a test kit, on a runtime of its own.

use darling::FromMeta;
use darling::ast::NestedMeta;
use proc_macro2::TokenStream;
use quote::quote;
use syn::spanned::Spanned;
use syn::{Error, Expr, ItemFn, Meta, Result};

use crate::listener::duration_ms;

#[derive(Debug, FromMeta)]
struct Written {
    #[darling(default)]
    deadline: Option<Deadline>,
    #[darling(default)]
    needs_paused_clock: bool,
}

#[derive(Debug)]
struct Deadline(u64);

impl FromMeta for Deadline {
    fn from_meta(meta: &Meta) -> darling::Result<Self> {
        let value: Option<&Expr> = match meta {
            Meta::NameValue(pair) => Some(&pair.value),
            _ => None,
        };
        value.and_then(duration_ms).map(Self).ok_or_else(|| {
            darling::Error::custom("a deadline is a number with a unit: `deadline = \"60s\"`").with_span(meta)
        })
    }
}

pub(crate) fn expand(attributes: TokenStream, function: &ItemFn) -> Result<TokenStream> {
    let written = Written::from_list(&NestedMeta::parse_meta_list(attributes)?)?;
    let signature = &function.sig;
    if signature.asyncness.is_none() {
        return Err(Error::new(signature.fn_token.span(), "#[klamm::test] goes on an `async fn`"));
    }
    if signature.inputs.len() > 1 {
        let message = "a test takes a `TestKit` or nothing";
        return Err(Error::new(signature.inputs[1].span(), message));
    }
    let deadline_ms = match written.deadline {
        Some(Deadline(ms)) => quote!(::core::option::Option::Some(#ms)),
        None => quote!(::core::option::Option::None),
    };
    let needs_paused_clock = written.needs_paused_clock;
    let (attributes, visibility, name, body, output) =
        (&function.attrs, &function.vis, &signature.ident, &function.block, &signature.output);
    let argument = match signature.inputs.first() {
        Some(argument) => quote!(#argument),
        None => quote!(_: ::klamm::testing::TestKit),
    };
    Ok(quote! {
        #[::core::prelude::v1::test]
        #(#attributes)*
        #visibility fn #name() #output {
            async fn __body(#argument) #output #body
            ::klamm::testing::__run(
                ::klamm::testing::__TestSettings {
                    name: ::core::concat!(::core::module_path!(), "::", ::core::stringify!(#name)),
                    deadline_ms: #deadline_ms,
                    needs_paused_clock: #needs_paused_clock,
                },
                __body,
            )
        }
    })
}
