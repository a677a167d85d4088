//! Which messages a `.proto` file declares, and where: all that the wire format of a registry needs of it. Pure.

/// How deep declarations may be nested.
const DEPTH_MAX: usize = 64;

/// The messages of a file, in order, each with its full name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProtoFile {
    messages: Vec<(Vec<usize>, String)>,
}

/// What an open brace began.
enum Open {
    Message { place: Vec<usize>, name: String, nested: usize },
    Other,
}

impl ProtoFile {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let words = words(text)?;
        let (mut messages, mut open, mut package, mut top_level) = (Vec::new(), Vec::new(), "", 0);
        // A statement begins after one of these.
        let mut begins = true;
        for (at, word) in words.iter().enumerate() {
            let next = |ahead: usize| words.get(at + ahead).copied().unwrap_or_default();
            match *word {
                "package" if begins && open.is_empty() => package = next(1),
                "message" if begins && next(2) == "{" => {
                    let name = next(1);
                    let (place, name) = match open.last_mut() {
                        None => {
                            top_level += 1;
                            (vec![top_level - 1], qualified(package, name))
                        }
                        Some(Open::Message { place, name: outer, nested }) => {
                            *nested += 1;
                            ([place.as_slice(), &[*nested - 1]].concat(), qualified(outer, name))
                        }
                        Some(Open::Other) => {
                            return Err(format!("the message `{name}` is at no place for one"));
                        }
                    };
                    messages.push((place.clone(), name.clone()));
                    open.push(Open::Message { place, name, nested: 0 });
                }
                // The brace of a message was taken with its name.
                "{" if at >= 2 && words[at - 2] == "message" && begins_at(&words, at - 2) => {}
                "{" => open.push(Open::Other),
                "}" => {
                    open.pop().ok_or("a brace is closed that was not opened")?;
                }
                _ => {}
            }
            if open.len() > DEPTH_MAX {
                return Err(format!("it is nested deeper than {DEPTH_MAX} levels"));
            }
            begins = ends_statement(word);
        }
        match open.is_empty() {
            true => Ok(Self { messages }),
            false => Err("a brace is not closed".to_owned()),
        }
    }

    /// The place and the full name of the message that is called `name`, with its package or without.
    pub(super) fn find(&self, name: &str) -> Result<(Vec<usize>, String), String> {
        let found = self.messages.iter().find(|(_, full)| is_called(full, name));
        found.cloned().ok_or_else(|| {
            let there: Vec<_> = self.messages.iter().map(|(_, name)| name.as_str()).collect();
            format!(
                "the `.proto` file has no message `{name}`; it has {there:?} (setting `message = \"...\"`)"
            )
        })
    }

    /// The full name of the message at a place.
    #[cfg(feature = "schema-registry")]
    pub(super) fn at(&self, place: &[usize]) -> Option<&str> {
        self.messages.iter().find(|(found, _)| found == place).map(|(_, name)| name.as_str())
    }
}

/// Whether a message of the full name can be called `name`.
pub(super) fn is_called(full: &str, name: &str) -> bool {
    full == name || full.strip_suffix(name).is_some_and(|outer| outer.ends_with('.'))
}

fn qualified(outer: &str, name: &str) -> String {
    if outer.is_empty() { name.to_owned() } else { format!("{outer}.{name}") }
}

fn ends_statement(word: &str) -> bool {
    matches!(word, ";" | "{" | "}")
}

fn begins_at(words: &[&str], at: usize) -> bool {
    at.checked_sub(1).is_none_or(|before| words.get(before).is_some_and(|word| ends_statement(word)))
}

/// Names, braces and semicolons; other signs each for itself, comments and texts left out.
fn words(text: &str) -> Result<Vec<&str>, String> {
    let (mut words, mut rest) = (Vec::new(), text);
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else { return Ok(words) };
        if rest.starts_with("//") {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
        } else if rest.starts_with("/*") {
            rest = rest.split_once("*/").ok_or("a comment does not end")?.1;
        } else if first == '"' || first == '\'' {
            rest = after_text(&rest[1..], first)?;
            words.push("\"\"");
        } else {
            let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
            let end = match rest.find(|c| !is_name(c)) {
                Some(0) => first.len_utf8(),
                Some(end) => end,
                None => rest.len(),
            };
            words.push(&rest[..end]);
            rest = &rest[end..];
        }
    }
}

fn after_text(text: &str, quote: char) -> Result<&str, String> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Ok(&text[at + c.len_utf8()..]),
            _ => {}
        }
    }
    Err("a text does not end".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        syntax = "proto3"; // message Not { }
        package shop.v1;
        /* message Nor { */
        import "other.proto";
        option java_package = "message {";
        message Customer { string message = 1; }
        enum Colour { RED = 0; }
        message Order {
            option (x) = { a: 1 };
            enum State { NEW = 0; }
            message Line { uint32 count = 1; message Note { string text = 1; } }
            oneof kind { Line one = 1; string two = 2 [json_name = "}"]; }
            message Address {}
            repeated Line lines = 3;
        }
        service Orders { rpc Get (Order) returns (Order) { option deprecated = true; } }
        message Last {}
    "#;

    #[test]
    fn messages_have_places() {
        let file = ProtoFile::parse(FILE).unwrap();
        let all: Vec<_> = file.messages.iter().map(|(place, name)| (&place[..], name.as_str())).collect();
        assert_eq!(
            all,
            [
                (&[0][..], "shop.v1.Customer"),
                (&[1], "shop.v1.Order"),
                (&[1, 0], "shop.v1.Order.Line"),
                (&[1, 0, 0], "shop.v1.Order.Line.Note"),
                (&[1, 1], "shop.v1.Order.Address"),
                (&[2], "shop.v1.Last"),
            ]
        );
        assert_eq!(file.find("Order").unwrap().0, [1]);
        assert_eq!(file.find("Order.Line").unwrap().0, [1, 0]);
        assert_eq!(file.find("shop.v1.Last").unwrap().0, [2]);
        let said = file.find("rder").unwrap_err();
        assert!(said.contains("no message `rder`") && said.contains("shop.v1.Order"), "{said}");
    }

    #[test]
    fn any_text_is_taken() {
        for text in [
            "",
            "message",
            "message A",
            "message A {",
            "}",
            "/*",
            "\"",
            "\"\\",
            "message { message {",
            "ä{ö}",
        ] {
            let _ = ProtoFile::parse(text);
        }
        assert!(ProtoFile::parse(&"message A {".repeat(100_000)).unwrap_err().contains("deeper"));
        assert!(ProtoFile::parse("enum E { message M {} }").is_err());
    }
}
