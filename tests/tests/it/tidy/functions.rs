//! How long a function may be: 70 lines, and the ones that are longer may only shrink.

use super::accepted::{LONG_FUNCTIONS, LongFunction};
use super::tokens::parse;
use super::{Source, sources};

/// From the word `fn` to the closing brace.
const FUNCTION_LINES_MAX: usize = 70;

#[test]
fn functions_are_short_or_shrink() {
    let wrong = long_functions(&sources(), LONG_FUNCTIONS);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Functions that are too long and not listed, longer than listed, or listed with more lines than they have by now.
fn long_functions(sources: &[Source], listed: &[LongFunction]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut found: Vec<LongFunction> = Vec::new();
    for Source { path, text } in sources {
        let Some(parsed) = parse(text) else {
            wrong.push(format!("{path}: is no Rust"));
            continue;
        };
        for function in parsed.functions {
            let (name, line, lines) = (function.name.as_str(), function.line, function.lines);
            let entry = listed.iter().find(|(file, listed, _)| file == path && *listed == name);
            let at = format!("{path}:{line}: `{name}` has {lines} lines");
            match entry {
                None if lines > FUNCTION_LINES_MAX => {
                    wrong.push(format!("{at}, more than {FUNCTION_LINES_MAX}: make functions of its parts"));
                }
                Some((.., before)) if lines > *before => {
                    wrong.push(format!("{at} and had {before}: LONG_FUNCTIONS only shrinks"));
                }
                Some(entry @ (.., before)) if lines == *before => found.push(*entry),
                _ => {}
            }
        }
    }
    for entry @ (path, name, lines) in listed.iter().filter(|entry| !found.contains(entry)) {
        let longest =
            sources.iter().filter(|source| source.path == *path).flat_map(|source| parse(&source.text));
        let longest =
            longest.flat_map(|parsed| parsed.functions).filter(|f| f.name == *name).map(|f| f.lines).max();
        wrong.push(match longest {
            Some(now) if now > entry.2 => continue,
            Some(now) if now > FUNCTION_LINES_MAX => {
                format!("{path}: `{name}` shrank to {now} lines: lower its {lines} in LONG_FUNCTIONS")
            }
            _ => format!("{path}: `{name}` is not too long any more: take it off LONG_FUNCTIONS"),
        });
    }
    wrong
}

#[test]
fn a_planted_long_function_is_found() {
    let source = |lines: usize| {
        let text = format!("fn short() {{}}\nimpl A {{\n    fn long() {{{}}}\n}}\n", "\n".repeat(lines - 1));
        [Source { path: "a.rs".into(), text }]
    };
    assert_eq!(long_functions(&source(70), &[]), [""; 0]);
    assert!(long_functions(&source(71), &[])[0].starts_with("a.rs:3: `long` has 71 lines, more than 70"));
    assert_eq!(long_functions(&source(71), &[("a.rs", "long", 71)]), [""; 0]);
    assert!(long_functions(&source(73), &[("a.rs", "long", 72)])[0].contains("has 73 lines and had 72"));
    assert!(long_functions(&source(71), &[("a.rs", "long", 72)])[0].contains("shrank to 71 lines"));
    assert!(long_functions(&source(70), &[("a.rs", "long", 72)])[0].contains("take it off"));
    assert!(long_functions(&source(70), &[("b.rs", "gone", 72)])[0].contains("take it off"));
    assert_eq!(long_functions(&source(73), &[("a.rs", "long", 72)]).len(), 1);
    assert_eq!(
        long_functions(&[Source { path: "a.rs".into(), text: "}".into() }], &[]),
        ["a.rs: is no Rust"]
    );
}
