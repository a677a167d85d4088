//! `TraceContext`: what the headers of a record say about the trace that it belongs to, and how it is passed on.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use klamm_client::Headers;

use super::w3c::{self, TraceParent};
use crate::serde::HeaderList;

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";
const BAGGAGE: &str = "baggage";

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// The trace that a record belongs to, as W3C's headers say it, and what goes with it (baggage). An argument of a
/// handler: what its record came with.
///
/// What a handler sends carries it on without being told, as long as it is sent by the handler's own task. To another
/// one it goes like this:
///
/// ```
/// use klamm::trace::TraceContext;
///
/// # async fn send_later() {}
/// # async fn handle() {
/// let context = TraceContext::current();
/// tokio::spawn(async move { context.scope(send_later()).await });
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Default)]
pub struct TraceContext {
    parent: Option<TraceParent>,
    state: Option<Arc<str>>,
    baggage: Option<Arc<str>>,
}

impl TraceContext {
    /// What these headers say. Of several `traceparent`s the last counts; what does not hold to the standard is left
    /// out.
    pub fn of(headers: &Headers) -> Self {
        if headers.is_empty() {
            return Self::default();
        }
        let parent = headers.last(PARENT).flatten().and_then(TraceParent::parse);
        // Without a parent it says nothing.
        let state = parent.and_then(|_| w3c::trace_state(headers.all(STATE).flatten()));
        let baggage = w3c::baggage(headers.all(BAGGAGE).flatten());
        Self { parent, state: state.map(Arc::from), baggage: baggage.map(Arc::from) }
    }

    /// What is sent here would belong to this: to the span that is entered, if spans are exported, or to what
    /// [`scope`](Self::scope) says, as it does around handlers.
    pub fn current() -> Self {
        let context = CURRENT.try_with(Clone::clone).unwrap_or_default();
        #[cfg(feature = "opentelemetry")]
        if let Some((parent, state)) = super::otel::current() {
            return Self { parent: Some(parent), state, ..context };
        }
        context
    }

    /// Runs a future in which this is [`current`](Self::current).
    pub async fn scope<F: Future>(self, future: F) -> F::Output {
        CURRENT.scope(self, future).await
    }

    /// Whether it says anything.
    pub fn is_empty(&self) -> bool {
        self.parent.is_none() && self.baggage.is_none()
    }

    /// The header `traceparent`, as `00-<trace>-<span>-<flags>`.
    pub fn traceparent(&self) -> Option<String> {
        self.parent.map(|parent| parent.to_string())
    }

    /// The trace's id, as 32 hex digits.
    pub fn trace_id(&self) -> Option<String> {
        self.traceparent().map(|text| text[3..35].to_owned())
    }

    /// The header `tracestate`.
    pub fn tracestate(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// The header `baggage`.
    pub fn baggage(&self) -> Option<&str> {
        self.baggage.as_deref()
    }

    /// The headers for a record that is sent by other means than klamm's; templates, replies and the like add them by
    /// themselves.
    pub fn headers(&self) -> Vec<(Arc<str>, Option<Bytes>)> {
        let mut headers = HeaderList::new();
        self.put_into(&mut headers);
        headers
    }

    /// What says where it belongs already stays as it is.
    pub(crate) fn put_into(&self, headers: &mut HeaderList) {
        let has = |headers: &HeaderList, wanted: &str| headers.iter().any(|(name, _)| **name == *wanted);
        if let Some(parent) = &self.parent
            && !has(headers, PARENT)
        {
            headers.push((PARENT.into(), Some(parent.to_string().into())));
            if let Some(state) = &self.state {
                headers.push((STATE.into(), Some(Bytes::copy_from_slice(state.as_bytes()))));
            }
        }
        if let Some(baggage) = &self.baggage
            && !has(headers, BAGGAGE)
        {
            headers.push((BAGGAGE.into(), Some(Bytes::copy_from_slice(baggage.as_bytes()))));
        }
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceContext")
            .field("traceparent", &self.traceparent())
            .field("tracestate", &self.state)
            .field("baggage", &self.baggage)
            .finish()
    }
}

/// A record is about to be sent from here.
pub(crate) fn propagate(headers: &mut HeaderList) {
    let context = TraceContext::current();
    if !context.is_empty() {
        context.put_into(headers);
    }
}

/// How the spans of deliveries belong to the traces of their records: not at all, without the feature.
pub(crate) mod links {
    use tracing::Span;

    use super::TraceContext;

    /// The span is a child of what the context names.
    pub(crate) fn be_child(span: &Span, of: &TraceContext) {
        #[cfg(feature = "opentelemetry")]
        if let Some(context) =
            of.parent.as_ref().and_then(|parent| super::super::otel::remote(parent, of.tracestate()))
        {
            super::super::otel::be_child(span, context);
        }
        let _ = (span, of);
    }

    /// The span has to do with what the context names.
    pub(crate) fn link(span: &Span, with: &TraceContext) {
        #[cfg(feature = "opentelemetry")]
        if let Some(context) =
            with.parent.as_ref().and_then(|parent| super::super::otel::remote(parent, with.tracestate()))
        {
            super::super::otel::link(span, context);
        }
        let _ = (span, with);
    }

    /// The context that names the span, if it is exported.
    pub(crate) fn of(span: &Span) -> Option<TraceContext> {
        #[cfg(feature = "opentelemetry")]
        if let Some((parent, state)) = super::super::otel::of(span) {
            return Some(TraceContext { parent: Some(parent), state, baggage: None });
        }
        let _ = span;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        pairs.iter().map(|(name, value)| (*name, value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn a_context_is_read_and_passed_on() {
        let came = headers(&[
            (PARENT, "nonsense"),
            (PARENT, TEXT),
            (STATE, "a=1"),
            (STATE, "b=2"),
            (BAGGAGE, "u=7"),
        ]);
        let context = TraceContext::of(&came);
        assert_eq!(context.trace_id().as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        assert_eq!((context.tracestate(), context.baggage()), (Some("a=1,b=2"), Some("u=7")));
        assert_eq!(TraceContext::of(&Headers::from(context.headers())), context);
        assert!(TraceContext::of(&Headers::new()).is_empty());
    }

    #[test]
    fn a_state_without_a_parent_says_nothing_and_baggage_does() {
        let mut came = headers(&[(STATE, "a=1"), (BAGGAGE, "u=7")]);
        came.push(PARENT, None);
        let context = TraceContext::of(&came);
        assert_eq!(
            (context.traceparent(), context.tracestate(), context.baggage()),
            (None, None, Some("u=7"))
        );
    }

    #[tokio::test]
    async fn what_says_where_it_belongs_stays_as_it_is() {
        let context = TraceContext::of(&headers(&[(PARENT, TEXT), (STATE, "a=1"), (BAGGAGE, "u=7")]));
        let own: HeaderList = vec![(PARENT.into(), Some("own".into()))];
        let sent = context.scope(async {
            let mut sent = own.clone();
            propagate(&mut sent);
            sent
        });
        let sent = sent.await;
        assert_eq!((sent.len(), &sent[0], &*sent[1].0), (2, &own[0], BAGGAGE), "{sent:?}");
        let mut outside = HeaderList::new();
        propagate(&mut outside);
        assert!(outside.is_empty());
    }
}
