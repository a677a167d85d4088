//! End-to-end tests of the whole house.
// A failure of a test is a panic that tells what happened, in its helpers too.
#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used
)]

mod apache_kafka;
mod bad_input;
mod cli;
mod client;
mod company;
mod container;
mod crash;
mod examples;
mod foreign;
mod history;
mod job;
mod new_service;
mod offline;
mod packaging;
mod rocksdb;
mod settings_page;
mod tidy;
mod tutorial;
