//! Each source file by itself: how long it is, that it says its job, that nothing in it is a stub, and how wide it is.

use super::accepted::FILE_LINES_P90;
use super::{Source, sources};

/// No file is longer than this, tests included.
const FILE_LINES_MAX: usize = 1_000;
/// No line is wider than this, whatever it is made of.
const LINE_CHARS_MAX: usize = 120;
/// The length of files is looked at in steps, so that not every new line changes a number.
const P90_STEP: usize = 10;

#[test]
fn every_source_file_is_short_and_says_its_job() {
    let wrong: Vec<String> = sources().iter().flat_map(faults).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn lines_are_at_most_120_wide() {
    let wrong = wide_lines(&sources());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nine_of_ten_files_do_not_grow() {
    let sources = sources();
    let tests: Vec<String> = sources.iter().flat_map(test_modules).collect();
    let counted = sources.iter().filter(|source| !tests.iter().any(|test| source.path.starts_with(test)));
    let lengths = counted.map(|source| lines_before_tests(&source.text)).collect();
    if let Some(wrong) = against_p90(lengths, FILE_LINES_P90) {
        panic!("{wrong}");
    }
}

/// What is wrong with one source file, in the words a contributor should read.
fn faults(Source { path, text }: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        faults.push(format!("{path}: {lines} lines, more than {FILE_LINES_MAX}: split it by job"));
    }
    // Programs that must not compile are about one line; what they are for is in their name.
    if !path.contains("/ui/") && !text.starts_with("//!") && !text.starts_with("#!") {
        faults.push(format!("{path}: the first line must be a //! comment that says the file's job"));
    }
    if text.contains(concat!("todo", "!(")) || text.contains(concat!("unimplemented", "!(")) {
        faults.push(format!(
            "{path}: a stub; leave the feature out and list it in skipped-features.md instead"
        ));
    }
    faults
}

/// Lines that are too wide, by file and number.
fn wide_lines(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for Source { path, text } in sources {
        for (number, line) in (1..).zip(text.lines()) {
            let width = line.chars().count();
            if width > LINE_CHARS_MAX {
                wrong.push(format!("{path}:{number}: {width} wide, more than {LINE_CHARS_MAX}"));
            }
        }
    }
    wrong
}

/// How long a file is without its unit tests, so that no test is left out for the sake of a number.
fn lines_before_tests(text: &str) -> usize {
    text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default().lines().count()
}

/// Where the modules are that a source declares as unit tests, and that are in no program: a file, or a folder.
fn test_modules(Source { path, text }: &Source) -> Vec<String> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let base = match name {
        "mod.rs" | "lib.rs" | "main.rs" => folder.to_owned(),
        other => format!("{folder}/{}", other.trim_end_matches(".rs")),
    };
    let declared = text.split("#[cfg(test)]\nmod ").skip(1).filter_map(|rest| rest.split_once(';'));
    let names =
        declared.map(|(name, _)| name).filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_'));
    names.flat_map(|name| [format!("{base}/{name}.rs"), format!("{base}/{name}/")]).collect()
}

fn against_p90(mut lengths: Vec<usize>, accepted: usize) -> Option<String> {
    lengths.sort_unstable();
    let p90 = *lengths.get(lengths.len() * 9 / 10)?;
    let step = p90.next_multiple_of(P90_STEP);
    let figures = format!("a tenth of the files is longer than {p90} lines; FILE_LINES_P90 is {accepted}");
    match step.cmp(&accepted) {
        std::cmp::Ordering::Greater => Some(format!("{figures}: split a long file by job")),
        std::cmp::Ordering::Less => Some(format!("{figures}: it got better, lower it to {step}")),
        std::cmp::Ordering::Equal => None,
    }
}

#[test]
fn planted_faults_of_a_file_are_found() {
    let count = |text: &str| faults(&Source { path: "a.rs".into(), text: text.into() }).len();
    assert_eq!(count("//! A job.\n"), 0);
    assert_eq!(count("fn f() {}\n"), 1);
    assert_eq!(count(&format!("//! A job.\n{}", "\n".repeat(FILE_LINES_MAX))), 1);
    assert_eq!(count(concat!("//! A job.\nfn f() { todo", "!() }\n")), 1);
}

#[test]
fn a_planted_wide_line_is_found() {
    // Characters count, not bytes.
    let widest = "ü".repeat(LINE_CHARS_MAX);
    let file = |path: &str, text: String| Source { path: path.into(), text };
    let sources = [file("a.rs", widest.clone()), file("b/c.rs", format!("//! B.\n{widest}."))];
    assert_eq!(wide_lines(&sources), ["b/c.rs:2: 121 wide, more than 120"]);
}

#[test]
fn the_p90_only_shrinks() {
    assert_eq!(lines_before_tests("//! A.\nfn f() {}\n\n#[cfg(test)]\nmod tests {\n}\n"), 2);
    let lengths = |long| (0..20).map(|at| if at < 17 { 100 } else { long }).collect::<Vec<_>>();
    assert_eq!(against_p90(lengths(195), 200), None);
    assert!(against_p90(lengths(201), 200).unwrap().contains("split a long file"));
    assert!(against_p90(lengths(190), 200).unwrap().contains("lower it to 190"));
}
