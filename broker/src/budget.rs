//! The memory for requests (`queued.max.request.bytes`): who may take how much of it, and who waits.
//!
//! A request takes room for its whole frame before its body is read, and waits holding nothing, so that no two requests
//! can wait for each other. Large ones are served in their order. Small ones do not wait behind large ones: while
//! those wait they have a little room of their own, [`SMALL_ROOM_BYTES`].
//!
//! What a request takes beyond its frame, decoded and as an answer, is charged to its share without asking: a request
//! that was let in is never stopped halfway. So more may be taken than there is, by what the requests decode to that
//! are worked on at the moment; later ones wait until it is given back.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Up to here a request is small.
pub(crate) const SMALL_BYTES: usize = 64 << 10;
/// What small requests may take, all together, while large ones wait.
const SMALL_ROOM_BYTES: usize = 1 << 20;

/// The memory for requests of all connections.
#[derive(Debug)]
pub(crate) struct Budget {
    limit_bytes: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What is taken of the limit. May exceed it by what was charged.
    taken_bytes: usize,
    /// What is taken of [`SMALL_ROOM_BYTES`].
    small_taken_bytes: usize,
    small: VecDeque<Waiter>,
    large: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    bytes: usize,
    admit: oneshot::Sender<Share>,
}

/// What one request has taken, given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    held: Mutex<Held>,
}

/// What a share holds.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    /// Of the limit.
    bytes: usize,
    /// Of the room for small requests.
    small_bytes: usize,
}

impl Budget {
    /// Room for so many bytes; `None` is no limit. A request larger than the limit is let in when it is alone.
    pub(crate) fn new(limit_bytes: Option<usize>) -> Arc<Self> {
        Arc::new(Self { limit_bytes: limit_bytes.unwrap_or(usize::MAX), state: Mutex::default() })
    }

    /// Takes room for a request of so many bytes, waiting for it without holding any. Cancel-safe.
    pub(crate) async fn reserve(self: &Arc<Self>, bytes: usize) -> Share {
        let admitted = {
            let mut state = self.state();
            if let Some(share) = self.admit(&mut state, bytes) {
                return share;
            }
            let (admit, admitted) = oneshot::channel();
            let queue = if bytes <= SMALL_BYTES { &mut state.small } else { &mut state.large };
            queue.push_back(Waiter { bytes, admit });
            admitted
        };
        let leaving = Leaving(self);
        let admitted = admitted.await;
        std::mem::forget(leaving);
        match admitted {
            Ok(share) => share,
            // A queue is only ever emptied by admitting; this is not reached.
            Err(_) => self.share(0, 0),
        }
    }

    /// Whether somebody waits. Then those who hold much and do nothing with it should go.
    pub(crate) fn is_wanted(&self) -> bool {
        let state = self.state();
        let alive = |waiter: &Waiter| !waiter.admit.is_closed();
        state.large.iter().any(alive) || state.small.iter().any(alive)
    }

    /// How many bytes are taken.
    pub(crate) fn taken_bytes(&self) -> usize {
        let state = self.state();
        state.taken_bytes + state.small_taken_bytes
    }

    fn admit(self: &Arc<Self>, state: &mut State, bytes: usize) -> Option<Share> {
        state.large.retain(|waiter| !waiter.admit.is_closed());
        let small = bytes <= SMALL_BYTES;
        let first =
            if small { state.large.is_empty() } else { state.large.is_empty() && state.small.is_empty() };
        self.fit(state, bytes, first)
    }

    /// Takes the bytes, from the limit only where nobody is `first`.
    fn fit(self: &Arc<Self>, state: &mut State, bytes: usize, first: bool) -> Option<Share> {
        let fits = state.taken_bytes == 0 || state.taken_bytes.saturating_add(bytes) <= self.limit_bytes;
        if first && fits {
            state.taken_bytes += bytes;
            return Some(self.share(bytes, 0));
        }
        if bytes <= SMALL_BYTES && state.small_taken_bytes + bytes <= SMALL_ROOM_BYTES {
            state.small_taken_bytes += bytes;
            return Some(self.share(0, bytes));
        }
        None
    }

    fn share(self: &Arc<Self>, bytes: usize, small_bytes: usize) -> Share {
        Share { budget: self.clone(), held: Mutex::new(Held { bytes, small_bytes }) }
    }

