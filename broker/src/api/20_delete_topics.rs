//! DeleteTopics, key 20: versions 1 to 6; by id too from 6 on. The topics of a request are deleted together. The
//! offsets that groups committed for a topic go with it. What is not done after `timeout_ms` is answered with
//! `REQUEST_TIMED_OUT`, and done by itself. 0 or less is no limit: many clients leave it so.

use std::ops::RangeInclusive;
use std::sync::Arc;

use futures::future::join_all;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::delete_topics::{DeletableTopicResult, DeleteTopicState};
use klamm_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use tokio::time::Instant;

use super::context::deadline;
use super::{Answer, Call, Context, Refusal};
use crate::controller::COMMANDS_AT_ONCE;

pub(super) const VERSIONS: RangeInclusive<i16> = 1..=6;
/// From here on a topic may be named by its id.
const STATES: i16 = 6;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let mut request: DeleteTopicsRequest = call.decode()?;
    if call.version < STATES {
        let named = request.topic_names.into_iter();
        request.topics =
            named.map(|name| DeleteTopicState { name: Some(name), ..DeleteTopicState::default() }).collect();
    }
    let until = deadline(request.timeout_ms);
    let mut responses = Vec::new();
    for some in request.topics.chunks(COMMANDS_AT_ONCE) {
        responses.extend(join_all(some.iter().map(|topic| answer_for(context, topic, until))).await);
    }
    call.answer(&DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() })
}

async fn answer_for(
    context: &Context,
    topic: &DeleteTopicState,
    until: Option<Instant>,
) -> DeletableTopicResult {
    let mut result = DeletableTopicResult {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        ..DeletableTopicResult::default()
    };
    if let Err((error, message)) = delete(context, topic, until, &mut result).await {
        result.error_code = error.code();
        result.error_message = Some(message.into());
    }
    result
}

async fn delete(
    context: &Context,
    wanted: &DeleteTopicState,
    until: Option<Instant>,
    result: &mut DeletableTopicResult,
) -> Result<(), (ErrorCode, String)> {
    let refused = |error: ErrorCode, message: &str| Err((error, message.to_owned()));
    if !context.config().delete_topics {
        return refused(ErrorCode::TopicDeletionDisabled, "delete.topic.enable is false");
    }
    let view = context.view();
    let found = match &wanted.name {
        Some(_) if !wanted.topic_id.is_zero() => {
            return refused(ErrorCode::InvalidRequest, "name the topic or its id, not both");
        }
        Some(name) => view.image.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition),
        None => view.image.topic_by_id(wanted.topic_id).ok_or(ErrorCode::UnknownTopicId),
    };
    let topic = match found {
        Ok(topic) => topic.clone(),
        Err(error) => return refused(error, "there is no such topic"),
    };
    if topic.is_internal() {
        return refused(ErrorCode::InvalidRequest, "the broker needs this topic");
    }
    result.name = Some(topic.name.as_ref().into());
    result.topic_id = topic.id;
    context.controller().delete_topic_until(topic.id, until).await.map_err(|error| {
        // Somebody was faster; who named it knows no id.
        let by_name = error.code == ErrorCode::UnknownTopicId && wanted.name.is_some();
        (if by_name { ErrorCode::UnknownTopicOrPartition } else { error.code }, error.message)
    })
}
