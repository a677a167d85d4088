//! Clients that we did not write, unmodified, against `klamm broker`; and Kafka's own log dumper on what it stored.
//!
//! `clients` is the table of them, `steps` the scenario and the judgement of how it went, `scenario` runs a program,
//! `kcat` does the same by command lines, `page` keeps docs/compatibility.md, `dumper` reads our segments with Kafka's
//! tool, `transactions` looks at ours with Kafka's command for them, `tools` compares what all of its commands print of
//! ours and of Kafka's, `streams` is Kafka Streams' word count through kills, `takeover` hands an application over to
//! it, `judge` compares pipelines with it, `copiers` are six clients that copy in transactions through kills, `readers`
//! are those that read where it is hard, `spring` is a spring-kafka service whose dead letters we replay, and which we
//! ask and answer, `schema_registry` is serializers and registries of others, `installed` finds all of it.

mod clients;
mod copiers;
mod dumper;
mod installed;
mod judge;
mod kcat;
mod page;
mod readers;
mod scenario;
mod schema_registry;
mod spring;
mod steps;
mod streams;
mod takeover;
mod tools;
mod transactions;

pub(crate) use installed::{go_build, java_build, java_jars, python};
