//! The server, spoken to in raw frames.

mod bad_input;
mod bad_records;
mod big_requests;
mod bounds;
mod ends;
mod failing_disk;
mod fetch_waits;
mod floods;
mod groups;
mod hanging_disk;
mod produce_fetch;
mod record_errors;
mod restart;
mod topics;
mod transactional;
mod wire;
