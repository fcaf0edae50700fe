#![no_main]

#[path = "../../tests/fuzz/input.rs"]
mod input;
#[path = "../../tests/fuzz/identity.rs"]
mod identity;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| identity::check(bytes));
