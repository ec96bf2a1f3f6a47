//! AppArmor where the kernel has it: in the virtual machine of `hack/vm/test security`. Elsewhere profiles are refused,
//! which is tested with the other profiles.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use berth_cri::{AppArmorProfile, ContainerSecurity, ContainerState, Engine, EngineError};

use crate::bench::Bench;

const LOADED: &str = "/sys/kernel/security/apparmor/profiles";
/// Prints the profile, and tries what the engine's own forbids, and what that of the tests does.
const PROBE: &str = "cat /proc/self/attr/current
    mount -t tmpfs none /tmp 2>/dev/null && echo mounted
    (echo x > /srv-file) 2>/dev/null && echo written
    true";

pub(crate) fn is_enabled() -> bool {
    fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|state| state.starts_with(b"Y"))
}

/// A profile that is in the kernel until the end of the test: everything, but not to write one file.
struct Profile(String);

impl Profile {
    fn load() -> Self {
        let profile = Self(format!("berth-cri-test-{}", std::process::id()));
        profile.parse("--replace");
        profile
    }

    fn parse(&self, action: &str) {
        let name = &self.0;
        let text = format!(
            "profile {name} flags=(attach_disconnected,mediate_deleted) {{
                file, capability, network, signal, ptrace, mount, umount, unix,
                deny /srv-file w,
            }}\n"
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
        self.parse("--remove");
    }
}

/// It may mount, as far as capabilities and filters say.
fn with(apparmor: AppArmorProfile) -> ContainerSecurity {
    ContainerSecurity {
        apparmor,
        add_capabilities: vec!["SYS_ADMIN".into()],
        ..Default::default()
    }
}

#[test]
fn profiles_confine_a_containers_programs() {
    if !is_enabled() {
        return;
    }
    let profile = Profile::load();
    Bench::new().with(
        |_| (),
        async |pod| {
            let default = "berth-default (enforce)\nwritten\n";
            let own = format!("{} (enforce)\nmounted\n", profile.0);
            for (wanted, printed) in [
                (AppArmorProfile::RuntimeDefault, default),
                // Nothing said is the default where AppArmor is on.
                (AppArmorProfile::Unset, default),
                (AppArmorProfile::Unconfined, "unconfined\nmounted\nwritten\n"),
                (AppArmorProfile::Localhost(profile.0.clone()), &own),
            ] {
                assert_eq!(pod.run(PROBE, with(wanted.clone())).await, printed, "{wanted:?}");
            }
            // The kernel has it, and it is not only asked for.
            let loaded = fs::read_to_string(LOADED).unwrap();
            assert!(
                loaded.lines().any(|line| line == "berth-default (enforce)"),
                "{loaded}"
            );

            // Commands are confined as the container is, and a confined one can be told to end.
            let id = pod
                .start(pod.script(
                    "idle",
                    "trap 'exit 3' TERM; while :; do sleep 0.1; done",
                    with(AppArmorProfile::RuntimeDefault),
                ))
                .await;
            assert_eq!(pod.exec(&id, PROBE).await, default);
            pod.engine
                .stop_container(&id, Duration::from_secs(30))
                .await
                .unwrap();
            let status = pod.engine.container_status(&id).await.unwrap();
            assert_eq!((status.state, status.exit_code), (ContainerState::Exited, 3));
        },
    );
}

#[test]
fn a_privileged_container_has_no_profile_but_one_that_it_names() {
    if !is_enabled() {
        return;
    }
    let profile = Profile::load();
    Bench::new().with(
        |config| config.privileged = true,
        async |pod| {
            let own = format!("{} (enforce)\n", profile.0);
            for (apparmor, printed) in [
                (AppArmorProfile::Unset, "unconfined\n"),
                (AppArmorProfile::RuntimeDefault, "unconfined\n"),
                (AppArmorProfile::Localhost(profile.0.clone()), &own),
            ] {
                let security = ContainerSecurity {
                    privileged: true,
                    apparmor,
                    ..Default::default()
                };
                assert_eq!(pod.run("cat /proc/self/attr/current", security).await, printed);
            }
        },
    );
}

#[test]
fn a_profile_that_is_not_loaded_is_refused_by_its_name() {
    if !is_enabled() {
        return;
    }
    let missing = || AppArmorProfile::Localhost("berth-no-such-profile".into());
    let named = |refused: &EngineError| {
        assert!(
            matches!(refused, EngineError::InvalidArgument(why) if why.contains("berth-no-such-profile")),
            "{refused:?}"
        );
    };
    named(&Bench::new().refusal(|config| config.security.apparmor = missing()));
    Bench::new().with(
        |_| (),
        async |pod| named(&pod.refusal(pod.script("c", "true", with(missing()))).await),
    );
}
