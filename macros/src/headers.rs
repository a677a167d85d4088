//! `#[derive(Headers)]`: a struct of headers, read from records and written to them.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{
    Data, DeriveInput, Error, Field, Fields, GenericArgument, Ident, LitStr, PathArguments, Result, Type,
};

/// How often a header may be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    One,
    Optional,
    Repeated,
}

struct Header<'a> {
    field: &'a Ident,
    /// The type of one value, inside of `Option<...>` or `Vec<...>`.
    value: &'a Type,
    count: Count,
    name: String,
    name_span: Span,
    big_endian: bool,
}

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new(input.ident.span(), "headers are a struct with a field for each header"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new(input.ident.span(), "headers have names: write the struct with named fields"));
    };
    if let Some(generic) = input.generics.params.first() {
        return Err(Error::new(generic.span(), "a struct of headers cannot be generic"));
    }
    let style = Style::read(input)?;
    let headers: Vec<Header<'_>> =
        fields.named.iter().map(|field| Header::read(field, style)).collect::<Result<_>>()?;
    check_names(&headers)?;
    Ok(implementation(&input.ident, &headers))
}

fn implementation(name: &Ident, headers: &[Header<'_>]) -> TokenStream {
    let read = headers.iter().map(Header::read_expression);
    let write = headers.iter().map(Header::write_statement);
    let names = headers.iter().map(|header| &header.name);
    let needs = headers.iter().map(Header::need);
    quote! {
        impl ::klamm::serde::FromHeaders for #name {
            fn from_headers(
                headers: &::klamm::client::Headers,
            ) -> ::core::result::Result<Self, ::klamm::serde::HeaderError> {
                let _ = headers;
                ::core::result::Result::Ok(Self { #(#read),* })
            }
        }

        impl ::klamm::serde::IntoHeaders for #name {
            const NAMES: &'static [&'static str] = &[#(#names),*];

            fn into_headers(self) -> ::klamm::serde::HeaderList {
                let mut headers = ::klamm::serde::HeaderList::new();
                #(#write)*
                headers
            }
        }

        impl ::klamm::listener::FromRecord for #name {
            type Rejection = ::klamm::listener::Rejection;

            fn from_record(
                delivery: &::klamm::listener::Delivery<'_>,
            ) -> ::core::result::Result<Self, ::klamm::listener::Rejection> {
                let read = <Self as ::klamm::serde::FromHeaders>::from_headers(&delivery.record().headers);
                read.map_err(::core::convert::Into::into)
            }

            fn needs(needs: &mut ::klamm::listener::Needs) {
                let _ = &needs;
                #(#needs)*
            }
        }
    }
}

