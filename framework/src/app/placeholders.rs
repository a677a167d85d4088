//! Placeholders in the settings of listeners: `${orders.topic}`, `${orders.topic:orders}`. Pure.

use std::collections::HashMap;

use thiserror::Error;

/// Values may hold placeholders themselves, but not without end.
const DEPTH_MAX: usize = 16;
/// A setting that gets longer, or has more placeholders in it, is a mistake, such as values that name one another
/// twice.
const LENGTH_MAX: usize = 64 * 1024;
const PLACEHOLDERS_MAX: usize = 1_000;

/// What the names in placeholders stand for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Properties {
    /// Given to the app by name.
    set: HashMap<String, String>,
    /// From files.
    read: HashMap<String, String>,
}

/// Why a text with placeholders says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlaceholderError {
    /// Nobody says what a name stands for.
    #[error(
        "`${{{name}}}` stands for nothing: set it with `App::property(\"{name}\", ...)`, in a file of \
         `App::properties_file`, or as {} in the environment, or give it a default, `${{{name}:...}}`",
        in_environment(name)
    )]
    Unknown {
        /// The name.
        name: String,
    },
    /// A placeholder that does not end, or one without a name.
    #[error("`{text}` has a placeholder that is not written as `${{name}}` or `${{name:default}}`")]
    Malformed {
        /// The whole text.
        text: String,
    },
    /// A name stands, in the end, for itself.
    #[error("`${{{name}}}` stands for a text that has `${{{name}}}` in it again")]
    Circular {
        /// The name.
        name: String,
    },
    /// The text that it stands for is longer than any setting.
    #[error(
        "`{text}` stands for more than {LENGTH_MAX} bytes, or has more than {PLACEHOLDERS_MAX} placeholders in it"
    )]
    TooLong {
        /// The whole text.
        text: String,
    },
}

/// Whether there is anything to be replaced.
pub(crate) fn has_placeholder(text: &str) -> bool {
    text.contains("${")
}

/// How a name is written in the environment: `orders.dlq-topic` is `ORDERS_DLQ_TOPIC`.
fn in_environment(name: &str) -> String {
    let letter =
        |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' };
    name.chars().map(letter).collect()
}

impl Properties {
    pub(crate) fn set(&mut self, name: String, value: String) {
        self.set.insert(name, value);
    }

    /// As a file says; a later one replaces.
    pub(crate) fn read(&mut self, pairs: impl IntoIterator<Item = (String, String)>) {
        self.read.extend(pairs);
    }

    /// The text with every placeholder replaced. What the app was given goes before the environment, that before files,
    /// and a default comes last. `\${` is a `${` that stands for itself.
    ///
    /// # Errors
    /// A name that stands for nothing or for itself, or a placeholder that is none.
    pub(crate) fn resolve(
        &self,
        text: &str,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<String, PlaceholderError> {
        let mut resolving =
            Resolving { properties: self, environment, names: Vec::new(), replaced: 0, whole: text };
        let mut resolved = String::new();
        resolving.append(text, &mut resolved)?;
        Ok(resolved)
    }

    fn value(&self, name: &str, environment: &dyn Fn(&str) -> Option<String>) -> Option<String> {
        let set = self.set.get(name).cloned();
        set.or_else(|| environment(&in_environment(name))).or_else(|| self.read.get(name).cloned())
    }
}

/// One text being resolved.
struct Resolving<'a> {
    properties: &'a Properties,
    environment: &'a dyn Fn(&str) -> Option<String>,
    /// Whose values are being resolved, outermost first.
    names: Vec<String>,
    replaced: usize,
    whole: &'a str,
}

impl Resolving<'_> {
    fn append(&mut self, text: &str, resolved: &mut String) -> Result<(), PlaceholderError> {
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, inside) = (&rest[..at], &rest[at + 2..]);
            if let Some(before) = before.strip_suffix('\\') {
                resolved.push_str(before);
                resolved.push_str("${");
                rest = inside;
                continue;
            }
            resolved.push_str(before);
            let end = end_of(inside).ok_or_else(|| self.malformed())?;
            self.replace(&inside[..end], resolved)?;
            rest = &inside[end + 1..];
        }
        resolved.push_str(rest);
        self.bounded(resolved.len() <= LENGTH_MAX)
    }

    /// What stands between `${` and `}`.
    fn replace(&mut self, inside: &str, resolved: &mut String) -> Result<(), PlaceholderError> {
        let (name, default) = match inside.split_once(':') {
            Some((name, default)) => (name.trim(), Some(default)),
            None => (inside.trim(), None),
        };
        if name.is_empty() || has_placeholder(name) {
            return Err(self.malformed());
        }
        if self.names.iter().any(|known| known == name) || self.names.len() >= DEPTH_MAX {
            return Err(PlaceholderError::Circular { name: name.to_owned() });
        }
        self.replaced += 1;
        self.bounded(self.replaced <= PLACEHOLDERS_MAX)?;
        match (self.properties.value(name, self.environment), default) {
            (Some(value), _) => {
                self.names.push(name.to_owned());
                self.append(&value, resolved)?;
                self.names.pop();
                Ok(())
            }
            (None, Some(default)) => self.append(default, resolved),
            (None, None) => Err(PlaceholderError::Unknown { name: name.to_owned() }),
        }
    }

    fn bounded(&self, is_bounded: bool) -> Result<(), PlaceholderError> {
        match is_bounded {
            true => Ok(()),
            false => Err(PlaceholderError::TooLong { text: self.whole.to_owned() }),
        }
    }

    fn malformed(&self) -> PlaceholderError {
        PlaceholderError::Malformed { text: self.whole.to_owned() }
    }
}

