//! Recorded histories: many clients of a real broker at once, to which everything happens that a seed draws, write down
//! what they asked and were told; and checks of what is written down, by the names of reference/reliability.md
//! (A1 to A8 of the log, B1 to B7 of consumers, C1 to C8 of transactions).
//!
//! | file | its job |
//! |---|---|
//! | `operation` | what a history is: operations with times and outcomes, the final reads, the files   (pure) |
//! | `seen` | a history by what the checks ask for   (pure) |
//! | `log_checks`, `group_checks`, `transaction_checks` | the checks   (pure) |
//! | `example`, `anomalies` | a good history, and for each check one that breaks it   (pure) |
//! | `recorder` | writes down; records with numbers and checksums |
//! | `world` | what all clients have in common |
//! | `net` | a network that cuts, before, after and late |
//! | `writers`, `groups`, `sessions`, `lookers`, `clients` | the clients |
//! | `disk` | a disk that gets full, and syncs that fail |
//! | `nemesis` | what goes wrong, by the seed |
//! | `planted` | bugs in the files, to see that they are found |
//! | `ending` | what is there in the end |
//! | `round` | one run |
//!
//! A failure names its seed and a file with the whole history. `KLAMM_SEED=seed` draws the same faults again; when they
//! meet whom is another matter with real processes.

#[cfg(test)]
mod anomalies;
mod clients;
mod disk;
mod ending;
#[cfg(test)]
mod example;
mod group_checks;
mod groups;
mod log_checks;
mod lookers;
mod nemesis;
mod net;
mod operation;
mod planted;
mod recorder;
mod round;
mod seen;
mod sessions;
mod transaction_checks;
mod world;
mod writers;

use operation::{History, Violation};
use seen::Seen;

/// All that is wrong with a history.
fn check(history: &History) -> Vec<Violation> {
    let seen = Seen::of(history);
    let checks = [log_checks::check, group_checks::check, transaction_checks::check];
    checks.iter().flat_map(|check| check(&seen)).collect()
}
