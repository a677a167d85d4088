//! `klamm dlt replay` and `klamm dlt park`: letters go back to work, or out of the way.

use clap::Args;
use klamm::dead_letters::{DeadLetterError, Replay, ReplayReport, Stays};
use serde_json::{Value, json};

use super::filter::FilterArgs;
use super::topic::TopicArgs;
use crate::connect::{ClientArgs, Session};
use crate::error::CliError;
use crate::output::{self, OutputFormat};

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    topic: TopicArgs,
    /// Topic to send them to, such as a retry topic [default: where each came from]
    #[arg(long, value_name = "TOPIC")]
    to: Option<String>,
    /// A letter that was replayed this often and came back stays where it is
    #[arg(long, visible_alias = "max-hops", value_name = "N", default_value_t = 3)]
    max_replays: u32,
    #[command(flatten)]
    sending: SendingArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ParkArgs {
    #[command(flatten)]
    topic: TopicArgs,
    /// Parking topic
    #[arg(long, value_name = "TOPIC")]
    to: String,
    #[command(flatten)]
    sending: SendingArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
struct SendingArgs {
    /// Send at most this many letters a second
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Only say what would be sent
    #[arg(long)]
    dry_run: bool,
    /// Send in transactions: also a run that is killed sends no letter twice to readers of committed records
    #[arg(long)]
    exactly_once: bool,
}

pub(crate) async fn run(args: ReplayArgs) -> Result<(), CliError> {
    let session = args.client.connect().await?;
    let mut replay = args.topic.letters(&session.client).replay().replays_max(args.max_replays);
    if let Some(topic) = &args.to {
        replay = replay.to(topic.as_str());
    }
    send(&session, replay, &args.sending, &args.filter, args.client.output).await
}

pub(crate) async fn park(args: ParkArgs) -> Result<(), CliError> {
    let session = args.client.connect().await?;
    let park = args.topic.letters(&session.client).park(args.to.as_str());
    send(&session, park, &args.sending, &args.filter, args.client.output).await
}

async fn send(
    session: &Session,
    mut replay: Replay,
    sending: &SendingArgs,
    filter: &FilterArgs,
    output: OutputFormat,
) -> Result<(), CliError> {
    replay = replay.only(filter.filter(session.client.clock().now_ms()));
    if let Some(rate) = sending.rate {
        replay = replay.per_second(rate);
    }
    if sending.exactly_once {
        replay = replay.exactly_once();
    }
    if sending.dry_run {
        replay = replay.dry_run();
    }
    let report = replay.run().await.map_err(|error| match error {
        wrong @ (DeadLetterError::Rate { .. } | DeadLetterError::IntoItself { .. }) => {
            CliError::usage(wrong.to_string())
        }
        other => CliError::failed(format!(
            "{other}\nWhat was sent before is noted: the same command goes on behind it"
        )),
    })?;
    match output {
        OutputFormat::Json => output::json(&report_json(&report, sending.dry_run))?,
        OutputFormat::Table => told(&report, sending.dry_run).iter().for_each(|line| output::note(line)),
    }
    let stayed: u64 = report.stayed.values().sum();
    match usize::try_from(stayed).unwrap_or(usize::MAX) {
        0 => Ok(()),
        failed => {
            let sent = usize::try_from(report.sent).unwrap_or(usize::MAX);
            Err(CliError::Some { failed, of: failed.saturating_add(sent) })
        }
    }
}

fn report_json(report: &ReplayReport, dry_run: bool) -> Value {
    let stayed = report.stayed.iter().map(|(why, letters)| {
        let (reason, topic) = match why {
            Stays::NoOrigin => ("no_origin", None),
            Stays::NoTopic(topic) => ("no_topic", Some(&**topic)),
            Stays::Forbidden(topic) => ("forbidden", Some(&**topic)),
            Stays::OwnTopic => ("own_topic", None),
            Stays::TooManyReplays => ("too_many_replays", None),
            _ => ("other", None),
        };
        json!({ "reason": reason, "topic": topic, "letters": letters })
    });
    let sent_to =
        report.sent_to.iter().map(|(topic, letters)| json!({ "topic": &**topic, "letters": letters }));
    json!({
        "dry_run": dry_run, "sent": report.sent, "sent_to": sent_to.collect::<Value>(), "left_out": report.left_out,
        "done_before": report.done_before, "stayed": stayed.collect::<Value>(),
    })
}

/// The report in lines for people.
fn told(report: &ReplayReport, dry_run: bool) -> Vec<String> {
    let letters = |count: u64| if count == 1 { "1 letter".to_owned() } else { format!("{count} letters") };
    let sent = if dry_run { "would be sent" } else { "sent" };
    let mut lines: Vec<String> = report
        .sent_to
        .iter()
        .map(|(topic, count)| format!("{} {sent} to {topic}", letters(*count)))
        .collect();
    if lines.is_empty() {
        lines.push(format!("no letter {sent}"));
    }
    if report.left_out > 0 {
        lines.push(format!("{} left out, still open", letters(report.left_out)));
    }
    for (why, count) in &report.stayed {
        lines.push(format!("{} could not go: {why}", letters(*count)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_told_in_words() {
        assert_eq!(told(&ReplayReport::default(), false), ["no letter sent"]);
        let mut report = ReplayReport::default();
        report.sent_to.insert("orders".into(), 1);
        report.left_out = 2;
        report.stayed.insert(Stays::NoTopic("gone".into()), 3);
        assert_eq!(
            told(&report, true),
            [
                "1 letter would be sent to orders",
                "2 letters left out, still open",
                "3 letters could not go: topic gone does not exist; create it, or name another",
            ]
        );
        assert_eq!(report_json(&report, true)["stayed"][0]["topic"], "gone");
    }
}
