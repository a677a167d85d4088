//! The boundary around what is the user's in an operator: an error or a panic ends there and follows the operator's
//! policy.

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;

use super::context::{Happened, Letter};
use super::panicked::Panicked;
use super::record_context::{Applied, RecordContext};
use super::{
    Change, Child, Context, Output, OutputKind, Processor, Record, TableChild, TableProcessor, TopicId,
};
use crate::listener::BoxError;
use crate::panic_text::text_of_panic;
use crate::streams::error::{RecordPlace, TaskError};
use crate::streams::incoming::Incoming;
use crate::streams::policy::{ErrorPolicy, LastResort};
use crate::streams::stamps::{Moment, Stamping};

/// The header that names the kind of failure, as Kafka Streams has it.
const EXCEPTION: &str = "__streams.errors.exception";
const MESSAGE: &str = "__streams.errors.message";
const TOPIC: &str = "__streams.errors.topic";
const PARTITION: &str = "__streams.errors.partition";
const OFFSET: &str = "__streams.errors.offset";

/// An operator's name and policy, where its faults end.
#[derive(Clone)]
pub(crate) struct Boundary {
    /// The operator's place in the graph.
    pub(crate) index: usize,
    pub(crate) operator: Arc<str>,
    pub(crate) policy: Arc<ErrorPolicy>,
    /// The topic of its dead letters, if it has them.
    pub(crate) letters: Option<TopicId>,
    /// Whether there is anything else than to fail.
    pub(crate) goes_on: bool,
}

impl Boundary {
    /// Calls what is the user's; `None` when it failed and the record goes on without.
    ///
    /// Where a failure fails the task anyhow, the task catches panics, once for all the operators of a record: to catch
    /// them here would more than double the time of a step. `run` is moved into the one or the other call, so that what
    /// it captures need not be in memory.
    #[inline]
    pub(crate) fn call<R>(
        &self,
        context: &mut Context,
        run: impl FnMut(&mut Context) -> Result<R, BoxError>,
    ) -> Result<Option<R>, TaskError> {
        if self.goes_on {
            return self.call_guarded(context, run);
        }
        match blaming(context, self.index, run) {
            Ok(done) => Ok(Some(done)),
            Err(fault) => self.judge(context, fault).map(|()| None),
        }
    }

    #[inline(never)]
    fn call_guarded<R>(
        &self,
        context: &mut Context,
        mut run: impl FnMut(&mut Context) -> Result<R, BoxError>,
    ) -> Result<Option<R>, TaskError> {
        match guarded(context, &mut run) {
            Ok(done) => Ok(Some(done)),
            Err(fault) => self.again(context, fault, &mut run),
        }
    }

    /// [`call`](Self::call) for what must not be tried again.
    #[inline]
    pub(crate) fn once<R>(
        &self,
        context: &mut Context,
        run: impl FnOnce() -> Result<R, BoxError>,
    ) -> Result<Option<R>, TaskError> {
        let result = match self.goes_on {
            true => guarded(context, |_| run()),
            false => blaming(context, self.index, |_| run()),
        };
        match result {
            Ok(done) => Ok(Some(done)),
            Err(fault) => self.judge(context, fault).map(|()| None),
        }
    }

