//! The headers of requests and replies: names and encodings are spring-kafka's, so that a `ReplyingKafkaTemplate` and
//! a `@SendTo` listener understand ours, and ours theirs. Pure.

use std::sync::Arc;

use bytes::Bytes;
use klamm_client::{Headers, Record};

/// What a request is recognised by; a reply has the same bytes.
pub(crate) const CORRELATION_ID: &str = "kafka_correlationId";
/// The topic that replies go to.
pub(crate) const REPLY_TOPIC: &str = "kafka_replyTopic";
/// The partition that replies go to, as four bytes.
pub(crate) const REPLY_PARTITION: &str = "kafka_replyPartition";
/// A reply with one of these says that the request failed.
const ERROR_MESSAGE: &str = "kafka_exception-message";
const ERROR_TYPE: &str = "kafka_exception-fqcn";

/// Where the reply to a request goes: what who answers needs to know.
///
/// ```
/// use klamm::client::Headers;
/// use klamm::template::request::ReplyTo;
///
/// let request: Headers = [("kafka_replyTopic", "replies"), ("kafka_correlationId", "a")].into_iter().collect();
/// let reply_to = ReplyTo::of(&request).expect("it asks for a reply");
/// let reply = reply_to.reply("the answer");
/// assert_eq!(&*reply.topic, "replies");
/// assert!(ReplyTo::of(&Headers::new()).is_none());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplyTo {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition, if it matters to who asked.
    pub partition: Option<i32>,
    /// What the reply is recognised by.
    pub correlation_id: Option<Bytes>,
}

impl ReplyTo {
    /// What the headers of a request say; none when it asks for no reply.
    pub fn of(headers: &Headers) -> Option<Self> {
        let topic =
            std::str::from_utf8(headers.last(REPLY_TOPIC)??).ok().filter(|topic| !topic.is_empty())?;
        let partition = headers.last(REPLY_PARTITION).flatten().and_then(|bytes| bytes.try_into().ok());
        let partition = partition.map(i32::from_be_bytes).filter(|partition| *partition >= 0);
        Some(Self { partition, ..Self::to(topic.into(), headers) })
    }

    /// To this topic, whatever the headers of the request say.
    pub(crate) fn to(topic: Arc<str>, headers: &Headers) -> Self {
        let correlation_id = headers.last(CORRELATION_ID).flatten().map(Bytes::copy_from_slice);
        Self { topic, partition: None, correlation_id }
    }

    /// The record that answers with this value.
    pub fn reply(&self, value: impl Into<Bytes>) -> Record {
        self.record().value(value)
    }

    /// The record that answers that the request failed: without a value, with the headers that spring-kafka gives to
    /// what failed. Who asked gets [`ReplyError::Failed`](super::ReplyError::Failed).
    pub fn failure(&self, type_name: &str, message: &str) -> Record {
        let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        self.record().header(ERROR_TYPE, text(type_name)).header(ERROR_MESSAGE, text(message))
    }

    /// The record that answers, without its value.
    pub(crate) fn record(&self) -> Record {
        let mut record = Record { partition: self.partition, ..Record::to(Arc::clone(&self.topic)) };
        if let Some(id) = &self.correlation_id {
            record = record.header(CORRELATION_ID, id.clone());
        }
        record
    }
}

/// What failed, if a reply says that something did: the type of the error, and its message.
pub(super) fn failure(headers: &Headers) -> Option<(Option<Arc<str>>, Arc<str>)> {
    let text = |name: &str| {
        headers.last(name).map(|bytes| Arc::from(String::from_utf8_lossy(bytes.unwrap_or_default())))
    };
    match (text(ERROR_TYPE), text(ERROR_MESSAGE)) {
        (None, None) => None,
        (type_name, message) => Some((type_name, message.unwrap_or_else(|| "".into()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_goes_where_the_request_says() {
        let request = |partition: &[u8]| -> Headers {
            [
                (REPLY_TOPIC, b"replies".to_vec()),
                (REPLY_PARTITION, partition.to_vec()),
                (CORRELATION_ID, vec![0xff; 16]),
            ]
            .into_iter()
            .collect()
        };
        let reply_to = ReplyTo::of(&request(&[0, 0, 0, 3])).unwrap();
        let reply = reply_to.reply("v");
        assert_eq!(
            (&*reply.topic, reply.partition, reply.value.as_deref()),
            ("replies", Some(3), Some(&b"v"[..]))
        );
        let headers = Headers::from(reply.headers);
        assert_eq!(headers.last(CORRELATION_ID), Some(Some(&[0xff; 16][..])));
        assert_eq!(failure(&headers), None);
        for odd in [&[][..], &[1], &[0xff; 4], &[0; 5]] {
            assert_eq!(ReplyTo::of(&request(odd)).unwrap().partition, None, "{odd:?}");
        }
    }

    #[test]
    fn a_failure_is_told_by_its_headers() {
        let reply_to = ReplyTo { topic: "replies".into(), partition: None, correlation_id: None };
        let failed = reply_to.failure("my::Error", "no");
        assert_eq!(failed.value, None);
        let told = failure(&Headers::from(failed.headers));
        assert_eq!(told, Some((Some("my::Error".into()), "no".into())));
    }
}
