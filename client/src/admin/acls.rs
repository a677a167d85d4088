//! Access rules: listed, added, removed.

use std::fmt;
use std::sync::Arc;

use klamm_protocol::Utf8Bytes;
use klamm_protocol::messages::create_acls::AclCreation;
use klamm_protocol::messages::delete_acls::DeleteAclsFilter;
use klamm_protocol::messages::{
    CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse, DescribeAclsRequest,
    DescribeAclsResponse,
};

use super::asking::Exchange;
use super::handle::Admin;
use super::progress::{Answer, PerItem, check};
use super::route::{Destination, Item};
use super::topics::key;
use crate::error::AdminError;

impl Admin {
    /// The access rules that a filter lets through.
    ///
    /// # Errors
    /// No broker in time, or one without an authorizer (`SECURITY_DISABLED`).
    pub async fn describe_acls(&self, filter: &AclFilter) -> Result<Vec<Acl>, AdminError> {
        let build = |_: &[()], _| DescribeAclsRequest {
            resource_type_filter: filter.resource_type.map_or(ANY, AclResourceType::wire),
            resource_name_filter: filter.resource_name.as_deref().map(Into::into),
            pattern_type_filter: filter.pattern.wire(),
            principal_filter: filter.principal.as_deref().map(Into::into),
            host_filter: filter.host.as_deref().map(Into::into),
            operation: filter.operation.map_or(ANY, AclOperation::wire),
            permission_type: filter.permission.map_or(ANY, AclPermission::wire),
            ..Default::default()
        };
        let read = |answer: DescribeAclsResponse, _: &[()]| {
            let checked = check(answer.error_code, answer.error_message.clone());
            vec![((), checked.map(|()| described(&answer)))]
        };
        let exchange = Exchange { what: "describing access rules", up_to: i16::MAX, build, read };
        let mut acls = self.ask_one((), Destination::Any, exchange).await?;
        acls.sort_unstable();
        Ok(acls)
    }

    /// Adds access rules. One that is there already stays.
    ///
    /// # Errors
    /// No controller in time.
    pub async fn create_acls(&self, acls: &[Acl]) -> Result<PerItem<Acl, ()>, AdminError> {
        let build = |acls: &[Acl], _| CreateAclsRequest {
            creations: acls.iter().map(Acl::creation).collect(),
            ..Default::default()
        };
        // Results stand in the order of the request.
        let read = |answer: CreateAclsResponse, asked: &[Acl]| {
            let results = asked.iter().cloned().zip(answer.results);
            results.map(|(acl, result)| (acl, check(result.error_code, result.error_message))).collect()
        };
        let exchange = Exchange { what: "adding access rules", up_to: i16::MAX, build, read };
        self.ask(acls.iter().cloned(), |_| Destination::Controller, exchange).await
    }

    /// Removes the access rules that filters let through, and gives them.
    ///
    /// # Errors
    /// No controller in time.
    pub async fn delete_acls(
        &self,
        filters: &[AclFilter],
    ) -> Result<PerItem<AclFilter, Vec<Acl>>, AdminError> {
        let build = |filters: &[AclFilter], _| DeleteAclsRequest {
            filters: filters.iter().map(AclFilter::deletion).collect(),
            ..Default::default()
        };
        let read = |answer: DeleteAclsResponse, asked: &[AclFilter]| {
            let results = asked.iter().cloned().zip(answer.filter_results).map(|(filter, result)| {
                let removed = check(result.error_code, result.error_message).and_then(|()| {
                    let matching = result.matching_acls.into_iter().map(|found| {
                        check(found.error_code, found.error_message)?;
                        Ok(Acl {
                            resource_type: AclResourceType::from_wire(found.resource_type),
                            resource_name: key(&found.resource_name),
                            prefixed: found.pattern_type == PREFIXED,
                            principal: key(&found.principal),
                            host: key(&found.host),
                            operation: AclOperation::from_wire(found.operation),
                            permission: AclPermission::from_wire(found.permission_type),
                        })
                    });
                    matching.collect::<Answer<Vec<Acl>>>()
                });
                (filter, removed)
            });
            results.collect()
        };
        let exchange = Exchange { what: "removing access rules", up_to: i16::MAX, build, read };
        self.ask(filters.iter().cloned(), |_| Destination::Controller, exchange).await
    }
}

/// Stands for any value in a filter.
const ANY: i8 = 1;
const LITERAL: i8 = 3;
const PREFIXED: i8 = 4;

