#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dind_init::fuzzing::application(bytes));