    /// Lets in whom there is room for now.
    fn serve(self: &Arc<Self>, state: &mut State) {
        // Those who have gone wait for nothing.
        state.small.retain(|waiter| !waiter.admit.is_closed());
        state.large.retain(|waiter| !waiter.admit.is_closed());
        while let Some(waiter) = state.small.front() {
            let Some(share) = self.fit(state, waiter.bytes, state.large.is_empty()) else { break };
            self.hand_over(state, share, |state| &mut state.small);
        }
        while let Some(waiter) = state.large.front() {
            let Some(share) = self.fit(state, waiter.bytes, true) else { break };
            self.hand_over(state, share, |state| &mut state.large);
        }
    }

    fn hand_over(
        &self,
        state: &mut State,
        share: Share,
        queue: impl Fn(&mut State) -> &mut VecDeque<Waiter>,
    ) {
        let Some(waiter) = queue(state).pop_front() else { return };
        if let Err(share) = waiter.admit.send(share) {
            // It went this moment. The lock is held, so that the share cannot give back by itself.
            let Held { bytes, small_bytes } = std::mem::take(&mut *share.held());
            state.taken_bytes -= bytes;
            state.small_taken_bytes -= small_bytes;
        }
    }

    fn give_back(self: &Arc<Self>, bytes: usize, small_bytes: usize) {
        if bytes == 0 && small_bytes == 0 {
            return;
        }
        let mut state = self.state();
        state.taken_bytes = state.taken_bytes.saturating_sub(bytes);
        state.small_taken_bytes = state.small_taken_bytes.saturating_sub(small_bytes);
        self.serve(&mut state);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever goes without having been let in may have been in the way of those behind.
struct Leaving<'a>(&'a Arc<Budget>);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.serve(&mut self.0.state());
    }
}

impl Share {
    /// Takes so many bytes more, whether or not they are there.
    pub(crate) fn charge(&self, more_bytes: usize) {
        let mut held = self.held();
        let mut state = self.budget.state();
        if held.small_bytes > 0 && held.small_bytes.saturating_add(more_bytes) <= SMALL_BYTES {
            held.small_bytes += more_bytes;
            state.small_taken_bytes += more_bytes;
        } else {
            held.bytes += more_bytes;
            state.taken_bytes += more_bytes;
        }
    }

    /// Parts with so many of its bytes, or all that it has, for something that goes its own way.
    pub(crate) fn split(&self, bytes: usize) -> Self {
        let mut held = self.held();
        let small_bytes = held.small_bytes.min(bytes);
        let rest_bytes = held.bytes.min(bytes - small_bytes);
        *held = Held { bytes: held.bytes - rest_bytes, small_bytes: held.small_bytes - small_bytes };
        self.budget.share(rest_bytes, small_bytes)
    }

    /// Takes so many bytes instead, whether or not they are there. Who came in by the room for small requests stays
    /// there while it is small: else large ones that wait would wait for everybody who comes after them.
    pub(crate) fn resize(&self, new_bytes: usize) {
        let Held { bytes, small_bytes } = {
            let mut held = self.held();
            let mut state = self.budget.state();
            if held.small_bytes > 0 && new_bytes <= SMALL_BYTES {
                state.small_taken_bytes += new_bytes;
                std::mem::replace(&mut *held, Held { bytes: 0, small_bytes: new_bytes })
            } else {
                state.taken_bytes += new_bytes;
                std::mem::replace(&mut *held, Held { bytes: new_bytes, small_bytes: 0 })
            }
        };
        self.budget.give_back(bytes, small_bytes);
    }

    /// How many bytes are taken.
    pub(crate) fn held_bytes(&self) -> usize {
        let Held { bytes, small_bytes } = *self.held();
        bytes + small_bytes
    }

    /// The budget that this is of.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Held { bytes, small_bytes } = *self.held();
        self.budget.give_back(bytes, small_bytes);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::BoxFuture;
    use klamm_runtime::{Rng, SeededRng};

    use super::*;

    const MEBIBYTE: usize = 1 << 20;

