//! Settings, checked before anything is sent.

mod client;

pub(crate) use client::ClientConfig;
