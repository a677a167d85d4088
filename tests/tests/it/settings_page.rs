//! docs/broker.md lists every setting as the tables in the code have it. `KLAMM_UPDATE=1` writes the lists anew.

use std::fmt::Write as _;

use klamm_broker::config::{KEYS, is_alterable, topic};
use klamm_tests::repository;

const FILE: &str = "docs/broker.md";
const END: &str = "<!-- end -->";

#[test]
fn every_setting_is_on_the_page_with_its_default_and_effect() {
    let file = repository().join(FILE);
    let there = std::fs::read_to_string(&file).unwrap();
    let mut of_broker = String::from("| name | default | at run time | what it does |\n|---|---|---|---|\n");
    for key in KEYS {
        let at_run_time = if is_alterable(key.name) { "yes" } else { "" };
        row(&mut of_broker, &[&code(key.name), &code(key.default), at_run_time, key.doc]);
    }
    let mut of_topics =
        String::from("| name | default | of the broker | what it does |\n|---|---|---|---|\n");
    for setting in topic::settings() {
        let of_broker = setting.of_broker.first().map_or(String::new(), |name| code(name));
        row(&mut of_topics, &[&code(setting.name), &code(&setting.default), &of_broker, setting.doc]);
    }
    let wanted = with_list(&there, "<!-- settings of the broker: ", &of_broker);
    let wanted = with_list(&wanted, "<!-- settings of topics: ", &of_topics);
    if wanted == there {
        return;
    }
    assert!(
        std::env::var_os("KLAMM_UPDATE").is_some(),
        "{FILE} does not list the settings as the code has them: rewrite it with KLAMM_UPDATE=1"
    );
    std::fs::write(file, wanted).unwrap();
}

fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

fn row(table: &mut String, cells: &[&str]) {
    for cell in cells {
        write!(table, "| {} ", cell.replace('|', "\\|")).unwrap();
    }
    table.push_str("|\n");
}

/// The page with this list behind the line that begins so.
fn with_list(page: &str, begin: &str, list: &str) -> String {
    let start = page.find(begin).unwrap_or_else(|| panic!("{FILE} has no line {begin}"));
    let start = start + page[start..].find('\n').unwrap() + 1;
    let end = start + page[start..].find(END).unwrap_or_else(|| panic!("{FILE}: no {END} behind {begin}"));
    format!("{}{list}{}", &page[..start], &page[end..])
}
