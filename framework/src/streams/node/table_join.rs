//! Joins of two tables: a change of either looks up the row of the other.

use std::sync::Arc;

use super::join::Lookup;
use super::table_reads::Show;
use super::{Boundary, Change, Context, TableChildren, TableProcessor};
use crate::streams::error::TaskError;

/// One side of a join. Both sides forward to one [`PassChanges`].
pub(crate) struct TableJoin<F, K, VOther, VO> {
    /// What the other side forwarded last, so that changes of both sides that wait for one commit follow each other.
    pub(crate) other: Box<dyn Lookup<K, VOther>>,
    /// Whether there is no result without a row on the other side.
    pub(crate) needs_other: bool,
    /// Whether both sides are made of the same rows. Then one change may take both sides away, and the other side's
    /// row is already gone when this side hears of it.
    pub(crate) shares_rows: bool,
    /// Gives `None` where there is no result.
    pub(crate) join: Arc<F>,
    pub(crate) boundary: Boundary,
    pub(crate) children: TableChildren<K, VO>,
}

impl<F, K, V, VOther, VO> TableProcessor<K, V> for TableJoin<F, K, VOther, VO>
where
    F: Fn(Option<&V>, Option<&VOther>) -> Option<VO>,
{
    fn update(
        &mut self,
        context: &mut Context,
        key: &K,
        change: Change<'_, V>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        let (old, new) = (change.old.as_ref(), change.new.as_ref());
        let mut joined = None;
        let mut join = |other: Option<(&VOther, i64)>| {
            let (other, other_ms) = match other {
                Some((other, other_ms)) => (Some(other), other_ms),
                None if self.needs_other && self.shares_rows && old.is_some() => {
                    joined = Some((None, None, timestamp_ms));
                    return;
                }
                None if self.needs_other || (old.is_none() && new.is_none()) => return,
                None => (None, i64::MIN),
            };
            let want_old = self.children.want_old;
            let before = if want_old { self.boundary.was(|| (self.join)(old, other)) } else { None };
            let (_, after, _) = joined.insert((before, None, timestamp_ms.max(other_ms)));
            *after = (self.join)(new, other);
        };
        let done =
            self.boundary.call(context, |context| Ok(self.other.with_sent(context, key, &mut join)?))?;
        match joined {
            // Who adds rows up takes out what cannot be told of any more.
            Some((None, ..)) if done.is_none() => Ok(()),
            Some((old, new, timestamp_ms)) => {
                self.children.update(context, key, Change { old: &old, new: &new }, timestamp_ms)
            }
            None => Ok(()),
        }
    }
}

/// Forwards changes as they are: where the two sides of a join meet.
pub(crate) struct PassChanges<K, V> {
    pub(crate) children: TableChildren<K, V>,
}

impl<K, V> TableProcessor<K, V> for PassChanges<K, V> {
    fn update(
        &mut self,
        context: &mut Context,
        key: &K,
        change: Change<'_, V>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        self.children.update(context, key, change, timestamp_ms)
    }
}

/// Looks through a join into both of its sides.
pub(crate) struct JoinLookup<F, K, L, R> {
    pub(crate) left: Box<dyn Lookup<K, L>>,
    pub(crate) right: Box<dyn Lookup<K, R>>,
    /// Takes the left row first.
    pub(crate) join: Arc<F>,
}

impl<F, K, L, R, VO> Lookup<K, VO> for JoinLookup<F, K, L, R>
where
    F: Fn(Option<&L>, Option<&R>) -> Option<VO>,
{
    fn with(&self, context: &Context, key: &K, show: &mut dyn FnMut(Option<&VO>)) -> Result<(), TaskError> {
        let mut found = Ok(());
        self.left.with(context, key, &mut |left| {
            found = self.right.with(context, key, &mut |right| show((self.join)(left, right).as_ref()));
        })?;
        found
    }

    fn with_sent(&self, context: &Context, key: &K, show: &mut Show<'_, VO>) -> Result<(), TaskError> {
        let mut found = Ok(());
        self.left.with_sent(context, key, &mut |left| {
            found = self.right.with_sent(context, key, &mut |right| {
                let time = |row: Option<i64>| row.unwrap_or(i64::MIN);
                let timestamp_ms =
                    time(left.map(|(_, left_ms)| left_ms)).max(time(right.map(|(_, right_ms)| right_ms)));
                let joined = (self.join)(left.map(|(left, _)| left), right.map(|(right, _)| right));
                show(joined.as_ref().map(|joined| (joined, timestamp_ms)));
            });
        })?;
        found
    }
}
