//! What is asked about who somebody is, and what they may do.

use klamm_protocol::messages::create_acls::AclCreation;
use klamm_protocol::messages::delete_acls::DeleteAclsFilter;
use klamm_protocol::messages::describe_user_scram_credentials::UserName;
use klamm_protocol::messages::*;

use super::Dialogue;

impl Dialogue {
    pub(super) async fn security(&mut self) {
        for version in [0, 1] {
            let request = SaslHandshakeRequest { mechanism: "PLAIN".into(), ..Default::default() };
            self.ask("handshake", request, version).await;
        }
        for version in 0..=2 {
            self.ask("authenticate", SaslAuthenticateRequest::default(), version).await;
        }
        let any = DescribeAclsRequest {
            resource_type_filter: 1,
            pattern_type_filter: 1,
            operation: 1,
            permission_type: 1,
            ..Default::default()
        };
        self.ask("all rules", any, 3).await;
        let rule = AclCreation {
            resource_type: 2,
            resource_name: "t".into(),
            principal: "User:a".into(),
            host: "*".into(),
            operation: 3,
            permission_type: 3,
            ..Default::default()
        };
        let rules = vec![rule.clone(), rule];
        self.ask("two rules", CreateAclsRequest { creations: rules, ..Default::default() }, 3).await;
        self.ask("no rule", CreateAclsRequest::default(), 3).await;
        let filter = DeleteAclsFilter {
            resource_type_filter: 1,
            pattern_type_filter: 1,
            operation: 1,
            permission_type: 1,
            ..Default::default()
        };
        self.ask("any rule", DeleteAclsRequest { filters: vec![filter], ..Default::default() }, 3).await;
        self.scram().await;
    }

    pub(super) async fn scram(&mut self) {
        let named = |names: &[&str]| DescribeUserScramCredentialsRequest {
            users: Some(
                names.iter().map(|name| UserName { name: (*name).into(), ..Default::default() }).collect(),
            ),
            ..Default::default()
        };
        self.ask("all users", DescribeUserScramCredentialsRequest::default(), 0).await;
        for names in [&[][..], &["a"], &["a", "b", "a"], &[""]] {
            self.ask(&format!("users {names:?}"), named(names), 0).await;
        }
        let deletion = |name: &str, mechanism| alter_user_scram_credentials::ScramCredentialDeletion {
            name: name.into(),
            mechanism,
            ..Default::default()
        };
        for (name, mechanism) in [("a", 1), ("a", 0), ("a", 9), ("", 1)] {
            let deletions = vec![deletion(name, mechanism)];
            let request = AlterUserScramCredentialsRequest { deletions, ..Default::default() };
            self.ask(&format!("without {name:?} {mechanism}"), request, 0).await;
        }
        let insertion = alter_user_scram_credentials::ScramCredentialUpsertion {
            name: "a".into(),
            mechanism: 1,
            iterations: 4_096,
            salt: "salt".into(),
            salted_password: "password".into(),
            ..Default::default()
        };
        let few =
            alter_user_scram_credentials::ScramCredentialUpsertion { iterations: 1, ..insertion.clone() };
        for (what, upsertions) in [("too few iterations", vec![few]), ("with a", vec![insertion])] {
            let request = AlterUserScramCredentialsRequest { upsertions, ..Default::default() };
            self.ask(what, request, 0).await;
        }
        let again =
            AlterUserScramCredentialsRequest { deletions: vec![deletion("a", 1)], ..Default::default() };
        self.ask("without it again", again, 0).await;
    }
}
