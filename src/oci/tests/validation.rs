//! What the validation programs of runtime-tools found, and what runc's integration tests expect beyond the
//! specification; see docs/oci-conformance.md.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use serde_json::json;
use support::Bundle;

#[test]
fn a_filter_from_before_newer_system_calls_does_not_stop_the_runtime() {
    for no_new_privileges in [false, true] {
        let mut bundle = Bundle::new("old-filter", &["echo", "ran"]);
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        bundle.config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{
                "names": ["faccessat2", "close_range", "openat2", "clone3", "execveat", "pidfd_open", "statx"],
                "action": "SCMP_ACT_ERRNO",
            }],
        });
        assert_eq!(bundle.output(), "ran", "noNewPrivileges {no_new_privileges}");
    }
}
