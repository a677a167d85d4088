//! DeleteAcls, key 31: versions 1 to 3. There are no rules to delete.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::delete_acls::DeleteAclsFilterResult;
use klamm_protocol::messages::{DeleteAclsRequest, DeleteAclsResponse};

use super::describe_acls::NO_ACLS;
use super::{Answer, Call, Context, Refusal};

pub(super) const VERSIONS: RangeInclusive<i16> = 1..=3;

pub(super) async fn serve(_: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: DeleteAclsRequest = call.decode()?;
    let refused = |_| DeleteAclsFilterResult {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some(NO_ACLS),
        ..DeleteAclsFilterResult::default()
    };
    let filter_results = request.filters.iter().map(refused).collect();
    call.answer(&DeleteAclsResponse { filter_results, ..DeleteAclsResponse::default() })
}
