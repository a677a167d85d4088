use klamm::prelude::*;

#[derive(Deserialize)]
#[serde(remote = "String")]
struct Elsewhere {
    id: u64,
}

#[derive(Serialize)]
union Bits {
    whole: u64,
    half: u32,
}

fn main() {}
