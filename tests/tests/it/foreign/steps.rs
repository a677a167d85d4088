//! The scenario's steps, what a program reports about them, and the judgement: what a report must say for a client to
//! pass.

use std::collections::BTreeMap;
use std::time::Duration;

use super::clients::Client;

/// Steps that belong together: one table of the page.
pub(super) struct Part {
    pub(super) title: &'static str,
    /// What a step is called, and what it does.
    pub(super) steps: &'static [(&'static str, &'static str)],
}

/// The scenario. Every client reports every step.
pub(super) const PARTS: &[Part] = &[
    Part {
        title: "Topics",
        steps: &[
            ("connect", "a first answer of the broker"),
            ("metadata-all", "all topics are listed"),
            ("metadata-one", "one topic is described, with its four partitions"),
            ("create-topic", "a topic with four partitions is created"),
            ("delete-topic", "a topic is deleted and then listed no more"),
            ("list-offsets", "the ends of a topic's partitions"),
        ],
    },
    Part {
        title: "Codecs",
        steps: &[
            ("produce-none", "a hundred records, uncompressed"),
            ("produce-gzip", "the same with gzip"),
            ("produce-snappy", "the same with snappy"),
            ("produce-lz4", "the same with lz4"),
            ("produce-zstd", "the same with zstd"),
            ("read-klamm", "five hundred records that Klamm wrote, a hundred with each codec, are read"),
        ],
    },
    Part {
        title: "Producing",
        steps: &[
            ("acks-0", "ten records, none acknowledged"),
            ("acks-1", "ten records, acknowledged by the leader"),
            ("acks-all", "ten records, acknowledged by all replicas"),
            ("idempotence", "ten records of an idempotent producer"),
            (
                "record-errors",
                "of ten records two break the topic's rule: these two are told, the others hear of another one",
            ),
            (
                "transaction",
                "two transactions that commit and one that does not: who reads committed records sees six",
            ),
            (
                "transaction-offsets",
                "what a transaction says that a group has read counts when it commits, and never when it does not",
            ),
        ],
    },
    Part {
        title: "Groups",
        steps: &[
            ("subscribe-pattern", "a member subscribes to a pattern and reads the topic that matches"),
            ("group-of-two", "two members own two partitions each and read every record once"),
            ("commit", "what they committed is there"),
            ("resume", "a new member reads just the ten records that came after"),
            ("consumer-protocol", "a group of the next generation (KIP-848)"),
        ],
    },
    Part {
        title: "Group administration",
        steps: &[
            ("list-groups", "the group is listed"),
            ("describe-group", "it is described: stable, one member"),
            ("group-offsets", "its committed offsets are read"),
            ("delete-group", "it is deleted"),
            ("delete-group-offsets", "its offset of a partition is deleted"),
        ],
    },
    Part {
        title: "Administration",
        steps: &[
            ("describe-cluster", "the brokers are listed"),
            ("describe-configs", "a topic's settings are read"),
            ("alter-configs", "a topic's setting is changed"),
            ("create-partitions", "a topic gets more partitions"),
            ("delete-records", "a partition's beginning is cut off"),
            ("describe-acls", "who asks for access rules is told that security is disabled"),
        ],
    },
];

/// No step takes longer, on a loaded machine. A client that waits for ever is no client that was told.
const STEP_MAX: Duration = Duration::from_secs(40);
/// A step that cannot work ends soon: whoever begins a transaction hears within this time that there are none.
const REFUSAL_MAX: Duration = Duration::from_secs(20);

pub(super) fn all_steps() -> impl Iterator<Item = &'static str> {
    PARTS.iter().flat_map(|part| part.steps).map(|(step, _)| *step)
}

/// How a step went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Ok,
    Failed(String),
    /// The client has no such thing, and why.
    Unsupported(String),
}

/// What a program has printed.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) client: String,
    /// Steps that the program says cannot work yet, and what they need.
    pub(super) needs: BTreeMap<String, String>,
    pub(super) outcomes: BTreeMap<String, (Outcome, Duration)>,
    strange: Vec<String>,
}

impl Report {
    /// Takes one line, printed `after` the line before it.
    pub(super) fn line(&mut self, line: &str, after: Duration) {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        match kind {
            "client" => self.client = format!("{name} {rest}"),
            "needs" => drop(self.needs.insert(name.to_owned(), rest.to_owned())),
            "step" => {
                let (word, detail) = rest.split_once(' ').unwrap_or((rest, ""));
                match word {
                    "ok" => self.step(name, Outcome::Ok, after),
                    "failed" => self.step(name, Outcome::Failed(detail.to_owned()), after),
                    "unsupported" => self.step(name, Outcome::Unsupported(detail.to_owned()), after),
                    _ => self.strange.push(line.to_owned()),
                }
            }
            _ => self.strange.push(line.to_owned()),
        }
    }

