//! DescribeConfigs, key 32: versions 1 to 4. Settings of topics, of the broker, and those altered for all
//! brokers (the empty name), with where they come from.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::messages::describe_configs::{
    DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use klamm_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes};

use super::configs::{BROKER, TOPIC, is_this_broker, without_settings};
use super::context::each_once;
use super::{Answer, Call, Context, Refusal};
use crate::config::{Described, of_all_brokers, of_broker, topic};

/// What a setting takes in the answer, more or less, with its synonyms and documentation.
const TOLD_SETTING_BYTES: usize = 512;
pub(super) const VERSIONS: RangeInclusive<i16> = 1..=4;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: DescribeConfigsRequest = call.decode()?;
    let (synonyms, documentation) = (request.include_synonyms, request.include_documentation);
    let resources = each_once(request.resources, |one| (one.resource_type, one.resource_name.clone()));
    let results = resources.map(|wanted| {
        let mut result = DescribeConfigsResult {
            resource_type: wanted.resource_type,
            resource_name: wanted.resource_name.clone(),
            ..DescribeConfigsResult::default()
        };
        match find(context, &wanted) {
            Ok(found) => {
                let found = found.into_iter().filter(|one| is_wanted(&wanted, one));
                result.configs = found.map(|one| told(one, synonyms, documentation)).collect();
            }
            Err((error, message)) => {
                result.error_code = error.code();
                result.error_message = Some(message.into());
            }
        }
        result
    });
    let results: Vec<_> = results.collect();
    let settings: usize = results.iter().map(|result| result.configs.len()).sum();
    call.charge(settings * TOLD_SETTING_BYTES);
    call.answer(&DescribeConfigsResponse { results, ..DescribeConfigsResponse::default() })
}

fn find(context: &Context, wanted: &DescribeConfigsResource) -> Result<Vec<Described>, (ErrorCode, String)> {
    let (name, values) = (&*wanted.resource_name, context.controller().live_config().now());
    match wanted.resource_type {
        TOPIC => match context.view().image.topic(name) {
            Some(found) => Ok(topic::described(&found.settings, &values.given)),
            None => Err((ErrorCode::UnknownTopicOrPartition, format!("there is no topic {name}"))),
        },
        BROKER if name.is_empty() => Ok(of_all_brokers(&values.given)),
        BROKER if is_this_broker(context, name) => Ok(of_broker(&values.given)),
        other => Err(without_settings(other, name)),
    }
}

fn is_wanted(resource: &DescribeConfigsResource, described: &Described) -> bool {
    // Some clients send an empty list for all.
    let keys = resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty());
    keys.is_none_or(|keys| keys.iter().any(|key| **key == *described.name))
}

fn told(described: Described, synonyms: bool, documentation: bool) -> DescribeConfigsResourceResult {
    let from = described.synonyms.into_iter().filter(|_| synonyms).map(|one| DescribeConfigsSynonym {
        name: one.name.into(),
        value: Some(one.value.into()),
        source: one.source as i8,
        ..DescribeConfigsSynonym::default()
    });
    DescribeConfigsResourceResult {
        name: described.name.into(),
        value: described.value.map(Into::into),
        read_only: described.read_only,
        config_source: described.source as i8,
        is_sensitive: false,
        synonyms: from.collect(),
        config_type: described.kind as i8,
        documentation: documentation.then(|| Utf8Bytes::from_static(described.doc)),
        ..DescribeConfigsResourceResult::default()
    }
}
