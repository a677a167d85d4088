//! What is sent in one transaction: taken in the order in which it is asked for, and waited for in the end.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use klamm_client::{Delivery, EnqueueError, ProduceError, Record, Transaction, TransactionError};
use tokio::sync::mpsc;

use super::faults::{Fault, of_send};
use crate::template::{Ask, OnResult};

/// From so many on it is looked which of the records are there already.
const LOOK_FROM: usize = 1_024;

/// The records of one transaction.
pub(super) struct Sent {
    under_way: Vec<Delivery>,
    /// Those whose sender wants to know what became of them.
    told: FuturesUnordered<BoxFuture<'static, Result<(), ProduceError>>>,
    look_at: usize,
    /// The first that was not written for a reason of its own.
    wrong: Option<ProduceError>,
    /// The transaction cannot be committed any more, for which it gives no reason.
    broken: Option<ProduceError>,
}

impl Sent {
    pub(super) fn new() -> Self {
        Self {
            under_way: Vec::new(),
            told: FuturesUnordered::new(),
            look_at: LOOK_FROM,
            wrong: None,
            broken: None,
        }
    }

    /// Does what a [`Tx`](crate::template::Tx) asks for, until nobody can ask any more. What is asked by somebody who
    /// went away is not done.
    pub(super) async fn serve(
        &mut self,
        transaction: &Transaction<'_>,
        group: &str,
        asked: &mut mpsc::UnboundedReceiver<Ask>,
    ) {
        loop {
            let ask = tokio::select! {
                biased;
                ask = asked.recv() => ask,
                Some(told) = self.told.next() => {
                    note(told, &mut self.wrong, &mut self.broken);
                    continue;
                }
            };
            let Some(ask) = ask else { return };
            match ask {
                Ask::Send(record, tell, on_result) if !tell.is_closed() => {
                    let taken = match on_result {
                        None => self.send(transaction, record).await,
                        Some(on_result) => self.send_telling(transaction, record, on_result).await,
                    };
                    drop(tell.send(taken.map_err(ProduceError::from)));
                }
                Ask::Offsets(offsets, of_group, tell) if !tell.is_closed() => {
                    let sent = match &*of_group.group == group {
                        true => Err(TransactionError::Aborted {
                            transactional_id: Arc::from(group),
                            reason: "the listener commits the offsets of its own group".into(),
                        }),
                        false => transaction.send_offsets(offsets, &of_group).await,
                    };
                    drop(tell.send(sent));
                }
                Ask::Send(..) | Ask::Offsets(..) => {}
            }
        }
    }

    /// Makes a record part of the transaction. What becomes of it, [`Sent::settled`] says.
    pub(super) async fn send(
        &mut self,
        transaction: &Transaction<'_>,
        record: Record,
    ) -> Result<(), EnqueueError> {
        let delivery = self.take(transaction, record).await?;
        self.under_way.push(delivery);
        if self.under_way.len() >= self.look_at {
            self.look();
            self.look_at = LOOK_FROM.max(self.under_way.len() * 2);
        }
        Ok(())
    }

    async fn send_telling(
        &mut self,
        transaction: &Transaction<'_>,
        record: Record,
        on_result: OnResult,
    ) -> Result<(), EnqueueError> {
        let delivery = self.take(transaction, record).await?;
        let told = delivery.map(|result| {
            let told = result.as_ref().map(drop).map_err(Clone::clone);
            on_result(result);
            told
        });
        self.told.push(told.boxed());
        Ok(())
    }

    async fn take(
        &mut self,
        transaction: &Transaction<'_>,
        record: Record,
    ) -> Result<Delivery, EnqueueError> {
        let taken = transaction.enqueue(record).await;
        if let Err(error) = &taken
            && of_send(error.error()) != Fault::OfRecord
        {
            self.broken.get_or_insert_with(|| error.error().clone());
        }
        taken
    }

    /// Looks at what is there already.
    fn look(&mut self) {
        let (wrong, broken) = (&mut self.wrong, &mut self.broken);
        self.under_way.retain_mut(|delivery| match delivery.now_or_never() {
            None => true,
            Some(told) => {
                note(told.map(drop), wrong, broken);
                false
            }
        });
        while let Some(Some(told)) = self.told.next().now_or_never() {
            note(told, wrong, broken);
        }
    }

    /// What went wrong so far, if something did: the first error of a record's own, or else of the transaction.
    pub(super) fn wrong(&mut self) -> Option<ProduceError> {
        self.look();
        self.wrong.clone().or_else(|| self.broken.clone())
    }

    /// Waits until all of it is there.
    ///
    /// # Errors
    /// The first error of a record's own, or else of the transaction.
    pub(super) async fn settled(&mut self) -> Result<(), ProduceError> {
        for delivery in std::mem::take(&mut self.under_way) {
            let told = delivery.await.map(drop);
            note(told, &mut self.wrong, &mut self.broken);
        }
        while let Some(told) = self.told.next().await {
            note(told, &mut self.wrong, &mut self.broken);
        }
        self.wrong().map_or(Ok(()), Err)
    }
}

fn note(told: Result<(), ProduceError>, wrong: &mut Option<ProduceError>, broken: &mut Option<ProduceError>) {
    match told {
        Ok(()) => {}
        Err(error) if of_send(&error) == Fault::OfRecord => drop(wrong.get_or_insert(error)),
        Err(error) => drop(broken.get_or_insert(error)),
    }
}
