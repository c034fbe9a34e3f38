//! See [`outboard_fuzz::messages`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| outboard_fuzz::messages(input));
