//! End-to-end tests of the whole house.
#![allow(clippy::disallowed_methods)]

mod bad_input;
mod cli;
mod client;
mod container;
mod crash;
mod examples;
mod foreign;
mod tidy;
