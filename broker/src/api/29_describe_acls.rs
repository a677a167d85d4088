//! DescribeAcls, key 29: versions 1 to 3. Nobody is forbidden anything here, so that there are no rules.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::messages::{DescribeAclsRequest, DescribeAclsResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes};

use super::{Answer, Call, Context, Refusal};

pub(super) const VERSIONS: RangeInclusive<i16> = 1..=3;
/// The same text for all, because a request may name many.
pub(super) const NO_ACLS: Utf8Bytes = Utf8Bytes::from_static("this broker has no access control");

pub(super) async fn serve(_: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let _: DescribeAclsRequest = call.decode()?;
    call.answer(&DescribeAclsResponse {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some(NO_ACLS),
        ..DescribeAclsResponse::default()
    })
}
