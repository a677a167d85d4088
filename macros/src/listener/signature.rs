//! What the function under `#[kafka_listener]` looks like.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, FnArg, ItemFn, PatType, Result, ReturnType, Type};

pub(super) struct Signature<'a> {
    arguments: Vec<&'a Type>,
    output: &'a ReturnType,
    /// Where it takes an `Ack`.
    pub(super) ack: Option<Span>,
    /// Where it takes a `Tx`.
    pub(super) tx: Option<Span>,
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
                FnArg::Typed(typed) => {
                    refuse_what_no_listener_takes(typed)?;
                    arguments.push(&*typed.ty);
                }
                FnArg::Receiver(receiver) => {
                    let message = "a listener is a free function; give it what it needs as `State<T>` instead of \
                     `self`";
                    return Err(Error::new(receiver.span(), message));
                }
            }
        }
        let batch = arguments.iter().position(|ty| is_named(ty, "Batch"));
        match batch {
            Some(place) if place > 0 => {
                let message = "`Batch<...>` must be the first argument; `State<T>`, `Template<K, V>`, `Ack` and `Tx` \
                               may follow it";
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
        let ack = arguments.iter().find(|ty| is_named(ty, "Ack")).map(Spanned::span);
        let tx = arguments.iter().find(|ty| is_named(ty, "Tx")).map(Spanned::span);
        let batch = batch.map(|place| arguments[place].span());
        Ok(Self { arguments, output: &signature.output, ack, tx, batch })
    }

    /// The handler, made argument by argument. `.handle(function)` would do the same, but its one bound fails as a
    /// whole; here an argument or result that will not do is an error at its own place, and the only one.
    pub(super) fn handler(&self, function: &Ident) -> TokenStream {
        let (mut makers, mut needs, mut made, mut names) =
            (TokenStream::new(), TokenStream::new(), TokenStream::new(), Vec::new());
        for (place, ty) in self.arguments.iter().enumerate() {
            let kind = match (self.batch.is_some(), place) {
                (true, 0) => continue,
                (true, _) => "batch_argument",
                (false, _) => "record_argument",
            };
            let kind = Ident::new(kind, ty.span());
            let name = Ident::new(&format!("__argument_{place}"), Span::mixed_site());
            // The one place that names the type, so that the error comes once.
            makers.extend(quote_spanned!(ty.span()=> let #name = ::klamm::__private::#kind::<#ty>();));
            needs.extend(quote!(#name.needs(__needs);));
            made.extend(quote!(let #name = #name.make(__delivery)?;));
            names.push(name);
        }
        let result_span = match self.output {
            ReturnType::Type(_, ty) => ty.span(),
            ReturnType::Default => function.span(),
        };
        match self.arguments.first().filter(|_| self.batch.is_some()) {
            None => {
                let called =
                    quote_spanned!(result_span=> ::klamm::__private::record_result(#function(#(#names),*)));
                quote! {{
                    #makers
                    ::klamm::__private::record_handler(
                        |__needs| { #needs },
                        move |__delivery| { #made ::core::result::Result::Ok(#called) },
                    )
                }}
            }
            Some(batch) => {
                let handler = quote_spanned!(batch.span()=> ::klamm::__private::batch_handler::<#batch>);
                let called = quote_spanned! {
                    result_span=> ::klamm::__private::batch_result(#function(__batch, #(#names),*))
                };
                quote! {{
                    #makers
                    #handler(
                        |__needs| { #needs },
                        move |__batch, __delivery| { #made ::core::result::Result::Ok(#called) },
                    )
                }}
            }
        }
    }
}

/// Types that are none for an argument, whatever they name: what the compiler says of them in our calls is no help.
fn refuse_what_no_listener_takes(argument: &PatType) -> Result<()> {
    if let Some(condition) = argument.attrs.iter().find(|attribute| attribute.path().is_ident("cfg")) {
        let message =
            "an argument cannot be there on a condition: write two functions, each with `#[cfg(...)]`";
        return Err(Error::new(condition.span(), message));
    }
    let message = match &*argument.ty {
        Type::Reference(_) => {
            "a listener owns its arguments, for the record is gone while it runs: write the type without `&`, text as \
             `Value<String>` or `Key<String>`"
        }
        Type::ImplTrait(_) => {
            "a listener cannot be generic, which `impl Trait` makes it: name the type, as in `Json<Order>`"
        }
        ty if is_bare(ty, "Template") => {
            "a template says what it sends: write `Template<String, Json<Order>>`, and declare it with \
             `App::template::<String, Json<Order>>(\"topic\")`"
        }
        _ => return Ok(()),
    };
    Err(Error::new(argument.ty.span(), message))
}

/// Whether the type is written as `name`, without what it is of.
fn is_bare(ty: &Type, name: &str) -> bool {
    let Type::Path(path) = ty else { return false };
    path.path.segments.last().is_some_and(|last| last.ident == name && last.arguments.is_none())
}

/// Whether the type is written as `name`, `name<...>` or a path that ends so. Macros see names, not types: an alias
/// escapes this, and is found when the app starts.
fn is_named(ty: &Type, name: &str) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == name))
}
