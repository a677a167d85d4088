use klamm::prelude::*;

struct Tenant;

#[derive(Headers)]
struct NoValue {
    tenant: Option<Tenant>,
}

#[derive(Headers)]
struct NoNumber {
    #[header(big_endian)]
    name: String,
}

fn main() {}
