//! `scripts/rocksdb` compiles RocksDB as the crate's own build script would: the same version, defines and flags.
//!
//! The script holds a copy of what the crate's `build.rs` decides for Linux. Here that file is read as tokens, its
//! conditions are answered for a target, and what it would hand to the compiler is compared with the script's list.

use std::collections::BTreeSet;
use std::process::Command;

use cargo_metadata::{Metadata, MetadataCommand, Package};
use klamm_tests::repository;
use proc_macro2::{Delimiter, TokenStream, TokenTree};

const CRATE: &str = "librocksdb-sys";

/// What the script adds: the `cc` crate does so too (optimisation, position-independent code, a section for each
/// function), or it does not matter to the code (`-w`, in place of the crate's choice of warnings).
const ADDED: &[&str] = &["-O2", "-fPIC", "-ffunction-sections", "-fdata-sections", "-w"];

/// The architectures that the script knows, with the names by which rustc calls the instructions that it asks for.
const TARGETS: &[(&str, &[&str])] = &[("x86_64", &["sse4.2", "pclmulqdq"]), ("aarch64", &["crc", "aes"])];

#[test]
fn the_script_was_checked_against_the_locked_version() {
    let script = std::fs::read_to_string(repository().join("scripts/rocksdb")).unwrap();
    let lock = std::fs::read_to_string(repository().join("Cargo.lock")).unwrap();
    assert_eq!(disagreement(&script, &lock), None);

    let newer = lock
        .replace(&format!("name = \"{CRATE}\"\nversion = \""), &format!("name = \"{CRATE}\"\nversion = \"9"));
    assert!(disagreement(&script, &newer).is_some_and(|text| text.contains("build script")));
}

#[test]
fn the_script_compiles_with_the_flags_of_the_crate() {
    let (build_script, features) = the_crate();
    for (architecture, instructions) in TARGETS {
        let target = Target { architecture, instructions, features: &features };
        let crates = target.flags(&build_script).expect("a build script that this test understands");
        let faults = differences(&crates, &script_flags(&[architecture]));
        assert!(faults.is_empty(), "{architecture}:\n{}", faults.join("\n"));
    }
    // This machine has these instructions or fewer; everything else is the same.
    let host = script_flags(&[]);
    let all = script_flags(&[std::env::consts::ARCH]);
    let fewer: Vec<_> = all.symmetric_difference(&host).collect();
    assert!(fewer.iter().all(|flag| flag.starts_with("-m") && all.contains(*flag)), "{fewer:?}");
}

#[test]
fn a_change_of_the_build_script_is_noticed() {
    let (build_script, features) = the_crate();
    let target = Target { architecture: "x86_64", instructions: TARGETS[0].1, features: &features };
    let faults = |from: &str, to: &str| {
        assert!(build_script.contains(from), "there is no {from} to change");
        match target.flags(&build_script.replace(from, to)) {
            Ok(flags) => differences(&flags, &script_flags(&["x86_64"])),
            Err(unknown) => vec![unknown],
        }
    };
    let linux = "config.define(\"OS_LINUX\", None);";
    assert_eq!(faults(linux, linux), [""; 0]);
    assert_eq!(faults(linux, &format!("{linux} config.define(\"NEW\", Some(\"2\"));")), ["missing: -DNEW=2"]);
    assert_eq!(faults(linux, ""), ["not of the crate: -DOS_LINUX"]);
    assert_eq!(faults("config.include(\".\");", "config.flag(\"-fno-rtti\");"), ["missing: -fno-rtti"]);
    assert_eq!(
        faults("-std=c++20\".to_owned()", "-std=c++23\".to_owned()"),
        ["missing: -std=c++23", "not of the crate: -std=c++20"]
    );
    assert_eq!(faults("config.flag_if_supported(\"-mpclmul\");", ""), ["not of the crate: -mpclmul"]);
    assert_eq!(
        faults("target.contains(\"linux\")", "is_linux()"),
        ["a condition that this test cannot answer: is_linux()"]
    );
    assert_eq!(
        faults(linux, "config.define(NAME, None);"),
        ["a value that this test cannot read: NAME,None"]
    );
}

#[test]
fn a_feature_that_is_switched_on_is_noticed() {
    let (build_script, mut features) = the_crate();
    features.insert("snappy".to_owned());
    let target = Target { architecture: "x86_64", instructions: TARGETS[0].1, features: &features };
    let crates = target.flags(&build_script).unwrap();
    assert_eq!(differences(&crates, &script_flags(&["x86_64"])), ["missing: -DSNAPPY=1"]);
}

