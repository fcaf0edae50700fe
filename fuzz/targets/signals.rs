#![no_main]

#[path = "../../tests/fuzz/input.rs"]
mod input;
#[path = "../../tests/fuzz/signals.rs"]
mod signals;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| signals::check(bytes));
