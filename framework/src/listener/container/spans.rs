//! The span of a delivery, and the trace that it belongs to. What subscribers do wrong in making or ending it is no
//! failure of the record.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tracing::field::{Empty, display};
use tracing::instrument::Instrument;
use tracing::{Span, info_span};

use super::shared::{Item, Shared};
use crate::listener::failure::Failure;
use crate::trace::{TraceContext, links};

/// Records of a batch that its span is linked with, at most; collectors take no more.
const LINKS_MAX: usize = 128;

/// What a handler's call happens in.
pub(super) struct DeliverySpan {
    /// Disabled where nobody wants it.
    span: Span,
    context: TraceContext,
}

impl DeliverySpan {
    /// For one record.
    pub(super) fn of_record(shared: &Shared, item: &Item) -> Self {
        let context = TraceContext::of(&item.record.headers);
        let span = guarded(|| {
            let span = make(shared, item, None);
            if !span.is_disabled() {
                links::be_child(&span, &context);
            }
            span
        });
        Self { span, context }
    }

    /// For a batch: of one record as that record's; of several it belongs to none of their traces, and has to do with
    /// all.
    pub(super) fn of_batch(shared: &Shared, items: &[Item]) -> Self {
        let Some(first) = items.first() else {
            return Self { span: Span::none(), context: TraceContext::default() };
        };
        if items.len() == 1 {
            return Self::of_record(shared, first);
        }
        let span = guarded(|| {
            let span = make(shared, first, Some(items.len()));
            if !span.is_disabled() {
                let contexts = items.iter().map(|item| TraceContext::of(&item.record.headers));
                contexts.take(LINKS_MAX).for_each(|context| links::link(&span, &context));
            }
            span
        });
        Self { span, context: TraceContext::default() }
    }

    /// Runs a handler's call in it.
    pub(super) async fn around<F: Future>(&self, handling: F) -> F::Output {
        match (self.span.is_disabled(), self.context.is_empty()) {
            (true, true) => handling.await,
            (false, true) => handling.instrument(self.span.clone()).await,
            (true, false) => self.context.clone().scope(handling).await,
            (false, false) => self.context.clone().scope(handling.instrument(self.span.clone())).await,
        }
    }

    /// The record failed. What becomes of it belongs to this trace also if it came without one.
    pub(super) fn failed(&self, failure: &Failure, item: Option<&mut Item>) {
        if self.span.is_disabled() {
            return;
        }
        guarded(|| {
            self.span.record("otel.status_code", "ERROR");
            self.span.record("error.type", failure.kind().word());
            Span::none()
        });
        if let Some(item) = item
            && self.context.traceparent().is_none()
            && let Some(context) = links::of(&self.span)
        {
            context.headers().into_iter().for_each(|(name, value)| item.record.headers.push(name, value));
        }
    }
}

impl Drop for DeliverySpan {
    fn drop(&mut self) {
        // Its end is when it is exported.
        let span = std::mem::replace(&mut self.span, Span::none());
        if !span.is_disabled() {
            guarded(|| {
                drop(span);
                Span::none()
            });
        }
    }
}

fn make(shared: &Shared, first: &Item, records: Option<usize>) -> Span {
    let (scope, record) = (&shared.scope, &first.record);
    let span = info_span!(
        target: "klamm::delivery",
        parent: None,
        "process",
        otel.name = %Name(&record.topic),
        otel.kind = "consumer",
        messaging.system = "kafka",
        messaging.operation.name = "process",
        "messaging.operation.type" = "process",
        messaging.destination.name = &*record.topic,
        messaging.destination.partition.id = record.partition,
        messaging.kafka.offset = record.offset,
        messaging.consumer.group.name = &*scope.group,
        messaging.batch.message_count = Empty,
        klamm.listener = &*scope.id,
        klamm.attempt = Empty,
        otel.status_code = Empty,
        "error.type" = Empty,
    );
    if !span.is_disabled() {
        span.record("klamm.attempt", shared.attempt_of(first));
        if let Some(records) = records {
            span.record("messaging.batch.message_count", display(records));
        }
    }
    span
}

/// What OpenTelemetry calls it.
struct Name<'a>(&'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.0)
    }
}

/// Subscribers and exporters are the user's.
fn guarded(tell: impl FnOnce() -> Span) -> Span {
    catch_unwind(AssertUnwindSafe(tell)).unwrap_or_else(|panic| {
        // It may be no better.
        std::mem::forget(panic);
        Span::none()
    })
}
