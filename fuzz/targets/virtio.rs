//! See [`outboard_fuzz::virtio`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| outboard_fuzz::virtio(input));
