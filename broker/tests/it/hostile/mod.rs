//! What strangers may send, list by list: fixed cases with the answer that each gets, and mutations of every one of
//! them against a living broker, which goes on serving others, stays small, and says little.
//!
//! | file | what is attacked |
//! |---|---|
//! | `target` | the broker under attack, and what has to hold after each attack |
//! | `cases` | what a row of a table is, and how a table is held against the broker |
//! | `mutate` | how bytes are bent that mean something |
//! | `wire` | a client that is just frames |
//! | `requests` | requests to coordinators, in few words |
//! | `heard` | what the broker says meanwhile |
//! | `frames`, `headers`, `counts`, `batches`, `compression`, `state`, `resources` | the tables |
//! | `every_api` | requests of every API and version, arbitrary and bent |
//! | `records` | record batches on their way in, on the disk and out again |
//! | `coordinators` | requests to the groups, the transactions and the controller in any order, with restarts between |
//! | `settings` | files of settings |
//! | `files` | the files beside the records, damaged between two runs |
//!
//! `KLAMM_SEED` draws other mutations, and as many as the nights have: a thousand for each row.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests fail like tests.
#![allow(clippy::disallowed_methods)] // How long others wait shows on the clock on the wall; settings are in files.

mod batches;
mod cases;
mod compression;
mod coordinators;
mod counts;
mod every_api;
mod files;
mod frames;
mod headers;
mod heard;
mod mutate;
mod records;
mod requests;
mod resources;
mod settings;
mod state;
mod target;
mod wire;

use klamm_runtime::SeededRng;

/// The seed of this run. Shown with a test that fails.
#[allow(clippy::print_stdout)]
fn seed() -> u64 {
    let seed = given_seed().unwrap_or(20_261_122);
    println!("KLAMM_SEED={seed}");
    seed
}

fn given_seed() -> Option<u64> {
    std::env::var("KLAMM_SEED").ok()?.parse().ok()
}

/// How often something is tried: so often when somebody waits for it, and so often when a seed is given.
fn times(usually: u64, thoroughly: u64) -> u64 {
    if given_seed().is_some() { thoroughly } else { usually }
}

/// The randomness of round `round` of what has this name.
fn rng(seed: u64, name: &str, round: u64) -> SeededRng {
    let named = name.bytes().fold(seed, |mixed, byte| mixed.wrapping_mul(0x100_0000_01b3) ^ u64::from(byte));
    SeededRng::new(named.wrapping_mul(1_000_003).wrapping_add(round))
}
