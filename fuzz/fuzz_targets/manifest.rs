//! Manifests, from their text to defaulted and validated pods.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| berth_kubelet::manifest::fuzzing::manifest(data));