    /// Notes how a step went.
    pub(super) fn step(&mut self, name: &str, outcome: Outcome, took: Duration) {
        if self.outcomes.insert(name.to_owned(), (outcome, took)).is_some() {
            self.strange.push(format!("step {name} twice"));
        }
    }

    /// What keeps `client` from passing, in the words of the person who has to do something about it.
    pub(super) fn faults(&self, client: &Client) -> Vec<String> {
        let mut faults: Vec<_> = self.strange.iter().map(|line| format!("not a report: {line}")).collect();
        let wanted = format!("{} {}", client.name, client.version);
        if self.client != wanted {
            faults
                .push(format!("{} ran, not {wanted}: the table of clients and the pins differ", self.client));
        }
        let unknown = self.outcomes.keys().chain(self.needs.keys());
        let unknown = unknown.filter(|name| all_steps().all(|step| step != name.as_str()));
        faults.extend(unknown.map(|name| format!("{name}: no step of the scenario has this name")));
        faults.extend(all_steps().filter_map(|step| self.fault_of(step, client)));
        faults
    }

    fn fault_of(&self, step: &str, client: &Client) -> Option<String> {
        let need = self.needs.get(step);
        let Some((outcome, took)) = self.outcomes.get(step) else {
            return Some(format!("{step}: not reported"));
        };
        match (outcome, need) {
            (Outcome::Ok, Some(need)) => {
                Some(format!("{step}: works, so it does not need {need}: strike it from the list"))
            }
            (Outcome::Unsupported(_), Some(need)) => {
                Some(format!("{step}: needs {need}, yet the client has no such thing"))
            }
            (Outcome::Failed(why), None) => Some(format!("{step}: {why}")),
            (Outcome::Failed(why), Some(_))
                if !client.refusals.iter().any(|refusal| why.contains(refusal)) =>
            {
                Some(format!("{step}: cannot work yet, but this is no refusal: {why}"))
            }
            (Outcome::Failed(_), Some(_)) if *took > REFUSAL_MAX => {
                Some(format!("{step}: refused only after {took:?}"))
            }
            _ if *took > STEP_MAX => Some(format!("{step}: took {took:?}")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::clients::CLIENTS;

    const SOON: Duration = Duration::from_secs(1);

    fn sound(client: &Client) -> Report {
        let mut report = Report::default();
        report.line(&format!("client {} {}", client.name, client.version), SOON);
        report.line("needs transaction transactions", SOON);
        for step in all_steps().filter(|step| *step != "transaction") {
            report.line(&format!("step {step} ok"), SOON);
        }
        report
    }

    #[test]
    fn a_sound_report_passes_and_a_missing_step_does_not() {
        let client = &CLIENTS[0];
        let mut report = sound(client);
        assert_eq!(report.faults(client), ["transaction: not reported"]);
        report.line(&format!("step transaction failed {}", client.refusals[0]), SOON);
        assert_eq!(report.faults(client), [""; 0]);
    }

    /// Each way in which a report can be wrong is found: a judge that lets anything pass would keep the lists from
    /// shrinking.
    #[test]
    fn planted_faults_are_found() {
        let client = &CLIENTS[0];
        let refused = format!("step transaction failed {}", client.refusals[0]);
        let planted: &[(&[&str], Duration, &str)] = &[
            (&["step transaction ok"], SOON, "strike it from the list"),
            (&["step transaction unsupported no such call"], SOON, "yet the client has no such thing"),
            (&["step transaction failed timed out"], SOON, "this is no refusal"),
            (&[&refused], Duration::from_secs(21), "refused only after"),
            (&[&refused, "step connect failed refused"], SOON, "connect: refused"),
            (&[&refused, "step transfer ok"], SOON, "no step of the scenario"),
            (&[&refused, "Traceback"], SOON, "not a report"),
            (&[&refused, "step connect perhaps"], SOON, "not a report"),
            (&[&refused, "client other 1.0"], SOON, "other 1.0 ran"),
        ];
        for (lines, after, fault) in planted {
            let mut report = sound(client);
            for line in *lines {
                report.line(line, *after);
            }
            assert!(
                report.faults(client).iter().any(|found| found.contains(fault)),
                "{lines:?}: {:?}",
                report.faults(client)
            );
        }
    }
}
