//! What can be known to be wrong with the listeners of an app before anything is connected. Pure.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::IsolationLevel;

use super::StartError;
use super::templates::DeclaredTemplate;
use crate::listener::{
    AckPolicy, Call, DeadLetterTopics, Listener, RetryTopics, Settings, States, Topics, is_legal, wrong_with,
};

/// Checks all listeners, and notes where their dead letters go.
///
/// # Errors
/// The first thing that is wrong.
pub(super) fn all(
    listeners: &[Listener],
    states: &States,
    templates: &[DeclaredTemplate],
    dead_letters: &DeadLetterTopics,
) -> Result<(), StartError> {
    if listeners.is_empty() {
        return Err(StartError::NoListeners);
    }
    let mut paths = HashMap::new();
    for listener in listeners {
        if let Some(first) = paths.insert(Arc::clone(&listener.id), listener.path) {
            let (listener, second) = (Arc::clone(&listener.id), listener.path);
            return Err(StartError::DuplicateId { listener, first, second });
        }
    }
    listeners.iter().try_for_each(|listener| one(listener, states, templates, dead_letters))
}

/// Checks a listener, and notes where its dead letters go.
///
/// # Errors
/// The first thing that is wrong.
pub(super) fn one(
    listener: &Listener,
    states: &States,
    templates: &[DeclaredTemplate],
    dead_letters: &DeadLetterTopics,
) -> Result<(), StartError> {
    check(listener, states, templates)?;
    if let Some(topic) = listener.settings.policy.dead_letter_topic() {
        dead_letters.add(&listener.settings.topics, topic);
    }
    Ok(())
}

fn check(listener: &Listener, states: &States, templates: &[DeclaredTemplate]) -> Result<(), StartError> {
    let settings = &listener.settings;
    let invalid = |reason: &'static str| StartError::Invalid { listener: Arc::clone(&listener.id), reason };
    if let Some((_, type_name)) = listener.needs.states.iter().find(|(id, _)| !states.contains(*id)) {
        let (listener, has) = (Arc::clone(&listener.id), states.like(type_name));
        return Err(StartError::MissingState { listener, type_name, has });
    }
    let is_declared =
        |id: TypeId| templates.iter().any(|template| template.type_id == id) || states.contains(id);
    if let Some((_, type_name)) = listener.needs.templates.iter().find(|(id, _)| !is_declared(*id)) {
        return Err(StartError::MissingTemplate { listener: Arc::clone(&listener.id), type_name });
    }
    check_names(listener)?;
    let own_dead_letters = match (settings.policy.dead_letter_topic(), &settings.topics) {
        (Some(Some(topic)), Topics::Names(names)) => names.contains(topic),
        (Some(Some(topic)), Topics::Pattern(pattern)) => topic == pattern,
        _ => false,
    };
    let wrong = of_numbers(settings).into_iter().chain(of_handler(listener)).chain(of_transactions(listener));
    let wrong = wrong.chain(of_partitions(settings));
    let own_dead_letters = (
        own_dead_letters,
        "its dead letters go to a topic that it listens on: a bad record would come back for ever",
    );
    match wrong.chain([own_dead_letters]).find(|(is_wrong, _)| *is_wrong) {
        Some((_, reason)) => Err(invalid(reason)),
        None => Ok(()),
    }
}

