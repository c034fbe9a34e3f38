//! See [`outboard_fuzz::partitions`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| outboard_fuzz::partitions(input));
