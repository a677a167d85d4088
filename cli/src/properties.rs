//! `key=value` settings, as arguments and in files.

use std::path::Path;

use klamm_broker::config::parse_properties;
use klamm_runtime::read_text_file;

use crate::error::CliError;

/// The settings of the file that `option` names, a later one of the same key last.
pub(crate) async fn read_file(option: &str, path: &Path) -> Result<Vec<(String, String)>, CliError> {
    Ok(parse_properties(&read_lines(option, path).await?))
}

/// The text of the file that `option` names.
pub(crate) async fn read_lines(option: &str, path: &Path) -> Result<String, CliError> {
    let text = read_text_file(path).await;
    text.map_err(|error| CliError::usage(format!("cannot read {option} {}: {error}", path.display())))
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
    fn arguments_split_at_the_first_equals_sign() {
        assert_eq!(key_value("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(key_value("a="), Ok(("a".to_owned(), String::new())));
        assert!(key_value("=b").is_err());
        assert!(key_value("ab").is_err());
    }

    #[tokio::test]
    async fn a_missing_file_is_wrong_usage_and_named() {
        let error = read_file("--config", Path::new("/nowhere/at.all")).await.unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--config /nowhere/at.all"), "{error}");
    }
}
