//! Spans of `tracing` and the contexts that OpenTelemetry knows them by. The one place that names its crates, which
//! break with every release.

use std::str::FromStr;
use std::sync::Arc;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::w3c::TraceParent;

/// What another process says of its span.
pub(super) fn remote(parent: &TraceParent, state: Option<&str>) -> Option<SpanContext> {
    let state = state.and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default();
    let (trace, span) = (TraceId::from_bytes(parent.trace_id), SpanId::from_bytes(parent.span_id));
    let context = SpanContext::new(trace, span, TraceFlags::new(parent.flags), true, state);
    context.is_valid().then_some(context)
}

pub(super) fn be_child(span: &Span, of: SpanContext) {
    // Without a layer that exports there is nothing to be a child.
    let _ = span.set_parent(Context::new().with_remote_span_context(of));
}

pub(super) fn link(span: &Span, with: SpanContext) {
    span.add_link(with);
}

/// The span that is entered.
pub(super) fn current() -> Option<(TraceParent, Option<Arc<str>>)> {
    of(&Span::current())
}

/// What names this span elsewhere; `None` where nobody exports it.
pub(super) fn of(span: &Span) -> Option<(TraceParent, Option<Arc<str>>)> {
    let context = span.context();
    let active = context.span();
    let named = active.span_context();
    let parent = TraceParent {
        trace_id: named.trace_id().to_bytes(),
        span_id: named.span_id().to_bytes(),
        flags: named.trace_flags().to_u8(),
    };
    let state = Some(named.trace_state().header()).filter(|state| !state.is_empty());
    named.is_valid().then_some((parent, state.map(Arc::from)))
}
