//! `klamm dlt list`: what there is, by cause or letter by letter.

use std::ops::ControlFlow;
use std::sync::Arc;

use clap::Args;
use klamm::dead_letters::{Count, DeadLetter, DeadLetters, Summary};
use serde_json::{Value, json};

use super::filter::FilterArgs;
use super::show::letter_json;
use crate::connect::{ClientArgs, Session};
use crate::error::CliError;
use crate::output::{self, OutputFormat, Table};
use crate::timestamp::rfc3339;

/// Characters of an error's message that a table shows.
const MESSAGE_CHARS: usize = 60;

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Dead-letter topics [default: all that end in -dlt or .DLT]
    #[arg(value_name = "TOPIC")]
    topics: Vec<String>,
    /// List letters one by one instead of counting them
    #[arg(long)]
    letters: bool,
    /// With --letters: not more than this many
    #[arg(long, value_name = "N", default_value_t = 100, requires = "letters")]
    max: usize,
    /// Group whose committed offsets say what is replayed and parked [default: klamm-dlt-TOPIC]
    #[arg(long, value_name = "G")]
    group: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    client: ClientArgs,
}

pub(crate) async fn run(args: ListArgs) -> Result<(), CliError> {
    let session = args.client.connect().await?;
    let topics: Vec<Arc<str>> = match args.topics.is_empty() {
        true => DeadLetters::topics(&session.client).await?,
        false => args.topics.iter().map(|topic| topic.as_str().into()).collect(),
    };
    let topics = topics.into_iter().map(|topic| {
        let letters = DeadLetters::new(&session.client, topic);
        args.group.iter().fold(letters, |letters, group| letters.group(group.as_str()))
    });
    let topics: Vec<DeadLetters> = topics.collect();
    if topics.is_empty() {
        output::note("no topic ends in -dlt or .DLT; name those that hold dead letters");
    }
    if args.letters {
        one_by_one(&args, &session, &topics).await
    } else {
        by_cause(&args, &session, &topics).await
    }
}

async fn by_cause(args: &ListArgs, session: &Session, topics: &[DeadLetters]) -> Result<(), CliError> {
    let filter = args.filter.filter(session.client.clock().now_ms());
    let mut table =
        Table::new(["TOPIC", "ORIGIN", "GROUP", "ERROR", "LETTERS", "OPEN", "CAME_BACK", "OLDEST", "NEWEST"]);
    let mut documents = Vec::new();
    for letters in topics {
        let summary = letters.summary(&filter).await?;
        summary_rows(letters.topic(), &summary, &mut table);
        documents.push(summary_json(letters.topic(), &summary));
    }
    match args.client.output {
        OutputFormat::Json => output::json(&Value::Array(documents)),
        OutputFormat::Table => table.print(),
    }
}

fn summary_rows(topic: &str, summary: &Summary, table: &mut Table) {
    let told = |part: &Option<Arc<str>>| part.as_deref().unwrap_or("-").to_owned();
    let at = |at_ms: Option<i64>| at_ms.map_or_else(|| "-".to_owned(), rfc3339);
    let mut row = |origin: String, group: String, error: &str, count: &Count| {
        table.row([
            topic.to_owned(),
            origin,
            group,
            error.to_owned(),
            count.letters.to_string(),
            count.open.to_string(),
            count.came_back.to_string(),
            at(count.oldest_ms),
            at(count.newest_ms),
        ]);
    };
    for (cause, count) in &summary.causes {
        row(told(&cause.origin), told(&cause.group), &cause.error, count);
    }
    if summary.other.letters > 0 || summary.causes.is_empty() {
        row("-".to_owned(), "-".to_owned(), "-", &summary.other);
    }
}

fn count_json(count: &Count) -> Value {
    json!({
        "letters": count.letters, "open": count.open, "came_back": count.came_back,
        "oldest_ms": count.oldest_ms, "newest_ms": count.newest_ms,
    })
}

fn summary_json(topic: &str, summary: &Summary) -> Value {
    let causes = summary.causes.iter().map(|(cause, count)| {
        json!({
            "origin": cause.origin.as_deref(), "group": cause.group.as_deref(), "error": &*cause.error,
            "count": count_json(count),
        })
    });
    json!({
        "topic": topic, "count": count_json(&summary.letters), "causes": causes.collect::<Value>(),
        "other": count_json(&summary.other),
    })
}

async fn one_by_one(args: &ListArgs, session: &Session, topics: &[DeadLetters]) -> Result<(), CliError> {
    let filter = args.filter.filter(session.client.clock().now_ms());
    let mut found: Vec<(DeadLetter, bool)> = Vec::new();
    let mut are_more = false;
    for letters in topics {
        letters
            .each(&filter, |letter, is_open| {
                are_more = found.len() >= args.max;
                if are_more {
                    return ControlFlow::Break(());
                }
                found.push((letter, is_open));
                ControlFlow::Continue(())
            })
            .await?;
    }
    match args.client.output {
        OutputFormat::Json => {
            let letters = found.iter().map(|(letter, is_open)| {
                let mut document = letter_json(letter);
                if let Value::Object(fields) = &mut document {
                    fields.insert("open".to_owned(), (*is_open).into());
                }
                document
            });
            output::json(&letters.collect())?;
        }
        OutputFormat::Table => letters_table(&found).print()?,
    }
    if are_more {
        output::note(&format!("there are more than these {}; --max shows more", found.len()));
    }
    Ok(())
}

fn letters_table(found: &[(DeadLetter, bool)]) -> Table {
    let mut table = Table::new(["TOPIC", "AT", "WRITTEN", "ORIGIN", "ERROR", "MESSAGE", "REPLAYS", "STATE"]);
    for (letter, is_open) in found {
        let record = &letter.record;
        let message = letter.cause.as_ref().and_then(|cause| cause.message.as_deref()).unwrap_or("-");
        table.row([
            record.topic.to_string(),
            format!("{}:{}", record.partition, record.offset),
            rfc3339(record.timestamp_ms),
            origin(letter),
            letter.error().to_owned(),
            shortened(message),
            letter.replays.to_string(),
            if *is_open { "open" } else { "done" }.to_owned(),
        ]);
    }
    table
}

fn origin(letter: &DeadLetter) -> String {
    let Some(origin) = &letter.origin else { return "-".to_owned() };
    let number = |number: Option<i64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
    format!("{} {}:{}", origin.topic, number(origin.partition.map(i64::from)), number(origin.offset))
}

/// One line, and not a long one.
fn shortened(message: &str) -> String {
    let line: String = message.chars().map(|one| if one.is_control() { ' ' } else { one }).collect();
    match line.char_indices().nth(MESSAGE_CHARS) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_short_line() {
        assert_eq!(shortened("a\nb"), "a b");
        let long = shortened(&"ä".repeat(70));
        assert_eq!((long.chars().count(), long.ends_with("...")), (63, true));
    }
}
