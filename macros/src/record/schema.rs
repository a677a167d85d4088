//! Where the schema of a type comes from: its own derive, a text, or a file beside Cargo.toml.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::DeriveInput;
use syn::ext::IdentExt;

use super::attributes::Attributes;
use super::format::Format;

/// The implementation of the format's trait, for the formats that have schemas.
pub(super) fn implementation(input: &DeriveInput, attributes: &Attributes, format: &Format) -> TokenStream {
    let (name, span) = (&input.ident, format.span);
    let text = schema_text(attributes);
    match format.word {
        "avro" => {
            let made = match text {
                Some(text) => quote!(::klamm::serde::AvroType::parse(#text)),
                None => quote_spanned!(span=> ::klamm::serde::AvroType::of::<#name>()),
            };
            quote! {
                impl ::klamm::serde::AvroRecord for #name {
                    fn avro_type() -> &'static ::klamm::serde::AvroType {
                        static TYPE: ::std::sync::LazyLock<::klamm::serde::AvroType> =
                            ::std::sync::LazyLock::new(|| #made);
                        &TYPE
                    }
                }
            }
        }
        "json_schema" => {
            let made = match text {
                Some(text) => quote!(::klamm::serde::JsonSchemaType::parse(#text)),
                None => quote_spanned!(span=> ::klamm::serde::JsonSchemaType::of::<#name>()),
            };
            quote! {
                impl ::klamm::serde::JsonSchemaRecord for #name {
                    fn json_schema_type() -> &'static ::klamm::serde::JsonSchemaType {
                        static TYPE: ::std::sync::LazyLock<::klamm::serde::JsonSchemaType> =
                            ::std::sync::LazyLock::new(|| #made);
                        &TYPE
                    }
                }
            }
        }
        "protobuf" => {
            let text = text.unwrap_or_else(|| quote!(""));
            let message = match &attributes.message {
                Some(message) => quote!(#message),
                None => {
                    let name = name.unraw().to_string();
                    quote!(#name)
                }
            };
            quote! {
                impl ::klamm::serde::ProtobufRecord for #name {
                    fn protobuf_type() -> &'static ::klamm::serde::ProtobufType {
                        static TYPE: ::std::sync::LazyLock<::klamm::serde::ProtobufType> =
                            ::std::sync::LazyLock::new(|| ::klamm::serde::ProtobufType::new(#text, #message));
                        &TYPE
                    }
                }
            }
        }
        _ => TokenStream::new(),
    }
}

/// The payload of a type whose schema is a text.
pub(super) fn payloads(attributes: &Attributes, format: &Format) -> TokenStream {
    let has_text = schema_text(attributes).is_some();
    let (media_type, text) = match format.word {
        "avro" => (
            "application/vnd.apache.avro+json;version=1.9.0",
            quote!(<Self as ::klamm::serde::AvroRecord>::avro_type().text()),
        ),
        "protobuf" if has_text => (
            "application/vnd.google.protobuf;version=3",
            quote!(::core::option::Option::Some(
                <Self as ::klamm::serde::ProtobufRecord>::protobuf_type().text()
            )),
        ),
        "json_schema" if has_text => (
            "application/schema+json;version=draft-07",
            quote!(<Self as ::klamm::serde::JsonSchemaRecord>::json_schema_type().text()),
        ),
        _ => return TokenStream::new(),
    };
    quote! {
        fn payloads() -> ::std::vec::Vec<::klamm::serde::Payload> {
            ::std::vec![::klamm::serde::Payload::written::<Self>().with_schema(#media_type, || #text)]
        }
    }
}

fn schema_text(attributes: &Attributes) -> Option<TokenStream> {
    match (&attributes.schema, &attributes.schema_file) {
        (Some(text), _) => Some(quote!(#text)),
        (None, Some(file)) => Some(quote_spanned! {file.span()=>
            ::core::include_str!(::core::concat!(::core::env!("CARGO_MANIFEST_DIR"), "/", #file))
        }),
        (None, None) => None,
    }
}
