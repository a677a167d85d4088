//! Where a partition may be read. Pure.

use std::sync::Arc;

use super::instance::Holders;

/// Where a partition may be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Here,
    StandbyHere,
    At(Arc<str>),
}

/// Where to read a partition, the best first.
pub(super) fn places(
    active_here: bool,
    standby_here: bool,
    holders: &Holders,
    own: Option<&str>,
    stale: bool,
) -> Vec<Place> {
    if active_here {
        return vec![Place::Here];
    }
    let other = |host: &&Arc<str>| Some(&***host) != own;
    let mut places: Vec<Place> =
        holders.active.iter().filter(other).map(|host| Place::At(Arc::clone(host))).collect();
    if stale {
        places.extend(standby_here.then_some(Place::StandbyHere));
        places.extend(holders.standbys.iter().filter(other).map(|host| Place::At(Arc::clone(host))));
    }
    places
}
