//! Writes the code of a message: `Default`, `Field` and, for whole messages, `Message` and `Request`.

use proc_macro2::TokenStream;
use quote::quote;

use crate::model::{DefaultValue, FieldDef, MessageArgs, Structure, Versions};

pub(crate) fn expand(structure: &Structure) -> TokenStream {
    let default = expand_default(structure);
    let field = expand_field(structure);
    let message = structure.message.as_ref().map(|args| expand_message(structure, args));
    let arbitrary = cfg!(feature = "arbitrary").then(|| expand_arbitrary(structure));
    quote! { #default #field #message #arbitrary }
}

fn expand_default(structure: &Structure) -> TokenStream {
    let name = &structure.name;
    let fields = structure.fields.iter().map(|field| {
        let (name, value) = (&field.name, default_of(field));
        quote! { #name: #value }
    });
    quote! {
        impl ::core::default::Default for #name {
            fn default() -> Self {
                Self { #(#fields,)* unknown_tags: ::klamm_protocol::UnknownTags::NONE }
            }
        }
    }
}

fn expand_field(structure: &Structure) -> TokenStream {
    let name = &structure.name;
    // Only what every version has counts; a lower bound is enough.
    let sizes =
        structure.fields.iter().filter(|field| field.versions.is_all() && field.tag.is_none()).map(|field| {
            let ty = &field.ty;
            if field.is_option { quote!(1) } else { quote!(<#ty as ::klamm_protocol::Field>::MIN_SIZE) }
        });
    let untagged: Vec<_> = structure.fields.iter().filter(|field| field.tag.is_none()).collect();
    let mut tagged: Vec<_> = structure.fields.iter().filter_map(|field| Some((field.tag?, field))).collect();
    tagged.sort_by_key(|(tag, _)| *tag);

    let puts = untagged.iter().map(|field| put_untagged(structure, field));
    let put_tags = put_tags(structure, &tagged);
    let takes = untagged.iter().map(|field| {
        let name = &field.name;
        let take = take_value(field);
        match condition(field.versions) {
            Some(condition) => {
                let default = default_of(field);
                quote! { let #name = if #condition { #take } else { #default }; }
            }
            None => quote! { let #name = #take; },
        }
    });
    let take_tags = take_tags(&tagged);
    let names = structure.fields.iter().map(|field| &field.name);
    quote! {
        impl ::klamm_protocol::Field for #name {
            const MIN_SIZE: usize = 0 #(+ #sizes)*;

            fn put(
                &self,
                out: &mut ::klamm_protocol::Encoder,
            ) -> ::core::result::Result<(), ::klamm_protocol::EncodeError> {
                let version = out.version();
                let _ = version;
                #(#puts)*
                #put_tags
            }

            fn take(
                input: &mut ::klamm_protocol::Decoder,
            ) -> ::core::result::Result<Self, ::klamm_protocol::DecodeError> {
                let version = input.version();
                let _ = version;
                #(#takes)*
                #take_tags
                Ok(Self { #(#names,)* unknown_tags })
            }
        }
    }
}

fn put_untagged(structure: &Structure, field: &FieldDef) -> TokenStream {
    let put = put_value(structure, field);
    match condition(field.versions) {
        None => quote! { #put?; },
        Some(condition) => {
            let refuse = (!field.ignorable).then(|| {
                let (differs, error) = (differs(field), absent(structure, field));
                quote! { else if #differs { return #error; } }
            });
            quote! { if #condition { #put?; } #refuse }
        }
    }
}

/// The tagged section: unknown fields, and those known ones that this version has and that are not the default.
fn put_tags(structure: &Structure, tagged: &[(u32, &FieldDef)]) -> TokenStream {
    if tagged.is_empty() {
        return quote! { out.put_unknown_tags(&self.unknown_tags) };
    }
    let present: Vec<_> = tagged.iter().map(|(tag, _)| quote::format_ident!("has_tag_{tag}")).collect();
    let decide = tagged.iter().zip(&present).map(|((_, field), present)| {
        let differs = differs(field);
        let condition = condition(field.versions).unwrap_or_else(|| quote!(out.flexible()));
        let refuse = (!field.ignorable).then(|| {
            let error = absent(structure, field);
            quote! { if #present && !(#condition) { return #error; } }
        });
        quote! { let #present = #differs; #refuse let #present = #present && #condition; }
    });
    let write = tagged.iter().zip(&present).map(|((tag, field), present)| {
        let put = put_value(structure, field);
        quote! {
            if #present {
                let start = tags.open(out, #tag);
                #put?;
                tags.close(out, start)?;
            }
        }
    });
    quote! {
        #(#decide)*
        let known = 0 #(+ usize::from(#present))*;
        let mut tags = ::klamm_protocol::derived::TagWriter::begin(out, &self.unknown_tags, known)?;
        #(#write)*
        tags.finish(out);
        Ok(())
    }
}

fn take_tags(tagged: &[(u32, &FieldDef)]) -> TokenStream {
    if tagged.is_empty() {
        return quote! { let unknown_tags = input.take_unknown_tags()?; };
    }
    let defaults = tagged.iter().map(|(_, field)| {
        let (name, default) = (&field.name, default_of(field));
        quote! { let mut #name = #default; }
    });
    let arms = tagged.iter().map(|(tag, field)| {
        let (name, take) = (&field.name, take_value(field));
        let guard = condition(field.versions).map(|condition| quote!(if #condition));
        quote! { #tag #guard => { #name = #take; tags.known(input)?; } }
    });
    quote! {
        #(#defaults)*
        let mut tags = ::klamm_protocol::derived::TagReader::begin(input)?;
        while let ::core::option::Option::Some(tag) = tags.next_tag(input)? {
            match tag {
                #(#arms)*
                _ => tags.unknown(input)?,
            }
        }
        let unknown_tags = tags.finish(input);
    }
}

fn expand_message(structure: &Structure, args: &MessageArgs) -> TokenStream {
    let name = &structure.name;
    let text = name.to_string();
    let (first, last) = (args.versions.first.unwrap_or(0), args.versions.last.unwrap_or(i16::MAX));
    let flexible = args.flexible_from.unwrap_or(i16::MAX);
    let request = args.request.as_ref().map(|(key, response)| {
        quote! {
            impl ::klamm_protocol::Request for #name {
                const KEY: ::klamm_protocol::ApiKey =
                    ::klamm_protocol::ApiKey::from_code(#key).expect("the key of a request names an API");
                type Response = #response;
            }
        }
    });
    quote! {
        impl ::klamm_protocol::Message for #name {
            const NAME: &'static str = #text;
            const VERSIONS: ::core::ops::RangeInclusive<i16> = #first..=#last;
            const FLEXIBLE_FROM: i16 = #flexible;
        }
        #request
    }
}

fn expand_arbitrary(structure: &Structure) -> TokenStream {
    let name = &structure.name;
    let fields = structure.fields.iter().map(|field| {
        let (name, ty) = (&field.name, &field.ty);
        let value = if field.is_option {
            let nullable = condition(field.nullable).unwrap_or_else(|| quote!(true));
            quote! { ::klamm_protocol::arbitrary::option::<#ty>(#nullable, g) }
        } else {
            quote! { <#ty as ::klamm_protocol::arbitrary::Arbitrary>::arbitrary(g) }
        };
        match condition(field.versions) {
            Some(condition) => {
                let default = default_of(field);
                quote! { #name: if #condition { #value } else { #default } }
            }
            None => quote! { #name: #value },
        }
    });
    quote! {
        impl ::klamm_protocol::arbitrary::Arbitrary for #name {
            fn arbitrary(g: &mut ::klamm_protocol::arbitrary::Gen) -> Self {
                let version = g.version();
                let _ = version;
                Self { #(#fields,)* unknown_tags: ::klamm_protocol::arbitrary::Arbitrary::arbitrary(g) }
            }
        }
    }
}

fn put_value(structure: &Structure, field: &FieldDef) -> TokenStream {
    let (name, ty) = (&field.name, &field.ty);
    if !field.is_option {
        return quote! { ::klamm_protocol::Field::put(&self.#name, out) };
    }
    match condition(field.nullable) {
        None => quote! { <#ty as ::klamm_protocol::Field>::put_nullable(self.#name.as_ref(), out) },
        Some(nullable) => {
            let path = path_of(structure, field);
            quote! { ::klamm_protocol::derived::put_option(&self.#name, #nullable, #path, out) }
        }
    }
}

fn take_value(field: &FieldDef) -> TokenStream {
    let ty = &field.ty;
    if !field.is_option {
        return quote! { <#ty as ::klamm_protocol::Field>::take(input)? };
    }
    match condition(field.nullable) {
        None => quote! { <#ty as ::klamm_protocol::Field>::take_nullable(input)? },
        Some(nullable) => quote! { ::klamm_protocol::derived::take_option::<#ty>(#nullable, input)? },
    }
}

fn default_of(field: &FieldDef) -> TokenStream {
    match &field.default {
        DefaultValue::OfType => quote!(::core::default::Default::default()),
        DefaultValue::Empty => quote!(::core::option::Option::Some(::core::default::Default::default())),
        DefaultValue::Expr(expr) => quote!(#expr),
    }
}

fn differs(field: &FieldDef) -> TokenStream {
    let name = &field.name;
    let ty = &field.ty;
    match &field.default {
        DefaultValue::Expr(expr) => quote!((self.#name != #expr)),
        DefaultValue::OfType if field.is_option => quote!(self.#name.is_some()),
        DefaultValue::OfType => quote!((self.#name != <#ty as ::core::default::Default>::default())),
        DefaultValue::Empty => {
            quote!((self.#name != ::core::option::Option::Some(<#ty as ::core::default::Default>::default())))
        }
    }
}

fn absent(structure: &Structure, field: &FieldDef) -> TokenStream {
    let path = path_of(structure, field);
    quote!(::core::result::Result::Err(::klamm_protocol::EncodeError::AbsentField { field: #path, version }))
}

fn path_of(structure: &Structure, field: &FieldDef) -> String {
    format!("{}.{}", structure.name, field.name)
}

/// A test of `version`, unless all versions pass.
fn condition(versions: Versions) -> Option<TokenStream> {
    match (versions.first, versions.last) {
        (None, None) => None,
        (Some(first), None) => Some(quote!(version >= #first)),
        (None, Some(last)) => Some(quote!(version <= #last)),
        (Some(first), Some(last)) if first == last => Some(quote!(version == #first)),
        (Some(first), Some(last)) => Some(quote!((#first..=#last).contains(&version))),
    }
}
