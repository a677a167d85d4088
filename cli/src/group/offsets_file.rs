//! Offsets as lines of text, as `klamm group reset-offsets --export` writes and `--from-file` reads them. Kafka's own
//! tool has the same lines.

use klamm_client::TopicPartition;

use crate::error::CliError;

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// `None` where the line is about the one group of the command.
    pub(crate) group: Option<String>,
    pub(crate) partition: TopicPartition,
    pub(crate) offset: i64,
}

/// `topic,partition,offset`, or with a group before it.
pub(crate) fn line(group: Option<&str>, partition: &TopicPartition, offset: i64) -> String {
    let group = group.map(|group| format!("{group},")).unwrap_or_default();
    format!("{group}{},{},{offset}", partition.topic, partition.partition)
}

/// Reads lines; empty ones say nothing.
///
/// # Errors
/// A line that is none of these, with its number.
pub(crate) fn parse(text: &str) -> Result<Vec<Listed>, String> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            listed(line).ok_or_else(|| {
                format!("line {number} is not topic,partition,offset or group,topic,partition,offset")
            })
        })
        .collect()
}

/// From the end: a topic's name has no commas, a group's may have some.
fn listed(line: &str) -> Option<Listed> {
    let mut parts = line.trim().rsplitn(4, ',');
    let offset: i64 = parts.next()?.trim().parse().ok()?;
    let partition: i32 = parts.next()?.trim().parse().ok()?;
    let topic = parts.next().map(str::trim).filter(|topic| !topic.is_empty())?;
    let group = parts.next().map(str::to_owned);
    (offset >= 0 && partition >= 0).then(|| Listed {
        group,
        partition: TopicPartition::new(topic, partition),
        offset,
    })
}

/// Whether the lines are about the groups of the command.
///
/// # Errors
/// They are about others, or do not say about which of several.
pub(crate) fn check_groups(listed: &[Listed], groups: &[String]) -> Result<(), CliError> {
    for Listed { group, partition, .. } in listed {
        match group {
            None if groups.len() > 1 => {
                return Err(CliError::usage(format!(
                    "the file does not say which group {partition} is about"
                )));
            }
            Some(group) if !groups.contains(group) => {
                return Err(CliError::usage(format!(
                    "the file is about group {group} too, which is not named"
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let one = |group: Option<&str>, partition, offset| Listed {
            group: group.map(str::to_owned),
            partition: TopicPartition::new("t", partition),
            offset,
        };
        for listed in [one(None, 0, 5), one(Some("g"), 1, 0), one(Some("a,b"), 2, 7)] {
            let text = line(listed.group.as_deref(), &listed.partition, listed.offset);
            assert_eq!(parse(&text), Ok(vec![listed]), "{text}");
        }
        assert_eq!(parse("\n t, 0, 5 \n\nt,1,6\r\n"), Ok(vec![one(None, 0, 5), one(None, 1, 6)]));
    }

    #[test]
    fn a_wrong_line_is_named() {
        for wrong in ["t,0", "t,x,5", "t,0,-1", "t,-1,5", ",0,5", "t,0,5;", "t"] {
            let error = parse(&format!("t,0,1\n{wrong}\n")).unwrap_err();
            assert!(error.starts_with("line 2 is not"), "{wrong}: {error}");
        }
    }

    #[test]
    fn lines_are_about_the_groups_of_the_command() {
        let groups = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let of = |text: &str, names: &[&str]| check_groups(&parse(text).unwrap(), &groups(names));
        assert!(
            of("t,0,1", &["g"]).is_ok() && of("h,t,0,1", &["g", "h"]).is_ok() && of("", &["g", "h"]).is_ok()
        );
        assert!(of("t,0,1", &["g", "h"]).unwrap_err().to_string().contains("which group"));
        let error = of("h,t,0,1", &["g"]).unwrap_err();
        assert!(error.to_string().contains("group h too") && error.exit_code() == 2, "{error}");
    }
}