/// What is wrong when the script was written for another version of the crate than the locked one.
fn disagreement(script: &str, lock: &str) -> Option<String> {
    let after = |text: &str, start: &str, end: char| {
        let rest = &text[text.find(start).unwrap_or_else(|| panic!("no {start}")) + start.len()..];
        rest[..rest.find(end).expect("an end")].to_owned()
    };
    let checked = after(script, "\nchecked_version=", '\n');
    let locked = after(lock, &format!("name = \"{CRATE}\"\nversion = \""), '"');
    (checked != locked).then(|| {
        format!(
            "{CRATE} is {locked}, scripts/rocksdb was checked against {checked}: compare the build script and its list \
             of sources, then set checked_version"
        )
    })
}

/// The build script of the locked crate, and the features that the workspace switches on.
fn the_crate() -> (String, BTreeSet<String>) {
    let metadata = metadata();
    let package: &Package =
        metadata.packages.iter().find(|package| package.name.as_str() == CRATE).expect("RocksDB is locked");
    let resolve = metadata.resolve.as_ref().expect("dependencies");
    let node = resolve.nodes.iter().find(|node| node.id == package.id).expect("a resolved crate");
    let build_script = package.manifest_path.with_file_name("build.rs");
    let text = std::fs::read_to_string(build_script).expect("its sources are where cargo says");
    (text, node.features.iter().map(ToString::to_string).collect())
}

/// Of this platform alone: the crates of others were never downloaded.
fn metadata() -> Metadata {
    let rustc = Command::new("rustc").arg("-vV").output().expect("rustc runs");
    let rustc = String::from_utf8(rustc.stdout).unwrap();
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
    let options = ["--locked", "--offline", "--all-features", "--filter-platform", host];
    MetadataCommand::new()
        .manifest_path(repository().join("Cargo.toml"))
        .other_options(options.map(str::to_owned))
        .exec()
        .expect("cargo metadata")
}

fn script_flags(arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(repository().join("scripts/rocksdb")).arg("--flags").args(arguments).output();
    let output = output.expect("bash runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn differences(crates: &BTreeSet<String>, script: &BTreeSet<String>) -> Vec<String> {
    let missing = crates.difference(script).filter(|flag| !flag.starts_with("-W"));
    let surplus = script.difference(crates).filter(|flag| !ADDED.contains(&flag.as_str()));
    missing
        .map(|flag| format!("missing: {flag}"))
        .chain(surplus.map(|flag| format!("not of the crate: {flag}")))
        .collect()
}

/// What a build script may ask about.
struct Target<'a> {
    architecture: &'a str,
    instructions: &'a [&'a str],
    features: &'a BTreeSet<String>,
}

