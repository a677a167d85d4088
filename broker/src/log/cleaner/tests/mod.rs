//! Tests of the cleaner that take more than one of its parts.

mod keep;
