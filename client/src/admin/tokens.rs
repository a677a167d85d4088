//! Delegation tokens (KIP-48): short-lived secrets with which somebody else logs in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::messages::create_delegation_token::CreatableRenewers;
use klamm_protocol::messages::describe_delegation_token::{
    DescribeDelegationTokenOwner, DescribedDelegationToken,
};
use klamm_protocol::messages::{
    CreateDelegationTokenRequest, CreateDelegationTokenResponse, DescribeDelegationTokenRequest,
    DescribeDelegationTokenResponse, ExpireDelegationTokenRequest, ExpireDelegationTokenResponse,
    RenewDelegationTokenRequest, RenewDelegationTokenResponse,
};

use super::asking::Exchange;
use super::handle::Admin;
use super::progress::check;
use super::route::Destination;
use super::topics::key;
use crate::error::AdminError;

/// What the broker allows.
const AS_ALLOWED: i64 = -1;
/// From here on a token may be made for somebody else.
const OWNERS_FROM: i16 = 3;

impl Admin {
    /// Makes a token. Brokers want a login over an encrypted connection for that, and
    /// `delegation.token.secret.key` to be set.
    ///
    /// # Errors
    /// No controller in time, or it refuses. After an answer that got lost the request is sent again, and there may be
    /// two tokens.
    pub async fn create_delegation_token(
        &self,
        token: &NewDelegationToken,
    ) -> Result<DelegationToken, AdminError> {
        let build = |_: &[()], version| CreateDelegationTokenRequest {
            owner_principal_type: token.owner_part(version, |owner| &owner.kind),
            owner_principal_name: token.owner_part(version, |owner| &owner.name),
            renewers: token
                .renewers
                .iter()
                .map(|renewer| CreatableRenewers {
                    principal_type: (&*renewer.kind).into(),
                    principal_name: (&*renewer.name).into(),
                    ..Default::default()
                })
                .collect(),
            max_lifetime_ms: token.max_lifetime.map_or(AS_ALLOWED, millis),
            ..Default::default()
        };
        let read = |answer: CreateDelegationTokenResponse, _: &[()]| {
            let made = check(answer.error_code, None).map(|()| created(answer, &token.renewers));
            vec![((), made)]
        };
        let exchange = Exchange { what: "creating a delegation token", up_to: i16::MAX, build, read };
        self.ask_one((), Destination::Controller, exchange).await
    }

    /// Prolongs a token's life by `period` from now on (default: what the broker allows). Gives when it expires, in
    /// milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// No controller in time, or it refuses.
    pub async fn renew_delegation_token(
        &self,
        hmac: &Bytes,
        period: Option<Duration>,
    ) -> Result<i64, AdminError> {
        let build = |_: &[()], _| RenewDelegationTokenRequest {
            hmac: hmac.clone(),
            renew_period_ms: period.map_or(AS_ALLOWED, millis),
            ..Default::default()
        };
        let read = |answer: RenewDelegationTokenResponse, _: &[()]| {
            vec![((), check(answer.error_code, None).map(|()| answer.expiry_timestamp_ms))]
        };
        let exchange = Exchange { what: "renewing a delegation token", up_to: i16::MAX, build, read };
        self.ask_one((), Destination::Controller, exchange).await
    }

    /// Ends a token's life after `period`, or at once with `None`. Gives when it expires, in milliseconds since the
    /// Unix epoch.
    ///
    /// # Errors
    /// No controller in time, or it refuses.
    pub async fn expire_delegation_token(
        &self,
        hmac: &Bytes,
        period: Option<Duration>,
    ) -> Result<i64, AdminError> {
        let build = |_: &[()], _| ExpireDelegationTokenRequest {
            hmac: hmac.clone(),
            expiry_time_period_ms: period.map_or(-1, millis),
            ..Default::default()
        };
        let read = |answer: ExpireDelegationTokenResponse, _: &[()]| {
            vec![((), check(answer.error_code, None).map(|()| answer.expiry_timestamp_ms))]
        };
        let exchange = Exchange { what: "expiring a delegation token", up_to: i16::MAX, build, read };
        self.ask_one((), Destination::Controller, exchange).await
    }

