//! See [`outboard_fuzz::hba`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| outboard_fuzz::hba(input));
