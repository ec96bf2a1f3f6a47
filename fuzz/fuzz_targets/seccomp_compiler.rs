//! Seccomp profiles made of bytes; compiled, and compared with the reference evaluation.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| berth_runtime::fuzzing::seccomp_compiler(data));
