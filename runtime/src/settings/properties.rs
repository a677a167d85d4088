//! The `.properties` format: `key=value` lines, comments, continued lines, escapes.

use std::str::Chars;

/// The pairs of a properties text, in order. A later pair of the same key is meant to win.
///
/// As Java reads it: `#` and `!` begin comments, `=`, `:` or blanks end a key, a `\` at the end of a line
/// continues it, and `\t`, `\n`, `\r`, `\f` and `\uXXXX` are escapes. No text is an error: what is not an
/// assignment is a key with an empty value.
pub fn parse_properties(text: &str) -> Vec<(String, String)> {
    logical_lines(text).iter().map(|line| split(line)).collect()
}

/// Joins continued lines and drops comments and empty ones.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut begun: Option<String> = None;
    // Between the two characters of one end there is an empty line, which must not end a line that is continued.
    for line in text.replace("\r\n", "\n").split(['\n', '\r']) {
        let line = line.trim_start();
        if begun.is_none() && (line.is_empty() || line.starts_with(['#', '!'])) {
            continue;
        }
        let mut whole = begun.take().unwrap_or_default();
        // An even number of backslashes at the end is that many escaped backslashes, not a continuation.
        let backslashes = line.len() - line.trim_end_matches('\\').len();
        if backslashes % 2 == 1 {
            whole.push_str(&line[..line.len() - 1]);
            begun = Some(whole);
        } else {
            whole.push_str(line);
            lines.push(whole);
        }
    }
    lines.extend(begun);
    lines
}

fn split(line: &str) -> (String, String) {
    let mut escaped = false;
    let key_end = line.find(|c: char| {
        let ends = !escaped && (c == '=' || c == ':' || c.is_whitespace());
        escaped = !escaped && c == '\\';
        ends
    });
    let (key, rest) = line.split_at(key_end.unwrap_or(line.len()));
    let rest = rest.trim_start();
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start();
    (unescape(key), unescape(value.trim_end()))
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => plain.push('\t'),
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('f') => plain.push('\u{c}'),
            Some('u') => plain.push(unicode(&mut chars)),
            Some(other) => plain.push(other),
            None => {}
        }
    }
    plain
}

/// The character of an escape, behind its `\u`. One beyond the first plane has two of them.
fn unicode(chars: &mut Chars<'_>) -> char {
    let unit = |chars: &mut Chars<'_>| {
        let digits: String = chars.take(4).collect();
        let whole = digits.len() == 4 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        u16::from_str_radix(&digits, 16).ok().filter(|_| whole)
    };
    let first = unit(chars);
    let mut ahead = chars.clone();
    let second = match (ahead.next(), ahead.next()) {
        (Some('\\'), Some('u')) => unit(&mut ahead),
        _ => None,
    };
    let mut decoded = char::decode_utf16(first.into_iter().chain(second));
    let Some(Ok(character)) = decoded.next() else { return char::REPLACEMENT_CHARACTER };
    if character.len_utf16() == 2 {
        *chars = ahead;
    }
    character
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let pairs = parse_properties(text);
        let pairs: Vec<(&str, &str)> =
            pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(pairs, expected, "{text:?}");
    }

    #[test]
    fn what_java_reads() {
        check("a=1\nb = 2 \n c:3\nd 4\ne", &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("e", "")]);
        check("# comment\n! too\n\n   \na=1 # not a comment", &[("a", "1 # not a comment")]);
        check("a=1,\\\n   2,\\\n   3\nb=x", &[("a", "1,2,3"), ("b", "x")]);
        check("a=C:\\\\dir\\\\\nb=2", &[("a", "C:\\dir\\"), ("b", "2")]);
        check("a\\=b=c\\u00e4\\t", &[("a=b", "cä\t")]);
        check("a=1\r\nb=2\r\n", &[("a", "1"), ("b", "2")]);
        check("a=1\\", &[("a", "1")]);
    }

    /// Java's own `Properties.store` writes characters beyond the first plane so.
    #[test]
    fn characters_of_two_escapes() {
        check("a=x\\ud83d\\ude00y", &[("a", "x\u{1f600}y")]);
        check("a=\\ude00\\ud83d.\\u+041", &[("a", "\u{fffd}\u{fffd}.\u{fffd}")]);
        check("a=\\ud83d\\u0041\\ud83d", &[("a", "\u{fffd}A\u{fffd}")]);
    }

    #[test]
    fn lines_may_end_in_a_carriage_return_alone() {
        check("a=1\rb=2\r\n\rc=3\\\r  4\rd=5\\\r\n 6", &[("a", "1"), ("b", "2"), ("c", "34"), ("d", "56")]);
    }
}
