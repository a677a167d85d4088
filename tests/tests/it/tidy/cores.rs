//! The pure cores that ARCHITECTURE.md names: each file is there and holds nothing that waits, reads a clock or does
//! I/O.

use std::path::Path;

use klamm_tests::repository;

/// What no core has outside of its tests. Types of time are free: a core is told the time.
const IMPURE: &[&str] = &[
    "async fn",
    "async move",
    ".await",
    "Instant::now",
    "SystemTime",
    "sleep(",
    "spawn(",
    "std::fs",
    "std::net",
    "tokio::net",
    "tokio::fs",
    "mpsc",
];

#[test]
fn the_cores_of_the_map_are_there_and_pure() {
    let map = std::fs::read_to_string(repository().join("ARCHITECTURE.md")).expect("the map");
    let files = core_files(&map);
    assert!(files.len() > 10, "ARCHITECTURE.md has no table of pure cores any more");
    let mut wrong = Vec::new();
    for file in files {
        let texts = read(&repository().join(&file));
        if texts.is_empty() {
            wrong.push(format!("{file}: ARCHITECTURE.md calls it a core, and it is not there"));
        }
        wrong.extend(texts.iter().flat_map(|text| impurities(&file, text)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The second column of the table "Pure cores".
fn core_files(map: &str) -> Vec<String> {
    let section = map.split("\n## ").find(|section| section.starts_with("Pure cores")).unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let files = rows.filter_map(|row| row.split('|').nth(2));
    files.flat_map(|files| files.split(',')).map(|file| file.trim().trim_matches('`').to_owned()).collect()
}

/// The file, or with `*.rs` at the end all of its folder.
fn read(path: &Path) -> Vec<String> {
    let files = match path.ends_with("*.rs") {
        true => path.parent().map(super::rust_files).unwrap_or_default(),
        false => vec![path.to_owned()],
    };
    files.into_iter().filter_map(|file| std::fs::read_to_string(file).ok()).collect()
}

fn impurities(file: &str, text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = (1..).zip(code.lines()).filter(|(_, line)| !line.trim_start().starts_with("//"));
    let found =
        lines.filter_map(|(number, line)| Some((number, IMPURE.iter().find(|word| line.contains(**word))?)));
    found.map(|(number, word)| format!("{file}:{number}: `{word}` has no place in a pure core")).collect()
}

#[test]
fn an_impure_core_is_found() {
    let table = "| core | files |\n|---|---|\n| `a` | `a.rs`, `b/*.rs` | `--lib` |\n";
    let map = &format!("# Map\n\n## Pure cores\n\n{table}\n## More\n| `c` | `c.rs` |\n");
    assert_eq!(core_files(map), ["a.rs", "b/*.rs"]);
    assert_eq!(core_files("## Other\n"), [""; 0]);
    let tests = "#[cfg(test)]\nmod tests { async fn f() {} }\n";
    let pure = &format!("use tokio::time::Instant;\n// never .await\nfn f(now: Instant) {{}}\n{tests}");
    assert_eq!(impurities("a.rs", pure), [""; 0]);
    let impure = "fn f() {\n    let now = Instant::now();\n}\n";
    assert_eq!(impurities("a.rs", impure), ["a.rs:2: `Instant::now` has no place in a pure core"]);
}
