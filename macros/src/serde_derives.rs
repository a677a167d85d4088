//! `#[derive(Serialize)]` and `#[derive(Deserialize)]` of the prelude: serde's own, for crates that do not depend on
//! serde. What serde generates begins with `extern crate serde`, unless an attribute names another path, and a derive
//! cannot add an attribute to its type. It can derive for a copy of the type, though, that stands for the type: serde's
//! `remote`.

use proc_macro2::{Group, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote};
use syn::ext::IdentExt;
use syn::{Attribute, Data, DeriveInput, Error, Field, Fields, Meta, Result};

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Serialize,
    Deserialize,
}

pub(crate) fn expand(which: Which, input: &DeriveInput) -> Result<TokenStream> {
    refuse_what_is_ours(input)?;
    let name = &input.ident;
    let copy = copy_of(input)?;
    let copy_name = &copy.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let turbofish = type_generics.as_turbofish();
    let serde = quote!(::klamm::__private::serde);
    let bound = match which {
        Which::Serialize => quote!(#serde::Serialize),
        Which::Deserialize => quote!(#serde::Deserialize<'de>),
    };
    // As serde bounds the parameters that fields have.
    let parameters: Vec<_> = input.generics.type_params().map(|parameter| &parameter.ident).collect();
    let given = where_clause.map(|clause| &clause.predicates);
    let bounds = quote!(where #(#parameters: #bound,)* #given);
    let implementation = match which {
        Which::Serialize => quote! {
            #[automatically_derived]
            impl #impl_generics #serde::Serialize for #name #type_generics #bounds {
                fn serialize<__S: #serde::Serializer>(
                    &self,
                    __serializer: __S,
                ) -> ::core::result::Result<__S::Ok, __S::Error> {
                    #copy_name #turbofish::serialize(self, __serializer)
                }
            }
        },
        Which::Deserialize => {
            let mut generics = input.generics.clone();
            let borrowed: Vec<_> =
                input.generics.lifetimes().map(|parameter| parameter.lifetime.clone()).collect();
            generics.params.insert(0, syn::parse_quote!('de: #(#borrowed)+*));
            let (impl_generics, ..) = generics.split_for_impl();
            quote! {
                #[automatically_derived]
                impl #impl_generics #serde::Deserialize<'de> for #name #type_generics #bounds {
                    fn deserialize<__D: #serde::Deserializer<'de>>(
                        __deserializer: __D,
                    ) -> ::core::result::Result<Self, __D::Error> {
                        #copy_name #turbofish::deserialize(__deserializer)
                    }
                }
            }
        }
    };
    let derive = match which {
        Which::Serialize => quote!(#serde::Serialize),
        Which::Deserialize => quote!(#serde::Deserialize),
    };
    Ok(quote! {
        #[allow(dead_code, non_camel_case_types, clippy::all, clippy::pedantic)]
        const _: () = {
            #[derive(#derive)]
            #copy
            #implementation
        };
    })
}

/// What cannot be said of a type and its copy.
fn refuse_what_is_ours(input: &DeriveInput) -> Result<()> {
    for attribute in serde_attributes(&input.attrs) {
        let Meta::List(list) = &attribute.meta else { continue };
        for token in list.tokens.clone() {
            let TokenTree::Ident(word) = token else { continue };
            if word == "remote" || word == "crate" || word == "bound" {
                let message = format!(
                    "`{word}` needs serde's own derive: add `serde = {{ version = \"1\", features = [\"derive\"] }}` \
                     to Cargo.toml, and write `use serde::{{Deserialize, Serialize}};`"
                );
                return Err(Error::new(word.span(), message));
            }
        }
    }
    Ok(())
}

/// The type once more, under a name of its own and with nothing but serde's attributes.
fn copy_of(input: &DeriveInput) -> Result<DeriveInput> {
    let mut copy = input.clone();
    let name = &input.ident;
    let plain = name.unraw().to_string();
    copy.ident = format_ident!("__{plain}");
    copy.vis = syn::Visibility::Inherited;
    let (_, type_generics, _) = input.generics.split_for_impl();
    // With the parameters of the copy.
    let stands_for = name.to_string();
    copy.attrs = serde_attributes(&input.attrs).cloned().collect();
    let has_name = copy.attrs.iter().any(|attribute| mentions(attribute, "rename"));
    copy.attrs.push(syn::parse_quote!(#[serde(crate = "::klamm::__private::serde", remote = #stands_for)]));
    if !has_name {
        // What formats and errors call it.
        copy.attrs.push(syn::parse_quote!(#[serde(rename = #plain)]));
    }
    let itself = quote!(#name #type_generics);
    match &mut copy.data {
        Data::Struct(data) => copy_fields(&mut data.fields, &itself)?,
        Data::Enum(data) => {
            for variant in &mut data.variants {
                keep_serdes(&mut variant.attrs);
                copy_fields(&mut variant.fields, &itself)?;
            }
        }
        Data::Union(data) => {
            return Err(Error::new(data.union_token.span, "serde cannot derive for unions"));
        }
    }
    Ok(copy)
}

fn copy_fields(fields: &mut Fields, itself: &TokenStream) -> Result<()> {
    for Field { attrs, ty, .. } in fields {
        keep_serdes(attrs);
        *ty = syn::parse2(without_self(ty.to_token_stream(), itself))?;
    }
    Ok(())
}

fn keep_serdes(attributes: &mut Vec<Attribute>) {
    attributes.retain(is_serdes);
}

fn serde_attributes(attributes: &[Attribute]) -> impl Iterator<Item = &Attribute> {
    attributes.iter().filter(|attribute| is_serdes(attribute))
}

fn is_serdes(attribute: &Attribute) -> bool {
    attribute.path().is_ident("serde")
}

/// Whether `#[serde(word = ...)]` or `#[serde(word(...))]` is there, and not only a longer word.
fn mentions(attribute: &Attribute, word: &str) -> bool {
    let Meta::List(list) = &attribute.meta else { return false };
    list.tokens.clone().into_iter().any(|token| matches!(token, TokenTree::Ident(found) if found == word))
}

/// In the copy, `Self` would be the copy.
fn without_self(tokens: TokenStream, itself: &TokenStream) -> TokenStream {
    tokens
        .into_iter()
        .flat_map(|token| match token {
            TokenTree::Ident(word) if word == "Self" => itself.clone(),
            TokenTree::Group(group) => {
                let inside = without_self(group.stream(), itself);
                let mut replaced = Group::new(group.delimiter(), inside);
                replaced.set_span(group.span());
                TokenTree::Group(replaced).into()
            }
            other => other.into(),
        })
        .collect()
}
