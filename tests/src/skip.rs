//! What a test does when the machine lacks what it needs: it says so where the person who ran the tests will read it.
//!
//! A test harness shows nothing of a test that passes, so a word on its standard error is never seen.
//! `make test` names a file in `KLAMM_SKIPPED_FILE`, shows what was written there at its end, and leaves the
//! telling of it to nobody's memory.

use std::io::Write;

/// Where `make test` collects what was skipped.
const FILE: &str = "KLAMM_SKIPPED_FILE";
/// Set where everything must run, as in CI.
const REQUIRE_ALL: &str = "KLAMM_REQUIRE_ALL";

/// Notes that `what` did not run because of `why`, and the one command with which it would; the caller returns.
///
/// # Panics
/// Where `KLAMM_REQUIRE_ALL` is set.
#[allow(clippy::print_stderr)] // Seen when a single test is run with --nocapture.
pub fn skip(what: &str, why: &str, command: &str) {
    assert!(
        std::env::var_os(REQUIRE_ALL).is_none(),
        "{REQUIRE_ALL} is set and {what} cannot run: {why}. To run it: {command}"
    );
    let line = format!("{what}: {why}. To run it: {command}\n");
    eprint!("skipped {line}");
    if let Some(file) = std::env::var_os(FILE) {
        // One write of one line to a file opened for appending: tests of several processes do not mix.
        let file = std::fs::OpenOptions::new().create(true).append(true).open(file);
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .expect("the list of skipped tests can be written");
    }
}