    /// [`call`](Self::call) for a closure that sees the record's context and may change its time, and its headers:
    /// those wait in the context for [`Context::forward_changed`].
    #[inline]
    pub(crate) fn apply<R>(
        &self,
        context: &mut Context,
        timestamp_ms: i64,
        run: impl Fn(&mut RecordContext<'_>) -> Result<R, BoxError>,
    ) -> Result<Option<Applied<R>>, TaskError> {
        self.call(context, move |context| {
            let mut at = RecordContext::new(context, timestamp_ms);
            let result = run(&mut at)?;
            at.applied(result)
        })
    }

    /// Runs what is this operator's where no record is in work: a panic names it.
    pub(crate) fn blame<R>(&self, context: &mut Context, run: impl FnOnce(&mut Context) -> R) -> R {
        blaming(context, self.index, run)
    }

    /// What a closure makes of what a row was. Where it fails with that, it did so before, and nobody was told of it.
    pub(crate) fn was<R>(&self, run: impl FnOnce() -> Option<R>) -> Option<R> {
        if self.goes_on { caught(run).unwrap_or(None) } else { run() }
    }

    /// [`call`](Self::call) for something that is not the record in work, and has no place of its own any more.
    pub(crate) fn call_for_another<R>(
        &self,
        context: &mut Context,
        run: impl FnMut(&mut Context) -> Result<R, BoxError>,
    ) -> Result<Option<R>, TaskError> {
        if !self.goes_on {
            return self.call(context, run);
        }
        let place = context.place.take();
        let done = self.call(context, run);
        context.place = place;
        done
    }

    /// Lets a source take a record. What its policy is about is reading it; behind that, operators have their own
    /// boundaries, and what comes through them all the same has to stop the task: it may have half happened.
    #[inline]
    pub(crate) fn receive(
        &self,
        context: &mut Context,
        mut run: impl FnMut(&mut Context) -> Result<(), TaskError>,
    ) -> Result<(), TaskError> {
        // A panic may have been caught by what is the user's.
        context.culprit = None;
        let before = context.begin();
        let mut attempt = |context: &mut Context| run(context).map_err(BoxError::from);
        let received = guarded(context, &mut attempt);
        let is_whole = context.end(before);
        match received {
            Ok(()) => Ok(()),
            Err(fault) if is_whole => self.whole_again(context, fault, &mut attempt),
            Err(fault) => fail(context, fault, self.index),
        }
    }

    /// Runs an operator with all that follows from it. One that fails before it has told or changed anything follows
    /// its policy; what comes after that may be half of something.
    fn around(
        &self,
        context: &mut Context,
        takes: Takes,
        mut run: impl FnMut(&mut Context) -> Result<(), BoxError>,
    ) -> Result<(), TaskError> {
        if !self.goes_on {
            return match blaming(context, self.index, run) {
                Ok(()) => Ok(()),
                Err(fault) => self.judge(context, fault),
            };
        }
        let before = context.begin();
        let mut attempt = |context: &mut Context| blaming(context, self.index, &mut run);
        let result = guarded(context, &mut attempt);
        let is_whole = context.end(before);
        let Err(fault) = result else { return Ok(()) };
        match fault.downcast_ref::<Panicked>() {
            // Of one further down, which goes on after nothing.
            Some(panicked) if panicked.culprit != Some(self.index) => fail(context, fault, self.index),
            Some(_) if takes.writes && !is_whole => fail(context, fault, self.index),
            _ if is_whole && takes.again => self.whole_again(context, fault, &mut attempt),
            _ => self.judge(context, fault),
        }
    }

    /// Tries again what has failed before it did anything.
    #[cold]
    #[inline(never)]
    fn whole_again(
        &self,
        context: &mut Context,
        mut fault: BoxError,
        attempt: &mut dyn FnMut(&mut Context) -> Result<(), BoxError>,
    ) -> Result<(), TaskError> {
        for pause in self.policy.pauses() {
            if is_final(&fault) {
                break;
            }
            (context.pause)(pause);
            let before = context.begin();
            let result = guarded(context, &mut *attempt);
            let is_whole = context.end(before);
            match result {
                Ok(()) => return Ok(()),
                Err(next) if is_whole => fault = next,
                Err(next) => return fail(context, next, self.index),
            }
        }
        match fault.downcast_ref::<Panicked>() {
            Some(panicked) if panicked.culprit.is_some_and(|culprit| culprit != self.index) => {
                fail(context, fault, self.index)
            }
            _ => self.judge(context, fault),
        }
    }

    #[cold]
    #[inline(never)]
    fn again<R>(
        &self,
        context: &mut Context,
        mut fault: BoxError,
        run: &mut dyn FnMut(&mut Context) -> Result<R, BoxError>,
    ) -> Result<Option<R>, TaskError> {
        for pause in self.policy.pauses() {
            context.edited = None;
            if is_final(&fault) {
                break;
            }
            (context.pause)(pause);
            match guarded(context, &mut *run) {
                Ok(done) => return Ok(Some(done)),
                Err(next) => fault = next,
            }
        }
        self.judge(context, fault).map(|()| None)
    }

    /// Does with a record that failed what the policy says.
    #[cold]
    #[inline(never)]
    pub(crate) fn judge(&self, context: &mut Context, fault: BoxError) -> Result<(), TaskError> {
        context.edited = None;
        let fault = match fault.downcast::<TaskError>() {
            Ok(error) if !error.is_about_a_record() => return Err(*error),
            Ok(error) => match *error {
                TaskError::User(fault) => fault,
                error => error.into(),
            },
            Err(fault) => fault,
        };
        let place = context.place.map(|(topic, partition, offset)| RecordPlace {
            topic: context.topic(topic).to_owned(),
            partition,
            offset,
        });
        let (kind, message) = (kind_of(&*fault), text_of(&*fault));
        let is_unreadable = matches!(
            fault.downcast_ref(),
            Some(TaskError::Unreadable { .. } | TaskError::UnexpectedNull { .. })
        );
        let letters = self.letters.filter(|_| place.is_some());
        match (self.policy.last_resort(), letters) {
            (LastResort::Skip, _) if is_unreadable => {
                context.dropped.unreadable += 1;
                context.happened(self.index, Happened::Unreadable);
            }
            (LastResort::Skip, _) => {
                context.dropped.failed += 1;
                context.happened(self.index, Happened::Skipped);
            }
            (LastResort::DeadLetter(_), Some(topic)) => {
                context.dropped.dead_lettered += 1;
                context.happened(self.index, Happened::DeadLetter);
                context.letters.push(Letter { topic, kind, message: message.clone() });
            }
            (LastResort::Fail | LastResort::DeadLetter(_), _) => {
                let (operator, source) = (self.operator.to_string(), presentable(fault, message));
                return Err(TaskError::Operator { operator, place, source });
            }
        }
        let place = place.map_or_else(|| "a commit".to_owned(), |place| place.to_string());
        tracing::warn!(operator = %self.operator, policy = %self.policy, %place, error = %message, "went on without");
        Ok(())
    }
}

/// What an operator without a boundary inside does with records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Takes {
    /// It writes a store. Where it panics after that, its task has to go back to the last commit.
    pub(crate) writes: bool,
    /// It may be given the same record again. A user's processor may remember the first time.
    pub(crate) again: bool,
}

