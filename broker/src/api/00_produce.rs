//! Produce, key 0: versions 3 to 13 (0 to 2 are announced and refused, see [`SERVED`](super::SERVED)).
//!
//! Every partition's batch is validated and has its place in the partition's queue before the next request of the
//! connection is looked at; the answer waits until it is written and durable, for acks 1 and -1 alike, because one
//! replica is all there is. `timeout_ms` bounds the wait for other replicas in Kafka and so has nothing to bound here.
//! With acks 0 nothing is answered, and an error ends the connection.
//!
//! A batch is written whole or not at all. When records of it break a rule of the topic, they are named in
//! `record_errors`, from version 8 on and as many as [`NAMED_RECORDS_MAX`] allows; before, there is only the code.
//!
//! A batch of a transaction is appended when its partition takes part in it, see [`taking_part`](super::taking_part).
//! Until that is known the next request of the connection waits, too: batches of a partition stay in their order.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::messages::produce::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceData, TopicProduceResponse,
};
use klamm_protocol::messages::{ProduceRequest, ProduceResponse};
use klamm_protocol::{ErrorCode, Records, Utf8Bytes};

use super::context::named;
use super::taking_part::{Admissions, Place, take_part};
use super::{Answer, Call, Context, Refusal};
use crate::budget::Share;
use crate::controller::View;
use crate::partition::{AppendError, AppendOrigin, Appending, Guard, Partition, RefusedRecord};
use crate::quota::Rate;

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=13;
/// The first version that can be read: older ones carry older record formats.
const FIRST_READABLE: i16 = 3;
/// From here on topics are named by their id.
const TOPIC_IDS: i16 = 13;
/// The most records that one answer names as refused, but for the first of each batch: a request can bring a batch for
/// every hundred of its bytes, and the names of a batch take up to a hundred kilobytes.
const NAMED_RECORDS_MAX: usize = 1_000;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    if call.version < FIRST_READABLE {
        return Err(Refusal::new(format!("Produce version {} is older than record batches", call.version)));
    }
    let request: ProduceRequest = call.decode()?;
    let (view, by_id) = (context.view(), call.version >= TOPIC_IDS);
    let refusal = refuse_all(&request);
    let admissions = match &request.transactional_id {
        Some(id) if refusal.is_none() => {
            // In a box: what other requests are does not grow by it.
            let how = (call.version, by_id);
            Some(Box::pin(take_part(context, &view, id, &request.topic_data, how)).await)
        }
        _ => None,
    };
    let mut work = Work {
        context,
        view,
        by_id,
        admissions,
        frame: call.frame_share(),
        waits: Vec::new(),
        names_left: NAMED_RECORDS_MAX,
    };
    let acks = request.acks;
    let used = (Rate::Produced, call.frame_bytes());
    let throttle_time_ms = context.charge(&call.peer, call.client_name(), used);
    let mut response = ProduceResponse { throttle_time_ms, ..ProduceResponse::default() };
    for (number, topic) in request.topic_data.into_iter().enumerate() {
        let topic = work.append_topic(number, topic, refusal.as_ref()).await;
        response.responses.push(topic);
    }
    // The frame is given back when the last of its batches is written.
    let Work { waits, .. } = work;
    let reply = call.reply();
    if acks == 0 {
        told_nothing(&response)?;
        if waits.is_empty() {
            return Ok(Answer::None);
        }
        return Ok(Answer::later(held_bytes(&response), async move {
            for wait in waits {
                wait.tell_where(&mut response).await;
            }
            told_nothing(&response).map(|()| None)
        }));
    }
    if waits.is_empty() {
        return call.answer(&response);
    }
    Ok(Answer::later(held_bytes(&response), async move {
        for wait in waits {
            wait.tell_when_durable(&mut response).await;
        }
        reply.encode(&response).map(Some)
    }))
}

