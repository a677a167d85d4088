//! Reads the `key=value` lines of a properties file, as Kafka's tools take them.

/// The settings of `text` in order, a later one of the same key last. Comments begin with `#` or `!`; a `\` at a line's end goes on
/// with the next line.
///
/// # Errors
/// With the number and the text of a line that is no setting.
pub(crate) fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut settings = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let mut line = line.trim().to_owned();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        while line.ends_with('\\') {
            line.pop();
            match lines.next() {
                Some((_, next)) => line.push_str(next.trim()),
                None => break,
            }
        }
        let Some((key, value)) = line.split_once(['=', ':']) else {
            return Err(format!("line {}: not key=value: {line:?}", index + 1));
        };
        settings.push((key.trim().to_owned(), value.trim().to_owned()));
    }
    Ok(settings)
}

/// Reads a `key=value` argument.
///
/// # Errors
/// When there is no `=` or no key.
pub(crate) fn key_value(argument: &str) -> Result<(String, String), String> {
    match argument.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err("it must be key=value".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_blanks_and_continued_lines() {
        let text = "# a comment\n\n client.id = me \n! another\nbootstrap.servers=a:1,\\\n  b:2\nempty=\n";
        let expected = [("client.id", "me"), ("bootstrap.servers", "a:1,b:2"), ("empty", "")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn a_line_that_is_no_setting_is_named() {
        assert_eq!(parse("a=b\nnonsense\n"), Err("line 2: not key=value: \"nonsense\"".to_owned()));
    }

    #[test]
    fn arguments_split_at_the_first_equals_sign() {
        assert_eq!(key_value("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(key_value("a="), Ok(("a".to_owned(), String::new())));
        assert!(key_value("=b").is_err());
        assert!(key_value("ab").is_err());
    }
}
