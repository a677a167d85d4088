//! `#[record(header = "klamm-type")]` on an enum: several types on one topic, told apart by a header.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Fields, Ident, LitStr, Result, Type, Variant};

use super::attributes::Attributes;

/// A variant with the name that stands in the header; `None` for the one that takes all others.
struct Arm<'a> {
    variant: &'a Ident,
    payload: &'a Type,
    name: Option<(String, Span)>,
}

pub(super) fn expand(input: &DeriveInput, attributes: &Attributes, header: &LitStr) -> Result<TokenStream> {
    let Data::Enum(data) = &input.data else {
        let message = "`header` tells the variants of an enum apart; this is no enum";
        return Err(Error::new(header.span(), message));
    };
    if let Some(generic) = input.generics.params.first() {
        let message = "an enum that a header tells apart cannot be generic: its variants name the types";
        return Err(Error::new(generic.span(), message));
    }
    if data.variants.is_empty() {
        return Err(Error::new(input.ident.span(), "an enum without variants can never be read"));
    }
    let arms: Vec<Arm<'_>> = data.variants.iter().map(arm).collect::<Result<_>>()?;
    check_names(&arms)?;
    Ok(implementation(&input.ident, attributes, header, &arms))
}

fn implementation(name: &Ident, attributes: &Attributes, header: &LitStr, arms: &[Arm<'_>]) -> TokenStream {
    let (mut writes, mut reads, mut names) = (TokenStream::new(), TokenStream::new(), Vec::new());
    let mut unknown = quote!(::core::option::Option::None);
    for Arm { variant, payload, name } in arms {
        let Some((tag, _)) = name else {
            writes.extend(quote! {
                Self::#variant(unknown) => ::core::result::Result::Ok((
                    ::std::borrow::Cow::Borrowed(unknown.name.as_str()), unknown.bytes.clone(),
                )),
            });
            unknown = quote!(::core::option::Option::Some(Self::#variant(unknown)));
            continue;
        };
        let serde = serde_of(attributes, payload);
        writes.extend(quote! {
            Self::#variant(value) => ::core::result::Result::Ok((
                ::std::borrow::Cow::Borrowed(#tag),
                ::klamm::serde::Serde::<#payload>::serialize_record(&#serde, topic, headers, value)?,
            )),
        });
        reads.extend(quote! {
            #tag => ::klamm::serde::Serde::<#payload>::deserialize_record(&#serde, topic, headers, bytes)
                .map(|value| ::core::option::Option::Some(Self::#variant(value))),
        });
        names.push(tag);
    }
    let extractor = super::extractor(name, &syn::Generics::default());
    let default_serde = default_serde(name, attributes, header, arms);
    let schemas = crate::schemas::noted(arms.iter().map(|arm| arm.payload));
    let unregistered = arms.iter().filter(|arm| arm.name.is_some()).map(|arm| unregistered(arm, attributes));
    let unregistered: TokenStream = unregistered.collect();
    quote! {
        #unregistered

        impl ::klamm::serde::Tagged for #name {
            const HEADER: &'static str = #header;
            const NAMES: &'static [&'static str] = &[#(#names),*];

            fn write(
                &self, topic: &str, headers: &mut ::klamm::serde::HeaderList,
            ) -> ::core::result::Result<
                (::std::borrow::Cow<'_, str>, ::klamm::serde::Bytes), ::klamm::serde::SerdeError,
            > {
                match self { #writes }
            }

            fn read(
                name: &str, topic: &str, headers: &::klamm::client::Headers, bytes: &::klamm::serde::Bytes,
            ) -> ::core::result::Result<::core::option::Option<Self>, ::klamm::serde::SerdeError> {
                match name {
                    #reads
                    _ => ::core::result::Result::Ok(::core::option::Option::None),
                }
            }

            fn unknown(unknown: ::klamm::serde::UnknownRecord) -> ::core::option::Option<Self> {
                let _ = &unknown;
                #unknown
            }
        }

        #default_serde
        #schemas
        #extractor
    }
}

fn default_serde(name: &Ident, attributes: &Attributes, header: &LitStr, arms: &[Arm<'_>]) -> TokenStream {
    let payloads = arms.iter().filter_map(|arm| payload_of(arm, attributes, header));
    quote! {
        impl ::klamm::serde::DefaultSerde for #name {
            type Serde = ::klamm::serde::TaggedSerde<Self>;

            fn payloads() -> ::std::vec::Vec<::klamm::serde::Payload> {
                ::std::vec![#(#payloads),*]
            }
        }
    }
}

/// The serde of a variant's payload: the enum's, or the type's own.
fn serde_of(attributes: &Attributes, payload: &syn::Type) -> TokenStream {
    match &attributes.format {
        Some(format) => {
            let serde = format.serde();
            quote!(<#serde as ::core::default::Default>::default())
        }
        None => quote! {
            <<#payload as ::klamm::serde::DefaultSerde>::Serde as ::core::default::Default>::default()
        },
    }
}

/// What a variant is on the wire, for documents about the app.
fn payload_of(arm: &Arm<'_>, attributes: &Attributes, header: &LitStr) -> Option<TokenStream> {
    let ((name, _), payload) = (arm.name.as_ref()?, arm.payload);
    let serde = serde_of(attributes, payload);
    Some(quote! {
        ::klamm::serde::Payload::of::<#payload>(::klamm::serde::Serde::<#payload>::content_type(&#serde))
            .tagged(#header, #name)
    })
}

/// Refuses a type whose schema lies in a registry: what a header tells apart is read without one.
fn unregistered(arm: &Arm<'_>, attributes: &Attributes) -> TokenStream {
    if attributes.format.is_some() || !cfg!(feature = "schema-registry") {
        return TokenStream::new();
    }
    let payload = arm.payload;
    let message = format!(
        "`{}` holds a type with `registry`, which an enum that a header tells apart cannot read: the id before each \
         record tells its schema. Give the enum a format, or the type none with a registry",
        arm.variant
    );
    quote_spanned! {payload.span()=>
        const _: () = ::core::assert!(!<#payload as ::klamm::serde::DefaultSerde>::NEEDS_REGISTRY, #message);
    }
}

fn arm(variant: &Variant) -> Result<Arm<'_>> {
    let payload = match &variant.fields {
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => &fields.unnamed[0].ty,
        _ => {
            let message =
                "a variant holds the one type that its header value stands for, as in `Placed(OrderPlaced)`";
            return Err(Error::new(variant.span(), message));
        }
    };
    let mut name = Some((variant.ident.unraw().to_string(), variant.ident.span()));
    for attribute in variant.attrs.iter().filter(|attribute| attribute.path().is_ident("record")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("other") {
                name = None;
                return Ok(());
            }
            if meta.path.is_ident("name") {
                let given: LitStr = meta.value()?.parse()?;
                name = Some((given.value(), given.span()));
                return Ok(());
            }
            Err(meta.error(
                "a variant has `name = \"...\"`, what stands in the header, or `other`, for all that have no \
                 variant",
            ))
        })?;
    }
    Ok(Arm { variant: &variant.ident, payload, name })
}

/// Each name once, and at most one variant for the rest.
fn check_names(arms: &[Arm<'_>]) -> Result<()> {
    let mut seen: Vec<&str> = Vec::new();
    let mut others = 0;
    for arm in arms {
        match &arm.name {
            Some((name, span)) if seen.contains(&name.as_str()) => {
                let message = format!("`{name}` stands for another variant already");
                return Err(Error::new(*span, message));
            }
            Some((name, span)) if name.is_empty() => {
                return Err(Error::new(*span, "an empty name cannot be told from a missing header"));
            }
            Some((name, _)) => seen.push(name),
            None => others += 1,
        }
        if others > 1 {
            return Err(Error::new(arm.variant.span(), "one variant is enough for all that have none"));
        }
    }
    Ok(())
}
