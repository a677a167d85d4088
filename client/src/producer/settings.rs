//! A producer's settings as text, under Kafka's names.

use klamm_protocol::compression::Compression;

use super::builder::{Acks, ProducerConfig};
use crate::config::Properties;

impl ProducerConfig {
    /// The defaults, changed by what was given as text. Gives what was said of idempotence, too.
    pub(super) fn from_properties(given: &Properties) -> (Self, Option<bool>) {
        let mut config = Self::default();
        let change = |setting: &mut _, name| *setting = given.duration(name).unwrap_or(*setting);
        change(&mut config.linger, "linger.ms");
        change(&mut config.delivery_timeout, "delivery.timeout.ms");
        change(&mut config.request_timeout, "request.timeout.ms");
        change(&mut config.max_block, "max.block.ms");
        change(&mut config.metadata_max_idle, "metadata.max.idle.ms");
        change(&mut config.transaction_timeout, "transaction.timeout.ms");
        let change = |setting: &mut _, name| *setting = given.size(name).unwrap_or(*setting);
        change(&mut config.batch_bytes, "batch.size");
        change(&mut config.buffer_bytes, "buffer.memory");
        change(&mut config.max_in_flight, "max.in.flight.requests.per.connection");
        change(&mut config.max_request_bytes, "max.request.size");
        match given.text("acks") {
            Some("all" | "-1") => config.acks = Acks::All,
            Some("1") => config.acks = Acks::Leader,
            Some("0") => config.acks = Acks::None,
            _ => {}
        }
        let codec = given.text("compression.type");
        let named = codec.and_then(|name| Compression::ALL.into_iter().find(|codec| codec.name() == name));
        config.compression = named.unwrap_or(config.compression);
        config.compression_level = match config.compression {
            Compression::Gzip => given.level("compression.gzip.level"),
            Compression::Zstd => given.level("compression.zstd.level"),
            _ => None,
        };
        (config, given.flag("enable.idempotence"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_setting_arrives() {
        let mut given = Properties::default();
        let text = "acks=1 enable.idempotence=false linger.ms=7 batch.size=8 buffer.memory=9 compression.type=zstd \
            delivery.timeout.ms=10 max.block.ms=11 max.in.flight.requests.per.connection=12 max.request.size=13 \
            request.timeout.ms=14 metadata.max.idle.ms=15 transaction.timeout.ms=16 compression.zstd.level=17 \
            compression.gzip.level=1";
        given.extend(text.split(' ').filter_map(|pair| pair.split_once('='))).unwrap();
        let (config, idempotent) = ProducerConfig::from_properties(&given);
        assert_eq!(
            (config.acks, idempotent, config.compression),
            (Acks::Leader, Some(false), Compression::Zstd)
        );
        let times = [config.linger, config.delivery_timeout, config.max_block, config.request_timeout];
        assert_eq!(times, [7, 10, 11, 14].map(Duration::from_millis));
        let more = [config.metadata_max_idle, config.transaction_timeout];
        assert_eq!((more, config.compression_level), ([15, 16].map(Duration::from_millis), Some(17)));
        let sizes = [config.batch_bytes, config.buffer_bytes, config.max_in_flight, config.max_request_bytes];
        assert_eq!(sizes, [8, 9, 12, 13]);
        for (text, acks) in [("all", Acks::All), ("-1", Acks::All), ("0", Acks::None)] {
            given.extend([("acks", text)]).unwrap();
            assert_eq!(ProducerConfig::from_properties(&given).0.acks, acks);
        }
    }
}
