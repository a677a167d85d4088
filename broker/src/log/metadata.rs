//! The two small properties files: who a log directory belongs to, and which topic a partition directory.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use klamm_protocol::Uuid;

/// File name in a log directory.
pub(crate) const META_PROPERTIES: &str = "meta.properties";
/// File name in a partition directory.
pub(crate) const PARTITION_METADATA: &str = "partition.metadata";

/// `meta.properties`, version 1: which broker of which cluster a log directory belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MetaProperties {
    pub(crate) cluster_id: String,
    pub(crate) node_id: i32,
    /// Made up once for each directory (KIP-858).
    pub(crate) directory_id: Option<Uuid>,
}

impl MetaProperties {
    /// Reads Kafka's and our own.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut properties = properties(text, '=');
        match properties.remove("version") {
            Some("1") => {}
            Some(version) => return Err(format!("version {version} is not known; only 1 is")),
            None => return Err("the line version=1 is missing".to_owned()),
        }
        let cluster_id = properties.remove("cluster.id").ok_or("the line cluster.id=... is missing")?;
        let node_id = properties.remove("node.id").ok_or("the line node.id=... is missing")?;
        let node_id = node_id.parse().map_err(|_| format!("node.id={node_id} is not a number"))?;
        let directory_id = match properties.remove("directory.id") {
            Some(id) => Some(id.parse().map_err(|_| format!("directory.id={id} is not a Kafka id"))?),
            None => None,
        };
        Ok(Self { cluster_id: cluster_id.to_owned(), node_id, directory_id })
    }

    pub(crate) fn print(&self) -> String {
        let mut text = format!("version=1\ncluster.id={}\nnode.id={}\n", self.cluster_id, self.node_id);
        if let Some(id) = self.directory_id {
            let _ = writeln!(text, "directory.id={id}");
        }
        text
    }
}

/// `partition.metadata`, version 0.
pub(crate) fn print_topic_id(topic_id: Uuid) -> String {
    format!("version: 0\ntopic_id: {topic_id}\n")
}

/// The topic id in a `partition.metadata`.
pub(crate) fn parse_topic_id(text: &str) -> Option<Uuid> {
    let properties = properties(text, ':');
    (properties.get("version") == Some(&"0")).then(|| properties.get("topic_id")?.parse().ok())?
}

fn properties(text: &str, separator: char) -> BTreeMap<&str, &str> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(separator))
        .map(|(key, value)| (key.trim(), value.trim()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_properties_of_kafka_are_read_and_ours_round_trip() {
        let kafka = "#\n#Mon Nov 02 10:00:00 UTC 2026\nnode.id=1\ndirectory.id=AAAAAAAAAAAAAAAAAAAAAQ\nversion=1\n\
                     cluster.id=4L6g3nShT-eMCtK--X86sw\n";
        let read = MetaProperties::parse(kafka).unwrap();
        assert_eq!((read.node_id, read.cluster_id.as_str()), (1, "4L6g3nShT-eMCtK--X86sw"));
        assert_eq!(MetaProperties::parse(&read.print()).unwrap(), read);
        assert!(
            MetaProperties::parse("version=0\ncluster.id=a\nnode.id=1").unwrap_err().contains("version 0")
        );
        assert!(MetaProperties::parse("version=1\nnode.id=1").unwrap_err().contains("cluster.id"));
    }

    #[test]
    fn partition_metadata_round_trips() {
        let id = Uuid::from_u128(7 << 80);
        assert_eq!(parse_topic_id(&print_topic_id(id)), Some(id));
        assert_eq!(parse_topic_id("version: 1\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ"), None);
    }
}
