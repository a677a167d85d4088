//! Serdes, awaited: what they ask for is looked up, and then they are called again.

use std::time::Duration;

use bytes::Bytes;
use klamm_client::Headers;
use tokio::time::sleep;

use super::lookup::{AsksFor, Lookup, LookupError};
use super::{HeaderList, Serde, SerdeError};

/// How often in a row a call for one record may ask for one thing more: a serde that never has enough must come to an
/// end.
const LOOKUPS_MAX: usize = 1_000;
/// How long a listener waits before it looks a thing up again that could not be had.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// Tries until nothing is missing. What cannot be had for the moment is waited for, however long it takes: it is not
/// the record's fault, and a record that is given up for it would be in the dead-letter topic for nothing. Dropping
/// the future ends the waiting.
///
/// # Errors
/// What `attempt` says, other than that something is missing; `Err(Err(_))` where it is missing for good.
pub(crate) async fn with_patience<T, E: AsksFor>(
    attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, Result<E, LookupError>> {
    with_patience_for(1, attempt, |_, _| {}).await
}

/// As [`with_patience`], for several records at once, which may have as many schemas. `failed` hears what is missing
/// for good: an attempt that asks for it again is the last one.
///
/// # Errors
/// As [`with_patience`].
pub(crate) async fn with_patience_for<T, E: AsksFor>(
    records: usize,
    attempt: impl FnMut() -> Result<T, E>,
    failed: impl FnMut(&Lookup, &LookupError),
) -> Result<T, Result<E, LookupError>> {
    looked_up(attempt, failed, Some(LOOKUPS_MAX.saturating_mul(records))).await
}

/// Tries until nothing is missing; what cannot be had is told at once.
///
/// # Errors
/// As [`with_patience`].
pub(crate) async fn with_lookups<T, E: AsksFor>(
    attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, Result<E, LookupError>> {
    looked_up(attempt, |_, _| {}, None).await
}

async fn looked_up<T, E: AsksFor>(
    mut attempt: impl FnMut() -> Result<T, E>,
    mut on_failed: impl FnMut(&Lookup, &LookupError),
    patience: Option<usize>,
) -> Result<T, Result<E, LookupError>> {
    let lookups_max = patience.unwrap_or(LOOKUPS_MAX);
    let (mut lookups, mut delay) = (0, FIRST_DELAY);
    let mut failed: Option<(Lookup, LookupError)> = None;
    loop {
        let error = match attempt() {
            Ok(made) => return Ok(made),
            Err(error) => error,
        };
        let Some(lookup) = error.lookup().cloned() else { return Err(Ok(error)) };
        // A serde remembers what is not there, and says so itself the next time; one that does not ends here. A batch
        // goes on with what its next record asks for.
        if let Some((_, failed)) = failed.take_if(|(asked, _)| asked.what() == lookup.what()) {
            return Err(Err(failed));
        }
        if lookups == lookups_max {
            return Err(Ok(error));
        }
        lookups += 1;
        match lookup.clone().done().await {
            Ok(()) => delay = FIRST_DELAY,
            Err(error) if error.is_transient() && patience.is_some() => {
                lookups = 0;
                tracing::warn!(%lookup, %error, retry_in = ?delay, "records wait for what cannot be looked up");
                sleep(delay).await;
                delay = (delay * 2).min(LONGEST_DELAY);
            }
            Err(error) if error.is_transient() => return Err(Err(error)),
            Err(error) => {
                on_failed(&lookup, &error);
                failed = Some((lookup, error));
            }
        }
    }
}

/// The bytes of `value`, after everything was looked up that the serde asks for.
///
/// # Errors
/// What the serde says, or why a lookup found nothing.
pub async fn serialize<T: 'static, S: Serde<T> + ?Sized>(
    serde: &S,
    topic: &str,
    headers: &mut HeaderList,
    value: T,
) -> Result<Bytes, SerdeError> {
    // The value moves in: a reference that is held while waiting would ask more of its type than to be sent.
    with_lookups(move || serde.serialize_record(topic, headers, &value)).await.map_err(settle)
}

/// The value that `bytes` stand for, after everything was looked up that the serde asks for.
///
/// # Errors
/// What the serde says, or why a lookup found nothing.
pub async fn deserialize<T: 'static, S: Serde<T> + ?Sized>(
    serde: &S,
    topic: &str,
    headers: &Headers,
    bytes: &Bytes,
) -> Result<T, SerdeError> {
    with_lookups(|| serde.deserialize_record(topic, headers, bytes)).await.map_err(settle)
}

fn settle(ended: Result<SerdeError, LookupError>) -> SerdeError {
    ended.unwrap_or_else(SerdeError::Lookup)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::Instant;

    use super::*;

    /// Asks until `answers` have been given, in order.
    struct Asking {
        answers: Vec<Result<(), LookupError>>,
        asked: Arc<AtomicUsize>,
    }

    impl Asking {
        fn new(answers: Vec<Result<(), LookupError>>) -> Self {
            Self { answers, asked: Arc::default() }
        }

        fn attempt(&self) -> Result<&'static str, SerdeError> {
            let at = self.asked.load(Ordering::SeqCst);
            let Some(answer) = self.answers.get(at).cloned() else { return Ok("made") };
            let asked = Arc::clone(&self.asked);
            Err(SerdeError::Pending(Lookup::new("a thing", async move {
                asked.fetch_add(1, Ordering::SeqCst);
                answer
            })))
        }
    }

    fn down() -> LookupError {
        LookupError::transient(std::io::Error::other("down"))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_missing_is_looked_up_and_then_it_goes_on() {
        let asking = Asking::new(vec![Ok(()), Ok(())]);
        assert_eq!(with_lookups(|| asking.attempt()).await.unwrap(), "made");
        let asking = Asking::new(vec![]);
        assert_eq!(with_lookups(|| asking.attempt()).await.unwrap(), "made");
    }

    #[tokio::test(start_paused = true)]
    async fn patience_outlasts_a_server_that_is_down_and_others_are_told() {
        let asking = Asking::new(vec![Err(down()); 20]);
        let started = Instant::now();
        assert_eq!(with_patience(|| asking.attempt()).await.unwrap(), "made");
        assert!(started.elapsed() > Duration::from_secs(100), "{:?}", started.elapsed());
        let asking = Asking::new(vec![Err(down())]);
        assert!(with_lookups(|| asking.attempt()).await.unwrap_err().unwrap_err().is_transient());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_there_is_not_asked_for_again_and_again() {
        let gone = || LookupError::permanent(std::io::Error::other("gone"));
        // The serde says it itself the second time ...
        let asking = Asking::new(vec![Err(gone())]);
        assert_eq!(with_patience(|| asking.attempt()).await.unwrap(), "made");
        // ... or goes on asking.
        let asking = Asking::new(vec![Err(gone()); 5]);
        assert_eq!(with_patience(|| asking.attempt()).await.unwrap_err().unwrap_err().to_string(), "gone");
        // What is not there for one record says nothing of what the next one of a batch asks for.
        let asked = AtomicUsize::new(0);
        let two_are_missing = || match asked.fetch_add(1, Ordering::SeqCst) {
            at @ (0 | 1) => {
                Err(SerdeError::Pending(Lookup::new(format!("thing {at}"), async move { Err(gone()) })))
            }
            _ => Ok("made"),
        };
        assert_eq!(with_patience(two_are_missing).await.unwrap(), "made");
        let endless = Asking::new(vec![Ok(()); 10_000]);
        assert!(matches!(with_patience(|| endless.attempt()).await, Err(Ok(SerdeError::Pending(_)))));
    }
}
