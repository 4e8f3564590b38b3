#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cache_fuzz::holds::config::holds(bytes));
