//! `llms.txt`, the guide's table of contents for programs that read it for people, is as the guide is. `KLAMM_UPDATE=1`
//! writes it anew.

use std::fmt::Write as _;
use std::path::Path;

const FILE: &str = "llms.txt";
const HEAD: &str = "# Klamm

> Event streaming for Rust in one crate and one binary: listeners (async functions that consume Kafka topics), \
streams (a typed DSL with state), and a Kafka client and broker. The guide's programs are compiled and run by tests. \
What is not there is listed, never discovered.
";
/// What belongs to the guide and is not in its folder.
const BESIDE: &str = "
## Looking up

- [Examples](examples/src/bin): one program per task, each run by a test
- [What is not there](skipped-features.md): by part
- [Changes](CHANGELOG.md): for users
- [Architecture](ARCHITECTURE.md): the map, for who changes Klamm
";

#[test]
#[allow(clippy::disallowed_methods)] // The files of the repository are what is tested.
fn the_guide_for_programs_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut pages = Vec::new();
    for entry in std::fs::read_dir(root.join("docs")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with(".md") && name != "README.md" {
            pages.push((name, std::fs::read_to_string(path).unwrap()));
        }
    }
    pages.sort();
    let wanted = contents(&pages);
    let there = std::fs::read_to_string(root.join(FILE)).unwrap_or_default();
    if wanted == there {
        return;
    }
    let updates = std::env::var_os("KLAMM_UPDATE").is_some();
    assert!(updates, "{FILE} is not what the guide has: rewrite it with KLAMM_UPDATE=1");
    std::fs::write(root.join(FILE), wanted).unwrap();
}

/// The file: the tutorial's pages, which are numbered, and then the others.
fn contents(pages: &[(String, String)]) -> String {
    let mut text = HEAD.to_owned();
    let is_step = |name: &str| name.starts_with(|letter: char| letter.is_ascii_digit());
    for (heading, steps) in [("Tutorial", true), ("Guide", false)] {
        write!(text, "\n## {heading}\n\n").unwrap();
        for (name, page) in pages.iter().filter(|(name, _)| is_step(name) == steps) {
            writeln!(text, "- [{}](docs/{name}): {}", title(page), sections(page).join("; ")).unwrap();
        }
    }
    text + BESIDE
}

fn title(page: &str) -> &str {
    page.lines().find_map(|line| line.strip_prefix("# ")).expect("a page has a title")
}

/// What the page's sections are called; of one without sections, how it begins.
fn sections(page: &str) -> Vec<String> {
    let mut is_code = false;
    let mut found = Vec::new();
    for line in page.lines() {
        is_code ^= line.starts_with("```");
        if let Some(heading) = line.strip_prefix("## ").filter(|_| !is_code) {
            found.push(heading.to_owned());
        }
    }
    if found.is_empty() {
        let first = page.lines().find(|line| line.starts_with(|letter: char| letter.is_alphanumeric()));
        found.extend(first.and_then(|line| line.split(". ").next()).map(str::to_owned));
    }
    found
}

#[test]
fn sections_are_found_outside_of_code() {
    let page = "# Title\n\nIt begins.\n\n```sh\n## no section\n```\n\n## One\n\n## `Two`\n";
    assert_eq!((title(page), sections(page)), ("Title", vec!["One".to_owned(), "`Two`".to_owned()]));
    assert_eq!(sections("# Title\n\n```sh\n# code\n```\n\nIt begins.\nIt goes on.\n"), ["It begins."]);
}
