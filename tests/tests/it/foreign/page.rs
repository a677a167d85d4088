//! docs/compatibility.md: what every client did in its last run. A test compares its client's part; with
//! `KLAMM_UPDATE=1` it rewrites it.
//!
//! The page is read back before a part of it is replaced, so that a client can run alone, and one that a machine does
//! not have keeps what it had. What cannot be read back is lost by that, and the comparison shows it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use klamm_tests::repository;

use super::clients::{CLIENTS, Client};
use super::steps::{Outcome, PARTS, Report, all_steps};

const FILE: &str = "docs/compatibility.md";
const UPDATE: &str = "KLAMM_UPDATE";
const HEAD: &str = "\
# Compatibility

<!-- Written by the tests of tests/tests/it/foreign from what they saw; tests/foreign/README.md says how. -->

Kafka clients against `klamm broker`, unmodified, each in its own words. Every row is a run of the program in
`tests/foreign` that uses this client; the tests of this repository repeat it and fail when the row is not what they
see. kcat is Debian's, with a librdkafka older than those of the other rows. KafkaJS has gzip by itself and the other
codecs by packages.

**yes**: works. **no**: needs what the broker does not have yet; it is tried and refused at once. **-**: the client
has no such thing. The reasons stand below, by client.
";

/// Tests of one process take turns.
static PAGE: Mutex<()> = Mutex::new(());

/// Compares the client's part of the page with what it reported, or rewrites it.
pub(super) fn compare_or_update(client: &Client, report: &Report) {
    let _turn = PAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let file = repository().join(FILE);
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    let mut page = Page::read(&there);
    page.0.insert(client.label(), row(report));
    let wanted = page.write();
    if wanted == there {
        return;
    }
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(file, wanted).unwrap();
        return;
    }
    let differences: Vec<_> =
        wanted.lines().filter(|line| there.lines().all(|other| other != *line)).collect();
    panic!(
        "{FILE} is not what {} did. Rewrite it with {UPDATE}=1 and look at the difference. Lines that it lacks:\n{}",
        client.label(),
        differences.join("\n")
    );
}

/// How a step of a client is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cell {
    Works,
    Needs(String),
    Lacks(String),
}

type Row = BTreeMap<String, Cell>;

/// What a report that was found without fault says.
fn row(report: &Report) -> Row {
    let cell = |step: &str, outcome: &Outcome| match outcome {
        Outcome::Ok => Cell::Works,
        Outcome::Failed(_) => Cell::Needs(report.needs.get(step).cloned().unwrap_or_default()),
        Outcome::Unsupported(why) => Cell::Lacks(why.clone()),
    };
    report.outcomes.iter().map(|(step, (outcome, _))| (step.clone(), cell(step, outcome))).collect()
}

/// The rows, by client and version.
#[derive(Debug, Default, PartialEq, Eq)]
struct Page(BTreeMap<String, Row>);

impl Page {
    fn write(&self) -> String {
        let rows: Vec<_> =
            CLIENTS.iter().filter_map(|client| self.0.get_key_value(&client.label())).collect();
        let mut page = HEAD.to_owned();
        for part in PARTS {
            page += &format!("\n## {}\n\n| client |", part.title);
            part.steps.iter().for_each(|(step, _)| page += &format!(" {step} |"));
            page += &format!("\n|---|{}\n", "---|".repeat(part.steps.len()));
            for (label, row) in &rows {
                let cells = part.steps.iter().map(|(step, _)| match row.get(*step) {
                    Some(Cell::Works) => " yes |",
                    Some(Cell::Needs(_)) => " no |",
                    Some(Cell::Lacks(_)) => " - |",
                    None => " |",
                });
                page += &format!("| {label} |{}\n", cells.collect::<String>());
            }
            page.push('\n');
            part.steps.iter().for_each(|(step, what)| page += &format!("- `{step}`: {what}\n"));
        }
        page += "\n## What does not work, by client\n";
        for (label, row) in &rows {
            page += &format!("\n### {label}\n\n");
            for step in all_steps() {
                match row.get(step) {
                    Some(Cell::Needs(what)) => page += &format!("- `{step}` needs {what}\n"),
                    Some(Cell::Lacks(why)) => page += &format!("- `{step}` is not in the client: {why}\n"),
                    Some(Cell::Works) | None => {}
                }
            }
        }
        page
    }

    fn read(text: &str) -> Self {
        let mut page = Self::default();
        let (mut header, mut client) = (Vec::new(), None);
        for line in text.lines() {
            if let Some(cells) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) {
                let mut cells = cells.split(" | ");
                match cells.next() {
                    Some("client") => header = cells.collect(),
                    Some(label) => {
                        let works = header.iter().zip(cells).filter(|(_, cell)| *cell == "yes");
                        let works = works.map(|(step, _)| ((*step).to_owned(), Cell::Works));
                        page.0.entry(label.to_owned()).or_default().extend(works);
                    }
                    None => {}
                }
            } else if let Some(label) = line.strip_prefix("### ") {
                client = Some(label);
            } else if let (Some(label), Some((step, cell))) = (client, reason(line)) {
                page.0.entry(label.to_owned()).or_default().insert(step.to_owned(), cell);
            }
        }
        page
    }
}

/// A line of the list below the tables.
fn reason(line: &str) -> Option<(&str, Cell)> {
    let (step, rest) = line.strip_prefix("- `")?.split_once("` ")?;
    let needs = rest.strip_prefix("needs ").map(|what| Cell::Needs(what.to_owned()));
    let cell = needs
        .or_else(|| rest.strip_prefix("is not in the client: ").map(|why| Cell::Lacks(why.to_owned())))?;
    Some((step, cell))
}

#[test]
fn the_page_has_every_client_of_the_table_and_no_other() {
    let text = std::fs::read_to_string(repository().join(FILE)).unwrap();
    let page = Page::read(&text);
    let mut wanted: Vec<_> = CLIENTS.iter().map(Client::label).collect();
    wanted.sort();
    assert_eq!(page.0.keys().cloned().collect::<Vec<_>>(), wanted);
    assert!(
        page.0.values().all(|row| all_steps().all(|step| row.contains_key(step))),
        "every step of every client"
    );
    assert_eq!(page.write(), text, "changed by hand, or its frame has changed: rewrite it with {UPDATE}=1");
}

#[test]
fn a_page_is_read_as_it_was_written() {
    let mut page = Page::default();
    for (number, client) in CLIENTS.iter().enumerate() {
        let cell = |place: usize| match (place + number) % 3 {
            0 => Cell::Works,
            1 => Cell::Needs("SomeApi, AnotherApi".to_owned()),
            _ => Cell::Lacks("no such call".to_owned()),
        };
        let row = all_steps().enumerate().map(|(place, step)| (step.to_owned(), cell(place))).collect();
        page.0.insert(client.label(), row);
    }
    assert_eq!(Page::read(&page.write()), page);
}