/// An access rule: who may, or may not, do what with which resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Acl {
    /// The kind of resource.
    pub resource_type: AclResourceType,
    /// Its name; `*` for all; `kafka-cluster` for the cluster.
    pub resource_name: Arc<str>,
    /// Whether the name is a prefix.
    pub prefixed: bool,
    /// Who, such as `User:alice`; `User:*` for everybody.
    pub principal: Arc<str>,
    /// From which host; `*` for all.
    pub host: Arc<str>,
    /// What.
    pub operation: AclOperation,
    /// Whether it is allowed.
    pub permission: AclPermission,
}

impl Acl {
    /// Lets a principal, such as `User:alice`, do something with one resource, from every host.
    pub fn allow(
        principal: impl Into<Arc<str>>,
        operation: AclOperation,
        resource_type: AclResourceType,
        resource_name: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            resource_type,
            resource_name: resource_name.into(),
            prefixed: false,
            principal: principal.into(),
            host: Arc::from("*"),
            operation,
            permission: AclPermission::Allow,
        }
    }

    /// Forbids instead. What is forbidden wins over what is allowed.
    #[must_use]
    pub fn deny(mut self) -> Self {
        self.permission = AclPermission::Deny;
        self
    }

    /// The resource's name is a prefix.
    #[must_use]
    pub fn prefixed(mut self) -> Self {
        self.prefixed = true;
        self
    }

    /// From this host only.
    #[must_use]
    pub fn host(mut self, host: impl Into<Arc<str>>) -> Self {
        self.host = host.into();
        self
    }

    fn creation(&self) -> AclCreation {
        AclCreation {
            resource_type: self.resource_type.wire(),
            resource_name: (&*self.resource_name).into(),
            resource_pattern_type: if self.prefixed { PREFIXED } else { LITERAL },
            principal: (&*self.principal).into(),
            host: (&*self.host).into(),
            operation: self.operation.wire(),
            permission_type: self.permission.wire(),
            ..Default::default()
        }
    }
}

impl Item for Acl {
    fn name(&self) -> Arc<str> {
        format!("{} {:?} on {}", self.principal, self.operation, self.resource_name).into()
    }
}

/// Which access rules; `None` lets all through.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct AclFilter {
    /// The kind of resource.
    pub resource_type: Option<AclResourceType>,
    /// Its name.
    pub resource_name: Option<Arc<str>>,
    /// How the name is meant.
    pub pattern: AclPattern,
    /// Who.
    pub principal: Option<Arc<str>>,
    /// From which host.
    pub host: Option<Arc<str>>,
    /// What.
    pub operation: Option<AclOperation>,
    /// Whether it is allowed.
    pub permission: Option<AclPermission>,
}

impl AclFilter {
    /// All rules.
    pub fn any() -> Self {
        Self::default()
    }

    /// The rules for one resource, as `pattern` understands its name.
    pub fn resource(kind: AclResourceType, name: impl Into<Arc<str>>, pattern: AclPattern) -> Self {
        Self { resource_type: Some(kind), resource_name: Some(name.into()), pattern, ..Self::default() }
    }

    /// Only rules for this principal.
    #[must_use]
    pub fn principal(mut self, principal: impl Into<Arc<str>>) -> Self {
        self.principal = Some(principal.into());
        self
    }

    fn deletion(&self) -> DeleteAclsFilter {
        let text = |text: &Option<Arc<str>>| -> Option<Utf8Bytes> { text.as_deref().map(Into::into) };
        DeleteAclsFilter {
            resource_type_filter: self.resource_type.map_or(ANY, AclResourceType::wire),
            resource_name_filter: text(&self.resource_name),
            pattern_type_filter: self.pattern.wire(),
            principal_filter: text(&self.principal),
            host_filter: text(&self.host),
            operation: self.operation.map_or(ANY, AclOperation::wire),
            permission_type: self.permission.map_or(ANY, AclPermission::wire),
            ..Default::default()
        }
    }
}

impl fmt::Display for AclFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "access rules for {}", self.resource_name.as_deref().unwrap_or("anything"))
    }
}

impl Item for AclFilter {
    fn name(&self) -> Arc<str> {
        self.to_string().into()
    }
}

/// How a filter means a resource's name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum AclPattern {
    /// Rules with exactly this name, literal or prefix.
    #[default]
    Any,
    /// Every rule that concerns a resource of this name: of the name itself, of a prefix of it, and of `*`.
    Matching,
    /// Rules for the name itself.
    Literal,
    /// Rules for the name as a prefix.
    Prefixed,
}

