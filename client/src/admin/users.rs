//! Users: their SCRAM credentials and quotas.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use klamm_protocol::messages::alter_client_quotas as alter;
use klamm_protocol::messages::alter_user_scram_credentials::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use klamm_protocol::messages::describe_client_quotas::ComponentData;
use klamm_protocol::messages::describe_user_scram_credentials::UserName;
use klamm_protocol::messages::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, AlterUserScramCredentialsRequest,
    AlterUserScramCredentialsResponse, DescribeClientQuotasRequest, DescribeClientQuotasResponse,
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
};

use super::asking::Exchange;
use super::handle::Admin;
use super::progress::{PerItem, check};
use super::route::{Destination, Item};
use super::topics::{key, keys};
use crate::error::AdminError;
use crate::security::salted_password;

/// Random bytes in a salt.
const SALT_BYTES: usize = 24;

impl Admin {
    /// Which SCRAM credentials users have; of all users when none is named. Passwords are not told, and brokers do not
    /// know them.
    ///
    /// # Errors
    /// No broker in time.
    pub async fn describe_scram_users<T: AsRef<str>>(
        &self,
        users: &[T],
    ) -> Result<PerItem<Arc<str>, Vec<ScramCredential>>, AdminError> {
        let users = keys(users);
        let build = |_: &[()], _| DescribeUserScramCredentialsRequest {
            users: (!users.is_empty()).then(|| {
                users.iter().map(|name| UserName { name: (&**name).into(), ..Default::default() }).collect()
            }),
            ..Default::default()
        };
        let read = |answer: DescribeUserScramCredentialsResponse, _: &[()]| {
            let checked = check(answer.error_code, answer.error_message);
            vec![((), checked.map(|()| answer.results))]
        };
        let exchange = Exchange { what: "describing users", up_to: i16::MAX, build, read };
        let results = self.ask_one((), Destination::Any, exchange).await?;
        let results = results.into_iter().map(|result| {
            let user = key(&result.user);
            let credentials = result.credential_infos.iter().map(|info| ScramCredential {
                mechanism: ScramMechanism::from_wire(info.mechanism),
                iterations: info.iterations,
            });
            let told = check(result.error_code, result.error_message.clone());
            let told = told.map(|()| credentials.collect()).map_err(|refusal| AdminError::Broker {
                what: Arc::clone(&user),
                code: refusal.code,
                message: refusal.message,
            });
            (user, told)
        });
        Ok(results.collect())
    }

    /// Sets and deletes users' SCRAM credentials. Passwords are hashed here and do not travel.
    ///
    /// # Errors
    /// No controller in time.
    pub async fn alter_scram_users(
        &self,
        changes: &[ScramChange],
    ) -> Result<PerItem<Arc<str>, ()>, AdminError> {
        let mut by_user: BTreeMap<&Arc<str>, Vec<&ScramChange>> = BTreeMap::new();
        for change in changes {
            by_user.entry(change.user()).or_default().push(change);
        }
        let build = |users: &[Arc<str>], _| {
            let mut request = AlterUserScramCredentialsRequest::default();
            for change in users.iter().filter_map(|user| by_user.get(user)).flatten() {
                match change {
                    ScramChange::Delete { user, mechanism } => {
                        let (name, mechanism) = ((&**user).into(), mechanism.wire());
                        let deletion = ScramCredentialDeletion { name, mechanism, ..Default::default() };
                        request.deletions.push(deletion);
                    }
                    ScramChange::Set(credential) => request.upsertions.push(credential.wire()),
                }
            }
            request
        };
        let read = |answer: AlterUserScramCredentialsResponse, _: &[Arc<str>]| {
            let results = answer.results.into_iter();
            results
                .map(|result| (key(&result.user), check(result.error_code, result.error_message)))
                .collect()
        };
        let exchange = Exchange { what: "changing users", up_to: i16::MAX, build, read };
        self.ask(by_user.keys().map(|&user| Arc::clone(user)), |_| Destination::Controller, exchange).await
    }

    /// The quotas of all entities that have some.
    ///
    /// # Errors
    /// No broker in time.
    pub async fn describe_quotas(&self) -> Result<HashMap<QuotaEntity, BTreeMap<Arc<str>, f64>>, AdminError> {
        self.quotas(Vec::new(), false).await
    }

