//! What the parameters of a generic type must be, as serde would say it: the copy is told the same.

use proc_macro2::{TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{Attribute, Data, DeriveInput, Field, GenericArgument, Ident, PathArguments, Type};

use super::{Which, mentions, mentions_bare};

/// The predicates for `bound`, which is serde's trait.
pub(super) fn predicates(which: Which, input: &DeriveInput, bound: &TokenStream) -> Vec<TokenStream> {
    let mut read = Parameters::of(input);
    let mut made = Parameters::of(input);
    each_field(input, &mut |field, variant| {
        if !is_left_out(which, &field.attrs) && !is_left_out(which, variant) {
            read.take(&field.ty);
        }
        if which == Which::Deserialize && is_made_by_default(&field.attrs) {
            made.take(&field.ty);
        }
    });
    let default = quote!(::core::default::Default);
    let is_default_as_a_whole = which == Which::Deserialize
        && input.generics.type_params().next().is_some()
        && input.attrs.iter().any(|attribute| mentions_bare(attribute, "default"));
    let whole = is_default_as_a_whole.then(|| {
        let (name, (_, generics, _)) = (&input.ident, input.generics.split_for_impl());
        quote!(#name #generics: #default)
    });
    read.predicates(bound).chain(made.predicates(&default)).chain(whole).collect()
}

fn each_field(input: &DeriveInput, take: &mut dyn FnMut(&Field, &[Attribute])) {
    match &input.data {
        Data::Struct(data) => data.fields.iter().for_each(|field| take(field, &[])),
        Data::Enum(data) => {
            for variant in &data.variants {
                variant.fields.iter().for_each(|field| take(field, &variant.attrs));
            }
        }
        Data::Union(_) => {}
    }
}

/// Whether serde does not touch the field, or leaves it to a function of the user's.
fn is_left_out(which: Which, attributes: &[Attribute]) -> bool {
    let words = match which {
        Which::Serialize => ["skip", "with", "skip_serializing", "serialize_with"],
        Which::Deserialize => ["skip", "with", "skip_deserializing", "deserialize_with"],
    };
    attributes.iter().any(|attribute| words.iter().any(|word| mentions(attribute, word)))
}

/// Whether a value that is not there is its type's default, and no function's.
fn is_made_by_default(attributes: &[Attribute]) -> bool {
    let says = |word| attributes.iter().any(|attribute| mentions(attribute, word));
    let is_skipped = says("skip") || says("skip_deserializing");
    attributes.iter().any(|attribute| mentions_bare(attribute, "default")) || is_skipped && !says("default")
}

/// The parameters that types use.
struct Parameters<'a> {
    all: Vec<(&'a Ident, bool)>,
    /// `T::Item`, where that is a field's type.
    associated: Vec<TokenStream>,
}

impl<'a> Parameters<'a> {
    fn of(input: &'a DeriveInput) -> Self {
        let all = input.generics.type_params().map(|parameter| (&parameter.ident, false)).collect();
        Self { all, associated: Vec::new() }
    }

    /// Notes those in the type of a field.
    fn take(&mut self, ty: &Type) {
        if let Type::Path(path) = ty
            && path.qself.is_none()
            && path.path.segments.len() > 1
            && self.all.iter().any(|(name, _)| path.path.segments[0].ident == **name)
        {
            self.associated.push(ty.to_token_stream());
        }
        self.note(ty);
    }

    fn note(&mut self, ty: &Type) {
        match ty {
            Type::Path(path) => {
                if path.path.segments.last().is_some_and(|last| last.ident == "PhantomData") {
                    return;
                }
                if let Some(name) = path.path.get_ident() {
                    self.mark(name);
                }
                if let Some(of) = &path.qself {
                    self.note(&of.ty);
                }
                for segment in &path.path.segments {
                    let PathArguments::AngleBracketed(arguments) = &segment.arguments else { continue };
                    for argument in &arguments.args {
                        match argument {
                            GenericArgument::Type(inner) => self.note(inner),
                            GenericArgument::AssocType(inner) => self.note(&inner.ty),
                            _ => {}
                        }
                    }
                }
            }
            Type::Reference(reference) => self.note(&reference.elem),
            Type::Array(array) => self.note(&array.elem),
            Type::Slice(slice) => self.note(&slice.elem),
            Type::Paren(inside) => self.note(&inside.elem),
            Type::Group(inside) => self.note(&inside.elem),
            Type::Tuple(tuple) => tuple.elems.iter().for_each(|element| self.note(element)),
            // A macro, a function, an object: every name in it.
            other => self.note_words(other.to_token_stream()),
        }
    }

    fn note_words(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Ident(word) => self.mark(&word),
                TokenTree::Group(group) => self.note_words(group.stream()),
                _ => {}
            }
        }
    }

    fn mark(&mut self, name: &Ident) {
        for (parameter, is_used) in &mut self.all {
            *is_used |= *parameter == name;
        }
    }

    fn predicates(self, bound: &TokenStream) -> impl Iterator<Item = TokenStream> {
        let used: Vec<_> = self.all.into_iter().filter(|(_, is_used)| *is_used).collect();
        let bound = bound.clone();
        let names = used.into_iter().map(|(name, _)| name.to_token_stream());
        names.chain(self.associated).map(move |ty| quote!(#ty: #bound))
    }
}
