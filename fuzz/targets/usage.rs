#![no_main]

#[path = "../../tests/fuzz/input.rs"]
mod input;
#[path = "../../tests/fuzz/usage.rs"]
mod usage;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| usage::check(bytes));
