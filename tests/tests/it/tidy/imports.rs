//! Which file of a crate uses which: its modules, and where each path leads, through re-exports to what defines it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::tokens::{FoundPath, Parsed, PathKind, parse};

/// The files of one crate and who uses whom.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) uses: Vec<Use>,
}

/// A path in one file that leads to another of the same crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) from: String,
    pub(super) line: usize,
    pub(super) path: String,
    pub(super) to: String,
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {} leads to {}", self.from, self.line, self.path, self.to)
    }
}

/// A module path from the crate's root, which is the empty one.
type Module = Vec<String>;

struct Crate {
    files: BTreeMap<Module, (String, Parsed)>,
}

/// How many re-exports are followed before a path is given up.
const HOPS_MAX: usize = 16;

impl Graph {
    /// Reads a crate from its root file (`lib.rs`); `sources` are the texts by their path below `src`.
    pub(super) fn read(root: &str, sources: &BTreeMap<String, String>) -> Self {
        let mut files = BTreeMap::new();
        add_module(&mut files, Vec::new(), root, "", sources);
        let all = Crate { files };
        let mut uses = Vec::new();
        for (module, (from, parsed)) in &all.files {
            for path in &parsed.paths {
                let Some(target) = all.absolute(module, path).and_then(|path| all.definer(path)) else {
                    continue;
                };
                let hands_on =
                    matches!(path.kind, PathKind::Use { public: true, .. }) && target.starts_with(module);
                let to = &all.files[&target].0;
                if to != from && !hands_on {
                    let (line, path) = (path.line, path.segments.join("::"));
                    uses.push(Use { from: from.clone(), line, path, to: to.clone() });
                }
            }
        }
        Self { uses }
    }

    /// Pairs of top-level modules that use each other, each with one path of either direction. The root file is the
    /// crate's face and stands above all of them.
    pub(super) fn folder_circles(&self) -> Vec<(Use, Use)> {
        let mut first: BTreeMap<(&str, &str), &Use> = BTreeMap::new();
        for found in &self.uses {
            let (from, to) = (folder(&found.from), folder(&found.to));
            if from != to && !is_root(&found.from) && !is_root(&found.to) {
                first.entry((from, to)).or_insert(found);
            }
        }
        let back = |from, to| first.get(&(to, from)).copied();
        first
            .iter()
            .filter(|((from, to), _)| from < to)
            .filter_map(|((from, to), there)| Some(((*there).clone(), back(*from, *to)?.clone())))
            .collect()
    }

    /// Files that reach one another, in groups of three or more; two that know each other are no matter.
    pub(super) fn file_circles(&self) -> Vec<BTreeSet<String>> {
        let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for found in self.uses.iter().filter(|found| !is_root(&found.from) && !is_root(&found.to)) {
            next.entry(&found.from).or_default().insert(&found.to);
        }
        let reached = |start: &str| {
            let mut seen = BTreeSet::new();
            let mut open: Vec<&str> = next.get(start).into_iter().flatten().copied().collect();
            while let Some(file) = open.pop() {
                if seen.insert(file) {
                    open.extend(next.get(file).into_iter().flatten());
                }
            }
            seen
        };
        let reach: BTreeMap<&str, BTreeSet<&str>> = next.keys().map(|file| (*file, reached(file))).collect();
        let mut circles = BTreeSet::new();
        for (file, reached) in reach.iter().filter(|(file, reached)| reached.contains(*file)) {
            let back = |other: &&&str| reach.get(**other).is_some_and(|reached| reached.contains(file));
            let circle: BTreeSet<String> =
                reached.iter().filter(back).map(|file| (*file).to_owned()).collect();
            if circle.len() > 2 {
                circles.insert(circle);
            }
        }
        circles.into_iter().collect()
    }
}

impl Crate {
    /// A path as it stands, from the crate's root; `None` for another crate's.
    fn absolute(&self, module: &Module, path: &FoundPath) -> Option<Vec<String>> {
        let mut at: Module = module.iter().chain(&path.inside).cloned().collect();
        let mut rest = &path.segments[..];
        match rest.first()?.as_str() {
            "crate" => at.clear(),
            "self" => {}
            "super" => {
                at.pop();
            }
            child => {
                let mut below = at.clone();
                below.push(child.to_owned());
                if !self.files.contains_key(&below) {
                    return None;
                }
                at = below;
            }
        }
        rest = &rest[1..];
        while rest.first().is_some_and(|word| word == "super") {
            at.pop();
            rest = &rest[1..];
        }
        at.extend(rest.iter().cloned());
        Some(at)
    }

    /// The module in which the thing at an absolute path is defined.
    fn definer(&self, mut path: Vec<String>) -> Option<Module> {
        for _ in 0..HOPS_MAX {
            let known = (0..=path.len()).rev().find(|length| self.files.contains_key(&path[..*length]))?;
            let (module, rest) = (path[..known].to_vec(), path[known..].to_vec());
            match rest.first().and_then(|name| self.handed_on(&module, name)) {
                Some(next) => path = next.into_iter().chain(rest[1..].iter().cloned()).collect(),
                None => return Some(module),
            }
        }
        None
    }

