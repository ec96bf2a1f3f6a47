//! AppArmor: a container's program, and what is added to it, are confined by the profile that they name. Profiles are
//! loaded where the kernel has AppArmor, as in the virtual machine (`hack/vm/test apparmor`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;
use support::{Bundle, failed, succeeded};

/// Prints the profile, and tries what the profiles of these tests forbid and what they allow.
const PROBE: &str = "cat /proc/self/attr/current
    (echo x > /forbidden/file) 2>&1 | grep -o 'Permission denied'
    echo x > /allowed/file && cat /allowed/file";
const CONFINED: &str = "Permission denied\nx";

fn is_enabled() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|state| state.starts_with('Y'))
}

/// A profile that is in the kernel until the end of the test.
struct Profile(String);

impl Profile {
    /// One that allows everything but to write below a directory.
    fn load(name: &str, forbidden: &str) -> Profile {
        let profile = Profile(format!("berth-oci-test-{}-{name}", std::process::id()));
        profile.parse("--replace", forbidden);
        profile
    }

    fn name(&self) -> &str {
        &self.0
    }

    fn parse(&self, action: &str, forbidden: &str) {
        let text = format!(
            "profile {} flags=(attach_disconnected,mediate_deleted) {{
                file, capability, network, signal, ptrace, mount, umount, pivot_root, unix,
                deny {forbidden}/** w,
                change_profile -> **,
            }}\n",
            self.0
        );
        let mut parser = Command::new("apparmor_parser")
            .args([action, "--skip-cache"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("the package apparmor");
        parser.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(parser.wait().unwrap().success());
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.parse("--remove", "/none");
    }
}

fn bundle(name: &str, args: &[&str], profile: &str) -> Bundle {
    let mut bundle = Bundle::new(name, args);
    for directory in ["forbidden", "allowed"] {
        fs::create_dir(bundle.root().join(directory)).unwrap();
    }
    bundle.config["root"]["readonly"] = json!(false);
    bundle.config["process"]["apparmorProfile"] = json!(profile);
    bundle
}

#[test]
fn a_profile_confines_the_program_and_what_is_added() {
    if !is_enabled() {
        return;
    }
    let profile = Profile::load("all", "/forbidden");
    let other = Profile::load("other", "/allowed");
    // A program that gains no privileges may still be confined more.
    for no_new_privileges in [true, false] {
        let mut init = bundle("init", &["/bin/sh", "-c", PROBE], profile.name());
        init.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        assert_eq!(init.output(), format!("{} (enforce)\n{CONFINED}", profile.name()));

        let mut running = bundle("exec", &["/bin/sleep", "1000"], profile.name());
        running.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        running.start();
        let attribute = format!("/proc/{}/attr/current", running.state()["pid"]);
        let current = || fs::read_to_string(&attribute).unwrap().trim().to_owned();
        assert_eq!(current(), format!("{} (enforce)", profile.name()));
        // What is added has the container's profile, unless it names another.
        assert_eq!(
            succeeded(&running.exec(PROBE)),
            format!("{} (enforce)\n{CONFINED}", profile.name())
        );
        let option = format!("--apparmor={}", other.name());
        let script = "cat /proc/self/attr/current; echo x > /forbidden/file && cat /forbidden/file
            (echo x > /allowed/file) 2>&1 | grep -o 'Permission denied'";
        let named = running.oci(&["exec", &option, running.id(), "/bin/sh", "-c", script]);
        assert_eq!(
            succeeded(&named),
            format!("{} (enforce)\nx\nPermission denied", other.name())
        );
        assert_eq!(current(), format!("{} (enforce)", profile.name()));
    }
}

#[test]
fn a_profile_confines_in_a_user_namespace_too() {
    if !is_enabled() {
        return;
    }
    let profile = Profile::load("user", "/forbidden");
    let mut bundle = bundle("user", &["/bin/sh", "-c", PROBE], profile.name());
    bundle.namespace(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
    bundle.config["linux"]["uidMappings"] = map.clone();
    bundle.config["linux"]["gidMappings"] = map;
    assert_eq!(
        bundle.output(),
        format!("{} (enforce)\n{CONFINED}", profile.name())
    );
}

#[test]
fn a_profile_that_is_not_there_is_named() {
    let mut bundle = bundle("missing", &["/bin/sleep", "1000"], "berth-no-such-profile");
    let said = failed(&bundle.run());
    if !is_enabled() {
        assert!(said.contains("AppArmor is not enabled"), "{said}");
        return;
    }
    let names =
        |said: &str| said.contains("process.apparmorProfile") && said.contains("berth-no-such-profile");
    assert!(names(&said), "{said}");
    // The one profile that is always loaded.
    bundle.config["process"]["apparmorProfile"] = json!("unconfined");
    bundle.start();
    assert_eq!(
        succeeded(&bundle.exec("cat /proc/self/attr/apparmor/current")),
        "unconfined"
    );
    let option = "--apparmor=berth-no-such-profile";
    let said = failed(&bundle.oci(&["exec", option, bundle.id(), "/bin/true"]));
    assert!(names(&said), "{said}");
    assert_eq!(bundle.status(), "running");
}
