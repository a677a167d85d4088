//! The whole broker in a world of its own: disk and network in memory, a clock that stands still, many clients, and
//! faults that a seed draws. What the clients know is held against what the broker says.
//!
//! | file | its job |
//! |---|---|
//! | `world` | one run: steps, faults, lives of the broker, the end |
//! | `plan` | what a seed means: sizes, clients, rates |
//! | `known` | the one table of what the broker does not stand yet |
//! | `model`, `offsets` | what was sent, acknowledged and seen, and what must follow |
//! | `ledger` | transactions: whose records and offsets they are, and how they ended by all that was seen |
//! | `check`, `check_transactions` | looks at everything after a start; sees that everything serves at the end |
//! | `client`, `connection` | what all clients are |
//! | `producer`, `committer`, `member`, `admin`, `reader` | the clients |
//! | `transactional`, `transactional_told`, `txn_requests` | clients with transactions: what they do, hear and send |
//! | `follower` | asks for offsets that transactions commit |
//! | `disk`, `net` | the disk that fails and hangs, and the network as a broker has it that may die |
//! | `planted`, `planted_files` | bugs, to see that they are found; what they do to files |
//! | `said` | what the broker says while a run is looked at |
//!
//! A failure names its seed. `KLAMM_SEED=seed KLAMM_SEEDS=1` runs that one; `KLAMM_SEEDS` says how many runs there
//! are. `KLAMM_TOLD` lines are told of a failure, with `KLAMM_CALLS` the calls of the disk, with `KLAMM_SAID` what the
//! broker logs.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // Helpers of tests fail like tests.

mod admin;
mod check;
mod check_transactions;
mod client;
mod committer;
mod connection;
mod disk;
mod follower;
mod known;
mod ledger;
mod member;
mod model;
mod net;
mod offsets;
mod plan;
mod planted;
mod planted_files;
mod producer;
mod reader;
mod said;
mod transactional;
mod transactional_told;
mod txn_requests;
mod world;

use std::num::Wrapping;

use planted::Planted;
use world::{Broken, Outcome, run};

const DATA_DIR: &str = "/data";
/// A slice of a few seconds.
const USUAL_SEEDS: u64 = 60;
const USUAL_SEED: u64 = 20_261_122;
/// A planted bug has to be found with as many.
const PLANTED_SEEDS: u64 = 1_000;

fn from_environment(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(usual)
}

/// The seeds of a run that begins with this one. Those of neighbouring runs are not the same.
fn seeds() -> impl Iterator<Item = u64> {
    let (first, count) =
        (from_environment("KLAMM_SEED", USUAL_SEED), from_environment("KLAMM_SEEDS", USUAL_SEEDS));
    println!("KLAMM_SEED={first} KLAMM_SEEDS={count}");
    (0..count).map(move |at| (Wrapping(first) + Wrapping(at) * Wrapping(1_000_003)).0)
}

/// Runs a seed; nobody wants to see what it did.
fn run_briefly(seed: u64, planted: Option<Planted>) -> Result<Outcome, Box<Broken>> {
    let _said = std::env::var_os("KLAMM_SAID").map(|_| tracing::subscriber::set_default(said::Said));
    run(seed, planted).map(|outcome| Outcome { trace: Vec::new(), ..outcome })
}

/// Runs every seed, on all processors; gives what came of each, in order.
fn run_all(seeds: Vec<u64>, planted: Option<Planted>) -> Vec<Result<Outcome, Box<Broken>>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = seeds.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let work = |seeds: &[u64]| seeds.iter().map(|seed| run_briefly(*seed, planted)).collect::<Vec<_>>();
        let running: Vec<_> = seeds.chunks(share).map(|seeds| scope.spawn(move || work(seeds))).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn what_was_promised_holds_whatever_goes_wrong() {
    let mut all = Outcome::default();
    let mut broken = Vec::new();
    for outcome in run_all(seeds().collect(), None) {
        match outcome {
            Ok(outcome) => all.add(&outcome),
            Err(failure) => broken.push(failure),
        }
    }
    println!("{all:?}");
    for failure in broken.iter().skip(1) {
        println!("{}", failure.last_line());
    }
    assert!(broken.is_empty(), "{} seeds; the first:\n{}", broken.len(), broken[0]);
    assert!(all.is_worth_something(), "the run proves nothing: {all:?}");
}

#[test]
fn a_seed_repeats_to_the_byte() {
    for seed in 1..=20 {
        let (first, second) = (run(seed, None), run(seed, None));
        match (first, second) {
            (Ok(first), Ok(second)) => {
                let differs = first.trace.iter().zip(&second.trace).position(|(one, other)| one != other);
                if let Some(at) = differs {
                    let (one, other) = (&first.trace[at.saturating_sub(9)..=at], &second.trace[at]);
                    panic!("seed {seed} differs at {at}: {one:#?}\nand {other}");
                }
                assert_eq!(first, second, "seed {seed}");
            }
            (first, second) => assert_eq!(
                first.map_err(|broken| broken.to_string()).map(|_| ()),
                second.map_err(|broken| broken.to_string()).map(|_| ()),
                "seed {seed}"
            ),
        }
    }
}

#[test]
fn planted_bugs_are_found() {
    std::thread::scope(|scope| {
        for planted in Planted::ALL {
            scope.spawn(move || {
                let mut seeds = 1..=PLANTED_SEEDS;
                let found =
                    seeds.find_map(|seed| run(seed, Some(planted)).err().map(|broken| (seed, broken)));
                let (seed, broken) =
                    found.unwrap_or_else(|| panic!("{planted:?} is not found by {PLANTED_SEEDS} seeds"));
                println!("{planted:?} is found by seed {seed}: {}", broken.what);
            });
        }
    });
}

/// They are kept for speed alone.
#[test]
fn indexes_of_transactions_may_be_gone() {
    for outcome in run_all((1..=30).collect(), Some(Planted::ForgetsTransactionIndexes)) {
        if let Err(broken) = outcome {
            panic!("{broken}");
        }
    }
}
