//! Configurations, processes, resources and states, as JSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| berth_runtime::fuzzing::config_json(data));
