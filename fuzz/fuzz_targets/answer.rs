#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergrant_fuzz::answer::run(data));
