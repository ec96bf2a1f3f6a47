//! Files of the Container Device Interface.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| berth_cri::fuzzing::cdi(data));
