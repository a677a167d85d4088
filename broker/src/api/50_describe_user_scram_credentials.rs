//! DescribeUserScramCredentials, key 50: version 0. There is no authentication here, so that nobody has credentials.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::messages::describe_user_scram_credentials::DescribeUserScramCredentialsResult;
use klamm_protocol::messages::{DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes};

use super::configs::named_twice;
use super::context::each_once;
use super::{Answer, Call, Context, Refusal};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=0;
const NAMED_TWICE: Utf8Bytes = Utf8Bytes::from_static("a user is named more than once");
const NONE: Utf8Bytes = Utf8Bytes::from_static("this user has no credentials");

pub(super) async fn serve(_: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: DescribeUserScramCredentialsRequest = call.decode()?;
    let users: Vec<Utf8Bytes> = request.users.unwrap_or_default().into_iter().map(|user| user.name).collect();
    let twice: BTreeSet<Utf8Bytes> = named_twice(users.iter().cloned());
    let results = each_once(users, Utf8Bytes::clone).map(|user| {
        let (error, message) = match twice.contains(&user) {
            true => (ErrorCode::DuplicateResource, NAMED_TWICE),
            false => (ErrorCode::ResourceNotFound, NONE),
        };
        DescribeUserScramCredentialsResult {
            user,
            error_code: error.code(),
            error_message: Some(message),
            ..DescribeUserScramCredentialsResult::default()
        }
    });
    let results = results.collect();
    call.answer(&DescribeUserScramCredentialsResponse {
        results,
        ..DescribeUserScramCredentialsResponse::default()
    })
}