    /// The tokens of these owners that this client may see, of all owners when none is named.
    ///
    /// # Errors
    /// No broker in time, or it refuses.
    pub async fn describe_delegation_tokens(
        &self,
        owners: &[Principal],
    ) -> Result<Vec<DelegationToken>, AdminError> {
        let owner = |owner: &Principal| DescribeDelegationTokenOwner {
            principal_type: (&*owner.kind).into(),
            principal_name: (&*owner.name).into(),
            ..Default::default()
        };
        let build = |_: &[()], _| DescribeDelegationTokenRequest {
            owners: (!owners.is_empty()).then(|| owners.iter().map(owner).collect()),
            ..Default::default()
        };
        let read = |answer: DescribeDelegationTokenResponse, _: &[()]| {
            let told = check(answer.error_code, None);
            vec![((), told.map(|()| answer.tokens.into_iter().map(described).collect()))]
        };
        let exchange = Exchange { what: "describing delegation tokens", up_to: i16::MAX, build, read };
        self.ask_one((), Destination::Any, exchange).await
    }
}

/// Whom a broker takes a client for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Principal {
    /// Such as `User`.
    pub kind: Arc<str>,
    /// Such as `alice`.
    pub name: Arc<str>,
}

impl Principal {
    /// A user.
    pub fn user(name: impl Into<Arc<str>>) -> Self {
        Self { kind: "User".into(), name: name.into() }
    }
}

/// A token to make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewDelegationToken {
    /// Whom it stands for; `None` for whoever makes it. Apache Kafka from 3.3.
    pub owner: Option<Principal>,
    /// Who may renew it beside its owner.
    pub renewers: Vec<Principal>,
    /// How long it lives at most; `None` for what the broker allows (`delegation.token.max.lifetime.ms`).
    pub max_lifetime: Option<Duration>,
}

impl NewDelegationToken {
    /// A token for whoever makes it, with the broker's limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stands for somebody else.
    #[must_use]
    pub fn owner(mut self, owner: Principal) -> Self {
        self.owner = Some(owner);
        self
    }

    /// May be renewed by this one too.
    #[must_use]
    pub fn renewer(mut self, renewer: Principal) -> Self {
        self.renewers.push(renewer);
        self
    }

    /// Lives for so long at most.
    #[must_use]
    pub fn max_lifetime(mut self, lifetime: Duration) -> Self {
        self.max_lifetime = Some(lifetime);
        self
    }

    /// Older brokers cannot be told of an owner: then the request cannot be written, which is an error.
    fn owner_part(
        &self,
        version: i16,
        part: impl Fn(&Principal) -> &Arc<str>,
    ) -> Option<klamm_protocol::Utf8Bytes> {
        match &self.owner {
            Some(owner) => Some((&**part(owner)).into()),
            None if version >= OWNERS_FROM => None,
            None => Some(klamm_protocol::Utf8Bytes::default()),
        }
    }
}

/// A token.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DelegationToken {
    /// Its id: the name to log in with.
    pub token_id: Arc<str>,
    /// Its secret: in base64 the password to log in with. Not shown by `Debug`.
    pub hmac: Bytes,
    /// Whom it stands for.
    pub owner: Principal,
    /// Who asked for it; `None` from brokers that do not tell (Apache Kafka before 3.3).
    pub requester: Option<Principal>,
    /// Who may renew it beside its owner.
    pub renewers: Vec<Principal>,
    /// When it was made, in milliseconds since the Unix epoch.
    pub issued_at_ms: i64,
    /// When it expires unless it is renewed, in milliseconds since the Unix epoch.
    pub expires_at_ms: i64,
    /// When it expires for good, in milliseconds since the Unix epoch.
    pub max_at_ms: i64,
}

