use klamm::prelude::*;

#[derive(Headers)]
enum NoStruct {}

#[derive(Headers)]
struct NoNames(String);

#[derive(Headers)]
struct Generic<T> {
    value: T,
}

#[derive(Headers)]
#[headers(rename_all = "kebab-case")]
struct Twice {
    trace_id: String,
    #[header(rename = "trace-id")]
    other: i64,
}

#[derive(Headers)]
struct UnknownWord {
    #[header(text)]
    value: String,
}

#[derive(Headers)]
#[headers(rename_all = "SHOUT")]
struct UnknownStyle {
    value: String,
}

fn main() {}