impl Target<'_> {
    /// What `build_rocksdb` hands to the compiler, or what of it this test does not understand.
    fn flags(&self, build_script: &str) -> Result<BTreeSet<String>, String> {
        let tokens: TokenStream = build_script.parse().map_err(|error| format!("no Rust: {error}"))?;
        let mut flags = BTreeSet::new();
        self.walk(body(tokens.clone(), "build_rocksdb")?, &mut flags)?;
        if flags.remove("cxx_standard()") {
            // Its first literal with a `-` is the default.
            let standard = body(tokens, "cxx_standard")?.to_string();
            let start = standard.find("\"-").ok_or("cxx_standard has no default")? + 1;
            flags.insert(standard[start..].split('"').next().unwrap_or_default().to_owned());
        }
        Ok(flags)
    }

    fn walk(&self, tokens: TokenStream, flags: &mut BTreeSet<String>) -> Result<(), String> {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at..] {
                [TokenTree::Punct(hash), TokenTree::Group(attribute), ..] if hash.as_char() == '#' => {
                    at += 2;
                    let text = squeezed(&attribute.stream());
                    let feature =
                        text.strip_prefix("cfg(feature=\"").and_then(|rest| rest.strip_suffix("\")"));
                    let feature = feature
                        .ok_or_else(|| format!("an attribute that this test cannot answer: {text}"))?;
                    if !self.features.contains(feature) {
                        at += statement(&tokens[at..]);
                    }
                }
                [TokenTree::Ident(word), ..] if word == "if" => at = self.branches(&tokens, at, flags)?,
                [TokenTree::Punct(dot), TokenTree::Ident(method), TokenTree::Group(arguments), ..]
                    if dot.as_char() == '.' =>
                {
                    flags.extend(flag(&method.to_string(), &arguments.stream())?);
                    at += 3;
                }
                [TokenTree::Group(block), ..] if block.delimiter() == Delimiter::Brace => {
                    self.walk(block.stream(), flags)?;
                    at += 1;
                }
                _ => at += 1,
            }
        }
        Ok(())
    }

    /// Follows `if … {…} else if … {…} else {…}` from the `if` on; gives where it ends.
    fn branches(
        &self,
        tokens: &[TokenTree],
        from: usize,
        flags: &mut BTreeSet<String>,
    ) -> Result<usize, String> {
        let (mut at, mut taken) = (from, false);
        loop {
            let block = (at..tokens.len()).find_map(|place| match &tokens[place] {
                TokenTree::Group(block) if block.delimiter() == Delimiter::Brace => Some((place, block)),
                _ => None,
            });
            let (place, block) = block.ok_or("an `if` without a block")?;
            let condition = squeezed(&tokens[at..place].iter().cloned().collect());
            let condition = condition.strip_prefix("if").unwrap_or(&condition);
            if !taken && (condition.is_empty() || self.answer(condition, block.stream())?) {
                taken = true;
                self.walk(block.stream(), flags)?;
            }
            at = place + 1;
            match tokens.get(at) {
                Some(TokenTree::Ident(word)) if word == "else" => at += 1,
                _ => return Ok(at),
            }
        }
    }

    fn answer(&self, condition: &str, block: TokenStream) -> Result<bool, String> {
        let mut all = true;
        for part in condition.split("&&") {
            match self.answer_one(part) {
                Some(true) => {}
                Some(false) => return Ok(false),
                None => all = false,
            }
        }
        // Without calls of the compiler's configuration, the answer is of no interest.
        if !all
            && [". define", ". flag", ".define", ".flag"].iter().any(|call| block.to_string().contains(call))
        {
            return Err(format!("a condition that this test cannot answer: {condition}"));
        }
        Ok(all)
    }

    fn answer_one(&self, part: &str) -> Option<bool> {
        if let Some(part) = part.strip_prefix('!') {
            return self.answer_one(part).map(|answer| !answer);
        }
        let inside = |start: &str, end: &str| part.strip_prefix(start)?.strip_suffix(end);
        let triple = format!("{}-unknown-linux-gnu", self.architecture);
        if let Some(feature) = inside("cfg!(feature=\"", "\")") {
            return Some(self.features.contains(feature));
        }
        if let Some(piece) = inside("target.contains(\"", "\")") {
            return Some(triple.contains(piece));
        }
        if let Some(instruction) = inside("target_features.contains(&\"", "\")") {
            return Some(self.instructions.contains(&instruction));
        }
        if let Some(architecture) = inside("target_arch==\"", "\"") {
            return Some(self.architecture == architecture);
        }
        if let Some(target) = inside("&target==\"", "\"") {
            return Some(triple == target);
        }
        if let Some(target) = inside("&target!=\"", "\"") {
            return Some(triple != target);
        }
        match part {
            "env::var(\"CARGO_CFG_TARGET_POINTER_WIDTH\").unwrap()!=\"64\"" => Some(false),
            // Nobody names a processor: scripts/rocksdb does not either.
            "parse_rust_target_cpu().is_none()" => Some(true),
            _ => None,
        }
    }
}

/// The flag that a call of `cc::Build` adds, if it adds one.
fn flag(method: &str, arguments: &TokenStream) -> Result<Option<String>, String> {
    let text = squeezed(arguments);
    let unreadable = || format!("a value that this test cannot read: {text}");
    let literal = |text: &str| {
        let text = text.strip_prefix('"')?.strip_suffix('"')?;
        (!text.contains('"')).then(|| text.to_owned())
    };
    match method {
        "define" => {
            let (name, value) = text.split_once(',').ok_or_else(unreadable)?;
            let name = literal(name).ok_or_else(unreadable)?;
            if value == "None" {
                return Ok(Some(format!("-D{name}")));
            }
            let value = value.strip_prefix("Some(").and_then(|value| literal(value.strip_suffix(')')?));
            Ok(Some(format!("-D{name}={}", value.ok_or_else(unreadable)?)))
        }
        "flag" | "flag_if_supported" if text == "cxx_standard()" => Ok(Some(text)),
        "flag" | "flag_if_supported" => literal(&text).map(Some).ok_or_else(unreadable),
        _ => Ok(None),
    }
}

/// The length of the statement at the start of `tokens`: up to a block that nothing continues, or a semicolon.
fn statement(tokens: &[TokenTree]) -> usize {
    let ends = |at: &usize| match &tokens[*at] {
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Group(block) if block.delimiter() == Delimiter::Brace => {
            !matches!(tokens.get(at + 1), Some(TokenTree::Ident(word)) if word == "else")
        }
        _ => false,
    };
    (0..tokens.len()).find(ends).map_or(tokens.len(), |at| at + 1)
}

/// The block of a function.
fn body(tokens: TokenStream, name: &str) -> Result<TokenStream, String> {
    let mut tokens = tokens.into_iter().skip_while(|token| token.to_string() != name);
    let block = tokens.find_map(|token| match token {
        TokenTree::Group(block) if block.delimiter() == Delimiter::Brace => Some(block.stream()),
        _ => None,
    });
    block.ok_or_else(|| format!("there is no function {name}"))
}

/// Tokens as text without spaces.
fn squeezed(tokens: &TokenStream) -> String {
    tokens.to_string().chars().filter(|letter| !letter.is_whitespace()).collect()
}
