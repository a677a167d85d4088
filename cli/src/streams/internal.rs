//! Which topics are an application's own (pure).

use std::fmt;

/// What a topic of an application is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The changes of a store.
    Changelog,
    /// What one sub-topology sends to another.
    Repartition,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Changelog => "changelog",
            Self::Repartition => "repartition",
        })
    }
}

/// The ends of names of internal topics, Kafka Streams' foreign-key joins included.
const ENDS: [(&str, Role); 4] = [
    ("-changelog", Role::Changelog),
    ("-repartition", Role::Repartition),
    ("-subscription-registration-topic", Role::Repartition),
    ("-subscription-response-topic", Role::Repartition),
];

/// What a topic is to application `application`, if it is one of its own. A topic whose name also begins with the
/// name of another, longer-named group belongs to that one: `shop-eu-counts-changelog` to `shop-eu`, not to `shop`.
pub(crate) fn role(topic: &str, application: &str, groups: &[String]) -> Option<Role> {
    let begins_with = |name: &str| topic.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'));
    let (end, role) = ENDS.iter().find(|(end, _)| topic.ends_with(end))?;
    // Something must be between the application's name and the end.
    let is_whole = topic.len() > application.len() + end.len();
    let is_anothers = groups.iter().any(|group| group.len() > application.len() && begins_with(group));
    (begins_with(application) && is_whole && !is_anothers).then_some(*role)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_belongs_to_the_longest_name_that_it_begins_with() {
        let groups = ["shop", "shop-eu", "other"].map(str::to_owned);
        let of = |topic, application| role(topic, application, &groups);
        assert_eq!(of("shop-counts-changelog", "shop"), Some(Role::Changelog));
        assert_eq!(of("shop-counts-repartition", "shop"), Some(Role::Repartition));
        assert_eq!(of("shop-fk-subscription-response-topic", "shop"), Some(Role::Repartition));
        assert_eq!(of("shop-eu-counts-changelog", "shop"), None, "of shop-eu");
        assert_eq!(of("shop-eu-counts-changelog", "shop-eu"), Some(Role::Changelog));
        for topic in ["shop", "shop-changelog", "shop-orders", "shopcounts-changelog", "counts-changelog", ""]
        {
            assert_eq!(of(topic, "shop"), None, "{topic}");
        }
    }
}