/// The one way to tell a producer that does not listen: its connection ends. It notices, and asks for metadata.
fn told_nothing(response: &ProduceResponse) -> Result<(), Refusal> {
    let answers = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    match answers.map(|partition| partition.error_code).find(|code| *code != 0) {
        Some(code) => {
            Err(Refusal::new(format!("produce with acks 0 failed: {}", ErrorCode::from_code(code))))
        }
        None => Ok(()),
    }
}

/// What the answer takes until it is sent; for each partition there may be a log to wait for, too.
fn held_bytes(response: &ProduceResponse) -> usize {
    /// What a batch can be refused for by the log takes a line of text.
    const LOG_ERROR: usize = 512;
    const PARTITION: usize = size_of::<PartitionProduceResponse>() + size_of::<Wait>() + LOG_ERROR;
    let words = |text: &Option<Utf8Bytes>| text.as_ref().map_or(0, |text| text.len());
    let record = |error: &BatchIndexAndErrorMessage| {
        size_of::<BatchIndexAndErrorMessage>() + words(&error.batch_index_error_message)
    };
    let partition = |answer: &PartitionProduceResponse| {
        PARTITION + words(&answer.error_message) + answer.record_errors.iter().map(record).sum::<usize>()
    };
    let topic = |topic: &TopicProduceResponse| {
        let partitions = topic.partition_responses.iter().map(partition);
        size_of::<TopicProduceResponse>() + topic.name.len() + partitions.sum::<usize>()
    };
    response.responses.iter().map(topic).sum()
}

/// What is wrong with the request as a whole, which every partition is then told.
fn refuse_all(request: &ProduceRequest) -> Option<Refused> {
    if !(-1..=1).contains(&request.acks) {
        return Some(Refused::because(ErrorCode::InvalidRequiredAcks, "acks must be -1, 0 or 1"));
    }
    None
}

/// Why a partition's batch was not written.
#[derive(Debug, Clone)]
struct Refused {
    code: ErrorCode,
    message: String,
    records: Vec<RefusedRecord>,
}

impl Refused {
    fn because(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), records: Vec::new() }
    }

    fn tell(self, answer: &mut PartitionProduceResponse) {
        answer.error_code = self.code.code();
        answer.error_message = Some(self.message).filter(|message| !message.is_empty()).map(Into::into);
        let name = |record: RefusedRecord| BatchIndexAndErrorMessage {
            batch_index: record.index,
            batch_index_error_message: Some(record.why),
            ..BatchIndexAndErrorMessage::default()
        };
        answer.record_errors = self.records.into_iter().map(name).collect();
        answer.base_offset = -1;
        answer.log_append_time_ms = -1;
        answer.log_start_offset = -1;
    }
}

impl From<ErrorCode> for Refused {
    fn from(code: ErrorCode) -> Self {
        Self::because(code, "")
    }
}

impl From<AppendError> for Refused {
    fn from(error: AppendError) -> Self {
        let (code, message) = (error.error_code(), error.to_string());
        Self { code, message, records: error.into_refused_records() }
    }
}

/// What the answer to one partition has to wait for.
struct Wait {
    /// Topic and partition, counted within the response.
    answer: (usize, usize),
    partition: Arc<Partition>,
    append: Appending,
}

impl Wait {
    /// Says where the batch is, as soon as that is known.
    async fn tell_where(self, response: &mut ProduceResponse) -> Option<(Arc<Partition>, i64)> {
        let answer = &mut response.responses[self.answer.0].partition_responses[self.answer.1];
        match self.append.await {
            Ok(appended) => {
                answer.base_offset = appended.base_offset;
                answer.log_append_time_ms = appended.log_append_time_ms;
                answer.log_start_offset = appended.log_start_offset;
                Some((self.partition, appended.last_offset))
            }
            Err(error) => {
                Refused::from(error).tell(answer);
                None
            }
        }
    }

    async fn tell_when_durable(self, response: &mut ProduceResponse) {
        let (topic, partition) = self.answer;
        let Some((log, last_offset)) = self.tell_where(response).await else { return };
        if let Err(error) = log.wait_durable_now(last_offset).await {
            let answer = &mut response.responses[topic].partition_responses[partition];
            Refused::because(ErrorCode::KafkaStorageError, error.to_string()).tell(answer);
        }
    }
}