impl AclPattern {
    fn wire(self) -> i8 {
        match self {
            Self::Any => ANY,
            Self::Matching => 2,
            Self::Literal => LITERAL,
            Self::Prefixed => PREFIXED,
        }
    }
}

macro_rules! wire_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// One that this client does not know.
            Unknown(i8),
        }

        impl $name {
            fn wire(self) -> i8 {
                match self {
                    $(Self::$variant => $code,)*
                    Self::Unknown(code) => code,
                }
            }

            fn from_wire(code: i8) -> Self {
                match code {
                    $($code => Self::$variant,)*
                    code => Self::Unknown(code),
                }
            }
        }
    };
}

wire_enum! {
    /// A kind of resource that access rules protect.
    AclResourceType {
        /// A topic.
        Topic = 2,
        /// A group.
        Group = 3,
        /// The cluster, whose name is `kafka-cluster`.
        Cluster = 4,
        /// A transactional id.
        TransactionalId = 5,
        /// A delegation token.
        DelegationToken = 6,
        /// A user.
        User = 7,
    }
}

wire_enum! {
    /// What can be done with a resource.
    AclOperation {
        /// Everything.
        All = 2,
        /// Reading.
        Read = 3,
        /// Writing.
        Write = 4,
        /// Creating.
        Create = 5,
        /// Deleting.
        Delete = 6,
        /// Changing.
        Alter = 7,
        /// Describing.
        Describe = 8,
        /// What brokers ask of each other.
        ClusterAction = 9,
        /// Describing settings.
        DescribeConfigs = 10,
        /// Changing settings.
        AlterConfigs = 11,
        /// Writing idempotently.
        IdempotentWrite = 12,
        /// Creating delegation tokens.
        CreateTokens = 13,
        /// Describing delegation tokens.
        DescribeTokens = 14,
        /// Two-phase commit.
        TwoPhaseCommit = 15,
    }
}

wire_enum! {
    /// Whether a rule allows or forbids.
    AclPermission {
        /// It forbids.
        Deny = 2,
        /// It allows.
        Allow = 3,
    }
}

fn described(answer: &DescribeAclsResponse) -> Vec<Acl> {
    let mut acls = Vec::new();
    for resource in &answer.resources {
        acls.extend(resource.acls.iter().map(|acl| Acl {
            resource_type: AclResourceType::from_wire(resource.resource_type),
            resource_name: key(&resource.resource_name),
            prefixed: resource.pattern_type == PREFIXED,
            principal: key(&acl.principal),
            host: key(&acl.host),
            operation: AclOperation::from_wire(acl.operation),
            permission: AclPermission::from_wire(acl.permission_type),
        }));
    }
    acls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_kinds_operations_and_permissions() {
        for code in i8::MIN..=i8::MAX {
            assert_eq!(AclResourceType::from_wire(code).wire(), code);
            assert_eq!(AclOperation::from_wire(code).wire(), code);
            assert_eq!(AclPermission::from_wire(code).wire(), code);
        }
        assert_eq!(AclOperation::from_wire(10), AclOperation::DescribeConfigs);
        assert_eq!(AclPermission::from_wire(3), AclPermission::Allow);
        let codes = [AclPattern::Any, AclPattern::Matching, AclPattern::Literal, AclPattern::Prefixed];
        assert_eq!(codes.map(AclPattern::wire), [1, 2, 3, 4]);
    }

    #[test]
    fn a_rule_and_a_filter_as_they_are_sent() {
        let acl = Acl::allow("User:a", AclOperation::Read, AclResourceType::Topic, "t-").prefixed().deny();
        let sent = acl.host("h").creation();
        assert_eq!((sent.resource_type, sent.resource_pattern_type, sent.permission_type), (2, 4, 2));
        assert_eq!((&*sent.host, &*sent.principal, sent.operation), ("h", "User:a", 3));
        let all = AclFilter::any().deletion();
        assert_eq!((all.resource_type_filter, all.pattern_type_filter, all.operation), (1, 1, 1));
        assert!(all.resource_name_filter.is_none() && all.principal_filter.is_none());
        let one = AclFilter::resource(AclResourceType::Group, "g", AclPattern::Matching).principal("User:a");
        let sent = one.deletion();
        assert_eq!((sent.resource_type_filter, sent.pattern_type_filter), (3, 2));
        assert_eq!(sent.principal_filter.as_deref(), Some("User:a"));
    }
}