/// Whether something is wrong, and what.
type Wrong = (bool, &'static str);

/// With what is set, whatever the handler is.
fn of_numbers(settings: &Settings) -> [Wrong; 9] {
    [
        (settings.group.is_empty() && settings.partitions.is_none(), "its group is empty"),
        (settings.concurrency == 0, "concurrency 0 would never handle anything"),
        (settings.budget.records == 0, "max_in_flight 0 would never handle anything"),
        (settings.budget.bytes == 0, "max_in_flight_bytes 0 would never handle anything"),
        (
            matches!(settings.ack, AckPolicy::Count(0) | AckPolicy::CountTime(0, _)),
            "a commit after 0 records is none; the least is 1, and `record` commits after each one",
        ),
        (
            matches!(settings.ack, AckPolicy::Time(Duration::ZERO) | AckPolicy::CountTime(_, Duration::ZERO)),
            "commits in an interval of nothing; `record` commits after each record",
        ),
        (settings.batch.is_some_and(|batch| batch.most == 0), "batches of 0 records would never be handled"),
        (settings.topics.is_empty(), "it has no topics"),
        (
            matches!((&settings.topics, &settings.send_to), (Topics::Names(names), Some(to)) if names.contains(to)),
            "its replies go to a topic that it listens on: each would be a request again",
        ),
    ]
}

/// With the handler, and what is set for it.
fn of_handler(listener: &Listener) -> [Wrong; 8] {
    let (settings, of_batches) = (&listener.settings, matches!(listener.call, Call::Batch(_)));
    [
        (
            settings.send_to.is_some() && !listener.needs.answers,
            "it has `send_to`, but its handler returns no `Reply`: nothing would ever be sent there",
        ),
        (
            listener.needs.answers && settings.ack == AckPolicy::Manual,
            "its handler returns a `Reply`, but its ack policy is manual: the record could be acknowledged before its \
             reply is there; send the reply with a template and then acknowledge, or leave the ack policy as it was",
        ),
        (
            listener.needs.ack && settings.ack != AckPolicy::Manual,
            "its handler takes an `Ack`, but its ack policy is not manual",
        ),
        (
            !listener.needs.ack && settings.ack == AckPolicy::Manual,
            "its ack policy is manual, but its handler takes no `Ack`: nothing would ever be committed",
        ),
        (
            settings.batch.is_some() && !of_batches,
            "it has a batch size, but its handler takes one record at a time: take a `Batch<T>` as the first argument",
        ),
        (
            settings.batches_across && !of_batches,
            "it has batch_across_partitions, but its handler takes one record at a time: take a `Batch<T>` as the \
             first argument",
        ),
        (
            settings.batches_across && settings.transactional,
            "it has batch_across_partitions, and is transactional: a transaction is of one partition, whose next owner \
             ends it",
        ),
        (
            of_batches && !settings.dispatch.is_by_partition(),
            "batches are formed by partition; another dispatch would make them one record long",
        ),
    ]
}

/// With transactions.
fn of_transactions(listener: &Listener) -> [Wrong; 10] {
    let settings = &listener.settings;
    [
        (
            listener.needs.tx && !settings.transactional,
            "its handler takes a `Tx`, but it is not transactional: call `transactional()`",
        ),
        (
            settings.transactional && !settings.dispatch.is_by_partition(),
            "it is transactional, and its dispatch is not by partition: an offset can be committed with the work \
             before it only when that is done in order",
        ),
        (
            settings.transactional && settings.ack != AckPolicy::Batch,
            "it is transactional, and has an ack policy: its offsets are committed by its transactions; leave `ack` \
             out",
        ),
        (
            settings.transactional && settings.isolation == IsolationLevel::ReadUncommitted,
            "it is transactional, and reads uncommitted records: what it makes of those that are aborted would stay",
        ),
        (
            settings.transaction_timeout.is_some() && !settings.transactional,
            "it has a transaction_timeout, but it is not transactional: call `transactional()`",
        ),
        (
            settings.transaction_timeout.is_some_and(|timeout| timeout.is_zero()),
            "a transaction_timeout of 0 would end every transaction at once",
        ),
        (
            settings.shared_transaction.is_some_and(|shared| shared.most == 0),
            "transactions shared by 0 records would never be begun",
        ),
        (
            settings.shared_transaction.is_some() && matches!(listener.call, Call::Batch(_)),
            "it has shared transactions, and its handler takes a batch: that is one transaction without them; say how \
             large it is with `batch`",
        ),
        (
            settings
                .shared_transaction
                .is_some_and(|shared| Some(shared.within) >= settings.transaction_timeout)
                && settings.transaction_timeout.is_some(),
            "its shared transactions take records for longer than its transaction_timeout lets them be open",
        ),
        (
            !settings.transactional_id_prefix.is_empty() && !settings.transactional,
            "it has a transactional_id_prefix, but it is not transactional: call `transactional()`",
        ),
    ]
}

/// With partitions that it names.
fn of_partitions(settings: &Settings) -> Vec<Wrong> {
    let Some(partitions) = &settings.partitions else { return Vec::new() };
    let named = wrong_with(partitions).map(|reason| (true, reason));
    let others = [
        (
            !settings.policy.steps().is_empty(),
            "it has retry topics, and names its partitions: nobody would give out those of the retry topics; retry in \
             place, or listen on topics",
        ),
        (
            settings.transactional,
            "it is transactional, and names its partitions: without a member of the group nobody keeps another from \
             committing the same; listen on topics",
        ),
    ];
    named.into_iter().chain(others).collect()
}

/// Of the topics that it reads and writes.
fn check_names(listener: &Listener) -> Result<(), StartError> {
    let settings = &listener.settings;
    let illegal = |name: &str| {
        let (listener, topic) = (Arc::clone(&listener.id), name.into());
        Err(StartError::IllegalTopic { listener, topic })
    };
    if let Some(name) = settings.topics.illegal_name() {
        return illegal(name);
    }
    let named = [settings.policy.dead_letter_topic().flatten(), settings.send_to.as_ref()];
    if let Some(name) = named.into_iter().flatten().find(|name| !is_legal(name)) {
        return illegal(name);
    }
    if settings.policy.steps().is_empty() {
        return Ok(());
    }
    let retries = RetryTopics::new(&settings.group, settings.policy.steps());
    // Of a pattern, the group alone can be looked at.
    let topics = match &settings.topics {
        Topics::Pattern(_) => Topics::Names(vec!["topic".into()]),
        names @ Topics::Names(_) => names.clone(),
    };
    match retries.with(&topics).illegal_name() {
        None => Ok(()),
        Some(name) => {
            let (listener, topic) = (Arc::clone(&listener.id), name.into());
            Err(StartError::IllegalRetryTopic { listener, topic })
        }
    }
}
