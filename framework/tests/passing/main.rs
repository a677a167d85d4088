//! Programs that the macros take, one in a file: what compiles is right, and what has a test is run as well.
//! Those that are refused are in `../ui`.

#![allow(clippy::unwrap_used, clippy::print_stdout, dead_code, unreachable_pub)]

mod acknowledging;
mod batches;
mod checked_arguments;
mod coming_and_going;
mod dispatching;
mod documents;
mod durations;
mod errors;
mod extractors_of_ones_own;
mod failure_policies;
mod generic_records;
mod headers;
mod interceptors;
mod listeners;
mod named_partitions;
mod names_of_ones_own;
mod no_warnings;
mod parts_of_records;
mod places_of_listeners;
mod raw_names;
mod records;
mod records_by_format;
mod replies;
mod serde_of_the_prelude;
mod several_types_on_a_topic;
mod start_and_isolation;
mod states;
mod templates;
mod tests_with_kits;
mod topics_and_patterns;
mod transactions;