    /// The quotas of exactly one entity; empty when it has none of its own.
    ///
    /// # Errors
    /// No broker in time.
    pub async fn describe_quota(&self, entity: &QuotaEntity) -> Result<BTreeMap<Arc<str>, f64>, AdminError> {
        let component = |(kind, name): (&Arc<str>, &Option<Arc<str>>)| ComponentData {
            entity_type: (&**kind).into(),
            match_type: i8::from(name.is_none()),
            r#match: name.as_deref().map(Into::into),
            ..Default::default()
        };
        let mut found = self.quotas(entity.0.iter().map(component).collect(), true).await?;
        Ok(found.remove(entity).unwrap_or_default())
    }

    async fn quotas(
        &self,
        components: Vec<ComponentData>,
        strict: bool,
    ) -> Result<HashMap<QuotaEntity, BTreeMap<Arc<str>, f64>>, AdminError> {
        let build = |_: &[()], _| DescribeClientQuotasRequest {
            components: components.clone(),
            strict,
            ..Default::default()
        };
        let read = |answer: DescribeClientQuotasResponse, _: &[()]| {
            let checked = check(answer.error_code, answer.error_message);
            let quotas = checked.map(|()| {
                let entries = answer.entries.iter().flatten().map(|entry| {
                    let parts = entry.entity.iter();
                    let parts =
                        parts.map(|part| (key(&part.entity_type), part.entity_name.as_ref().map(key)));
                    let values = entry.values.iter().map(|value| (key(&value.key), value.value));
                    (QuotaEntity(parts.collect()), values.collect())
                });
                entries.collect()
            });
            vec![((), quotas)]
        };
        let exchange = Exchange { what: "describing quotas", up_to: i16::MAX, build, read };
        self.ask_one((), Destination::Any, exchange).await
    }

    /// Sets quotas by their names, such as `producer_byte_rate`; `None` removes one.
    ///
    /// # Errors
    /// No controller in time.
    pub async fn alter_quotas(
        &self,
        changes: &HashMap<QuotaEntity, BTreeMap<Arc<str>, Option<f64>>>,
    ) -> Result<PerItem<QuotaEntity, ()>, AdminError> {
        let build = |entities: &[QuotaEntity], _| AlterClientQuotasRequest {
            entries: entities
                .iter()
                .filter_map(|entity| Some((entity, changes.get(entity)?)))
                .map(|(entity, values)| alter::EntryData {
                    entity: entity.wire(),
                    ops: values
                        .iter()
                        .map(|(name, value)| alter::OpData {
                            key: (&**name).into(),
                            value: value.unwrap_or_default(),
                            remove: value.is_none(),
                            ..Default::default()
                        })
                        .collect(),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        };
        let read = |answer: AlterClientQuotasResponse, _: &[QuotaEntity]| {
            let results = answer.entries.into_iter().map(|entry| {
                let parts = entry.entity.iter();
                let parts = parts.map(|part| (key(&part.entity_type), part.entity_name.as_ref().map(key)));
                (QuotaEntity(parts.collect()), check(entry.error_code, entry.error_message))
            });
            results.collect()
        };
        let exchange = Exchange { what: "changing quotas", up_to: i16::MAX, build, read };
        self.ask(changes.keys().cloned(), |_| Destination::Controller, exchange).await
    }
}

/// A hash function of SCRAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ScramMechanism {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
    /// One that this client does not know.
    Unknown(i8),
}

impl ScramMechanism {
    fn wire(self) -> i8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha512 => 2,
            Self::Unknown(code) => code,
        }
    }

    fn from_wire(code: i8) -> Self {
        match code {
            1 => Self::Sha256,
            2 => Self::Sha512,
            code => Self::Unknown(code),
        }
    }
}

/// What may be told of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScramCredential {
    /// The mechanism it is for.
    pub mechanism: ScramMechanism,
    /// How often the password was hashed.
    pub iterations: i32,
}

/// A change of a user's SCRAM credentials.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ScramChange {
    /// Takes the credential for a mechanism away.
    Delete {
        /// The user.
        user: Arc<str>,
        /// The mechanism.
        mechanism: ScramMechanism,
    },
    /// Sets one; made by [`ScramChange::set`].
    Set(NewScramCredential),
}

impl ScramChange {
    /// Sets the password of a user for a mechanism, hashed `iterations` times (Kafka takes 4,096 to 16,384) with a salt
    /// of its own. Hashing takes milliseconds.
    ///
    /// # Errors
    /// The operating system has no random numbers for the salt.
    pub fn set(
        user: impl Into<Arc<str>>,
        mechanism: ScramMechanism,
        password: &str,
        iterations: u32,
    ) -> Result<Self, std::io::Error> {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(|error| std::io::Error::other(error.to_string()))?;
        let salted = salted_password(mechanism != ScramMechanism::Sha256, password, &salt, iterations);
        let salt = salt.to_vec();
        Ok(Self::Set(NewScramCredential { user: user.into(), mechanism, iterations, salt, salted }))
    }

