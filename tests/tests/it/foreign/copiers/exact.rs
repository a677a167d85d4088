//! Whether copies are exact: each record once, as it was, and the group where the input ends. Pure.

use std::collections::BTreeMap;

/// How many of each kind a complaint names.
const NAMED: usize = 8;

/// A record of the input.
pub(super) fn record(number: u64) -> (String, String) {
    (format!("key-{number}"), format!("value-{number:>30}"))
}

/// What is wrong with the copies of `records` records.
///
/// # Errors
/// Says which are missing, there more than once, or no copy of anything.
pub(super) fn check(copies: &[(String, String)], records: u64) -> Result<(), String> {
    let mut times: BTreeMap<u64, u64> = (0..records).map(|number| (number, 0)).collect();
    let mut strange = Vec::new();
    for copy in copies {
        let number = copy.0.strip_prefix("key-").and_then(|number| number.parse().ok());
        match number.and_then(|number| times.get_mut(&number).filter(|_| *copy == record(number))) {
            Some(times) => *times += 1,
            None => strange.push(format!("{copy:?}")),
        }
    }
    let numbers = |wrong: fn(u64) -> bool| {
        let found = times.iter().filter(|(_, times)| wrong(**times));
        found.map(|(number, times)| format!("{number} {times}x")).collect::<Vec<_>>()
    };
    let kinds = [("missing", numbers(|times| times == 0)), ("doubled", numbers(|times| times > 1))];
    let kinds = kinds.into_iter().chain([("strange", strange)]);
    let complaints: Vec<String> = kinds.filter_map(|(kind, which)| complaint(kind, &which)).collect();
    if complaints.is_empty() { Ok(()) } else { Err(complaints.join("; ")) }
}

fn complaint(kind: &str, which: &[String]) -> Option<String> {
    let named = which.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    (!which.is_empty()).then(|| format!("{} {kind}: {named}", which.len()))
}

/// What is wrong with where a group is, by partition, when everything was copied.
///
/// # Errors
/// Names the partitions where it has not committed the end.
pub(super) fn check_offsets(committed: &BTreeMap<i32, i64>, ends: &BTreeMap<i32, i64>) -> Result<(), String> {
    if committed == ends {
        Ok(())
    } else {
        Err(format!("{committed:?} is committed, and {ends:?} is the end"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copies(numbers: &[u64]) -> Vec<(String, String)> {
        numbers.iter().copied().map(record).collect()
    }

    #[test]
    fn exact_copies_are_exact_in_any_order() {
        assert_eq!(check(&copies(&[2, 0, 1]), 3), Ok(()));
        assert_eq!(check(&[], 0), Ok(()));
    }

    #[test]
    fn planted_faults_are_found() {
        let mut altered = copies(&[0, 1, 2]);
        altered[1].1.push('!');
        let planted = [
            (copies(&[0, 2]), "1 missing: 1 0x"),
            (copies(&[0, 1, 2, 1, 1]), "1 doubled: 1 3x"),
            (copies(&[0, 0, 2]), "1 missing: 1 0x; 1 doubled: 0 2x"),
            (copies(&[0, 1, 2, 3]), "1 strange: (\"key-3\""),
            (altered, "1 missing: 1 0x; 1 strange: (\"key-1\""),
            (vec![(String::new(), String::new())], "3 missing: 0 0x, 1 0x, 2 0x; 1 strange: (\"\", \"\")"),
        ];
        for (copies, complaint) in planted {
            let found = check(&copies, 3).unwrap_err();
            assert!(found.starts_with(complaint), "{found}");
        }
        assert_eq!(check(&[], 100).unwrap_err().matches("0x").count(), NAMED);
    }

    #[test]
    fn a_group_that_is_not_at_the_end_is_found() {
        let ends = BTreeMap::from([(0, 5), (1, 7)]);
        assert_eq!(check_offsets(&ends, &ends), Ok(()));
        for wrong in [BTreeMap::from([(0, 5)]), BTreeMap::from([(0, 5), (1, 6)]), BTreeMap::new()] {
            assert!(check_offsets(&wrong, &ends).unwrap_err().contains("is the end"));
        }
    }
}
