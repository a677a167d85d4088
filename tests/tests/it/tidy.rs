//! The shape of the repository: which crate may depend on which, how long a file may be, and
//! that it says what it is for.

use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand};
use klamm_tests::repository;

/// The arrows of ARCHITECTURE.md: who may depend on whom. Development dependencies are free, within reason.
const ALLOWED_ARROWS: &[(&str, &[&str])] = &[
    ("klamm-protocol-derive", &[]),
    ("klamm-protocol", &["klamm-protocol-derive"]),
    ("klamm-client", &["klamm-protocol"]),
    ("klamm-broker", &["klamm-protocol", "klamm-client"]),
    ("klamm-macros", &[]),
    ("klamm", &["klamm-protocol", "klamm-client", "klamm-broker", "klamm-macros"]),
    ("klamm-cli", &["klamm", "klamm-protocol", "klamm-client", "klamm-broker"]),
    ("klamm-examples", &["klamm"]),
    ("klamm-tests", &["klamm", "klamm-protocol", "klamm-client", "klamm-broker"]),
    ("klamm-bench", &["klamm", "klamm-protocol", "klamm-client", "klamm-broker"]),
];

/// No file is longer than this, tests included.
const FILE_LINES_MAX: usize = 1_000;
/// Crates that must not come in, whoever asks for them.
const BANNED: &[&str] = &["openssl-sys", "rdkafka-sys"];

#[test]
fn crates_depend_only_along_the_arrows() {
    let metadata = metadata();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        let (_, allowed) = ALLOWED_ARROWS.iter().find(|(from, _)| *from == name).unwrap_or_else(|| {
            panic!("crate {name} is not in the list of arrows: add it there and to ARCHITECTURE.md")
        });
        for dependency in &package.dependencies {
            if dependency.path.is_some() && dependency.kind != DependencyKind::Development {
                assert!(
                    allowed.contains(&dependency.name.as_str()),
                    "{name} must not depend on {}: see the arrows in ARCHITECTURE.md",
                    dependency.name
                );
            }
        }
    }
}

#[test]
fn the_broker_is_optional_for_the_framework() {
    let metadata = metadata();
    let framework =
        metadata.packages.iter().find(|package| package.name.as_str() == "klamm").expect("the framework");
    let on_broker = framework
        .dependencies
        .iter()
        .find(|dependency| dependency.name == "klamm-broker" && dependency.kind == DependencyKind::Normal);
    assert!(on_broker.expect("behind the feature `embedded`").optional);
}

#[test]
fn no_banned_crate_and_only_one_registry() {
    for package in metadata().packages {
        assert!(!BANNED.contains(&package.name.as_str()), "{} is banned, see deny.toml", package.name);
        if let Some(source) = package.source {
            assert!(source.is_crates_io(), "{} comes from {source}", package.name);
        }
    }
}

#[test]
fn every_source_file_is_short_and_says_its_job() {
    let mut wrong = Vec::new();
    for file in rust_files(&repository()) {
        let shown = file.strip_prefix(repository()).unwrap_or(&file).display().to_string();
        let text = std::fs::read_to_string(&file).expect("a source file is text");
        wrong.extend(faults(&shown, &text));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong with one source file, in the words a contributor should read.
fn faults(name: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        faults.push(format!("{name}: {lines} lines, more than {FILE_LINES_MAX}: split it by job"));
    }
    // Programs that must not compile are about one line; what they are for is in their name.
    if !name.contains("/ui/") && !text.starts_with("//!") && !text.starts_with("#!") {
        faults.push(format!("{name}: the first line must be a //! comment that says the file's job"));
    }
    if text.contains(concat!("todo", "!(")) || text.contains(concat!("unimplemented", "!(")) {
        faults.push(format!(
            "{name}: a stub; leave the feature out and list it in skipped-features.md instead"
        ));
    }
    faults
}

#[test]
fn the_tidy_check_finds_planted_faults() {
    assert_eq!(faults("a.rs", "//! A job.\n").len(), 0);
    assert_eq!(faults("a.rs", "fn f() {}\n").len(), 1);
    assert_eq!(faults("a.rs", &format!("//! A job.\n{}", "\n".repeat(FILE_LINES_MAX))).len(), 1);
    assert_eq!(faults("a.rs", concat!("//! A job.\nfn f() { todo", "!() }\n")).len(), 1);
}

fn metadata() -> cargo_metadata::Metadata {
    MetadataCommand::new()
        .manifest_path(repository().join("Cargo.toml"))
        .other_options(vec!["--offline".to_owned(), "--all-features".to_owned()])
        .exec()
        .expect("cargo metadata")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "target" && name != "node_modules" && !name.to_string_lossy().starts_with('.') {
                found.extend(rust_files(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