impl fmt::Debug for DelegationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DelegationToken")
            .field("token_id", &self.token_id)
            .field("owner", &self.owner)
            .field("expires_at_ms", &self.expires_at_ms)
            .finish_non_exhaustive()
    }
}

fn created(answer: CreateDelegationTokenResponse, renewers: &[Principal]) -> DelegationToken {
    DelegationToken {
        token_id: key(&answer.token_id),
        hmac: answer.hmac,
        owner: Principal { kind: key(&answer.principal_type), name: key(&answer.principal_name) },
        requester: told(Principal {
            kind: key(&answer.token_requester_principal_type),
            name: key(&answer.token_requester_principal_name),
        }),
        renewers: renewers.to_vec(),
        issued_at_ms: answer.issue_timestamp_ms,
        expires_at_ms: answer.expiry_timestamp_ms,
        max_at_ms: answer.max_timestamp_ms,
    }
}

fn described(token: DescribedDelegationToken) -> DelegationToken {
    let renewers = token.renewers.iter();
    DelegationToken {
        token_id: key(&token.token_id),
        hmac: token.hmac,
        owner: Principal { kind: key(&token.principal_type), name: key(&token.principal_name) },
        requester: told(Principal {
            kind: key(&token.token_requester_principal_type),
            name: key(&token.token_requester_principal_name),
        }),
        renewers: renewers
            .map(|renewer| Principal {
                kind: key(&renewer.principal_type),
                name: key(&renewer.principal_name),
            })
            .collect(),
        issued_at_ms: token.issue_timestamp,
        expires_at_ms: token.expiry_timestamp,
        max_at_ms: token.max_timestamp,
    }
}

/// One without a kind is none.
fn told(principal: Principal) -> Option<Principal> {
    (!principal.kind.is_empty()).then_some(principal)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_not_shown() {
        let answer = CreateDelegationTokenResponse {
            principal_type: "User".into(),
            principal_name: "alice".into(),
            token_id: "id".into(),
            hmac: Bytes::from_static(b"very secret"),
            expiry_timestamp_ms: 3,
            ..Default::default()
        };
        let token = created(answer, &[Principal::user("bob")]);
        assert_eq!((&token.owner, &token.requester), (&Principal::user("alice"), &None));
        assert_eq!((&token.renewers[..], token.expires_at_ms), (&[Principal::user("bob")][..], 3));
        let shown = format!("{token:?}");
        assert!(shown.contains("alice") && !shown.contains("118") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn a_token_that_is_described_is_whole() {
        let token = DescribedDelegationToken {
            principal_type: "User".into(),
            principal_name: "alice".into(),
            token_requester_principal_type: "User".into(),
            token_requester_principal_name: "carol".into(),
            issue_timestamp: 1,
            expiry_timestamp: 2,
            max_timestamp: 3,
            token_id: "id".into(),
            ..Default::default()
        };
        let token = described(token);
        assert_eq!(token.requester, Some(Principal::user("carol")));
        assert_eq!((token.issued_at_ms, token.expires_at_ms, token.max_at_ms), (1, 2, 3));
    }

    #[test]
    fn an_owner_is_told_to_brokers_that_know_them() {
        let nobody = NewDelegationToken::new();
        assert_eq!(nobody.owner_part(3, |owner| &owner.name), None);
        assert_eq!(nobody.owner_part(2, |owner| &owner.name), Some(Default::default()));
        let alice = NewDelegationToken::new().owner(Principal::user("alice")).renewer(Principal::user("bob"));
        assert_eq!(alice.owner_part(2, |owner| &owner.name), Some("alice".into()));
        assert_eq!(alice.owner_part(3, |owner| &owner.kind), Some("User".into()));
        let lives = alice.max_lifetime(Duration::from_secs(2));
        assert_eq!((lives.max_lifetime.map(millis), lives.renewers.len()), (Some(2_000), 1));
        assert_eq!(millis(Duration::MAX), i64::MAX);
    }
}
