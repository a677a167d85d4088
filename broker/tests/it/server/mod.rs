//! The server, spoken to in raw frames.

mod bad_input;
mod big_requests;
mod damaged_metadata;
mod ends;
mod failing_disk;
mod fetch_waits;
mod floods;
mod groups;
mod produce_fetch;
mod record_errors;
mod restart;
mod topics;
mod transactional;
mod wire;