    fn waiting(budget: &Arc<Budget>, bytes: usize) -> BoxFuture<'static, Share> {
        let budget = budget.clone();
        let mut waiting = async move { budget.reserve(bytes).await }.boxed();
        assert!((&mut waiting).now_or_never().is_none(), "{bytes} bytes are there");
        waiting
    }

    fn at_once(budget: &Arc<Budget>, bytes: usize) -> Share {
        budget.reserve(bytes).now_or_never().expect("room at once")
    }

    #[test]
    fn room_is_taken_and_given_back() {
        let budget = Budget::new(Some(10 * MEBIBYTE));
        let first = at_once(&budget, 6 * MEBIBYTE);
        let second = at_once(&budget, 4 * MEBIBYTE);
        let mut third = waiting(&budget, MEBIBYTE);
        assert!(budget.is_wanted());
        drop(second);
        let third = (&mut third).now_or_never().expect("there is room");
        assert!(!budget.is_wanted());
        assert_eq!((third.held_bytes(), budget.taken_bytes()), (MEBIBYTE, 7 * MEBIBYTE));
        drop((first, third));
        assert_eq!(budget.taken_bytes(), 0);
    }

    /// Each held half of what both needed, and everybody behind them waited for as long.
    #[test]
    fn two_large_requests_do_not_wait_for_each_other() {
        let budget = Budget::new(Some(10 * MEBIBYTE));
        let first = at_once(&budget, 8 * MEBIBYTE);
        let mut second = waiting(&budget, 8 * MEBIBYTE);
        let mut third = waiting(&budget, MEBIBYTE);
        drop(first);
        let second = (&mut second).now_or_never().expect("nobody else holds anything");
        let third = (&mut third).now_or_never().expect("there is room beside it");
        drop((second, third));
        assert_eq!(budget.taken_bytes(), 0);
    }

    #[test]
    fn small_requests_pass_large_ones_that_wait_and_do_not_starve_them() {
        let budget = Budget::new(Some(MEBIBYTE));
        let first = at_once(&budget, MEBIBYTE);
        let mut large = waiting(&budget, SMALL_BYTES + 1);
        // The room of the small ones: sixteen times 64 KiB.
        let mut small: Vec<Share> = (0..16).map(|_| at_once(&budget, SMALL_BYTES)).collect();
        let mut one_more = waiting(&budget, 1);
        assert!((&mut large).now_or_never().is_none());
        small.pop();
        let passed = (&mut one_more).now_or_never().expect("a small one went");
        assert!((&mut large).now_or_never().is_none());
        drop(first);
        let large = (&mut large).now_or_never().expect("its turn");
        drop((small, passed, large));
        assert_eq!(budget.taken_bytes(), 0);
    }

    #[test]
    fn small_requests_have_all_the_room_when_no_large_one_waits() {
        let budget = Budget::new(Some(4 * MEBIBYTE));
        let all: Vec<Share> = (0..80).map(|_| at_once(&budget, SMALL_BYTES)).collect();
        let _beyond = waiting(&budget, 1);
        assert_eq!(budget.taken_bytes(), 5 * MEBIBYTE);
        drop(all);
    }

    #[test]
    fn what_is_too_large_for_the_budget_is_let_in_alone() {
        let budget = Budget::new(Some(MEBIBYTE));
        let small = at_once(&budget, 1);
        let mut huge = waiting(&budget, 3 * MEBIBYTE);
        drop(small);
        let huge = (&mut huge).now_or_never().expect("it is alone");
        let mut behind = waiting(&budget, MEBIBYTE);
        drop(huge);
        assert!((&mut behind).now_or_never().is_some());
        let unlimited = Budget::new(None);
        let _much = at_once(&unlimited, usize::MAX / 2);
        let _more = at_once(&unlimited, usize::MAX / 4);
    }

    #[test]
    fn those_who_go_do_not_hold_up_others() {
        let budget = Budget::new(Some(2 * MEBIBYTE));
        let first = at_once(&budget, MEBIBYTE);
        let gone = waiting(&budget, 2 * MEBIBYTE);
        drop(gone);
        assert!(!budget.is_wanted());
        let second = at_once(&budget, MEBIBYTE);
        // One that was let in and went before it could see it.
        let granted = waiting(&budget, 2 * MEBIBYTE);
        drop((first, second));
        assert_eq!(budget.taken_bytes(), 2 * MEBIBYTE);
        drop(granted);
        assert_eq!(budget.taken_bytes(), 0);
    }

    /// While somebody always has a little, a request as large as the limit was never alone, and waited for ever.
    #[test]
    fn a_stream_of_small_requests_does_not_keep_out_a_large_one() {
        for limit in [MEBIBYTE, 2 * MEBIBYTE] {
            let budget = Budget::new(Some(limit));
            let mut before = at_once(&budget, 200);
            let mut large = waiting(&budget, 2 * MEBIBYTE);
            let admitted = (0..100).find_map(|_| {
                // Each comes before the last has its answer, and waits for the disk.
                let next = at_once(&budget, 200);
                next.resize(100);
                before = next;
                (&mut large).now_or_never()
            });
            let admitted = admitted.expect("a large request is let in");
            drop((before, admitted));
            assert_eq!(budget.taken_bytes(), 0);
        }
    }

    #[test]
    fn what_is_charged_is_never_waited_for_and_makes_others_wait() {
        let budget = Budget::new(Some(MEBIBYTE));
        let share = at_once(&budget, 100);
        share.charge(2 * MEBIBYTE);
        assert_eq!(share.held_bytes(), 2 * MEBIBYTE + 100);
        let mut next = waiting(&budget, 2 * SMALL_BYTES);
        share.resize(50);
        assert!((&mut next).now_or_never().is_some());
        assert_eq!((share.held_bytes(), budget.taken_bytes()), (50, 50));
        drop(share);
        assert_eq!(budget.taken_bytes(), 0);
    }

    #[test]
    fn what_is_split_off_is_given_back_by_itself() {
        let budget = Budget::new(Some(MEBIBYTE));
        let share = at_once(&budget, 300_000);
        let part = share.split(200_000);
        assert_eq!((share.held_bytes(), part.held_bytes()), (100_000, 200_000));
        share.resize(10);
        assert_eq!(budget.taken_bytes(), 200_010);
        drop(part);
        assert_eq!(budget.taken_bytes(), 10);
        assert_eq!((share.split(usize::MAX).held_bytes(), share.held_bytes()), (10, 0));
        // One that came in by the room for small requests.
        let all = at_once(&budget, MEBIBYTE);
        let _large = waiting(&budget, MEBIBYTE);
        let small = at_once(&budget, 1_000);
        let part = small.split(600);
        drop(all);
        assert_eq!((small.held_bytes(), part.held_bytes()), (400, 600));
        drop((small, part));
    }

    /// Whatever comes in whatever order: no more is admitted than there is, nobody waits where there is room for the
    /// first, and all of it comes back.
    #[test]
    fn any_history_keeps_the_account() {
        for seed in 0..2_000 {
            let rng = SeededRng::new(seed);
            let limit = 1 + rng.next_u64() as usize % (4 * MEBIBYTE);
            let budget = Budget::new(Some(limit));
            let (mut held, mut waiting) = (Vec::new(), VecDeque::new());
            for _ in 0..60 {
                match rng.next_u64() % 5 {
                    0 | 1 => {
                        let bytes = match rng.next_u64() % 2 {
                            0 => rng.next_u64() as usize % SMALL_BYTES,
                            _ => rng.next_u64() as usize % limit,
                        };
                        let owner = budget.clone();
                        waiting.push_back((bytes, async move { owner.reserve(bytes).await }.boxed()));
                    }
                    2 if !held.is_empty() => drop(held.swap_remove(rng.next_u64() as usize % held.len())),
                    3 if !waiting.is_empty() => {
                        let place = rng.next_u64() as usize % waiting.len();
                        drop(waiting.remove(place));
                    }
                    _ => {}
                }
                waiting.retain_mut(|(_, waiter): &mut (usize, BoxFuture<'static, Share>)| {
                    match waiter.now_or_never() {
                        Some(share) => held.push(share),
                        None => return true,
                    }
                    false
                });
                let taken: usize = held.iter().map(Share::held_bytes).sum();
                assert_eq!(budget.taken_bytes(), taken, "seed {seed}");
                assert!(taken <= limit + SMALL_ROOM_BYTES, "seed {seed}");
                let first = waiting.iter().find(|(bytes, _)| *bytes > SMALL_BYTES);
                assert!(
                    first.is_none_or(|(bytes, _)| budget.state().taken_bytes + bytes > limit),
                    "seed {seed}"
                );
            }
            drop(waiting);
            drop(held);
            assert_eq!(budget.taken_bytes(), 0, "seed {seed}");
        }
    }
}
