//! See [`outboard_fuzz::net`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| outboard_fuzz::net(input));
