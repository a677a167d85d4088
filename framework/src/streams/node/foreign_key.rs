//! Joins of a table with the row of another that a foreign key in its value names.
//!
//! The left side sends each row's foreign key to where the right row lies; there the subscription is kept, and answered
//! with the right value, now and whenever that changes. An answer carries the hash of the left value that it is for:
//! one that comes after the left row has changed again is left out.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::join::Lookup;
use super::murmur3::hash128;
use super::sink::{bytes_of, key_kind};
use super::source::SourceCodec;
use super::subscription_format::{
    Answer, Hash, Instruction, Subscription, combined_key, with_subscriptions_of,
};
use super::table::{Kept, Stamp};
use super::{Boundary, Change, Context, OrderedStore, Output, OutputKind, Source, TableProcessor, TopicId};
use crate::serde::{Serde, SerdeError};
use crate::streams::error::{RecordPart, TaskError};
use crate::streams::incoming::Incoming;

/// Sends subscriptions of the left side's rows.
pub(crate) struct Subscribe<F, K, V, KO, VO> {
    pub(crate) topic: TopicId,
    pub(crate) codec: SourceCodec<K, V>,
    pub(crate) foreign_key: Arc<dyn Serde<KO>>,
    pub(crate) extractor: Arc<F>,
    /// Whether rows without a right value have a result.
    pub(crate) keeps_unmatched: bool,
    pub(crate) boundary: Boundary,
    /// The results so far.
    pub(crate) joined: Box<dyn Lookup<K, VO>>,
}

impl<F, K: 'static, V: 'static, KO: 'static, VO> Subscribe<F, K, V, KO, VO>
where
    F: Fn(&K, &V) -> Option<KO>,
{
    fn foreign_key(&self, context: &Context, key: &K, row: &Option<V>) -> Result<Option<Bytes>, TaskError> {
        let Some(foreign_key) = row.as_ref().and_then(|row| (self.extractor)(key, row)) else {
            return Ok(None);
        };
        bytes_of(&*self.foreign_key, context.topic(self.topic), &foreign_key)
    }

    /// What to send, in this order.
    fn instructions(
        &self,
        old: Option<Bytes>,
        new: Option<Bytes>,
        is_joined: bool,
    ) -> [Option<(Option<Bytes>, Instruction)>; 2] {
        let moved = old.is_some() && old != new;
        if self.keeps_unmatched {
            // Every change has a result, so every change needs an answer; a row without foreign key too, and one that
            // is gone.
            return [moved.then_some((old, Instruction::Delete)), Some((new, Instruction::Answer))];
        }
        match new {
            // An answer without a value takes the result away, which is needed only if there may be one. Kafka asks
            // for it where the foreign key changed, and misses a result that an answer still on its way would have
            // taken away.
            Some(new) => {
                let answer =
                    if moved || is_joined { Instruction::Answer } else { Instruction::AnswerIfFound };
                [moved.then_some((old, Instruction::Delete)), Some((Some(new), answer))]
            }
            // Without a foreign key there is no result. Where there is one still, the answer that was to take it away
            // is on its way, and will be left out because the row has changed again; so another one is needed.
            None => {
                let again = is_joined.then_some((None, Instruction::Answer));
                [old.map(|old| (Some(old), Instruction::DeleteAndAnswer)).or(again), None]
            }
        }
    }
}

