#![no_main]

#[path = "../../tests/fuzz/input.rs"]
mod input;
#[path = "../../tests/fuzz/retry.rs"]
mod retry;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| retry::check(bytes));
