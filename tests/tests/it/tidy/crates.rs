//! Which crate may depend on which, and where crates come from. Nothing here needs what another command has downloaded:
//! `cargo metadata --no-deps` reads our own manifests alone, and the lock file is text.

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use klamm_tests::repository;

/// The arrows of ARCHITECTURE.md: who may depend on whom. Development dependencies are free, within reason.
const ALLOWED_ARROWS: &[(&str, &[&str])] = &[
    ("klamm-protocol-derive", &[]),
    ("klamm-protocol", &["klamm-protocol-derive"]),
    ("klamm-runtime", &[]),
    ("klamm-client", &["klamm-protocol", "klamm-runtime"]),
    ("klamm-broker", &["klamm-protocol", "klamm-runtime"]),
    ("klamm-macros", &[]),
    ("klamm", &["klamm-protocol", "klamm-runtime", "klamm-client", "klamm-broker", "klamm-macros"]),
    ("klamm-cli", &["klamm", "klamm-protocol", "klamm-runtime", "klamm-client", "klamm-broker"]),
    ("klamm-examples", &["klamm"]),
    ("klamm-tests", &["klamm", "klamm-protocol", "klamm-runtime", "klamm-client", "klamm-broker"]),
    ("klamm-bench", &["klamm", "klamm-protocol", "klamm-runtime", "klamm-client", "klamm-broker"]),
];

/// Crates that must not come in, whoever asks for them.
const BANNED: &[&str] = &["openssl-sys", "rdkafka-sys"];

/// How the lock file names crates.io, whatever mirror cargo takes it from.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

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

/// It was `cargo metadata` with all dependencies once, which wants the crates of every platform, and failed on each
/// machine that had only ever built for its own.
#[test]
fn no_banned_crate_and_only_one_registry() {
    let metadata = metadata();
    let ours = metadata.workspace_packages().iter().map(|package| package.name.to_string()).collect();
    let lock = std::fs::read_to_string(repository().join("Cargo.lock")).expect("the lock file");
    let wrong = strangers(&lock, &ours);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong with the packages of a lock file: banned, not from crates.io, or from a path outside the workspace.
fn strangers(lock: &str, ours: &BTreeSet<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for package in lock.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
            line.map(|line| line.trim_end_matches('"'))
        };
        let Some(name) = value("name") else {
            wrong.push(format!("Cargo.lock: a package without a name: {package}"));
            continue;
        };
        if BANNED.contains(&name) {
            wrong.push(format!("{name} is banned, see deny.toml"));
        }
        match value("source") {
            Some(source) if source != CRATES_IO => wrong.push(format!("{name} comes from {source}")),
            None if !ours.contains(name) => {
                wrong.push(format!("{name} comes from a path outside the workspace"));
            }
            _ => {}
        }
    }
    if !lock.contains("[[package]]") {
        wrong.push("Cargo.lock names no package at all".to_owned());
    }
    wrong
}

#[test]
fn strangers_in_the_lock_file_are_found() {
    let ours = BTreeSet::from(["klamm".to_owned()]);
    let lock = |name: &str, source: &str| {
        format!(
            "version = 4\n\n[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\n{source}dependencies = []\n"
        )
    };
    let crates_io = format!("source = \"{CRATES_IO}\"\n");
    assert_eq!(strangers(&lock("klamm", ""), &ours), [""; 0]);
    assert_eq!(strangers(&lock("bytes", &crates_io), &ours), [""; 0]);
    assert_eq!(strangers(&lock("bytes", ""), &ours).len(), 1);
    assert_eq!(
        strangers(&lock("bytes", "source = \"git+https://example.org/bytes#1234\"\n"), &ours).len(),
        1
    );
    assert_eq!(strangers(&lock("openssl-sys", &crates_io), &ours).len(), 1);
    assert_eq!(strangers("version = 4\n", &ours).len(), 1);
}

pub(super) fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(repository().join("Cargo.toml"))
        .no_deps()
        .other_options(vec!["--offline".to_owned()])
        .exec()
        .expect("cargo metadata")
}
