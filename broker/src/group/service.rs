//! placeholder
/// Name of the topic.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// Service.
#[derive(Debug)]
pub struct GroupService;
