//! CreateAcls, key 30: versions 1 to 3. A rule that would have no effect is refused.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::create_acls::AclCreationResult;
use klamm_protocol::messages::{CreateAclsRequest, CreateAclsResponse};

use super::describe_acls::NO_ACLS;
use super::{Answer, Call, Context, Refusal};

pub(super) const VERSIONS: RangeInclusive<i16> = 1..=3;

pub(super) async fn serve(_: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: CreateAclsRequest = call.decode()?;
    let refused = |_| AclCreationResult {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some(NO_ACLS),
        ..AclCreationResult::default()
    };
    let results = request.creations.iter().map(refused).collect();
    call.answer(&CreateAclsResponse { results, ..CreateAclsResponse::default() })
}
