//! The shape of the repository, checked: each file here is a family of rules over text, with a test that plants faults.

mod accepted;
mod circles;
mod cores;
mod crates;
mod files;
mod functions;
mod imports;
mod tokens;

use std::path::{Path, PathBuf};

use klamm_tests::repository;

/// A Rust file, by its path from the repository's root.
struct Source {
    path: String,
    text: String,
}

/// Every Rust file of the repository, build output left out, ordered by path.
fn sources() -> Vec<Source> {
    let root = repository();
    let read = |file: PathBuf| Source {
        path: file.strip_prefix(&root).unwrap_or(&file).display().to_string(),
        text: std::fs::read_to_string(&file).expect("a source file is text"),
    };
    rust_files(&root).into_iter().map(read).collect()
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
    found.sort();
    found
}
