//! A source file as tokens, so that no rule falls for what stands in a comment or a string: its modules, its paths and
//! its functions.

use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};

/// What the rules want to know of one file. Items under `#[cfg(test)]` are left out, but for the functions.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// `mod name;`, with the file that a `#[path]` names.
    pub(super) modules: Vec<(String, Option<String>)>,
    /// Names that the file itself defines at its top level.
    pub(super) items: Vec<String>,
    /// Every path that begins at `crate`, `self`, `super` or at a bare name, in `use` lines and in code.
    pub(super) paths: Vec<FoundPath>,
    pub(super) functions: Vec<Function>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundPath {
    pub(super) line: usize,
    /// The inline modules around it.
    pub(super) inside: Vec<String>,
    /// The last one is `*` for a glob.
    pub(super) segments: Vec<String>,
    pub(super) kind: PathKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PathKind {
    /// Stands in code.
    Code,
    /// Brings a name into the module; `public` ones also hand it on.
    Use { name: String, public: bool },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    /// Where the word `fn` stands.
    pub(super) line: usize,
    /// From there to the closing brace.
    pub(super) lines: usize,
}

/// Takes a file apart; `None` when it is no Rust.
pub(super) fn parse(text: &str) -> Option<Parsed> {
    let tokens = trees(text.parse().ok()?);
    let mut walker = Walker { inside: Vec::new(), out: Parsed::default() };
    walker.walk(&tokens, true, false);
    Some(walker.out)
}

struct Walker {
    /// The inline modules that are open.
    inside: Vec<String>,
    out: Parsed,
}

impl Walker {
    /// Goes through one level of nesting and what is below. `top` is the file's own level; `test` what only tests see.
    fn walk(&mut self, tokens: &[TokenTree], top: bool, test: bool) {
        let mut at = 0;
        let mut file = None;
        let mut public = false;
        while at < tokens.len() {
            let was_public = std::mem::take(&mut public);
            at = match &tokens[at] {
                TokenTree::Punct(hash) if hash.as_char() == '#' && group(tokens, at + 1).is_some() => {
                    let attribute = tokens[at + 1].to_string().replace(' ', "");
                    if let Some(named) = attribute.strip_prefix("[path=\"") {
                        file = Some(named.trim_end_matches("\"]").to_owned());
                    }
                    if attribute == "[cfg(test)]" {
                        let end = end_of_item(tokens, at + 2);
                        self.walk(&tokens[at + 2..end], false, true);
                        end
                    } else {
                        at + 2
                    }
                }
                TokenTree::Ident(word) if word == "pub" => {
                    public = true;
                    let restricted =
                        group(tokens, at + 1).is_some_and(|g| g.delimiter() == Delimiter::Parenthesis);
                    at + 1 + usize::from(restricted)
                }
                TokenTree::Ident(word) if word == "mod" && name(tokens, at + 1).is_some() => {
                    self.module(tokens, at, file.take(), test)
                }
                TokenTree::Ident(word) if word == "use" && !test => self.use_line(tokens, at, was_public),
                TokenTree::Ident(word) if word == "fn" && name(tokens, at + 1).is_some() => {
                    self.function(tokens, at, top)
                }
                TokenTree::Ident(word) if top && DEFINES.iter().any(|defines| word == defines) => {
                    self.out.items.extend(name(tokens, at + 1));
                    at + 1
                }
                TokenTree::Ident(_) if path_begins(tokens, at) && !test => self.code_path(tokens, at),
                TokenTree::Group(group) => {
                    self.walk(&trees(group.stream()), false, test);
                    at + 1
                }
                _ => at + 1,
            };
        }
    }

    fn module(&mut self, tokens: &[TokenTree], at: usize, file: Option<String>, test: bool) -> usize {
        let named = name(tokens, at + 1).unwrap_or_default();
        if let Some(body) = group(tokens, at + 2) {
            self.inside.push(named);
            self.walk(&trees(body.stream()), false, test);
            self.inside.pop();
        } else if !test {
            self.out.modules.push((named, file));
        }
        at + 3
    }

    fn use_line(&mut self, tokens: &[TokenTree], at: usize, public: bool) -> usize {
        let end = (at..tokens.len()).find(|at| punct(tokens, *at, ';')).unwrap_or(tokens.len());
        let mut leaves = Vec::new();
        use_tree(&tokens[at + 1..end], &[], &mut leaves);
        self.out.paths.extend(leaves.into_iter().map(|(line, segments, name)| {
            let kind = PathKind::Use { name, public };
            FoundPath { line, inside: self.inside.clone(), segments, kind }
        }));
        end + 1
    }

    /// Notes a function's length; what is in it is looked at as it comes.
    fn function(&mut self, tokens: &[TokenTree], at: usize, top: bool) -> usize {
        let named = name(tokens, at + 1).unwrap_or_default();
        if top {
            self.out.items.push(named.clone());
        }
        if let Some(body) = group(tokens, end_of_item(tokens, at) - 1) {
            let line = tokens[at].span().start().line;
            let lines = body.span_close().end().line + 1 - line;
            self.out.functions.push(Function { name: named, line, lines });
        }
        at + 2
    }

    fn code_path(&mut self, tokens: &[TokenTree], mut at: usize) -> usize {
        let line = tokens[at].span().start().line;
        let mut segments = vec![tokens[at].to_string()];
        at += 1;
        while punct(tokens, at, ':') && punct(tokens, at + 1, ':') {
            let Some(next) = name(tokens, at + 2) else { break };
            segments.push(next);
            at += 3;
        }
        if segments.len() > 1 {
            self.out.paths.push(FoundPath {
                line,
                inside: self.inside.clone(),
                segments,
                kind: PathKind::Code,
            });
        }
        at
    }
}

const DEFINES: &[&str] = &["struct", "enum", "union", "trait", "type", "const", "static", "macro_rules"];

/// The leaves of what stands between `use` and `;`: line, whole path, and the name that it brings.
fn use_tree(tokens: &[TokenTree], before: &[String], out: &mut Vec<(usize, Vec<String>, String)>) {
    let mut path = before.to_vec();
    let mut line = 0;
    let mut renamed = None;
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(word) if word == "as" => {
                renamed = name(tokens, at + 1);
                at += 1;
            }
            TokenTree::Ident(word) => {
                line = word.span().start().line;
                path.push(word.to_string());
            }
            TokenTree::Punct(star) if star.as_char() == '*' => path.push("*".to_owned()),
            TokenTree::Group(group) => {
                for branch in trees(group.stream())
                    .split(|tree| matches!(tree, TokenTree::Punct(p) if p.as_char() == ','))
                {
                    if !branch.is_empty() {
                        use_tree(branch, &path, out);
                    }
                }
                return;
            }
            _ => {}
        }
        at += 1;
    }
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    if let Some(last) = path.last().cloned() {
        out.push((line, path, renamed.unwrap_or(last)));
    }
}

