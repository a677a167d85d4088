//! `Transactions`: work whose records become visible together, or not at all.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::future::{Either, FutureExt, select};
use futures::stream::{FuturesUnordered, StreamExt};
use klamm_client::{Client, ProduceError, Transaction, TransactionError, TransactionalProducer};
use tokio::sync::{Semaphore, mpsc};

use super::error::TransactError;
use super::tx::{Ask, Tx};
use crate::serde::AppSerdes;

/// Runs work in transactions: what it sends becomes visible to readers of committed records together when the work
/// ends well, and never when it does not. Cheap to clone.
///
/// ```no_run
/// # use klamm::prelude::*;
/// # #[derive(Serialize, Deserialize)] struct Order { id: u64 }
/// # async fn f(app: klamm::AppHandle, order: Order) -> klamm::Result<()> {
/// let transactions = app.transactions("shop-1"); // a name of its own for each instance of the program
/// let id = transactions
///     .run(|tx| async move {
///         let id = order.id;
///         tx.send("audit", id, format!("order {id}")).await?;
///         tx.send("orders", id, Json(order)).await?;
///         Ok::<_, klamm::Error>(id)
///     })
///     .await?;
/// # Ok(()) }
/// ```
/// A record is part of the transaction if it is sent by its [`Tx`], or by a template [within](super::Template::within)
/// it; what another [`Template`](super::Template) sends meanwhile is not, and stays when the transaction is aborted.
/// The work's error, its panic, and the end of whoever waits for it all abort the transaction. Transactions of one name
/// run one after the other, unless [`concurrency`](Self::concurrency) allows more; in the work of one no other of that
/// name can run.
#[derive(Clone)]
pub struct Transactions {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    serdes: AppSerdes,
    id: Arc<str>,
    /// Producers that nobody uses, and the number of the next one to make.
    producers: Mutex<(Vec<TransactionalProducer>, usize)>,
    settings: Mutex<Settings>,
    free: Semaphore,
}

#[derive(Debug)]
struct Settings {
    timeout: Option<Duration>,
    /// How many permits there are, free or not.
    concurrency: usize,
}

tokio::task_local! {
    /// The transactions in whose work we are.
    static WITHIN: Vec<Weak<Shared>>;
}

impl Transactions {
    /// Transactions under this name (`transactional.id`). Each running instance of a program needs one of its own,
    /// and keeps it over restarts: the instance that came last ends what the one before left open, and fences it.
    pub fn new(client: &Client, id: impl Into<Arc<str>>) -> Self {
        Self::with_serdes(client, id.into(), AppSerdes::default())
    }

    fn with_serdes(client: &Client, id: Arc<str>, serdes: AppSerdes) -> Self {
        let shared = Shared {
            client: client.clone(),
            serdes,
            id,
            producers: Mutex::default(),
            settings: Mutex::new(Settings { timeout: None, concurrency: 1 }),
            free: Semaphore::new(1),
        };
        Self { shared: Arc::new(shared) }
    }

    /// How many transactions may be open at once; beyond it [`run`](Self::run) waits. Default 1. The first goes under
    /// the name itself, others under the name with a number behind it. It is so for clones, too, and in an app for
    /// all of this name; where fewer are allowed than are open, those go on.
    #[must_use]
    pub fn concurrency(self, transactions: usize) -> Self {
        let wanted = transactions.clamp(1, Semaphore::MAX_PERMITS);
        let mut settings = self.shared.settings();
        match wanted.checked_sub(settings.concurrency) {
            Some(more) => {
                self.shared.free.add_permits(more);
                settings.concurrency = wanted;
            }
            None => {
                let less = settings.concurrency.saturating_sub(wanted);
                settings.concurrency -= self.shared.free.forget_permits(less);
            }
        }
        drop(settings);
        self
    }

