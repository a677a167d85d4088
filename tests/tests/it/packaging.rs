//! What would be published: the files of each package, what it says of itself, and which Rust its dependencies ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use cargo_metadata::semver::Version;
use cargo_metadata::{Metadata, MetadataCommand, Package};
use klamm_tests::repository;

/// Beside the sources, a package has these; cargo writes the first four itself, the very first only in a git checkout.
const BESIDE_SOURCES: &[&str] = &[
    ".cargo_vcs_info.json",
    "Cargo.lock",
    "Cargo.toml",
    "Cargo.toml.orig",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
];

/// How users may ask for `klamm`.
const FEATURE_SETS: &[&[&str]] = &[
    &["--no-default-features"],
    &[],
    &["--features=streams-core"],
    &["--features=embedded"],
    &["--features=testing"],
    &["--features=streams"],
    &["--all-features"],
];

#[test]
fn a_package_holds_its_sources_a_readme_and_both_licences() {
    for package in published(&metadata()) {
        let folder = folder(package);
        let listed = cargo(&["package", "--list", "--allow-dirty", "--offline", "-p", &package.name]);
        let listed = listed.lines().map(str::to_owned).collect();
        let faults = surprises(&listed, &sources(folder, &folder.join("src")));
        assert!(faults.is_empty(), "{}: {}", package.name, faults.join(", "));
    }
}

/// Packs them all, which finds a dependency without a version and a file that is named but not there. That the packages
/// build too is tried before a release (`cargo package`): it takes minutes.
#[test]
fn every_package_can_be_packed_and_carries_the_licence_texts() {
    let metadata = metadata();
    let packages: Vec<_> = published(&metadata).collect();
    let mut arguments = vec!["package", "--no-verify", "--allow-dirty", "--offline", "--quiet"];
    arguments.extend(packages.iter().flat_map(|package| ["-p", package.name.as_str()]));
    cargo(&arguments);
    let texts = ["LICENSE-MIT", "LICENSE-APACHE"];
    for package in packages {
        let name = format!("{}-{}", package.name, package.version);
        let archive = target().join("package").join(format!("{name}.crate"));
        for text in texts {
            // In the repository they are links; in a package they must be the text.
            let packed = run("tar", &["-xOzf", &archive.display().to_string(), &format!("{name}/{text}")]);
            assert_eq!(packed, std::fs::read_to_string(repository().join(text)).unwrap(), "{name}: {text}");
        }
    }
}

#[test]
fn a_package_says_what_it_is() {
    let metadata = metadata();
    for package in published(&metadata) {
        let name = &package.name;
        assert!(package.description.as_ref().is_some_and(|text| text.ends_with('.')), "{name}: description");
        assert_eq!(package.license.as_deref(), Some("MIT OR Apache-2.0"), "{name}");
        assert!(package.repository.is_some(), "{name}: repository");
        assert_eq!(package.readme.as_ref().map(|path| path.as_str()), Some("README.md"), "{name}");
        let readme = std::fs::read_to_string(folder(package).join("README.md")).unwrap();
        assert!(readme.starts_with(&format!("# {name}\n")), "{name}: its README begins with its name");
        assert!(readme.contains("```"), "{name}: its README shows a snippet");
        // What the registry takes.
        assert!((1..=5).contains(&package.keywords.len()), "{name}: one to five keywords");
        assert!(
            package.keywords.iter().all(|word| word.len() <= 20),
            "{name}: keywords of 20 letters at most"
        );
        assert!((1..=5).contains(&package.categories.len()), "{name}: one to five categories");
        let is_library = package.targets.iter().any(|target| target.is_lib() || target.is_proc_macro());
        let documentation = is_library.then(|| format!("https://docs.rs/{name}"));
        assert_eq!(package.documentation, documentation, "{name}");
        assert_eq!(package.metadata["docs"]["rs"]["all-features"] == true, is_library, "{name}: docs.rs");
    }
}

