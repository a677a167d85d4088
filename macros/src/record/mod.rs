//! `#[derive(Record)]`: a type says once how it is written, and is an argument of listeners from then on.

mod attributes;
mod format;
mod schema;
mod tagged;

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Ident, Result, Type};

use attributes::Attributes;

use crate::schemas;

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let attributes = Attributes::read(input)?;
    if let Data::Union(union) = &input.data {
        return Err(Error::new(
            union.union_token.span,
            "a union cannot be a record: nobody knows what is in it",
        ));
    }
    let mut all = match &attributes.header {
        Some(header) => tagged::expand(input, &attributes, header)?,
        None => written_as_one(input, &attributes)?,
    };
    all.extend(topic_and_key(input, &attributes)?);
    Ok(all)
}

/// The whole type in one format.
fn written_as_one(input: &DeriveInput, attributes: &Attributes) -> Result<TokenStream> {
    let Some(format) = &attributes.format else {
        let message = format!("which format? Add one to the type: {}", format::all_as_attributes());
        return Err(Error::new(input.ident.span(), message));
    };
    let span = format.span;
    let plain = format.serde();
    // Spanned on the format's name, so that a type that is not `Serialize` is an error on that word.
    let serde = match attributes.registry {
        Some(_) => quote_spanned!(span=> ::klamm::serde::Registered<#plain>),
        None => plain,
    };
    let mut generics = input.generics.clone();
    if let Some(first) = generics.params.first() {
        if format.has_schema() {
            let message = format!(
                "a record in {} cannot be generic: it has one schema. Write a type for each, or use `json`",
                format.word
            );
            return Err(Error::new(first.span(), message));
        }
        let clause = generics.make_where_clause();
        clause.predicates.push(syn::parse_quote!(#serde: ::klamm::serde::Serde<Self>));
        clause.predicates.push(syn::parse_quote!(Self: ::core::marker::Send + 'static));
    }
    let registry = attributes.registry.map(|_| {
        quote! {
            const NEEDS_REGISTRY: bool = true;

            fn serde_with(
                registry: ::core::option::Option<&::klamm::serde::SchemaRegistry>,
                is_key: bool,
            ) -> Self::Serde {
                let serde = Self::Serde::new(registry.cloned());
                if is_key { serde.for_keys() } else { serde }
            }
        }
    });
    let schema = schema::implementation(input, attributes, format);
    let payloads = schema::payloads(attributes, format);
    let schemas = match generics.params.is_empty() {
        true => {
            let name = &input.ident;
            schemas::noted([&syn::parse_quote!(#name)])
        }
        // Which of its types there are only their users know.
        false => TokenStream::new(),
    };
    let name = &input.ident;
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    let extractor = extractor(name, &generics);
    Ok(quote! {
        impl #impl_generics ::klamm::serde::DefaultSerde for #name #type_generics #where_clause {
            type Serde = #serde;
            #registry
            #payloads
        }
        #schema
        #schemas
        #extractor
    })
}

/// The type as an argument of listeners.
fn extractor(name: &Ident, generics: &syn::Generics) -> TokenStream {
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    quote! {
        impl #impl_generics ::klamm::listener::FromRecord for #name #type_generics #where_clause {
            type Rejection = ::klamm::listener::Rejection;

            fn from_record(
                delivery: &::klamm::listener::Delivery<'_>,
            ) -> ::core::result::Result<Self, ::klamm::listener::Rejection> {
                <::klamm::listener::Value<Self> as ::klamm::listener::FromRecord>::from_record(delivery)
                    .map(|value| value.0)
            }

            fn needs(needs: &mut ::klamm::listener::Needs) {
                <::klamm::listener::Value<Self> as ::klamm::listener::FromRecord>::needs(needs);
            }
        }
    }
}

/// `topic = "..."` and `key = field`.
fn topic_and_key(input: &DeriveInput, attributes: &Attributes) -> Result<TokenStream> {
    let (name, mut all) = (&input.ident, TokenStream::new());
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    if let Some(topic) = &attributes.topic {
        all.extend(quote! {
            impl #impl_generics ::klamm::serde::RecordTopic for #name #type_generics #where_clause {
                const TOPIC: &'static str = #topic;
            }
        });
    }
    if let Some(key) = &attributes.key {
        let ty = field_type(input, key)?;
        all.extend(quote_spanned! {ty.span()=>
            impl #impl_generics ::klamm::serde::RecordKey for #name #type_generics #where_clause {
                type Key = #ty;

                fn key(&self) -> &#ty {
                    &self.#key
                }
            }
        });
    }
    Ok(all)
}

fn field_type<'a>(input: &'a DeriveInput, key: &Ident) -> Result<&'a Type> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new(key.span(), "only a struct has a field for `key`"));
    };
    let field = data.fields.iter().find(|field| field.ident.as_ref() == Some(key));
    field.map(|field| &field.ty).ok_or_else(|| Error::new(key.span(), "there is no field of this name"))
}
