//! What the function under `#[kafka_listener]` looks like.

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;
use syn::spanned::Spanned;
use syn::{Error, FnArg, ItemFn, Result, ReturnType, Type};

pub(super) struct Signature<'a> {
    arguments: Vec<&'a Type>,
    output: &'a ReturnType,
    /// Where it takes an `Ack`.
    pub(super) ack: Option<Span>,
    /// Where it takes a `Batch<...>`.
    pub(super) batch: Option<Span>,
}

/// The most extractors of a record handler, and the most arguments that follow a `Batch<...>`.
const MOST_ARGUMENTS: usize = 8;
const MOST_AFTER_BATCH: usize = 4;

impl<'a> Signature<'a> {
    pub(super) fn read(function: &'a ItemFn) -> Result<Self> {
        let signature = &function.sig;
        if signature.asyncness.is_none() {
            let message = "a listener is an `async fn`: handlers must not block the runtime";
            return Err(Error::new(signature.fn_token.span(), message));
        }
        let mut arguments = Vec::new();
        for argument in &signature.inputs {
            match argument {
                FnArg::Typed(typed) => arguments.push(&*typed.ty),
                FnArg::Receiver(receiver) => {
                    let message = "a listener is a free function; give it what it needs as `State<T>` instead of `self`";
                    return Err(Error::new(receiver.span(), message));
                }
            }
        }
        let batch = arguments.iter().position(|ty| is_named(ty, "Batch"));
        match batch {
            Some(place) if place > 0 => {
                let message = "`Batch<...>` must be the first argument; `State<T>` and `Ack` may follow it";
                return Err(Error::new(arguments[place].span(), message));
            }
            _ => {}
        }
        let most = if batch.is_some() { MOST_AFTER_BATCH + 1 } else { MOST_ARGUMENTS };
        if let Some(extra) = arguments.get(most) {
            let message =
                format!("a listener takes at most {most} arguments; a tuple of extractors counts as one");
            return Err(Error::new(extra.span(), message));
        }
        let ack = arguments.iter().find(|ty| is_named(ty, "Ack")).map(|ty| ty.span());
        let batch = batch.map(|place| arguments[place].span());
        Ok(Self { arguments, output: &signature.output, ack, batch })
    }

    /// One check per argument and one for the result, each an error at the very place if it does not hold.
    pub(super) fn checks(&self) -> TokenStream {
        let mut checks = TokenStream::new();
        for (place, ty) in self.arguments.iter().enumerate() {
            let check = match (self.batch.is_some(), place) {
                (true, 0) => "batch_argument",
                (true, _) => "argument_beside_batch",
                (false, _) => "record_argument",
            };
            let check = syn::Ident::new(check, ty.span());
            checks.extend(
                quote_spanned!(ty.span()=> const _: fn() = ::klamm::__private::check::#check::<#ty>;),
            );
        }
        let check = if self.batch.is_some() { "batch_result" } else { "record_result" };
        if let ReturnType::Type(_, ty) = self.output {
            let check = syn::Ident::new(check, ty.span());
            checks.extend(
                quote_spanned!(ty.span()=> const _: fn() = ::klamm::__private::check::#check::<#ty>;),
            );
        }
        checks
    }
}

/// Whether the type is written as `name`, `name<...>` or a path that ends so. Macros see names, not types: an alias escapes this,
/// and is found when the app starts.
fn is_named(ty: &Type, name: &str) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == name))
}
