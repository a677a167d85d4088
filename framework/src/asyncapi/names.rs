//! Names within a document: of letters, digits and `._-`, as its references want them, and each once.

use std::collections::BTreeMap;

/// A name of what is called so; `fallback` where nothing of it can stand.
pub(super) fn name_of(text: &str, fallback: &str) -> String {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    let mut name = String::with_capacity(text.len());
    for letter in text.chars() {
        match (allowed(letter), name.ends_with('-')) {
            (true, _) => name.push(letter),
            (false, false) => name.push('-'),
            (false, true) => {}
        }
    }
    let name = name.trim_matches('-');
    if name.is_empty() { fallback.to_owned() } else { name.to_owned() }
}

/// `name`, or `name-2` and so on: one that is not there yet.
pub(super) fn unused<V>(name: String, there: &BTreeMap<String, V>) -> String {
    let numbered = (2..).map(|number: u32| format!("{name}-{number}"));
    std::iter::once(name.clone()).chain(numbered).find(|name| !there.contains_key(name)).unwrap_or(name)
}

/// A Rust type without the paths: `Vec<Order>` of `alloc::vec::Vec<shop::Order>`.
pub(super) fn short_type(type_name: &str) -> String {
    let mut short = String::with_capacity(type_name.len());
    for part in
        type_name.split_inclusive(|letter: char| !letter.is_alphanumeric() && letter != '_' && letter != ':')
    {
        let from = part.rfind("::").map_or(0, |at| at + 2);
        short.push_str(&part[from..]);
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_references_may_hold() {
        assert_eq!(name_of("Vec<Order>", "x"), "Vec-Order");
        assert_eq!(name_of("orders.eu_1-a", "x"), "orders.eu_1-a");
        assert_eq!(name_of("ä~/ö", "x"), "x");
        assert_eq!(name_of("", "x"), "x");
    }

    #[test]
    fn a_name_is_used_once() {
        let there = BTreeMap::from([("a".to_owned(), ()), ("a-2".to_owned(), ())]);
        assert_eq!(unused("a".to_owned(), &there), "a-3");
        assert_eq!(unused("b".to_owned(), &there), "b");
    }

    #[test]
    fn types_lose_their_paths() {
        assert_eq!(short_type("alloc::vec::Vec<shop::Order>"), "Vec<Order>");
        assert_eq!(short_type("(a::b::C, u8)"), "(C, u8)");
        assert_eq!(short_type("Order"), "Order");
    }
}
