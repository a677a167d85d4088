//! The server, spoken to in raw frames.

mod bad_input;
mod bad_records;
mod big_requests;
mod bounds;
mod command_storms;
mod coordinator;
mod cut_commands;
mod damaged_metadata;
mod ends;
mod failing_disk;
mod failing_steps;
mod fetch_waits;
mod floods;
mod groups;
mod hanging_disk;
mod long_names;
mod produce_fetch;
mod record_errors;
mod restart;
mod slow_directories;
mod storms;
mod strangers;
mod topics;
mod transactional;
mod wire;
