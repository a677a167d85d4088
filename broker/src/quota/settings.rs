//! What quotas are set, for users and client ids and their defaults, and which one counts for a client.

use std::collections::BTreeMap;

/// Kinds of entities, by Kafka's names.
pub(crate) const USER: &str = "user";
pub(crate) const CLIENT_ID: &str = "client-id";
pub(crate) const IP: &str = "ip";
/// Who everybody is where nobody logs in.
const ANONYMOUS: &str = "ANONYMOUS";

/// Whose a quota is: a name of each kind, or none for the default of the kind.
pub(crate) type Entity = BTreeMap<String, Option<String>>;

/// Something that is counted in bytes a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rate {
    Produced,
    Fetched,
}

impl Rate {
    fn key(self) -> &'static str {
        match self {
            Self::Produced => "producer_byte_rate",
            Self::Fetched => "consumer_byte_rate",
        }
    }
}

/// The quotas that are set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ClientQuotas {
    /// Values as their bits, so that they can be compared.
    by_entity: BTreeMap<Entity, BTreeMap<String, u64>>,
}

impl ClientQuotas {
    /// Whether none is set.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_entity.is_empty()
    }

    /// All of them: entity, name, value.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Entity, &str, f64)> {
        self.by_entity.iter().flat_map(|(entity, quotas)| {
            quotas.iter().map(move |(key, bits)| (entity, key.as_str(), f64::from_bits(*bits)))
        })
    }

    /// One of them.
    pub(crate) fn get(&self, entity: &Entity, key: &str) -> Option<f64> {
        self.by_entity.get(entity)?.get(key).copied().map(f64::from_bits)
    }

    /// Sets one, or takes it away.
    pub(crate) fn set(&mut self, entity: &Entity, key: &str, value: Option<f64>) {
        match value {
            Some(value) => {
                let quotas = self.by_entity.entry(entity.clone()).or_default();
                quotas.insert(key.to_owned(), value.to_bits());
            }
            None => {
                if let Some(quotas) = self.by_entity.get_mut(entity) {
                    quotas.remove(key);
                    if quotas.is_empty() {
                        self.by_entity.remove(entity);
                    }
                }
            }
        }
    }

    /// What counts for a client, in bytes a second, and whether its id has a share of its own (of a user's quota all
    /// clients of the user have one together). As in Kafka what says more goes first, and the user before the client
    /// id.
    pub(crate) fn limit(&self, client_id: &str, rate: Rate) -> Option<(f64, bool)> {
        let users = [Some(Some(ANONYMOUS)), Some(None), None];
        let clients = [Some(Some(client_id)), Some(None), None];
        for user in users {
            for client in clients {
                let parts = [(USER, user), (CLIENT_ID, client)].into_iter();
                let part = |(kind, name): (&str, Option<Option<&str>>)| {
                    name.map(|name| (kind.to_owned(), name.map(str::to_owned)))
                };
                let entity: Entity = parts.filter_map(part).collect();
                if let Some(limit) = self.get(&entity, rate.key()) {
                    return Some((limit, client.is_some()));
                }
            }
        }
        None
    }
}

/// Whether quotas can be set for an entity.
///
/// # Errors
/// The reason in words.
pub(crate) fn check_entity(entity: &Entity) -> Result<(), String> {
    if entity.is_empty() {
        return Err("a quota is for somebody".into());
    }
    for (kind, name) in entity {
        match (kind.as_str(), name.as_deref()) {
            (_, Some("")) => return Err(format!("a {kind} has a name; none at all is the default")),
            (USER, None | Some(ANONYMOUS)) | (CLIENT_ID, _) => {}
            (USER, _) => {
                return Err(format!("nobody logs in here: the only user is {ANONYMOUS}"));
            }
            (IP, _) => return Err("the rate of connections has no limit here".into()),
            _ => return Err(format!("there are no quotas for a {kind}")),
        }
    }
    Ok(())
}

/// Whether a quota can have a value.
///
/// # Errors
/// The reason in words.
pub(crate) fn check(key: &str, value: f64) -> Result<(), String> {
    match key {
        "producer_byte_rate" | "consumer_byte_rate" => {}
        "request_percentage" | "controller_mutation_rate" => {
            return Err(format!("{key} is not kept to by this broker, so it does not take it"));
        }
        _ => return Err(format!("there is no quota {key}")),
    }
    let fits = value >= 1.0 && value <= i64::MAX as f64 && value.fract() == 0.0;
    if fits {
        Ok(())
    } else {
        Err(format!("{key} is a whole number of bytes a second, at least 1, not {value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(parts: &[(&str, Option<&str>)]) -> Entity {
        parts.iter().map(|(kind, name)| ((*kind).to_owned(), name.map(str::to_owned))).collect()
    }

    /// Each is set beside those that go behind it, and counts from then on.
    #[test]
    fn what_says_more_goes_first() {
        let order = [
            (entity(&[(CLIENT_ID, None)]), true),
            (entity(&[(CLIENT_ID, Some("me"))]), true),
            (entity(&[(USER, None)]), false),
            (entity(&[(USER, None), (CLIENT_ID, None)]), true),
            (entity(&[(USER, None), (CLIENT_ID, Some("me"))]), true),
            (entity(&[(USER, Some(ANONYMOUS))]), false),
            (entity(&[(USER, Some(ANONYMOUS)), (CLIENT_ID, None)]), true),
            (entity(&[(USER, Some(ANONYMOUS)), (CLIENT_ID, Some("me"))]), true),
        ];
        let mut quotas = ClientQuotas::default();
        assert_eq!(quotas.limit("me", Rate::Produced), None);
        for (number, (entity, own)) in order.iter().enumerate() {
            let value = number as f64 + 1.0;
            quotas.set(entity, "producer_byte_rate", Some(value));
            assert_eq!(quotas.limit("me", Rate::Produced), Some((value, *own)), "{entity:?}");
            assert_eq!(quotas.limit("me", Rate::Fetched), None);
        }
        quotas.set(&entity(&[(CLIENT_ID, Some("other"))]), "consumer_byte_rate", Some(9.0));
        assert_eq!(quotas.limit("me", Rate::Fetched), None);
        assert_eq!(quotas.limit("other", Rate::Fetched), Some((9.0, true)));
        assert_eq!(quotas.all().count(), 9);
        for (entity, _) in &order {
            quotas.set(entity, "producer_byte_rate", None);
            quotas.set(entity, "nothing", None);
        }
        quotas.set(&entity(&[(CLIENT_ID, Some("other"))]), "consumer_byte_rate", None);
        assert!(quotas.is_empty());
    }

    #[test]
    fn what_would_not_be_kept_to_is_refused() {
        for good in
            [&[(USER, None)][..], &[(USER, Some(ANONYMOUS)), (CLIENT_ID, Some("x"))], &[(CLIENT_ID, None)]]
        {
            check_entity(&entity(good)).unwrap();
        }
        for bad in [
            &[][..],
            &[(USER, Some("alice"))],
            &[(IP, None)],
            &[(CLIENT_ID, Some(""))],
            &[("group", Some("x"))],
        ] {
            check_entity(&entity(bad)).unwrap_err();
        }
        for good in [1.0, 1e9, 1e18] {
            check("producer_byte_rate", good).unwrap();
        }
        for bad in [0.0, -1.0, 1.5, f64::NAN, f64::INFINITY, 1e19] {
            check("consumer_byte_rate", bad).unwrap_err();
        }
        for key in ["request_percentage", "controller_mutation_rate", "x"] {
            check(key, 5.0).unwrap_err();
        }
    }
}
