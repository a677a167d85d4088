//! `Header<"name", T>`: Rust has no text as a const parameter yet, so a type of its own stands for each name.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Expr, FnArg, GenericArgument, ItemFn, Lit, LitStr, Pat, PathArguments, Type};

/// Replaces the text in every `Header<"name", T>` among the arguments by a type, completes the pattern `Header(x)`, and
/// gives the declarations of those types.
pub(super) fn name_types(function: &mut ItemFn) -> TokenStream {
    let mut declarations = TokenStream::new();
    let function_name = function.sig.ident.to_string();
    let visibility = function.vis.clone();
    for (place, argument) in function.sig.inputs.iter_mut().enumerate() {
        let FnArg::Typed(argument) = argument else { continue };
        let mut names = Vec::new();
        replace_in(&mut argument.ty, &mut |literal| {
            let marker = format_ident!(
                "__Header_{}_{}_{}",
                function_name.trim_start_matches("r#"),
                place,
                names.len(),
                span = literal.span()
            );
            names.push((marker.clone(), literal.clone()));
            syn::parse_quote!(#marker)
        });
        if !names.is_empty() {
            complete_pattern(&mut argument.pat);
        }
        for (marker, literal) in names {
            declarations.extend(quote! {
                #[doc(hidden)]
                #[allow(non_camel_case_types, unreachable_pub)]
                #[derive(Debug, Clone, Copy)]
                #visibility struct #marker;

                impl ::klamm::listener::HeaderName for #marker {
                    const NAME: &'static str = #literal;
                }
            });
        }
    }
    declarations
}

/// Also inside `Option<...>`, `Result<...>` and tuples.
fn replace_in(ty: &mut Type, replace: &mut impl FnMut(&LitStr) -> Type) {
    match ty {
        Type::Path(path) => {
            let Some(last) = path.path.segments.last_mut() else { return };
            let is_header = last.ident == "Header";
            let PathArguments::AngleBracketed(arguments) = &mut last.arguments else { return };
            for (place, argument) in arguments.args.iter_mut().enumerate() {
                match argument {
                    GenericArgument::Const(Expr::Lit(literal)) if is_header && place == 0 => {
                        if let Lit::Str(name) = &literal.lit {
                            *argument = GenericArgument::Type(replace(name));
                        }
                    }
                    GenericArgument::Type(inner) => replace_in(inner, replace),
                    _ => {}
                }
            }
        }
        Type::Tuple(tuple) => tuple.elems.iter_mut().for_each(|element| replace_in(element, replace)),
        _ => {}
    }
}

/// `Header(x)` becomes `Header(x, ..)`: the second field only carries the name's type.
fn complete_pattern(pattern: &mut Pat) {
    match pattern {
        Pat::TupleStruct(tuple) => {
            let is_header = tuple.path.segments.last().is_some_and(|last| last.ident == "Header");
            if is_header && tuple.elems.len() == 1 {
                tuple.elems.push(syn::parse_quote!(..));
            } else {
                tuple.elems.iter_mut().for_each(complete_pattern);
            }
        }
        Pat::Tuple(tuple) => tuple.elems.iter_mut().for_each(complete_pattern),
        _ => {}
    }
}
