//! Where random tests begin: the same for everybody, unless `make soak` or somebody who replays a failure says
//! otherwise.

/// The seed of this run: `KLAMM_SEED`, else `usual`. Prints it, for a failure to be replayed.
#[allow(clippy::print_stdout)] // Shown with a failed test.
pub fn seed(usual: u64) -> u64 {
    let seed = std::env::var("KLAMM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(usual);
    println!("KLAMM_SEED={seed}");
    seed
}