    /// How long a transaction may be open before the coordinator aborts it (`transaction.timeout.ms`). Default 60 s.
    /// To be said before the first is run, for clones and, in an app, for all of this name.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.shared.settings().timeout = Some(timeout);
        self
    }

    /// Runs work in a transaction and commits, if the work ends well.
    ///
    /// When the future is dropped before the commit has begun, the transaction is aborted; after that it is committed
    /// all the same, if that is possible. A panic of the work goes on, and the transaction is aborted.
    ///
    /// # Errors
    /// See [`TransactError`]: the work's own error, or what became of the transaction.
    pub async fn run<T, E, F, W>(&self, work: F) -> Result<T, TransactError<E>>
    where
        F: FnOnce(Tx) -> W,
        W: Future<Output = Result<T, E>>,
    {
        let mut within = WITHIN.try_with(Clone::clone).unwrap_or_default();
        let this = Arc::downgrade(&self.shared);
        if within.iter().any(|outer| outer.ptr_eq(&this)) {
            return Err(TransactError::Nested { id: Arc::clone(&self.shared.id) });
        }
        within.push(this);
        let Ok(_permit) = self.shared.free.acquire().await else {
            return Err(TransactError::NotCommitted(TransactionError::Closed));
        };
        let mut borrowed = self.borrow().map_err(TransactError::NotCommitted)?;
        let Some(producer) = &mut borrowed.producer else {
            return Err(TransactError::NotCommitted(TransactionError::Closed));
        };
        let transaction = producer.begin().await.map_err(TransactError::NotCommitted)?;
        let (tx, asked) = Tx::new(self.shared.serdes.clone());
        let worked = {
            let work = work(tx);
            let work = Box::pin(WITHIN.scope(within, work));
            let serving = Box::pin(serve(&transaction, asked));
            match select(work, serving).await {
                Either::Left((worked, _)) => worked,
                // Nobody is left who could ask: only the work's end is waited for.
                Either::Right(((), work)) => work.await,
            }
        };
        match worked {
            Ok(value) => match transaction.commit().await {
                Ok(()) => Ok(value),
                Err(error) if error.may_have_been_committed() => Err(TransactError::Unknown(error)),
                Err(error) => Err(TransactError::NotCommitted(error)),
            },
            Err(error) => {
                if let Err(error) = transaction.abort().await {
                    // Nothing of it becomes visible: the coordinator ends it by itself.
                    tracing::warn!(%error, "a transaction was not aborted by its producer");
                }
                Err(TransactError::Work(error))
            }
        }
    }

    fn borrow(&self) -> Result<Borrowed, TransactionError> {
        let mut producers = self.shared.producers();
        let (idle, made) = &mut *producers;
        let producer = match idle.pop() {
            Some(producer) => producer,
            None => {
                let id = match *made {
                    0 => Arc::clone(&self.shared.id),
                    number => format!("{}-{number}", self.shared.id).into(),
                };
                let mut builder = self.shared.client.producer().transactional_id(Arc::clone(&id));
                if let Some(timeout) = self.shared.settings().timeout {
                    builder = builder.transaction_timeout(timeout);
                }
                let not_built = |error: klamm_client::ConfigError| TransactionError::Aborted {
                    transactional_id: id,
                    reason: error.to_string().into(),
                };
                let producer = builder.build().map_err(not_built)?;
                *made += 1;
                producer
            }
        };
        drop(producers);
        Ok(Borrowed { shared: Arc::clone(&self.shared), producer: Some(producer) })
    }
}

impl Shared {
    fn producers(&self) -> MutexGuard<'_, (Vec<TransactionalProducer>, usize)> {
        self.producers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The transactions of an app that are in use, by name: two of one name would fence each other.
#[derive(Debug, Default)]
pub(crate) struct TransactionsInUse(Mutex<HashMap<Arc<str>, Weak<Shared>>>);

impl TransactionsInUse {
    pub(crate) fn named(&self, client: &Client, id: Arc<str>, serdes: &AppSerdes) -> Transactions {
        let mut in_use = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = in_use.get(&id).and_then(Weak::upgrade) {
            return Transactions { shared };
        }
        in_use.retain(|_, shared| shared.strong_count() > 0);
        let new = Transactions::with_serdes(client, Arc::clone(&id), serdes.clone());
        in_use.insert(id, Arc::downgrade(&new.shared));
        new
    }
}

/// A producer that goes back when its user ends, however that is.
struct Borrowed {
    shared: Arc<Shared>,
    producer: Option<TransactionalProducer>,
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        self.shared.producers().0.extend(self.producer.take());
    }
}

/// In the order in which it is asked, until nobody can ask any more and who wants to know of records has been told.
/// What is asked by somebody who went away is not done.
async fn serve(transaction: &Transaction<'_>, mut asked: mpsc::UnboundedReceiver<Ask>) {
    let mut told = FuturesUnordered::new();
    loop {
        let ask = tokio::select! {
            biased;
            ask = asked.recv() => ask,
            Some(()) = told.next() => continue,
        };
        let Some(ask) = ask else { break };
        match ask {
            Ask::Send(record, tell, on_result) if !tell.is_closed() => {
                // What becomes of it, the commit says, too.
                let taken = transaction.enqueue(record).await.map_err(ProduceError::from);
                let taken = taken.map(|delivery| {
                    let on_result = on_result.map(|on_result| delivery.map(on_result));
                    told.extend(on_result);
                });
                drop(tell.send(taken));
            }
            Ask::Offsets(offsets, group, tell) if !tell.is_closed() => {
                drop(tell.send(transaction.send_offsets(offsets, &group).await));
            }
            Ask::Send(..) | Ask::Offsets(..) => {}
        }
    }
    told.collect::<()>().await;
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Transactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transactions").field("id", &self.shared.id).finish_non_exhaustive()
    }
}