/// Fails with the name of the operator that a panic came from, or of this one, whatever its policy.
#[cold]
fn fail(context: &mut Context, fault: BoxError, index: usize) -> Result<(), TaskError> {
    let culprit = fault.downcast_ref::<Panicked>().and_then(|panicked| panicked.culprit);
    let index = culprit.unwrap_or(index);
    let operator = context.operators.get(index).cloned().unwrap_or_default();
    Boundary { index, operator, policy: Arc::default(), letters: None, goes_on: false }.judge(context, fault)
}

/// Runs what is of no record, at a commit for instance: a panic fails the task there too, with the operator's name.
pub(crate) fn of_no_record(
    context: &mut Context,
    run: impl FnOnce(&mut Context) -> Result<(), TaskError>,
) -> Result<(), TaskError> {
    context.place = None;
    of_a_clock(context, run)
}

/// Runs what a clock calls: there too a panic fails the task, with the operator's name.
pub(crate) fn of_a_clock(
    context: &mut Context,
    run: impl FnOnce(&mut Context) -> Result<(), TaskError>,
) -> Result<(), TaskError> {
    context.culprit = None;
    match guarded(context, |context| run(context).map_err(BoxError::from)) {
        Ok(()) => Ok(()),
        Err(fault) => fail(context, fault, usize::MAX),
    }
}

/// Ends what may panic at its end: the task is over then, and the thread and its other tasks go on.
pub(crate) fn at_the_end(run: impl FnOnce()) {
    if let Err(text) = caught(run) {
        let error = Panicked { text, culprit: None };
        tracing::error!(%error, "a processor failed when it was closed");
    }
}

/// Sends the records that failed to where dead letters go.
pub(crate) fn post(context: &mut Context, partition: i32, record: &Incoming, source_topic: TopicId) {
    // No broker takes a negative time, and a time of long ago would be too old to be kept.
    let timestamp_ms = match record.timestamp_ms {
        negative if negative < 0 => context.now_ms(),
        timestamp_ms => timestamp_ms,
    };
    for letter in std::mem::take(&mut context.letters) {
        let mut headers = record.headers.clone();
        let facts = [
            (EXCEPTION, letter.kind.to_owned()),
            (MESSAGE, letter.message),
            (TOPIC, context.topic(source_topic).to_owned()),
            (PARTITION, partition.to_string()),
            (OFFSET, record.offset.to_string()),
        ];
        for (name, value) in facts {
            headers.push(name, Some(Bytes::from(value)));
        }
        context.outputs.push(Output {
            topic: letter.topic,
            kind: OutputKind::ByKey,
            key: record.key.clone(),
            value: record.value.clone(),
            timestamp_ms,
            headers,
        });
    }
}