/// Where the brace is that ends a placeholder; those that close one that was opened inside it do not.
fn end_of(inside: &str) -> Option<usize> {
    let mut open = 0;
    for (at, letter) in inside.char_indices() {
        match letter {
            '{' => open += 1,
            '}' if open == 0 => return Some(at),
            '}' => open -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use klamm_runtime::{Rng, SeededRng};

    use super::*;

    fn resolve(text: &str) -> Result<String, PlaceholderError> {
        let mut properties = Properties::default();
        properties.read(
            [("a", "file"), ("b", "file"), ("c", "file")].map(|(name, value)| (name.into(), value.into())),
        );
        for (name, value) in
            [("a", "app"), ("outer", "<${a}>"), ("x", "${y}"), ("y", "${x}"), ("self", "${self}")]
        {
            properties.set(name.into(), value.into());
        }
        let environment =
            |name: &str| matches!(name, "A" | "B" | "ORDERS_DLQ_TOPIC").then(|| "env".to_owned());
        properties.resolve(text, &environment)
    }

    #[test]
    fn the_app_goes_before_the_environment_that_before_files_and_a_default_is_last() {
        for (text, expected) in [
            ("${a}", "app"),
            ("${b}", "env"),
            ("${c}", "file"),
            ("${d:none}", "none"),
            ("${a:none}", "app"),
            ("${orders.dlq-topic}", "env"),
            ("${d:}", ""),
            ("${d:host:9092}", "host:9092"),
            ("${ a }", "app"),
            ("plain", "plain"),
            ("", ""),
            ("x-${a}-${b}.y", "x-app-env.y"),
            ("${outer}", "<app>"),
            ("${d:${e:${a}}}", "app"),
            // Braces come in pairs, as in patterns: the default does not end within one.
            ("${d:{}}", "{}"),
            ("${a:{}}", "app"),
            ("${d:clicks-[0-9]{2}}", "clicks-[0-9]{2}"),
            ("${a:clicks-[0-9]{2}}-x", "app-x"),
            ("\\${a}", "${a}"),
            ("$a {b} $", "$a {b} $"),
            ("clicks-.*", "clicks-.*"),
        ] {
            assert_eq!(resolve(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_stands_for_nothing_or_for_itself_is_told() {
        let unknown = resolve("${orders.topic}").unwrap_err();
        for part in ["App::property(\"orders.topic\"", "ORDERS_TOPIC", "${orders.topic:...}"] {
            assert!(unknown.to_string().contains(part), "{unknown}");
        }
        for (text, name) in [("${x}", "x"), ("${self}", "self")] {
            assert_eq!(resolve(text), Err(PlaceholderError::Circular { name: name.into() }));
        }
        for text in ["${", "${a", "x${}", "${:b}", "${${a}}", "${a:${b}"] {
            assert_eq!(resolve(text), Err(PlaceholderError::Malformed { text: text.into() }), "{text}");
        }
    }

    /// Values that name one another several times each would be as long as one likes.
    #[test]
    fn growth_has_an_end() {
        let mut properties = Properties::default();
        for step in 0..14 {
            let next = format!("${{n{}}}", step + 1).repeat(9);
            properties.set(format!("n{step}"), next);
        }
        for last in ["", "x"] {
            properties.set("n14".into(), last.into());
            let error = properties.resolve("${n0}", &|_| None).unwrap_err();
            assert_eq!(error, PlaceholderError::TooLong { text: "${n0}".into() });
        }
    }

    #[test]
    fn whatever_is_written_it_ends() {
        let parts = ["${", "}", ":", "a", "outer", "\\", "$", "{", "ü", "x"];
        for seed in 0..20_000 {
            let rng = SeededRng::new(seed);
            let text: String =
                (0..rng.below(12)).map(|_| parts[rng.below(parts.len() as u64) as usize]).collect();
            if let Ok(resolved) = resolve(&text) {
                assert!(has_placeholder(&text) || resolved == text, "{text}");
            }
        }
    }
}
