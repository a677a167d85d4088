//! How many files the process may have open, and whether that is enough for the settings.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the settings may need, each under its name.
pub(crate) type Needs<'a> = [(&'a str, u64)];

/// For what no setting counts: the program itself, checkpoints being written, lookups in flight.
const SPARE: u64 = 100;

/// Raises the number of files that this process may have open to what the system lets it have, and says how many that
/// is; `None` is no limit. The limit that a shell or a service starts with is a habit from times of `select`, and often
/// a thousand times lower than what is allowed.
pub(crate) fn raise_open_files_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, limit = limit.current, "cannot raise the limit of open files");
            limit.current
        }
    }
}

/// What to tell the operator when the settings may need more open files than there may be.
pub(crate) fn shortage(limit: Option<u64>, needs: &Needs<'_>) -> Option<String> {
    let limit = limit?;
    let needed = needs.iter().fold(SPARE, |sum, (_, need)| sum.saturating_add(*need));
    if needed <= limit {
        return None;
    }
    let settings: Vec<String> = needs.iter().map(|(name, need)| format!("{name}={need}")).collect();
    Some(format!(
        "the settings may need {needed} open files ({}, and {SPARE} for everything else), and this process may have \
         {limit}. Raise the limit (ulimit -n, LimitNOFILE), or lower the settings; without, requests fail while there \
         are too many",
        settings.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_settings_need_is_compared_with_the_limit() {
        let needs = [("max.connections", 50), ("log.open.files.max", 20)];
        assert_eq!(shortage(None, &needs), None);
        assert_eq!(shortage(Some(170), &needs), None);
        let told = shortage(Some(169), &needs).unwrap();
        for part in ["170 open files", "may have 169", "max.connections=50, log.open.files.max=20"] {
            assert!(told.contains(part), "{part:?} is not in {told:?}");
        }
        assert!(shortage(Some(u64::MAX - 1), &[("max.connections", u64::MAX)]).is_some());
    }

    #[test]
    fn the_limit_is_what_the_system_allows() {
        let limit = raise_open_files_limit();
        let now = getrlimit(Resource::Nofile);
        assert_eq!((limit, now.current), (now.current, now.maximum));
    }
}
