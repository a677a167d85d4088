//! End-to-end tests of the whole house.
#![allow(clippy::disallowed_methods)]

mod cli;
mod examples;
mod tidy;