    /// Takes a user's credential for a mechanism away.
    pub fn delete(user: impl Into<Arc<str>>, mechanism: ScramMechanism) -> Self {
        Self::Delete { user: user.into(), mechanism }
    }

    fn user(&self) -> &Arc<str> {
        match self {
            Self::Delete { user, .. } => user,
            Self::Set(credential) => &credential.user,
        }
    }
}

/// A credential to set. Neither the password nor what came of it is shown.
#[derive(Clone)]
pub struct NewScramCredential {
    user: Arc<str>,
    mechanism: ScramMechanism,
    iterations: u32,
    salt: Vec<u8>,
    salted: Vec<u8>,
}

impl NewScramCredential {
    fn wire(&self) -> ScramCredentialUpsertion {
        ScramCredentialUpsertion {
            name: (&*self.user).into(),
            mechanism: self.mechanism.wire(),
            iterations: i32::try_from(self.iterations).unwrap_or(i32::MAX),
            salt: self.salt.clone().into(),
            salted_password: self.salted.clone().into(),
            ..Default::default()
        }
    }
}

impl fmt::Debug for NewScramCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewScramCredential")
            .field("user", &self.user)
            .field("mechanism", &self.mechanism)
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

/// What a quota is for: a user, a client id, both together, or an address; by name or as the default.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct QuotaEntity(BTreeMap<Arc<str>, Option<Arc<str>>>);

impl QuotaEntity {
    /// A user; `None` is the default of users.
    pub fn user(name: Option<&str>) -> Self {
        Self::default().with("user", name)
    }

    /// A client id; `None` is the default of client ids.
    pub fn client_id(name: Option<&str>) -> Self {
        Self::default().with("client-id", name)
    }

    /// An address; `None` is the default of addresses.
    pub fn ip(name: Option<&str>) -> Self {
        Self::default().with("ip", name)
    }

    /// Adds a part: that user with this client id.
    #[must_use]
    pub fn with(mut self, kind: &str, name: Option<&str>) -> Self {
        self.0.insert(Arc::from(kind), name.map(Arc::from));
        self
    }

    /// The parts by kind; `None` is a default.
    pub fn parts(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.0.iter().map(|(kind, name)| (&**kind, name.as_deref()))
    }

    fn wire(&self) -> Vec<alter::EntityData> {
        let part = |(kind, name): (&str, Option<&str>)| alter::EntityData {
            entity_type: kind.into(),
            entity_name: name.map(Into::into),
            ..Default::default()
        };
        self.parts().map(part).collect()
    }
}

impl Item for QuotaEntity {
    fn name(&self) -> Arc<str> {
        let part = |(kind, name): (&str, Option<&str>)| format!("{kind} {}", name.unwrap_or("(default)"));
        self.parts().map(part).collect::<Vec<_>>().join(", ").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_set_without_showing_the_password() {
        let change = ScramChange::set("alice", ScramMechanism::Sha512, "hunter2", 4_096).unwrap();
        let text = format!("{change:?}");
        assert!(text.contains("alice") && text.contains("4096"), "{text}");
        assert!(!text.contains("hunter2") && !text.contains("salt"), "{text}");
        let ScramChange::Set(credential) = change else { panic!("{text}") };
        let sent = credential.wire();
        assert_eq!((sent.mechanism, sent.iterations, sent.salt.len()), (2, 4_096, 24));
        assert_eq!(sent.salted_password, salted_password(true, "hunter2", &sent.salt, 4_096));
        let ScramChange::Set(again) =
            ScramChange::set("alice", ScramMechanism::Sha256, "hunter2", 4_096).unwrap()
        else {
            panic!("a change that sets")
        };
        assert_ne!(again.salt, credential.salt);
        assert_eq!(again.salted.len(), 32);
    }

    #[test]
    fn entities_have_names() {
        let entity = QuotaEntity::user(Some("alice")).with("client-id", None);
        assert_eq!(&*entity.name(), "client-id (default), user alice");
        assert_eq!(&*QuotaEntity::ip(None).name(), "ip (default)");
        assert_eq!(entity.wire().len(), 2);
    }
}