/// A record's time, where its source says how it gets one.
pub(crate) fn stamp(
    stamping: &Stamping,
    context: &Context,
    topic: TopicId,
    record: &Incoming,
    partition_ms: i64,
) -> Result<i64, BoxError> {
    let moment = Moment { topic: context.topic(topic), partition_ms, now_ms: context.now_ms() };
    caught(|| stamping(record, &moment)).unwrap_or_else(|text| Err(Panicked { text, culprit: None }.into()))
}

/// Runs what may panic.
#[inline]
fn guarded<R>(
    context: &mut Context,
    run: impl FnOnce(&mut Context) -> Result<R, BoxError>,
) -> Result<R, BoxError> {
    caught(|| run(context))
        .unwrap_or_else(|text| Err(Panicked { text, culprit: context.culprit.take() }.into()))
}

/// What a panic says, if there is one. What it leaves half done is given up with the record, or with the task.
#[inline]
pub(crate) fn caught<R>(run: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(text_of_panic)
}

/// Runs what is an operator's: a panic that comes out of it is this operator's, unless it is already another's.
/// While nothing panics this costs nothing.
#[inline]
fn blaming<R>(context: &mut Context, index: usize, run: impl FnOnce(&mut Context) -> R) -> R {
    let blame = Blame { context, index };
    let result = run(&mut *blame.context);
    std::mem::forget(blame);
    result
}

/// Dropped by panics only.
struct Blame<'a> {
    context: &'a mut Context,
    index: usize,
}

impl Drop for Blame<'_> {
    #[cold]
    fn drop(&mut self) {
        self.context.culprit.get_or_insert(self.index);
    }
}

/// An operator that has no boundary inside: a join, a table, an aggregation.
pub(crate) struct Guarded<K, V> {
    pub(crate) inner: Child<K, V>,
    pub(crate) boundary: Boundary,
    pub(crate) takes: Takes,
}

impl<K, V> Processor<K, V> for Guarded<K, V> {
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        let inner = &self.inner;
        self.boundary
            .around(context, self.takes, |context| inner.enter(context, record).map_err(BoxError::from))
    }
}

/// The same for what follows a table.
pub(crate) struct GuardedTable<K, V> {
    pub(crate) inner: TableChild<K, V>,
    pub(crate) boundary: Boundary,
    pub(crate) takes: Takes,
}

impl<K, V> TableProcessor<K, V> for GuardedTable<K, V> {
    fn update(
        &mut self,
        context: &mut Context,
        key: &K,
        change: Change<'_, V>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        let inner = &self.inner;
        self.boundary.around(context, self.takes, |context| {
            inner.borrow_mut().update(context, key, change, timestamp_ms).map_err(BoxError::from)
        })
    }

    fn correct(
        &mut self,
        context: &mut Context,
        key: &K,
        was: &Option<V>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        let inner = &self.inner;
        self.boundary.around(context, self.takes, |context| {
            inner.borrow_mut().correct(context, key, was, timestamp_ms).map_err(BoxError::from)
        })
    }
}

/// Whether another attempt must not be made: it is not about one record, or was judged downstream.
fn is_final(fault: &BoxError) -> bool {
    fault.downcast_ref::<TaskError>().is_some_and(|error| !error.is_about_a_record())
}

/// An error of a closure with the name of its type, for dead letters.
#[derive(Debug)]
pub(crate) struct UserError {
    kind: &'static str,
    error: BoxError,
}

impl UserError {
    pub(crate) fn of<E: Into<BoxError>>(error: E) -> BoxError {
        Box::new(Self { kind: std::any::type_name::<E>(), error: error.into() })
    }
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for UserError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

/// An error whose own text cannot be shown.
#[derive(Debug)]
struct Unspeakable(String);

impl fmt::Display for Unspeakable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Unspeakable {}

fn kind_of(fault: &(dyn Error + Send + Sync + 'static)) -> &'static str {
    match fault.downcast_ref::<UserError>() {
        Some(error) => error.kind,
        None if fault.is::<Panicked>() => "panic",
        None if fault.is::<TaskError>() => std::any::type_name::<TaskError>(),
        None => "error",
    }
}

const UNSPEAKABLE: &str = "an error whose `Display` panics";

fn text_of(fault: &(dyn Error + Send + Sync + 'static)) -> String {
    let shown = catch_unwind(AssertUnwindSafe(|| fault.to_string()));
    shown.unwrap_or_else(|panic| {
        std::mem::forget(panic);
        UNSPEAKABLE.to_owned()
    })
}

/// The error as others may show it.
fn presentable(fault: BoxError, message: String) -> BoxError {
    if message == UNSPEAKABLE { Unspeakable(message).into() } else { fault }
}
