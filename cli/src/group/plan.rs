//! Where a group goes on in one partition after a reset (pure).

/// Where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Earliest,
    Latest,
    /// What is committed; where nothing is, the end.
    Current,
    Offset(i64),
    /// So many records on from what is committed, or back.
    Shift(i64),
    /// The first record of this time or later, in milliseconds since 1970; the end if there is none.
    Time(i64),
}

/// What is known of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) committed: Option<i64>,
    pub(crate) earliest: i64,
    /// After the newest record.
    pub(crate) latest: i64,
    /// The first record of the target's time or later.
    pub(crate) at_time: Option<i64>,
}

/// What is to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) committed: Option<i64>,
    pub(crate) offset: i64,
    /// What was asked for, if it lies outside of the log.
    pub(crate) instead_of: Option<i64>,
}

/// # Errors
/// There is nothing to count from.
pub(crate) fn plan(target: Target, bounds: &Bounds) -> Result<Planned, String> {
    let Bounds { committed, earliest, latest, at_time } = *bounds;
    let asked = match target {
        Target::Earliest => earliest,
        Target::Latest => latest,
        // Not held within bounds: what is there is what is written down, as it is.
        Target::Current => {
            return Ok(Planned { committed, offset: committed.unwrap_or(latest), instead_of: None });
        }
        Target::Offset(offset) => offset,
        Target::Shift(by) => {
            let from = committed.ok_or("nothing is committed that could be counted from")?;
            from.saturating_add(by)
        }
        Target::Time(_) => at_time.unwrap_or(latest),
    };
    let offset = asked.min(latest).max(earliest);
    Ok(Planned { committed, offset, instead_of: (offset != asked).then_some(asked) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { committed: Some(15), earliest: 10, latest: 20, at_time: Some(13) };

    #[track_caller]
    fn check(target: Target, bounds: &Bounds, offset: i64, instead_of: Option<i64>) {
        let planned = Planned { committed: bounds.committed, offset, instead_of };
        assert_eq!(plan(target, bounds), Ok(planned), "{target:?}");
    }

    #[test]
    fn each_target_has_its_place() {
        check(Target::Earliest, &BOUNDS, 10, None);
        check(Target::Latest, &BOUNDS, 20, None);
        check(Target::Current, &BOUNDS, 15, None);
        check(Target::Offset(11), &BOUNDS, 11, None);
        check(Target::Shift(-2), &BOUNDS, 13, None);
        check(Target::Shift(2), &BOUNDS, 17, None);
        check(Target::Time(0), &BOUNDS, 13, None);
    }

    #[test]
    fn nothing_is_set_outside_of_the_log() {
        check(Target::Offset(10), &BOUNDS, 10, None);
        check(Target::Offset(20), &BOUNDS, 20, None);
        check(Target::Offset(9), &BOUNDS, 10, Some(9));
        check(Target::Offset(21), &BOUNDS, 20, Some(21));
        check(Target::Shift(i64::MAX), &BOUNDS, 20, Some(i64::MAX));
        check(Target::Shift(i64::MIN), &BOUNDS, 10, Some(15 + i64::MIN));
    }

    #[test]
    fn without_a_committed_offset_or_a_late_enough_record() {
        let bounds = Bounds { committed: None, at_time: None, ..BOUNDS };
        check(Target::Current, &bounds, 20, None);
        check(Target::Time(5), &bounds, 20, None);
        assert!(plan(Target::Shift(0), &bounds).unwrap_err().contains("nothing is committed"));
        let gone = Bounds { committed: Some(3), ..BOUNDS };
        check(Target::Current, &gone, 3, None);
    }
}
