//! What the compiler says of wrong programs is part of the user interface: every message is kept and compared.
//! `TRYBUILD=overwrite cargo test -p klamm --features testing ui` writes them anew.

#[test]
fn compile_errors_say_what_to_do() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}
