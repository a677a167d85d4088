//! AlterUserScramCredentials, key 51: version 0. There is no authentication here: nobody has credentials that could be
//! deleted, and new ones are refused because they would have no effect. Kafka keeps them for later.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::messages::alter_user_scram_credentials::{
    AlterUserScramCredentialsResult, ScramCredentialUpsertion,
};
use klamm_protocol::messages::{AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes};

use super::configs::named_twice;
use super::context::each_once;
use super::{Answer, Call, Context, Refusal};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=0;
/// SCRAM-SHA-256 and SCRAM-SHA-512.
const MECHANISMS: RangeInclusive<i8> = 1..=2;
/// How often a password is hashed.
const ITERATIONS: RangeInclusive<i32> = 4_096..=16_384;

/// Why not, and in words; the same ones for all, because a request may name many.
type Refused = (ErrorCode, &'static str);

pub(super) async fn serve(_: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: AlterUserScramCredentialsRequest = call.decode()?;
    let deletions = request.deletions.into_iter().map(|one| {
        let absent = (ErrorCode::ResourceNotFound, "this user has no credentials");
        (refusal(&one.name, one.mechanism).unwrap_or(absent), one.name)
    });
    let upsertions = request.upsertions.into_iter().map(|one| (why_not(&one), one.name));
    let asked: Vec<(Refused, Utf8Bytes)> = deletions.chain(upsertions).collect();
    let twice: BTreeSet<Utf8Bytes> = named_twice(asked.iter().map(|(_, user)| user.clone()));
    let results = each_once(asked, |(_, user)| user.clone()).map(|(refused, user)| {
        let (error, message) = match twice.contains(&user) {
            true => (ErrorCode::DuplicateResource, "a user is named more than once"),
            false => refused,
        };
        AlterUserScramCredentialsResult {
            user,
            error_code: error.code(),
            error_message: Some(Utf8Bytes::from_static(message)),
            ..AlterUserScramCredentialsResult::default()
        }
    });
    let results = results.collect();
    call.answer(&AlterUserScramCredentialsResponse {
        results,
        ..AlterUserScramCredentialsResponse::default()
    })
}

/// What is wrong with any change.
fn refusal(user: &str, mechanism: i8) -> Option<Refused> {
    if user.is_empty() {
        return Some((ErrorCode::UnacceptableCredential, "a user needs a name"));
    }
    let is_known = MECHANISMS.contains(&mechanism);
    (!is_known).then_some((ErrorCode::UnsupportedSaslMechanism, "there is no such mechanism"))
}

fn why_not(wanted: &ScramCredentialUpsertion) -> Refused {
    let is_possible = ITERATIONS.contains(&wanted.iterations);
    let iterations = (ErrorCode::UnacceptableCredential, "the iterations must be from 4,096 to 16,384");
    let disabled = (ErrorCode::SecurityDisabled, "this broker has no authentication that would ask for them");
    refusal(&wanted.name, wanted.mechanism).unwrap_or(if is_possible { disabled } else { iterations })
}
