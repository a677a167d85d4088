//! `#[derive(Serialize)]` and `#[derive(Deserialize)]` of the prelude: serde's own, for crates that do not depend on
//! serde. What serde generates begins with `extern crate serde`, unless an attribute names another path, and a derive
//! cannot add an attribute to its type. It can derive for a copy of the type, though, that stands for the type: serde's
//! `remote`.

mod bounds;

use proc_macro2::{Group, Literal, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote};
use syn::ext::IdentExt;
use syn::{Attribute, Data, DeriveInput, Error, Field, Fields, LitStr, Meta, Result};

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Serialize,
    Deserialize,
}

pub(crate) fn expand(which: Which, input: &DeriveInput) -> Result<TokenStream> {
    refuse_what_is_ours(input)?;
    let name = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let turbofish = type_generics.as_turbofish();
    let serde = quote!(::klamm::__private::serde);
    let bound = match which {
        Which::Serialize => quote!(#serde::Serialize),
        Which::Deserialize => quote!(#serde::Deserialize<'de>),
    };
    let needed = bounds::predicates(which, input, &bound);
    let given = where_clause.map(|clause| &clause.predicates);
    let copy = copy_of(input, &quote!(#(#needed),*).to_string())?;
    let copy_name = &copy.ident;
    let bounds = quote!(where #(#needed,)* #given);
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
    let mut all: Vec<&Attribute> = input.attrs.iter().collect();
    match &input.data {
        Data::Struct(data) => all.extend(data.fields.iter().flat_map(|field| &field.attrs)),
        Data::Enum(data) => {
            for variant in &data.variants {
                all.extend(variant.attrs.iter().chain(variant.fields.iter().flat_map(|field| &field.attrs)));
            }
        }
        Data::Union(_) => {}
    }
    for attribute in all.into_iter().filter(|attribute| is_serdes(attribute)) {
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

/// The type once more, under a name of its own and with nothing but serde's attributes. `needed` is what its parameters
/// must be.
fn copy_of(input: &DeriveInput, needed: &str) -> Result<DeriveInput> {
    let mut copy = input.clone();
    let name = &input.ident;
    let plain = name.unraw().to_string();
    copy.ident = format_ident!("__{plain}");
    copy.vis = syn::Visibility::Inherited;
    let (_, type_generics, _) = input.generics.split_for_impl();
    // With the parameters of the copy.
    let stands_for = name.to_string();
    let itself = quote!(#name #type_generics);
    keep_serdes(&mut copy.attrs, &itself);
    copy.attrs.iter_mut().for_each(default_of_the_original);
    let has_name = copy.attrs.iter().any(|attribute| mentions(attribute, "rename"));
    copy.attrs.push(syn::parse_quote!(#[serde(crate = "::klamm::__private::serde", remote = #stands_for)]));
    if input.generics.type_params().next().is_some() {
        copy.attrs.push(syn::parse_quote!(#[serde(bound = #needed)]));
    }
    if !has_name {
        // What formats and errors call it.
        copy.attrs.push(syn::parse_quote!(#[serde(rename = #plain)]));
    }
    match &mut copy.data {
        Data::Struct(data) => copy_fields(&mut data.fields, &itself)?,
        Data::Enum(data) => {
            for variant in &mut data.variants {
                keep_serdes(&mut variant.attrs, &itself);
                // Those of variants with fields would need the type's `repr`, and nobody asks the copy for one.
                variant.discriminant = None;
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
        keep_serdes(attrs, itself);
        *ty = syn::parse2(without_self(ty.to_token_stream(), itself))?;
    }
    Ok(())
}

/// Keeps serde's attributes; the functions that they name as `Self::...` are the type's.
fn keep_serdes(attributes: &mut Vec<Attribute>, itself: &TokenStream) {
    attributes.retain(is_serdes);
    for attribute in attributes {
        let Meta::List(list) = &mut attribute.meta else { continue };
        list.tokens =
            list.tokens.clone().into_iter().map(|token| without_self_in_text(token, itself)).collect();
    }
}

fn without_self_in_text(token: TokenTree, itself: &TokenStream) -> TokenTree {
    let TokenTree::Literal(literal) = &token else { return token };
    let text = syn::parse_str::<LitStr>(&literal.to_string()).map(|text| text.value()).unwrap_or_default();
    let Some(function) = text.strip_prefix("Self::") else { return token };
    let mut replaced = Literal::string(&format!("<{itself}>::{function}"));
    replaced.set_span(literal.span());
    TokenTree::Literal(replaced)
}

/// `#[serde(default)]` on the type would ask for the copy's default.
fn default_of_the_original(attribute: &mut Attribute) {
    let is_bare = mentions_bare(attribute, "default");
    let Meta::List(list) = &mut attribute.meta else { return };
    if is_bare {
        let with_path = |token: TokenTree| match &token {
            TokenTree::Ident(word) if word == "default" => {
                quote!(#word = "::core::default::Default::default")
            }
            _ => token.into(),
        };
        list.tokens = list.tokens.clone().into_iter().flat_map(with_path).collect();
    }
}

fn is_serdes(attribute: &Attribute) -> bool {
    attribute.path().is_ident("serde")
}

/// Whether `#[serde(word = ...)]` or `#[serde(word(...))]` is there, and not only a longer word.
fn mentions(attribute: &Attribute, word: &str) -> bool {
    let Meta::List(list) = &attribute.meta else { return false };
    list.tokens.clone().into_iter().any(|token| matches!(token, TokenTree::Ident(found) if found == word))
}

/// Whether the word is there and nothing is set by it: `#[serde(default)]`, not `#[serde(default = "...")]`.
fn mentions_bare(attribute: &Attribute, word: &str) -> bool {
    let Meta::List(list) = &attribute.meta else { return false };
    let tokens: Vec<TokenTree> = list.tokens.clone().into_iter().collect();
    let is_set =
        |at: usize| matches!(tokens.get(at + 1), Some(TokenTree::Punct(sign)) if sign.as_char() == '=');
    let is_word = |token: &TokenTree| matches!(token, TokenTree::Ident(found) if found == word);
    tokens.iter().enumerate().any(|(at, token)| is_word(token) && !is_set(at))
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
