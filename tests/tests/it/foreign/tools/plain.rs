//! What a tool says, without what no two clusters share: addresses, ids, times, and where in Kafka's code it gave up.

use super::java::Said;

/// Ids are 16 bytes in URL's base 64.
const ID_LEN: usize = 22;
/// Milliseconds since 1970.
const TIME_LEN: usize = 13;

/// The same for every cluster that is in the same state.
pub(super) fn of(said: &Said, bootstrap: &str) -> Said {
    let port = bootstrap.rsplit(':').next().unwrap_or(bootstrap);
    let line = |line: &String| {
        let line = line.replace(bootstrap, "BROKER").replace(port, "PORT");
        // Kafka 4.3 sets this by itself for a cluster that is new.
        let line = line.replace("min.insync.replicas=1,", "");
        words(&line).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    // Where its stack was belongs to the tool.
    let of_stack = |line: &&String| line.trim_start().starts_with("at ") || line.starts_with("Caused by");
    let lines = |all: &[String]| all.iter().filter(|line| !of_stack(line)).map(line).collect();
    Said { out: lines(&said.out), err: lines(&said.err), exit: said.exit }
}

/// Names ids and times as what they are.
fn words(line: &str) -> String {
    let part_of_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let mut plain = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let len = rest.find(|c| !part_of_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(if len == 0 { first.len_utf8() } else { len });
        let digits = word.chars().all(|c| c.is_ascii_digit());
        plain.push_str(match word.len() {
            ID_LEN => "ID",
            TIME_LEN if digits => "TIME",
            _ => word,
        });
        rest = after;
    }
    plain
}

#[test]
fn what_differs_by_cluster_is_named() {
    let said = |out: &str, err: &[&str]| Said {
        out: vec![out.to_owned()],
        err: err.iter().map(|&line| line.to_owned()).collect(),
        exit: 1,
    };
    let given = said(
        "Topic: views\tTopicId: Pz8HV-3vRC6ZEytBOakGRQ at 127.0.0.1:19666 since 1795351442038, 3 of 12 ",
        &["no such thing", "\tat Main.main(Main.java:1)"],
    );
    let plain = said("Topic: views TopicId: ID at BROKER since TIME, 3 of 12", &["no such thing"]);
    assert_eq!(of(&given, "127.0.0.1:19666"), plain);
}
