#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergrant_fuzz::calls::run(data));
