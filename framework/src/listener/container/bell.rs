//! A bell for those who wait until the flow is as they want it. Ringing costs next to nothing while nobody listens.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(super) struct Bell {
    changed: Notify,
    listening: AtomicUsize,
}

impl Bell {
    /// Something changed. To be called after the change, which is made under the lock that `look` takes in
    /// [`Bell::until`].
    pub(super) fn ring(&self) {
        if self.listening.load(Ordering::SeqCst) > 0 {
            self.changed.notify_waiters();
        }
    }

    /// Resolves with what `look` finds, now or after a change.
    pub(super) async fn until<R>(&self, mut look: impl FnMut() -> Option<R>) -> R {
        self.listening.fetch_add(1, Ordering::SeqCst);
        let _over = Listening(self);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no ringing is missed.
            changed.as_mut().enable();
            if let Some(found) = look() {
                return found;
            }
            changed.await;
        }
    }
}

struct Listening<'a>(&'a Bell);

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.0.listening.fetch_sub(1, Ordering::SeqCst);
    }
}