    /// Where a name of a module comes from, if the module does not define it but uses it from elsewhere in the crate.
    fn handed_on(&self, module: &Module, name: &str) -> Option<Vec<String>> {
        let (_, parsed) = &self.files[module];
        if parsed.items.iter().any(|item| item == name) {
            return None;
        }
        let uses = || parsed.paths.iter().filter(|path| path.inside.is_empty());
        let named =
            uses().find(|path| matches!(&path.kind, PathKind::Use { name: brought, .. } if brought == name));
        if let Some(path) = named {
            return self.absolute(module, path);
        }
        uses().filter(|path| matches!(&path.kind, PathKind::Use { name, .. } if name == "*")).find_map(
            |path| {
                let mut from = self.absolute(module, path)?;
                from.pop();
                let (_, parsed) = self.files.get(&from)?;
                parsed.items.iter().any(|item| item == name).then(|| {
                    from.push(name.to_owned());
                    from
                })
            },
        )
    }
}

/// Reads a module and those below it. `folder` is where its children lie.
fn add_module(
    files: &mut BTreeMap<Module, (String, Parsed)>,
    module: Module,
    file: &str,
    folder: &str,
    sources: &BTreeMap<String, String>,
) {
    let Some(parsed) = sources.get(file).and_then(|text| parse(text)) else { return };
    for (name, named_file) in &parsed.modules {
        let below = format!("{folder}{name}/");
        let candidates = match named_file {
            Some(named) => vec![format!("{folder}{named}")],
            None => vec![format!("{folder}{name}.rs"), format!("{below}mod.rs")],
        };
        if let Some(child) = candidates.into_iter().find(|child| sources.contains_key(child)) {
            let path = module.iter().chain([name]).cloned().collect();
            add_module(files, path, &child, &below, sources);
        }
    }
    files.insert(module, (file.to_owned(), parsed));
}

/// The top-level module that a file belongs to.
pub(super) fn folder(file: &str) -> &str {
    file.split('/').next().unwrap_or(file).trim_end_matches(".rs")
}

fn is_root(file: &str) -> bool {
    matches!(file, "lib.rs" | "main.rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(files: &[(&str, &str)]) -> Graph {
        Graph::read("lib.rs", &files.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect())
    }

    fn shown(graph: &Graph) -> Vec<String> {
        graph.uses.iter().map(|found| format!("{} -> {}", found.from, found.to)).collect()
    }

    #[test]
    fn paths_lead_to_files() {
        let graph = graph(&[
            ("lib.rs", "mod a; mod b; #[path = \"7_c.rs\"] mod c; #[cfg(test)] mod tests;"),
            ("a/mod.rs", "mod x; mod y; fn f() { x::g(); other_crate::h(); }"),
            ("a/x.rs", "use super::y::Y; pub fn g() {}"),
            ("a/y.rs", "use std::fmt; pub struct Y; fn f() -> crate::c::C { super::super::b::B }"),
            ("b.rs", "pub struct B; #[cfg(test)] mod tests { use crate::a::x; }"),
            ("7_c.rs", "pub struct C; mod inner { use super::super::b::B; use super::C; }"),
            ("tests.rs", "use crate::a;"),
        ]);
        let expected = [
            "a/mod.rs -> a/x.rs",
            "a/x.rs -> a/y.rs",
            "a/y.rs -> 7_c.rs",
            "a/y.rs -> b.rs",
            "7_c.rs -> b.rs",
        ];
        assert_eq!(shown(&graph), expected);
    }

    /// A face hands on the names of its folder. That alone makes it no part of a circle, and who takes a name from the
    /// face uses the file behind it.
    #[test]
    fn re_exports_are_followed() {
        let graph = graph(&[
            ("lib.rs", "mod a; mod b;"),
            ("a/mod.rs", "mod x; mod y; pub use x::X; pub(crate) use y::*;"),
            ("a/x.rs", "use super::Y; pub struct X;"),
            ("a/y.rs", "pub struct Y;"),
            ("b.rs", "use crate::a::{X, Y as Z};"),
        ]);
        assert_eq!(shown(&graph), ["a/x.rs -> a/y.rs", "b.rs -> a/x.rs", "b.rs -> a/y.rs"]);
        assert!(graph.file_circles().is_empty());
    }

    #[test]
    fn two_folders_that_use_each_other_are_found() {
        let graph = graph(&[
            ("lib.rs", "mod a; mod b; mod c; pub use a::A;"),
            ("a/mod.rs", "mod x; pub use x::A;"),
            ("a/x.rs", "use crate::b;\n\npub struct A;\nfn f() { b::f(); }"),
            ("b.rs", "use crate::c::f;\n\nuse crate::A;"),
            ("c.rs", "pub fn f() {}"),
        ]);
        let circles = graph.folder_circles();
        assert_eq!(circles.len(), 1);
        let (there, back) = &circles[0];
        assert_eq!((there.from.as_str(), there.line, there.path.as_str()), ("a/x.rs", 1, "crate::b"));
        assert_eq!((back.from.as_str(), back.line, back.path.as_str()), ("b.rs", 3, "crate::A"));
    }

    #[test]
    fn three_files_in_a_circle_are_found_and_two_are_not() {
        let mut files = vec![
            ("lib.rs", "mod a; mod b; mod c; mod d; mod e;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "use crate::c::C; pub struct B;"),
            ("c.rs", "use crate::a::A; pub struct C;"),
            ("d.rs", "use crate::e::E; use crate::a::A; pub struct D;"),
            ("e.rs", "use crate::d::D; pub struct E;"),
        ];
        let circle: BTreeSet<String> = ["a.rs", "b.rs", "c.rs"].map(String::from).into();
        assert_eq!(graph(&files).file_circles(), [circle]);
        files[3].1 = "pub struct C;";
        assert!(graph(&files).file_circles().is_empty());
    }
}