struct Work<'a> {
    context: &'a Context,
    view: Arc<View>,
    by_id: bool,
    /// Which batches of transactions may be appended; nothing when the request names no transactional id.
    admissions: Option<Admissions>,
    /// Batches that wait for the disk are slices of the frame.
    frame: Arc<Share>,
    waits: Vec<Wait>,
    /// What is left of [`NAMED_RECORDS_MAX`].
    names_left: usize,
}

impl Work<'_> {
    async fn append_topic(
        &mut self,
        number: usize,
        data: TopicProduceData,
        refusal: Option<&Refused>,
    ) -> TopicProduceResponse {
        let mut response = TopicProduceResponse {
            // A copy: the answer may wait for long, and would keep the request's frame.
            name: data.name.to_string().into(),
            topic_id: data.topic_id,
            ..TopicProduceResponse::default()
        };
        for (index, partition) in data.partition_data.into_iter().enumerate() {
            let mut answer = PartitionProduceResponse { index: partition.index, ..Default::default() };
            let appending = match refusal {
                Some(refused) => Err(refused.clone()),
                None => self.append(&response, (number, index), partition.index, partition.records),
            };
            match appending {
                Ok((partition, mut append)) => {
                    // What comes next must come behind it.
                    append.queued().await;
                    self.waits.push(Wait { answer: (number, index), partition, append });
                }
                Err(mut refused) => {
                    refused.records.truncate(self.names_left.max(1));
                    refused.records.shrink_to_fit();
                    self.names_left = self.names_left.saturating_sub(refused.records.len());
                    refused.tell(&mut answer);
                }
            }
            response.partition_responses.push(answer);
        }
        response
    }

    fn append(
        &self,
        topic: &TopicProduceResponse,
        place: Place,
        index: i32,
        records: Option<Records>,
    ) -> Result<(Arc<Partition>, Appending), Refused> {
        let topic = named(&self.view, self.by_id, topic.topic_id, &topic.name)?;
        if topic.is_internal() {
            let message = format!("{} is the broker's own", topic.name);
            return Err(Refused::because(ErrorCode::InvalidTopicException, message));
        }
        let log = self.view.log(topic, index)?;
        let records = records.and_then(Records::into_bytes).unwrap_or_default();
        let batch = log.check(records, AppendOrigin::Client, self.context.now_ms())?;
        let guard = if batch.header().is_transactional() { self.admitted(place)? } else { None };
        Ok((log.clone(), log.append_checked(batch, Some(self.frame.clone()), guard)))
    }

    /// What a batch of a transaction needs to be appended.
    fn admitted(&self, place: Place) -> Result<Option<Guard>, Refused> {
        let Some(admissions) = &self.admissions else {
            let message = "a batch of a transaction came without a transactional id";
            return Err(Refused::because(ErrorCode::TransactionalIdAuthorizationFailed, message));
        };
        match admissions.get(&place) {
            Some(Ok(guard)) => Ok(*guard),
            Some(Err(error)) => Err(Refused::because(*error, why_not_admitted(*error))),
            None => Err(Refused::from(ErrorCode::InvalidTxnState)),
        }
    }
}

/// What the coordinator of a transaction means by a code.
fn why_not_admitted(error: ErrorCode) -> &'static str {
    match error {
        ErrorCode::InvalidTxnState | ErrorCode::TransactionAbortable => {
            "the partition does not take part in the transaction"
        }
        ErrorCode::InvalidProducerEpoch => {
            "another producer has the transactional id now, or the transaction took too long"
        }
        ErrorCode::InvalidProducerIdMapping => "the transactional id has another producer id, or none",
        ErrorCode::ConcurrentTransactions => "the transaction before has not ended everywhere yet; try again",
        ErrorCode::NotEnoughReplicas => "the coordinator of the transaction cannot say yet; try again",
        _ => "",
    }
}
