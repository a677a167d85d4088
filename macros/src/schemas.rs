//! The JSON Schemas of types, for documents about an app: the types are written down, and those that have a schema tell
//! it. Nothing where klamm has no feature `asyncapi`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{GenericArgument, PathArguments, ReturnType, Type};

/// Notes the schemas of these types, and of those that they are of: in `Batch<Json<Click>>` that of `Click`. None of
/// them may be generic.
pub(crate) fn noted<'a>(types: impl IntoIterator<Item = &'a Type>) -> TokenStream {
    if !cfg!(feature = "asyncapi") {
        return TokenStream::new();
    }
    let mut all = Vec::new();
    types.into_iter().for_each(|ty| collect(ty, &mut all));
    if all.is_empty() {
        return TokenStream::new();
    }
    // The first of the two traits is found where the type has a schema, without a reference more.
    quote! {
        const _: () = {
            #[allow(unused_imports)]
            use ::klamm::__private::{HasNoSchema as _, HasSchema as _};
            ::klamm::__private::inventory::submit! {
                ::klamm::__private::DeclaredSchemas::new(|__schemas| {
                    #((&::klamm::__private::SchemaOf::<#all>::NEW).note(__schemas);)*
                })
            }
        };
    }
}

/// The types of a function's result.
pub(crate) fn of_result(output: &ReturnType) -> Option<&Type> {
    match output {
        ReturnType::Default => None,
        ReturnType::Type(_, ty) => Some(ty),
    }
}

fn collect<'a>(ty: &'a Type, all: &mut Vec<&'a Type>) {
    match ty {
        Type::Tuple(tuple) => tuple.elems.iter().for_each(|ty| collect(ty, all)),
        Type::Group(group) => collect(&group.elem, all),
        Type::Paren(paren) => collect(&paren.elem, all),
        Type::Path(path) => {
            let before = all.len();
            for segment in &path.path.segments {
                let PathArguments::AngleBracketed(arguments) = &segment.arguments else { continue };
                for argument in &arguments.args {
                    match argument {
                        GenericArgument::Type(ty) => collect(ty, all),
                        // What has a lifetime is not there when the document is made.
                        GenericArgument::Lifetime(_) => {
                            all.truncate(before);
                            return;
                        }
                        _ => {}
                    }
                }
            }
            all.push(ty);
        }
        // References, functions, trait objects: nothing that a record is.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use quote::ToTokens;

    use super::*;

    #[test]
    fn types_within_types_are_found() {
        let found = |text: &str| {
            let ty: Type = syn::parse_str(text).unwrap();
            let mut all = Vec::new();
            collect(&ty, &mut all);
            all.iter().map(|ty| ty.to_token_stream().to_string().replace(' ', "")).collect::<Vec<_>>()
        };
        assert_eq!(
            found("Batch<(Meta, Json<Click>)>"),
            ["Meta", "Click", "Json<Click>", "Batch<(Meta,Json<Click>)>"]
        );
        assert_eq!(found("Result<(), Box<dyn Error>>"), ["Box<dynError>", "Result<(),Box<dynError>>"]);
        assert!(found("Cow<'static, str>").is_empty());
        assert!(found("&'static str").is_empty());
    }
}