/// Whether a path begins here and not in the middle of another, at a field, or after the `$` of a macro.
fn path_begins(tokens: &[TokenTree], at: usize) -> bool {
    let after = at.checked_sub(1).map(|before| &tokens[before]);
    let free = match after {
        Some(TokenTree::Punct(punct)) => {
            !matches!(punct.as_char(), ':' | '.' | '$') || single_colon(tokens, at)
        }
        _ => true,
    };
    free && punct(tokens, at + 1, ':') && punct(tokens, at + 2, ':')
}

/// Whether the colon before a token is that of a type (`a: T`) and not the end of `::`.
fn single_colon(tokens: &[TokenTree], at: usize) -> bool {
    punct(tokens, at - 1, ':')
        && !(at >= 2
            && matches!(&tokens[at - 2], TokenTree::Punct(p) if p.as_char() == ':' && p.spacing() == Spacing::Joint))
}

/// One past the `;` or the braces that end the item which begins at `at`.
fn end_of_item(tokens: &[TokenTree], at: usize) -> usize {
    let ends = |tree: &TokenTree| match tree {
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        _ => false,
    };
    (at..tokens.len()).find(|at| ends(&tokens[*at])).map_or(tokens.len(), |end| end + 1)
}

fn punct(tokens: &[TokenTree], at: usize, wanted: char) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

fn name(tokens: &[TokenTree], at: usize) -> Option<String> {
    match tokens.get(at) {
        Some(TokenTree::Ident(word)) => Some(word.to_string()),
        // `macro_rules! name`
        Some(TokenTree::Punct(punct)) if punct.as_char() == '!' => name(tokens, at + 1),
        _ => None,
    }
}

fn group(tokens: &[TokenTree], at: usize) -> Option<&Group> {
    match tokens.get(at) {
        Some(TokenTree::Group(group)) => Some(group),
        _ => None,
    }
}

fn trees(stream: TokenStream) -> Vec<TokenTree> {
    stream.into_iter().collect()
}

#[test]
fn paths_are_found_in_use_lines_and_in_code() {
    let parsed = parse(concat!(
        "//! crate::not::this\n",
        "use crate::a::{b, c::{self, D as E}, f::*};\n",
        "pub(crate) use self::g::H;\n",
        "fn f(x: super::i::J) { k::l(); \"crate::nor::this\"; x.m::<N>(); m!(crate::o::P) }\n",
        "mod inline { use super::Q; }\n",
        "#[cfg(test)] mod tests { use crate::left::out; fn long() {\n\n} }\n",
    ))
    .unwrap();
    let shown: Vec<String> = parsed
        .paths
        .iter()
        .map(|path| format!("{}:{}{}", path.line, path.inside.join("/"), path.segments.join("::")))
        .collect();
    let expected = [
        "2:crate::a::b",
        "2:crate::a::c",
        "2:crate::a::c::D",
        "2:crate::a::f::*",
        "3:self::g::H",
        "4:super::i::J",
        "4:k::l",
        "4:crate::o::P",
        "5:inlinesuper::Q",
    ];
    assert_eq!(shown, expected);
    assert_eq!(parsed.paths[2].kind, PathKind::Use { name: "E".into(), public: false });
    assert_eq!(parsed.paths[4].kind, PathKind::Use { name: "H".into(), public: true });
    assert_eq!(parsed.items, ["f"]);
    let long = Function { name: "long".into(), line: 6, lines: 3 };
    assert_eq!(parsed.functions.last(), Some(&long));
}

#[test]
fn modules_may_name_their_file() {
    let parsed =
        parse("#[path = \"00_produce.rs\"]\nmod produce;\nmod call;\n#[cfg(test)]\nmod tests;\n").unwrap();
    assert_eq!(parsed.modules, [("produce".into(), Some("00_produce.rs".into())), ("call".into(), None)]);
}
