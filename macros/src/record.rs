//! `#[derive(Record)]`: a type says once in which format it is written.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{DeriveInput, Error, Result};

/// The formats, with the serde that writes each.
const FORMATS: [(&str, &str); 3] =
    [("json", "JsonSerde"), ("bincode", "BincodeSerde"), ("postcard", "PostcardSerde")];

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let (serde, span) = format_of(input)?;
    let serde = format_ident!("{serde}", span = span);
    // Spanned on the format's name, so that a type that is not `Serialize` is an error on that word.
    let serde = quote_spanned!(span=> ::klamm::serde::#serde);

    let name = &input.ident;
    let mut generics = input.generics.clone();
    if !generics.params.is_empty() {
        let clause = generics.make_where_clause();
        clause.predicates.push(syn::parse_quote!(#serde: ::klamm::serde::Serde<Self>));
        clause.predicates.push(syn::parse_quote!(Self: ::core::marker::Send + 'static));
    }
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    Ok(quote! {
        impl #impl_generics ::klamm::serde::DefaultSerde for #name #type_generics #where_clause {
            type Serde = #serde;
        }
    })
}

fn format_of(input: &DeriveInput) -> Result<(&'static str, Span)> {
    let mut found: Option<(&'static str, Span)> = None;
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("record")) {
        attribute.parse_nested_meta(|meta| {
            let format = FORMATS.iter().find(|(name, _)| meta.path.is_ident(name));
            let Some((_, serde)) = format else {
                return Err(meta.error("unknown format; there are `json`, `bincode` and `postcard`"));
            };
            let span = meta.path.get_ident().map_or_else(Span::call_site, syn::Ident::span);
            match found.replace((serde, span)) {
                None => Ok(()),
                Some(_) => Err(meta.error("a type has one format; remove the others")),
            }
        })?;
    }
    found.ok_or_else(|| {
        let message =
            "which format? Add `#[record(json)]`, `#[record(bincode)]` or `#[record(postcard)]` to the type";
        Error::new(input.ident.span(), message)
    })
}
