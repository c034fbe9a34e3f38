//! See [`outboard_fuzz::vhost`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| outboard_fuzz::vhost(input));