impl<F, K: 'static, V: 'static, KO: 'static, VO> TableProcessor<K, V> for Subscribe<F, K, V, KO, VO>
where
    F: Fn(&K, &V) -> Option<KO>,
{
    fn update(
        &mut self,
        context: &mut Context,
        key: &K,
        change: Change<'_, V>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        if change.old.is_none() && change.new.is_none() {
            return Ok(());
        }
        let old = match self.boundary.goes_on {
            true => self.boundary.was(|| self.foreign_key(context, key, change.old).ok().flatten()),
            false => self.foreign_key(context, key, change.old)?,
        };
        let new = self.foreign_key(context, key, change.new)?;
        let topic = context.topic(self.topic);
        let hash = match change.new {
            Some(value) => hash_of(&*self.codec.value, topic, value)?,
            None => None,
        };
        let Some(primary_key) = bytes_of(&*self.codec.key, topic, key)? else { return Ok(()) };
        if !self.keeps_unmatched && change.new.is_some() && new.is_none() {
            context.dropped.null_key += 1;
        }
        let mut is_joined = false;
        self.joined.with(context, key, &mut |joined| is_joined = joined.is_some())?;
        for (foreign_key, instruction) in self.instructions(old, new, is_joined).into_iter().flatten() {
            let kind =
                foreign_key.as_ref().map_or(OutputKind::ByKey, |key| key_kind(&*self.foreign_key, key));
            let partition = Some(context.partition);
            let subscription =
                Subscription { hash, instruction, primary_key: primary_key.clone(), partition };
            let (value, headers) = (Some(subscription.write()), context.headers.clone());
            context.outputs.push(Output {
                topic: self.topic,
                kind,
                key: foreign_key,
                value,
                timestamp_ms,
                headers,
            });
        }
        Ok(())
    }
}

fn hash_of<V: 'static>(serde: &dyn Serde<V>, topic: &str, value: &V) -> Result<Option<Hash>, TaskError> {
    Ok(bytes_of(serde, topic, value)?.map(|bytes| hash128(&bytes)))
}

/// Where answers go.
pub(crate) struct Answers<V> {
    pub(crate) topic: TopicId,
    pub(crate) value: Arc<dyn Serde<V>>,
}

impl<V: 'static> Answers<V> {
    fn value_bytes(&self, context: &Context, value: Option<&V>) -> Result<Option<Bytes>, TaskError> {
        match value {
            Some(value) => bytes_of(&*self.value, context.topic(self.topic), value),
            None => Ok(None),
        }
    }

    fn send(&self, context: &mut Context, to: Subscription, value: Option<Bytes>, timestamp_ms: i64) {
        context.outputs.push(Output {
            topic: self.topic,
            kind: to.partition.map_or(OutputKind::ByKey, OutputKind::Partition),
            key: Some(to.primary_key),
            value: Some(Answer { hash: to.hash, value }.write()),
            timestamp_ms,
            headers: context.headers.clone(),
        });
    }
}

/// Keeps and answers subscriptions, on the right side.
pub(crate) struct SubscriptionSource<KO, VR> {
    pub(crate) subscriptions: Rc<RefCell<OrderedStore>>,
    pub(crate) foreign_key: Arc<dyn Serde<KO>>,
    pub(crate) right: Box<dyn Lookup<KO, VR>>,
    pub(crate) answers: Answers<VR>,
}

impl<KO: 'static, VR: 'static> Source for SubscriptionSource<KO, VR> {
    fn receive(&mut self, context: &mut Context, topic: TopicId, record: &Incoming) -> Result<(), TaskError> {
        let name = context.topic(topic);
        let at = |part, source| TaskError::unreadable(part, Some(source));
        let Some(bytes) = &record.value else { return Ok(()) };
        let subscription = Subscription::read(bytes).map_err(|reason| {
            at(RecordPart::Value, SerdeError::deserialize::<VR>("a subscription", bytes.len(), reason))
        })?;
        let Some(foreign_key) = &record.key else {
            if subscription.instruction == Instruction::Answer {
                self.answers.send(context, subscription, None, record.timestamp_ms);
            }
            return Ok(());
        };
        let key = self.foreign_key.deserialize(name, foreign_key).map_err(|e| at(RecordPart::Key, e))?;
        let keeps = matches!(subscription.instruction, Instruction::Answer | Instruction::AnswerIfFound);
        let combined = combined_key(foreign_key, &subscription.primary_key);
        let kept = keeps.then(|| bytes.clone());
        let (mut value, mut timestamp_ms) = (Ok(None), record.timestamp_ms);
        if keeps {
            self.right.with_sent(context, &key, &mut |right| {
                if let Some((right, right_ms)) = right {
                    value = self.answers.value_bytes(context, Some(right));
                    timestamp_ms = timestamp_ms.max(right_ms);
                }
            })?;
        }
        let value = value?;
        self.subscriptions.borrow_mut().put(context, &combined, kept, record.timestamp_ms);
        let answers = match subscription.instruction {
            Instruction::Delete => false,
            Instruction::DeleteAndAnswer | Instruction::Answer => true,
            Instruction::AnswerIfFound => value.is_some(),
        };
        if answers {
            self.answers.send(context, subscription, value, timestamp_ms);
        }
        Ok(())
    }
}

