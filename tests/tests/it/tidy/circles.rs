//! What uses each other cannot be read, tested or moved alone: folders never do, files only in twos.

use std::collections::{BTreeMap, BTreeSet};

use super::accepted::{FILE_CIRCLES, FOLDER_CIRCLES, FileCircle, FolderCircle};
use super::crates::metadata;
use super::imports::{Graph, Use, folder};
use super::rust_files;

#[test]
fn no_two_folders_of_a_crate_use_each_other() {
    let wrong: Vec<String> =
        graphs().iter().flat_map(|(name, graph)| folder_faults(name, graph, FOLDER_CIRCLES)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_three_files_use_one_another_in_a_circle() {
    let wrong: Vec<String> =
        graphs().iter().flat_map(|(name, graph)| file_faults(name, graph, FILE_CIRCLES)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_lists_of_circles_name_crates_and_reasons() {
    let crates: BTreeSet<String> = graphs().into_iter().map(|(name, _)| name).collect();
    let listed = FOLDER_CIRCLES.iter().map(|entry| (entry.0, entry.3));
    for (name, reason) in listed.chain(FILE_CIRCLES.iter().map(|entry| (entry.0, entry.2))) {
        assert!(crates.contains(name), "{name} is listed and is no crate");
        assert!(reason.len() > 20, "an entry of {name} has no reason");
    }
}

/// Circles of folders that are not listed, and listed ones that are gone.
fn folder_faults(name: &str, graph: &Graph, listed: &[FolderCircle]) -> Vec<String> {
    let mut open: Vec<&FolderCircle> = listed.iter().filter(|entry| entry.0 == name).collect();
    let mut wrong = Vec::new();
    for (there, back) in graph.folder_circles() {
        let (a, b) = (folder(&there.from), folder(&there.to));
        match open.iter().position(|entry| (entry.1, entry.2) == (a, b)) {
            Some(at) => drop(open.remove(at)),
            None => wrong.push(format!("{name}: `{a}` and `{b}` use each other:\n    {there}\n    {back}")),
        }
    }
    wrong.extend(open.iter().map(|(_, a, b, _)| {
        format!("{name}: `{a}` and `{b}` do not use each other any more: take them off FOLDER_CIRCLES")
    }));
    wrong
}

/// Circles of files that are not listed in just this size, with the use lines inside.
fn file_faults(name: &str, graph: &Graph, listed: &[FileCircle]) -> Vec<String> {
    let mut open: Vec<BTreeSet<&str>> = listed
        .iter()
        .filter(|entry| entry.0 == name)
        .map(|entry| entry.1.iter().copied().collect())
        .collect();
    let mut wrong = Vec::new();
    for circle in graph.file_circles() {
        let files: BTreeSet<&str> = circle.iter().map(String::as_str).collect();
        // A listed circle may only shrink.
        let at = open.iter().position(|entry| files.is_subset(entry));
        let entry = at.map(|at| open.remove(at));
        let shown = files.iter().copied().collect::<Vec<_>>().join(", ");
        match entry {
            Some(entry) if entry == files => {}
            Some(_) => {
                wrong.push(format!("{name}: a circle shrank to {shown}: shorten its entry in FILE_CIRCLES"));
            }
            None => {
                let inside = |found: &&Use| circle.contains(&found.from) && circle.contains(&found.to);
                let uses: BTreeMap<_, _> =
                    graph.uses.iter().filter(inside).map(|found| ((&found.from, &found.to), found)).collect();
                let uses: String = uses.values().map(|found| format!("\n    {found}")).collect();
                wrong.push(format!("{name}: a circle of {} files, {shown}:{uses}", files.len()));
            }
        }
    }
    let gone = open.into_iter().map(|entry| entry.into_iter().collect::<Vec<_>>().join(", "));
    wrong.extend(
        gone.map(|files| format!("{name}: {files} are no circle any more: take them off FILE_CIRCLES")),
    );
    wrong
}

/// The crates of the workspace, by name, each read from its root file.
fn graphs() -> Vec<(String, Graph)> {
    let metadata = metadata();
    let read = |package: &cargo_metadata::Package| {
        let folder = package.manifest_path.with_file_name("src").into_std_path_buf();
        let files = if folder.is_dir() { rust_files(&folder) } else { Vec::new() };
        let texts: BTreeMap<String, String> = files
            .into_iter()
            .map(|file| {
                let path = file.strip_prefix(&folder).expect("below src").display().to_string();
                (path, std::fs::read_to_string(&file).expect("a source file is text"))
            })
            .collect();
        let root = if texts.contains_key("lib.rs") { "lib.rs" } else { "main.rs" };
        (package.name.to_string(), Graph::read(root, &texts))
    };
    metadata.workspace_packages().into_iter().map(read).collect()
}

#[test]
fn planted_circles_are_found() {
    let texts = [
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::B;\npub struct A;"),
        ("b.rs", "use crate::c::C;\npub struct B;"),
        ("c.rs", "use crate::a::A;\nuse crate::b::B;\npub struct C;"),
    ];
    let graph = Graph::read("lib.rs", &texts.map(|(path, text)| (path.to_owned(), text.to_owned())).into());

    let found = folder_faults("x", &graph, &[]);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].contains("b.rs:1: crate::c::C leads to c.rs") && found[0].contains("c.rs:2: crate::b::B")
    );
    assert_eq!(folder_faults("x", &graph, &[("x", "b", "c", "why"), ("y", "a", "b", "why")]), [""; 0]);
    assert!(
        folder_faults("x", &graph, &[("x", "b", "c", "why"), ("x", "a", "b", "why")])[0]
            .contains("take them off")
    );

    let found = file_faults("x", &graph, &[]);
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("a circle of 3 files, a.rs, b.rs, c.rs"));
    assert_eq!(file_faults("x", &graph, &[("x", &["a.rs", "b.rs", "c.rs"], "why")]), [""; 0]);
    let shrunk = file_faults("x", &graph, &[("x", &["a.rs", "b.rs", "c.rs", "d.rs"], "why")]);
    assert!(shrunk[0].contains("shrank to a.rs, b.rs, c.rs"));
    let gone = file_faults("x", &graph, &[("x", &["a.rs", "b.rs", "c.rs"], "why"), ("x", &["d.rs"], "why")]);
    assert!(gone[0].contains("take them off FILE_CIRCLES"));
}
