//! The message derive.
