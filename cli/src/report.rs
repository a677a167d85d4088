//! What became of each of several things: told one by one, counted for the exit code.

use std::collections::HashMap;
use std::hash::Hash;

use klamm_client::AdminError;
use serde_json::{Map, Value};

use crate::error::CliError;
use crate::output::{self, OutputFormat};

/// One of the things that a command was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject<K> {
    pub(crate) key: K,
    /// `topic`, `group` and so on: also its key in JSON.
    pub(crate) kind: &'static str,
    pub(crate) name: String,
}

/// Tells what became of each, in the order they were named. `done` is the word for what was to be done.
pub(crate) fn per_item<K: Eq + Hash>(
    done: &str,
    results: HashMap<K, Result<(), AdminError>>,
    subjects: &[Subject<K>],
    format: OutputFormat,
) -> Result<(), CliError> {
    let told = tell(done, results, subjects);
    told.notes.iter().for_each(|note| output::note(note));
    if format == OutputFormat::Json {
        output::json(&Value::Array(told.documents))?;
    }
    match told.failed {
        0 => Ok(()),
        failed => Err(CliError::Some { failed, of: told.of }),
    }
}

#[derive(Debug, Default)]
struct Told {
    notes: Vec<String>,
    documents: Vec<Value>,
    failed: usize,
    of: usize,
}

fn tell<K: Eq + Hash>(
    done: &str,
    mut results: HashMap<K, Result<(), AdminError>>,
    subjects: &[Subject<K>],
) -> Told {
    let mut told = Told::default();
    for Subject { key, kind, name } in subjects {
        // Without one it was named twice, and is told already.
        let Some(result) = results.remove(key) else { continue };
        told.of += 1;
        let mut document = Map::new();
        document.insert((*kind).to_owned(), Value::from(name.as_str()));
        document.insert(done.to_owned(), Value::Bool(result.is_ok()));
        match result {
            Ok(()) => told.notes.push(format!("{done} {kind} {name}")),
            Err(error) => {
                told.failed += 1;
                let error = CliError::about(kind, name, &error).to_string();
                document.insert("error".to_owned(), Value::from(error.as_str()));
                told.notes.push(error);
            }
        }
        told.documents.push(Value::Object(document));
    }
    told
}

#[cfg(test)]
mod tests {
    use klamm_client::ErrorCode;

    use super::*;

    #[test]
    fn each_is_told_once_and_in_the_order_of_the_command_line() {
        let refused = AdminError::Broker {
            what: "b".into(),
            code: ErrorCode::InvalidConfig,
            message: Some("no".into()),
        };
        let subject = |name: &'static str| Subject { key: name, kind: "topic", name: name.to_owned() };
        let results = HashMap::from([("a", Ok(())), ("b", Err(refused))]);
        let told = tell("changed", results, &[subject("b"), subject("a"), subject("b")]);
        assert_eq!(told.notes, ["topic b: INVALID_CONFIG: no", "changed topic a"]);
        assert_eq!((told.failed, told.of), (1, 2));
        let documents = serde_json::to_string(&told.documents).unwrap();
        let expected = concat!(
            r#"[{"changed":false,"error":"topic b: INVALID_CONFIG: no","topic":"b"},"#,
            r#"{"changed":true,"topic":"a"}]"#
        );
        assert_eq!(documents, expected);
    }
}