/// `rust-version` is a promise to those who may not use the newest compiler. Whether our own code keeps it,
/// `scripts/check-rust-version` tries; that a dependency breaks it would be found by the user first.
#[test]
fn no_dependency_asks_for_a_newer_rust_than_we_state() {
    let metadata = metadata();
    let stated: BTreeMap<(&str, String), &Version> = metadata
        .packages
        .iter()
        .filter_map(|package| {
            Some(((package.name.as_str(), package.version.to_string()), package.rust_version.as_ref()?))
        })
        .collect();
    let ours =
        published(&metadata).map(|package| package.rust_version.clone().expect("stated")).max().unwrap();
    let mut too_new = BTreeSet::new();
    for features in FEATURE_SETS {
        let tree = ["tree", "--locked", "--offline", "--prefix=none", "--edges=normal,build", "-p=klamm"];
        let tree = cargo(&[&tree, *features].concat());
        let mut seen = 0;
        for line in tree.lines() {
            let mut words = line.split(' ');
            let (Some(name), Some(version)) = (words.next(), words.next()) else { continue };
            seen += 1;
            let asked = stated.get(&(name, version.trim_start_matches('v').to_owned()));
            if let Some(asked) = asked.filter(|asked| ***asked > ours) {
                too_new.insert(format!("{name} {version} needs Rust {asked} (klamm with {features:?})"));
            }
        }
        assert!(seen > 20, "klamm with {features:?} has only {seen} dependencies?");
    }
    assert!(too_new.is_empty(), "we state {ours}:\n{}", Vec::from_iter(too_new).join("\n"));
}

#[test]
fn a_surprise_in_a_package_is_found() {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let sources = set(&["src/lib.rs", "src/a.rs"]);
    let right = &set(BESIDE_SOURCES) | &sources;
    assert!(surprises(&right, &sources).is_empty());
    assert_eq!(
        surprises(&(&right | &set(&["tests/golden.bin"])), &sources),
        ["tests/golden.bin does not belong there"]
    );
    assert_eq!(surprises(&(&right - &set(&["LICENSE-MIT"])), &sources), ["LICENSE-MIT is missing"]);
    assert_eq!(surprises(&(&right - &set(&["src/a.rs"])), &sources), ["src/a.rs is missing"]);
}

/// What is in a package and should not be, and the other way round.
fn surprises(listed: &BTreeSet<String>, sources: &BTreeSet<String>) -> Vec<String> {
    let expected: BTreeSet<String> =
        BESIDE_SOURCES.iter().map(|name| (*name).to_owned()).chain(sources.iter().cloned()).collect();
    let too_much = listed.difference(&expected).map(|name| format!("{name} does not belong there"));
    let missing = expected.difference(listed).filter(|name| *name != ".cargo_vcs_info.json");
    too_much.chain(missing.map(|name| format!("{name} is missing"))).collect()
}

/// The Rust files below `folder`, and the pages and templates beside them, as paths from `root`.
fn sources(root: &Path, folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(root, &path));
        } else if path
            .extension()
            .is_some_and(|extension| ["rs", "md", "in"].iter().any(|one| extension == *one))
        {
            found.insert(path.strip_prefix(root).unwrap().display().to_string());
        }
    }
    found
}

/// The packages that are not marked `publish = false`.
fn published(metadata: &Metadata) -> impl Iterator<Item = &Package> {
    let packages = metadata.workspace_packages().into_iter();
    packages.filter(|package| package.publish.as_ref().is_none_or(|registries| !registries.is_empty()))
}

fn folder(package: &Package) -> &Path {
    package.manifest_path.parent().expect("a manifest lies in a folder").as_std_path()
}

/// Of this platform only: nothing has downloaded the crates of others.
fn metadata() -> Metadata {
    let version = run("rustc", &["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
    let options = ["--offline", "--locked", "--all-features", "--filter-platform", host];
    MetadataCommand::new()
        .manifest_path(repository().join("Cargo.toml"))
        .other_options(options.map(str::to_owned).to_vec())
        .exec()
        .expect("cargo metadata")
}

/// Not the folder of the build that runs this test, so that neither waits for the other.
fn target() -> std::path::PathBuf {
    let test = std::env::current_exe().unwrap();
    // .../<target>/<profile>/deps/it-<hash>
    test.ancestors().nth(3).unwrap().join("packaging")
}

fn cargo(arguments: &[&str]) -> String {
    run(env!("CARGO"), arguments)
}

fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(repository()).env("CARGO_TARGET_DIR", target());
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}:\n{said}", arguments.join(" "));
    String::from_utf8(output.stdout).unwrap()
}
