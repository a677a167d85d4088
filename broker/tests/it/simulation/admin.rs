//! Creates topics and deletes them, a few names again and again.

use bytes::Bytes;
use klamm_protocol::messages::create_topics::CreatableTopic;
use klamm_protocol::messages::delete_topics::DeleteTopicState;
use klamm_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest};
use klamm_protocol::{ErrorCode, Uuid};
use klamm_runtime::Rng;

use super::client::{Role, Shared};
use super::connection::{Connection, decoded};
use super::txn_requests::KEPT;

pub(super) const CREATE: i16 = 7;
pub(super) const DELETE: i16 = 6;

#[derive(Debug)]
pub(super) struct Admin {
    pub(super) names: Vec<String>,
    pub(super) deletes_percent: u64,
}

#[derive(Debug)]
pub(super) enum Asked {
    Create(String, i32),
    Delete(Uuid),
}

pub(super) fn create(name: &str, partitions: i32) -> CreateTopicsRequest {
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: partitions,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..CreateTopicsRequest::default() }
}

pub(super) fn delete(id: Uuid) -> DeleteTopicsRequest {
    let topic = DeleteTopicState { topic_id: id, ..DeleteTopicState::default() };
    DeleteTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..DeleteTopicsRequest::default() }
}

impl Role for Admin {
    type Asked = Asked;

    fn act(&mut self, connection: &mut Connection<Asked>, shared: &mut Shared) {
        if connection.waiting() > 2 {
            return;
        }
        let there: Vec<Uuid> = shared
            .model
            .topics
            .iter()
            .filter(|(_, topic)| !topic.gone && !topic.deleting && topic.name != KEPT)
            .map(|(id, _)| *id)
            .collect();
        if let Some(id) = shared.pick(&there).filter(|_| shared.chance(self.deletes_percent)) {
            if let Some(topic) = shared.model.topics.get_mut(&id) {
                topic.deleting = true;
            }
            connection.send(&delete(id), DELETE, Some(Asked::Delete(id)));
            return;
        }
        let Some(name) = shared.pick(&self.names) else { return };
        let partitions = 1 + shared.rng.below(2) as i32;
        shared.model.creating.entry(name.clone()).or_default().insert(partitions);
        connection.send(&create(&name, partitions), CREATE, Some(Asked::Create(name, partitions)));
    }

    fn answered(&mut self, asked: Asked, frame: Bytes, shared: &mut Shared) {
        match asked {
            Asked::Create(name, partitions) => {
                let answer = decoded::<CreateTopicsRequest>(frame, CREATE).topics.remove(0);
                shared.note(format!("  create {}: {}", &name[..1], answer.error_code));
                shared.check_refusal(answer.error_code, None, "the creation of a topic");
                if answer.error_code == 0 {
                    shared.model.created(answer.topic_id, &name, partitions);
                }
            }
            Asked::Delete(id) => {
                let answer = decoded::<DeleteTopicsRequest>(frame, DELETE).responses.remove(0);
                shared.note(format!("  delete: {}", answer.error_code));
                shared.check_refusal(answer.error_code, None, "the deletion of a topic");
                let code = ErrorCode::from_code(answer.error_code);
                if matches!(code, ErrorCode::None | ErrorCode::UnknownTopicId) {
                    shared.model.deleted(id);
                }
            }
        }
    }

    fn lost(&mut self, _: Asked, _: &mut Shared) {}
}
