//! `docs/durability.md` names a test for each promise: they exist, and what it says not to hold is what the simulation
//! leaves out.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // It reads sources.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The names of all tests in these folders.
fn tests_in(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            tests_in(&path, found);
        } else if path.extension().is_some_and(|suffix| suffix == "rs") {
            found.extend(tests_of(&fs::read_to_string(path).unwrap()));
        }
    }
}

/// The functions that follow an attribute of a test, other attributes between.
fn tests_of(text: &str) -> Vec<String> {
    let mut is_test = false;
    let mut names = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if !line.starts_with("#[") {
            let name =
                line.trim_start_matches("async ").strip_prefix("fn ").and_then(|rest| rest.split('(').next());
            names.extend(name.filter(|_| is_test).map(ToOwned::to_owned));
            is_test = false;
        }
    }
    names
}

/// What stands between backticks in the rows of a part of a page, in the column.
fn named(part: &str, column: usize) -> BTreeSet<String> {
    let rows = part.lines().filter(|line| line.starts_with("| "));
    let cells = rows.filter_map(|row| row.split('|').nth(column));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(ToOwned::to_owned).collect()
}

#[test]
fn each_promise_has_its_tests() {
    let page = fs::read_to_string(repository().join("docs/durability.md")).unwrap();
    let (promises, _) = page.split_once("## Not promised").unwrap();
    let mut tests = BTreeSet::new();
    for folder in ["broker/tests/it", "broker/src", "tests/tests/it"] {
        tests_in(&repository().join(folder), &mut tests);
    }
    let rows = promises.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| promise"));
    let mut promised = 0;
    for row in rows {
        let named = named(row, 2);
        assert!(!named.is_empty(), "no test is named for {row:?}");
        let missing: Vec<_> = named.difference(&tests).collect();
        assert!(missing.is_empty(), "there are no tests {missing:?}");
        promised += 1;
    }
    assert!(promised > 20, "{promised} promises");
}

#[test]
fn what_does_not_hold_yet_is_said() {
    let page = fs::read_to_string(repository().join("docs/durability.md")).unwrap();
    let said = page.split_once("## Not yet").map(|(_, part)| named(part, 1)).unwrap_or_default();
    let known = include_str!("simulation/known.rs");
    let table = known.split_once("const NOT_YET").unwrap().1.split_once("];").unwrap().0;
    let names = table.split("Known::").skip(1);
    let left_out: BTreeSet<String> =
        names.map(|rest| rest.chars().take_while(|letter| letter.is_alphanumeric()).collect()).collect();
    assert_eq!(said, left_out);
}

#[test]
fn tests_are_told_from_other_functions() {
    let text =
        "#[test]\nfn a() {}\nfn b() {}\n#[tokio::test(start_paused = true)]\n#[allow(x)]\nasync fn c() {}\n";
    assert_eq!(tests_of(text), ["a", "c"]);
    assert_eq!(named("| is `so` | `a`, `b` |", 2), BTreeSet::from(["a".to_owned(), "b".to_owned()]));
}
