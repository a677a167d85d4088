//! Which field of a reader's record takes which one of a writer's.

use std::collections::HashMap;

use super::shape::Field;

/// For each field that was written the place of the reader's field that takes it; `None` where none does.
///
/// A field takes what was written under its own name, and only where nothing was, what was written under an alias: an
/// alias says what the field was called before, also where another field has that name by now. Java does the same.
pub(super) fn places(fields: &[Field], written: &[Field]) -> Vec<Option<usize>> {
    let is_same = fields.len() == written.len()
        && fields.iter().zip(written).all(|(field, written)| field.name == written.name);
    if is_same {
        return (0..fields.len()).map(Some).collect();
    }
    let by_name: HashMap<&str, usize> = named(fields);
    let was_written: HashMap<&str, usize> = named(written);
    let mut by_alias: HashMap<&str, usize> = HashMap::new();
    for (place, field) in fields.iter().enumerate() {
        if was_written.contains_key(field.name.as_str()) {
            continue;
        }
        if let Some(alias) = field.aliases.iter().find(|alias| was_written.contains_key(alias.as_str())) {
            by_alias.entry(alias).or_insert(place);
        }
    }
    let place_of = |field: &Field| {
        let name = field.name.as_str();
        by_alias.get(name).or_else(|| by_name.get(name)).copied()
    };
    written.iter().map(place_of).collect()
}

fn named(fields: &[Field]) -> HashMap<&str, usize> {
    fields.iter().enumerate().map(|(place, field)| (field.name.as_str(), place)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(names: &[&str]) -> Vec<Field> {
        let field = |text: &&str| {
            let mut names = text.split(' ').map(str::to_owned);
            Field { name: names.next().unwrap(), aliases: names.collect(), part: 0, default: None }
        };
        names.iter().map(field).collect()
    }

    #[test]
    fn names_go_before_aliases_of_others() {
        for (reader, writer, expected) in [
            (&["a", "b"][..], &["a", "b"][..], &[Some(0), Some(1)][..]),
            (&["b", "a"], &["a", "x", "b"], &[Some(1), None, Some(0)]),
            (&["b a"], &["a"], &[Some(0)]),
            (&["b a"], &["a", "b"], &[None, Some(0)]),
            // The old name was given to another field.
            (&["full name", "name"], &["full", "name"], &[Some(0), Some(1)]),
            (&["name", "full name"], &["name", "full"], &[Some(0), Some(1)]),
            (&["name", "full name"], &["full", "name"], &[Some(1), Some(0)]),
            (&["full name", "name"], &["name"], &[Some(0)]),
            (&["name", "full name"], &["name"], &[Some(1)]),
            // Two of its old names: the one that it has been called last stands first.
            (&["c b a"], &["a", "b"], &[None, Some(0)]),
            // Two that were the same.
            (&["x a", "y a"], &["a"], &[Some(0)]),
        ] {
            assert_eq!(places(&fields(reader), &fields(writer)), expected, "{reader:?} {writer:?}");
        }
    }
}
