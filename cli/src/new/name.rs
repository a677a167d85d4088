//! What a crate may be called, as cargo has it. Pure.

/// Names that a crate cannot have: it could not be named in Rust, or it would hide what the new crate needs.
const TAKEN: &[&str] = &[
    "as",
    "async",
    "await",
    "break",
    "const",
    "continue",
    "crate",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "match",
    "mod",
    "move",
    "mut",
    "pub",
    "ref",
    "return",
    "self",
    "Self",
    "static",
    "struct",
    "super",
    "trait",
    "true",
    "type",
    "unsafe",
    "use",
    "where",
    "while",
    "_",
    "test",
    "core",
    "std",
    "alloc",
    "proc_macro",
    "build",
    "deps",
    "examples",
    "incremental",
    "klamm",
    "tokio",
    "tracing_subscriber",
    "tracing-subscriber",
];

/// # Errors
/// What is wrong with it.
pub(super) fn check(name: &str) -> Result<(), String> {
    let begins = |first: char| first.is_ascii_alphabetic() || first == '_';
    let may_have = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    if name.is_empty() {
        return Err("the folder has no name that a crate could have".to_owned());
    }
    if TAKEN.contains(&name) {
        return Err(format!("a crate cannot be called `{name}`: the name is taken"));
    }
    if !name.starts_with(begins) || !name.chars().all(may_have) {
        return Err(format!(
            "a crate cannot be called `{name}`: letters, digits, `-` and `_`, and a letter or `_` first"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn names_are_those_of_crates() {
        for name in ["shop", "shop-2", "_shop", "Shop_a"] {
            check(name).unwrap();
        }
        for (name, why) in [
            ("", "no name"),
            ("2shop", "a letter"),
            ("a b", "letters"),
            ("fn", "taken"),
            ("klamm", "taken"),
            ("ä", "letters"),
        ] {
            let fault = check(name).unwrap_err();
            assert!(fault.contains(why), "{name}: {fault}");
        }
    }
}