/// Tells the subscribers of a row of the right side that it changed.
pub(crate) struct TellSubscribers<KO, VR> {
    pub(crate) subscriptions: Rc<RefCell<OrderedStore>>,
    pub(crate) foreign_key: Arc<dyn Serde<KO>>,
    pub(crate) answers: Answers<VR>,
}

impl<KO: 'static, VR: 'static> TableProcessor<KO, VR> for TellSubscribers<KO, VR> {
    fn update(
        &mut self,
        context: &mut Context,
        key: &KO,
        change: Change<'_, VR>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        let Some(key) = bytes_of(&*self.foreign_key, context.topic(self.answers.topic), key)? else {
            return Ok(());
        };
        let subscriptions = self.subscriptions.borrow();
        let rows = with_subscriptions_of(&key, |range| subscriptions.range(range.from, range.to))?;
        if rows.is_empty() {
            return Ok(());
        }
        let value = self.answers.value_bytes(context, change.new.as_ref())?;
        for row in rows {
            // What this store holds was read before it was kept.
            let Ok(subscription) = Subscription::read(&row.value) else { continue };
            self.answers.send(context, subscription, value.clone(), timestamp_ms.max(row.timestamp_ms));
        }
        Ok(())
    }
}

/// Makes results of answers, on the left side.
pub(crate) struct AnswerSource<F, K, V, VR, VO> {
    pub(crate) codec: SourceCodec<K, V>,
    pub(crate) right_value: Arc<dyn Serde<VR>>,
    pub(crate) left: Box<dyn Lookup<K, V>>,
    pub(crate) joiner: Arc<F>,
    pub(crate) kept: Rc<RefCell<Kept<K, VO>>>,
    /// The topic whose name the hash of a left value was made with.
    pub(crate) subscriptions: TopicId,
}

impl<F, K: 'static, V: 'static, VR: 'static, VO: 'static> Source for AnswerSource<F, K, V, VR, VO>
where
    F: Fn(&V, Option<&VR>) -> Option<VO>,
{
    fn receive(&mut self, context: &mut Context, topic: TopicId, record: &Incoming) -> Result<(), TaskError> {
        let name = context.topic(topic);
        let at = |part, source| TaskError::unreadable(part, Some(source));
        let (Some(key), Some(bytes)) = (&record.key, &record.value) else { return Ok(()) };
        let answer = Answer::read(bytes).map_err(|reason| {
            at(RecordPart::Value, SerdeError::deserialize::<VR>("an answer", bytes.len(), reason))
        })?;
        let key = self.codec.key.deserialize(name, key).map_err(|e| at(RecordPart::Key, e))?;
        let right = answer.value.map(|value| self.right_value.deserialize(name, &value)).transpose();
        let right = right.map_err(|e| at(RecordPart::Value, e))?;
        let (mut is_current, mut joined) = (Ok(false), None);
        self.left.with_sent(context, &key, &mut |left| {
            let left = left.map(|(left, _)| left);
            let hash = match left {
                Some(left) => hash_of(&*self.codec.value, context.topic(self.subscriptions), left),
                None => Ok(None),
            };
            is_current = hash.map(|hash| hash == answer.hash);
            if let (Ok(true), Some(left)) = (&is_current, left) {
                joined = (self.joiner)(left, right.as_ref());
            }
        })?;
        if !is_current? {
            return Ok(());
        }
        self.kept.borrow().update(context, &key, record.timestamp_ms, Stamp::OfRecord, |_| joined)
    }
}
