//! SPDY frames and the header blocks in them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| berth_cri::fuzzing::spdy(data));