impl<'a> Header<'a> {
    fn read(field: &'a Field, style: Style) -> Result<Self> {
        let ident = field.ident.as_ref().ok_or_else(|| Error::new(field.span(), "headers have names"))?;
        let (count, value) = counted(&field.ty);
        let mut header = Self {
            field: ident,
            value,
            count,
            name: style.of(&ident.to_string()),
            name_span: ident.span(),
            big_endian: false,
        };
        for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("header")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("big_endian") {
                    header.big_endian = true;
                    return Ok(());
                }
                if meta.path.is_ident("rename") {
                    let name: LitStr = meta.value()?.parse()?;
                    (header.name, header.name_span) = (name.value(), name.span());
                    return Ok(());
                }
                Err(meta.error(
                    "a header has `rename = \"trace-id\"`, and `big_endian` for a number as bytes instead of \
                     text",
                ))
            })?;
        }
        if header.name.is_empty() {
            return Err(Error::new(header.name_span, "a header needs a name"));
        }
        Ok(header)
    }

    fn form(&self) -> TokenStream {
        let (span, value) = (self.value.span(), self.value);
        match self.big_endian {
            true => quote_spanned!(span=> ::klamm::serde::header::big_endian::<#value>()),
            false => quote_spanned!(span=> ::klamm::serde::header::plain::<#value>()),
        }
    }

    fn read_expression(&self) -> TokenStream {
        let (field, name, form) = (self.field, &self.name, self.form());
        let method = Ident::new(
            match self.count {
                Count::One => "required",
                Count::Optional => "optional",
                Count::Repeated => "repeated",
            },
            Span::call_site(),
        );
        quote!(#field: ::klamm::serde::header::#method(headers, #name, #form)?)
    }

    /// For documents about the app.
    fn need(&self) -> TokenStream {
        let (name, kind, is_required) = (&self.name, kind_of(self.value), self.count == Count::One);
        quote!(needs.header(#name, #kind, #is_required);)
    }

    fn write_statement(&self) -> TokenStream {
        let (field, name, form) = (self.field, &self.name, self.form());
        match self.count {
            Count::One => quote!(::klamm::serde::header::add(&mut headers, #name, #form, &self.#field);),
            Count::Optional => quote! {
                if let ::core::option::Option::Some(value) = &self.#field {
                    ::klamm::serde::header::add(&mut headers, #name, #form, value);
                }
            },
            Count::Repeated => quote! {
                for value in &self.#field {
                    ::klamm::serde::header::add(&mut headers, #name, #form, value);
                }
            },
        }
    }
}

/// Each name once: the second of two would hide the first.
fn check_names(headers: &[Header<'_>]) -> Result<()> {
    let mut errors: Option<Error> = None;
    for (place, header) in headers.iter().enumerate() {
        let Some(first) = headers[..place].iter().find(|earlier| earlier.name == header.name) else {
            continue;
        };
        let message = format!(
            "the header `{}` is the field `{}` already; a header that is there several times is one `Vec<...>`",
            header.name, first.field
        );
        let error = Error::new(header.name_span, message);
        match &mut errors {
            Some(errors) => errors.combine(error),
            None => errors = Some(error),
        }
    }
    errors.map_or(Ok(()), Err)
}

/// `Option<T>` and `Vec<T>`, except for `Vec<u8>`, which is one value of bytes. Macros see names, not types.
fn counted(ty: &Type) -> (Count, &Type) {
    for (name, count) in [("Option", Count::Optional), ("Vec", Count::Repeated)] {
        if let Some(inner) = argument_of(ty, name) {
            let is_bytes =
                count == Count::Repeated && matches!(inner, Type::Path(path) if path.path.is_ident("u8"));
            return if is_bytes { (Count::One, ty) } else { (count, inner) };
        }
    }
    (Count::One, ty)
}

/// What JSON Schema calls a type.
fn kind_of(ty: &Type) -> &'static str {
    let Type::Path(path) = ty else { return "string" };
    let Some(last) = path.path.segments.last() else { return "string" };
    match last.ident.to_string().as_str() {
        "bool" => "boolean",
        "f32" | "f64" => "number",
        "i8" | "i16" | "i32" | "i64" | "i128" | "u8" | "u16" | "u32" | "u64" | "u128" => "integer",
        _ => "string",
    }
}

fn argument_of<'a>(ty: &'a Type, name: &str) -> Option<&'a Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|last| last.ident == name)?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    match arguments.args.first() {
        Some(GenericArgument::Type(inner)) => Some(inner),
        _ => None,
    }
}

/// How the name of a field becomes the name of a header.
#[derive(Debug, Clone, Copy)]
enum Style {
    AsWritten,
    Kebab,
    Camel,
}

impl Style {
    fn read(input: &DeriveInput) -> Result<Self> {
        let mut style = Self::AsWritten;
        for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("headers")) {
            attribute.parse_nested_meta(|meta| {
                if !meta.path.is_ident("rename_all") {
                    return Err(meta.error("headers have `rename_all = \"kebab-case\"` or `\"camelCase\"`"));
                }
                let name: LitStr = meta.value()?.parse()?;
                style = match name.value().as_str() {
                    "kebab-case" => Self::Kebab,
                    "camelCase" => Self::Camel,
                    "snake_case" => Self::AsWritten,
                    _ => {
                        let message = "there are `kebab-case`, `camelCase` and `snake_case`";
                        return Err(Error::new(name.span(), message));
                    }
                };
                Ok(())
            })?;
        }
        Ok(style)
    }

    fn of(self, field: &str) -> String {
        let field = field.trim_start_matches("r#");
        match self {
            Self::AsWritten => field.to_owned(),
            Self::Kebab => field.replace('_', "-"),
            Self::Camel => {
                let mut words = field.split('_').filter(|word| !word.is_empty());
                let mut name = words.next().unwrap_or_default().to_owned();
                for word in words {
                    let mut letters = word.chars();
                    name.extend(letters.next().into_iter().flat_map(char::to_uppercase));
                    name.push_str(letters.as_str());
                }
                name
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn styles() {
        assert_eq!(Style::Kebab.of("trace_id"), "trace-id");
        assert_eq!(Style::Camel.of("trace_id_of"), "traceIdOf");
        assert_eq!(Style::AsWritten.of("r#type"), "type");
    }

    #[test]
    fn options_and_lists_are_seen_and_bytes_are_one_value() {
        let count = |text: &str| counted(&syn::parse_str(text).unwrap()).0;
        assert_eq!(count("Option<String>"), Count::Optional);
        assert_eq!(count("std::vec::Vec<i32>"), Count::Repeated);
        assert_eq!(count("Vec<u8>"), Count::One);
        assert_eq!(count("String"), Count::One);
    }
}
