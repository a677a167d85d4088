//! What the compiler says of wrong programs is part of the user interface: every message is kept and compared.
//! `TRYBUILD=overwrite cargo test -p klamm --all-features ui` writes them anew.

/// Only with all features: the compiler lists other types that implement a trait, and those depend on the features.
#[test]
#[cfg(all(
    feature = "asyncapi",
    feature = "bincode",
    feature = "postcard",
    feature = "msgpack",
    feature = "avro",
    feature = "protobuf",
    feature = "json-schema",
    feature = "schema-registry",
    feature = "streams",
    feature = "testing"
))]
fn compile_errors_say_what_to_do() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
}
