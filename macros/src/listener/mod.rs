//! `#[kafka_listener]`: checks the attributes against the function, and registers the builder calls a
//! user could write by hand.

mod attributes;
mod header;
mod plain;
mod signature;
mod topic_names;
mod transactional;
mod values;

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, Expr, ItemFn, Result};

use attributes::{Attributes, Manual, Subscription};
use signature::Signature;
pub(crate) use values::duration_ms;

use crate::schemas;

pub(crate) fn expand(attributes: TokenStream, function: TokenStream) -> TokenStream {
    let mut function: ItemFn = match syn::parse2(function.clone()) {
        Ok(function) => function,
        Err(error) => {
            let message = "#[kafka_listener] goes on an `async fn`";
            let error = Error::new(error.span(), message).into_compile_error();
            return quote!(#error #function);
        }
    };
    let header_names = header::name_types(&mut function);
    // Every argument is a need of the handler, and nobody calls it with a list to get wrong.
    function.attrs.push(syn::parse_quote!(#[allow(clippy::too_many_arguments)]));
    match registration(attributes, &function) {
        Ok(registration) => {
            let schemas = schemas::noted(types(&function));
            quote!(#header_names #function #registration #schemas)
        }
        Err(error) => {
            // The function stays, so that this error is the only one: whoever calls it still finds it.
            let error = error.into_compile_error();
            quote!(#error #header_names #function)
        }
    }
}

/// The types that the function takes and gives.
fn types(function: &ItemFn) -> impl Iterator<Item = &syn::Type> {
    let arguments = function.sig.inputs.iter().filter_map(|argument| match argument {
        syn::FnArg::Typed(typed) => Some(&*typed.ty),
        syn::FnArg::Receiver(_) => None,
    });
    arguments.chain(schemas::of_result(&function.sig.output))
}

fn registration(attributes: TokenStream, function: &ItemFn) -> Result<TokenStream> {
    // Both are read before either is refused, so that one compilation tells all there is to tell.
    let attributes = Attributes::parse(attributes);
    let signature = Signature::read(function);
    let (attributes, signature) = match (attributes, signature) {
        (Ok(attributes), Ok(signature)) => (attributes, signature),
        (Err(mut attributes), Err(signature)) => {
            attributes.combine(signature);
            return Err(attributes);
        }
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    check(&attributes, &signature, function)?;

    let name = &function.sig.ident;
    let builder = builder(&attributes, name);
    let handler = signature.handler(name);
    Ok(quote! {
        const _: () = {
            ::klamm::__private::inventory::submit! {
                ::klamm::__private::Declared::new(
                    || ::klamm::__private::Declared::type_of(#name),
                    || #builder.handle(#handler),
                )
            }
        };
    })
}

/// What attributes and arguments say about one another.
fn check(attributes: &Attributes, signature: &Signature<'_>, function: &ItemFn) -> Result<()> {
    let mut errors = Vec::new();
    let manual = attributes.ack.as_ref().map_or(Manual::No, |ack| ack.manual);
    match (manual, &signature.ack) {
        (Manual::Yes(manual), None) => errors.push(Error::new(
            manual,
            "`ack = manual`, but the function takes no `Ack`: nothing would ever be committed. Add an argument `ack: \
             Ack`, or choose `ack = record` or `ack = batch`",
        )),
        (Manual::No, Some(argument)) => errors.push(Error::new(
            *argument,
            "an `Ack` is only there with `ack = manual`; add it to #[kafka_listener(...)], or remove this argument",
        )),
        _ => {}
    }
    match (&attributes.batch, &signature.batch) {
        (Some(batch), None) => errors.push(Error::new(
            batch.span,
            "`batch(...)`, but the function handles one record at a time; make its first argument a `Batch<...>`, \
             as in `Batch<Json<Order>>`",
        )),
        (None, Some(argument)) => errors.push(Error::new(
            *argument,
            "a `Batch<...>` needs `batch` in #[kafka_listener(...)], or `batch(max = 500, wait = \"50ms\")`",
        )),
        (Some(_), Some(_)) => {
            if let Some((word, span)) = &attributes.dispatch
                && word != "by_partition"
            {
                let message = format!(
                    "`batch` and `dispatch = {word}` exclude one another: batches are formed by partition"
                );
                errors.push(Error::new(*span, message));
            }
        }
        (None, None) => {}
    }
    check_transactions(attributes, signature, &mut errors);
    if let Some(generic) = function.sig.generics.params.first() {
        let message = "a listener cannot be generic: nobody would choose the type";
        errors.push(Error::new(generic.span(), message));
    }
    errors
        .into_iter()
        .reduce(|mut all, error| {
            all.combine(error);
            all
        })
        .map_or(Ok(()), Err)
}

/// What transactions exclude.
fn check_transactions(attributes: &Attributes, signature: &Signature<'_>, errors: &mut Vec<Error>) {
    let mut wrong = |span, message: &str| errors.push(Error::new(span, message));
    let Some(transactional) = &attributes.transactional else {
        if let Some(argument) = signature.tx {
            wrong(
                argument,
                "a `Tx` is only there with `transactional`; add it to #[kafka_listener(...)], or remove this argument",
            );
        }
        return;
    };
    if transactional.shared.is_some() && signature.batch.is_some() {
        wrong(
            transactional.span,
            "a batch is one transaction already: leave out `max` and `within`, and say how large it is, \
             `batch(max = 100)`",
        );
    }
    if let Some(batch) = attributes.batch.as_ref().filter(|batch| batch.across_partitions) {
        wrong(
            batch.span,
            "`across_partitions` and `transactional` exclude one another: a transaction is of one partition, whose \
             next owner ends it",
        );
    }
    if let Some(ack) = &attributes.ack {
        wrong(
            ack.span,
            "`ack` and `transactional` exclude one another: a transaction commits the offset with what the handler \
             sends",
        );
    }
    if let Some((word, span)) = &attributes.dispatch
        && word != "by_partition"
    {
        let message = format!(
            "`transactional` and `dispatch = {word}` exclude one another: an offset can be committed with the work \
             before it only when that is done in order"
        );
        wrong(*span, &message);
    }
}

fn builder(attributes: &Attributes, name: &syn::Ident) -> TokenStream {
    let start = match &attributes.subscription {
        Subscription::Topics(topics) => quote_spanned!(topics.span()=> ::klamm::Listener::on(#topics)),
        Subscription::Pattern(pattern) => {
            quote_spanned!(pattern.span()=> ::klamm::Listener::on_pattern(#pattern))
        }
        Subscription::Partitions(partitions) => {
            quote_spanned!(partitions.span()=> ::klamm::Listener::on_partitions(#partitions))
        }
    };
    let group = attributes.group.as_ref().map(|group| quote!(.group(#group)));
    let id = match &attributes.id {
        Some(id) => quote!(#id),
        None => {
            let id = syn::LitStr::new(name.to_string().trim_start_matches("r#"), name.span());
            quote!(#id)
        }
    };
    let mut calls = quote!(#start #group.id(#id));
    if let Some(concurrency) = &attributes.concurrency {
        calls.extend(quote!(.concurrency(#concurrency)));
    }
    if let Some(ack) = &attributes.ack {
        let policy = &ack.policy;
        calls.extend(quote!(.ack(#policy)));
    }
    if let Some((word, span)) = &attributes.dispatch {
        let word = syn::Ident::new(word, *span);
        calls.extend(quote!(.dispatch(::klamm::Dispatch::#word())));
    }
    if let Some(batch) = &attributes.batch {
        let (max, wait) = (&batch.max, batch.wait_ms);
        calls.extend(quote!(.batch(#max, ::core::time::Duration::from_millis(#wait))));
        if batch.across_partitions {
            calls.extend(quote!(.batch_across_partitions()));
        }
    }
    if let Some(policy) = &attributes.on_failure {
        // A path is the function that makes the policy; anything else is the policy.
        let policy = match policy {
            Expr::Path(path) => quote_spanned!(path.span()=> #path()),
            other => quote!(#other),
        };
        calls.extend(quote!(.on_failure(#policy)));
    }
    if let Some(topic) = &attributes.send_to {
        calls.extend(quote!(.send_to(#topic)));
    }
    if let Some(transactional) = &attributes.transactional {
        calls.extend(transactional.calls());
    }
    for (name, argument) in &attributes.plain {
        let name = syn::Ident::new(name, proc_macro2::Span::call_site());
        calls.extend(quote!(.#name(#argument)));
    }
    calls
}
