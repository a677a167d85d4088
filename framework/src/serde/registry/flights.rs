//! Several that ask the same at once wait for one answer.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Mutex, PoisonError};

use futures::future::{BoxFuture, FutureExt, Shared, WeakShared};

use super::RegistryError;

type Answer = Result<(), RegistryError>;

/// What is being asked. Nothing of it lives longer than those who wait for it.
#[derive(Default)]
pub(super) struct Flights {
    flying: Mutex<HashMap<String, WeakShared<BoxFuture<'static, Answer>>>>,
}

/// How many ended entries may lie around before they are swept out.
const SWEEP_AT: usize = 64;

impl Flights {
    /// Waits for what is asked already under this key, or asks.
    pub(super) fn join<F>(&self, key: String, ask: F) -> Shared<BoxFuture<'static, Answer>>
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let mut flying = self.flying.lock().unwrap_or_else(PoisonError::into_inner);
        // An answer that is there was for those who waited for it; whoever asks now wants to know how it is now.
        let current = flying.get(&key).and_then(WeakShared::upgrade).filter(|shared| shared.peek().is_none());
        if let Some(current) = current {
            return current;
        }
        if flying.len() >= SWEEP_AT {
            flying.retain(|_, weak| weak.upgrade().is_some());
        }
        let started = ask.boxed().shared();
        if let Some(weak) = started.downgrade() {
            flying.insert(key, weak);
        }
        started
    }
}

impl std::fmt::Debug for Flights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flights")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn one_asks_for_all_and_the_next_asks_again() {
        let (flights, asked) = (Flights::default(), Arc::new(AtomicUsize::new(0)));
        let ask = || {
            let asked = Arc::clone(&asked);
            flights.join("a".to_owned(), async move {
                asked.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Ok(())
            })
        };
        let waiting: Vec<_> = (0..10).map(|_| ask()).collect();
        for answer in futures::future::join_all(waiting.clone()).await {
            answer.unwrap();
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        ask().await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 2, "an answer that somebody still holds is not given again");
        drop(ask());
        ask().await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 3, "what was given up is asked anew");
    }
}
