//! System call filters and security modules.

use berth_cri::{AppArmorProfile, ContainerSecurity, EngineError, SeccompProfile};

use crate::bench::Bench;

fn seccomp(profile: SeccompProfile) -> ContainerSecurity {
    ContainerSecurity {
        seccomp: profile,
        add_capabilities: vec!["SYS_ADMIN".into()],
        ..Default::default()
    }
}

#[test]
fn filters_are_the_defaults_a_files_or_none() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("profile.json");
    std::fs::write(
        &file,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["sethostname"],"action":"SCMP_ACT_ERRNO"}]}"#,
    )
    .unwrap();
    let broken = directory.path().join("broken.json");
    std::fs::write(&broken, "{").unwrap();
    Bench::new().with(
        |_| (),
        async |pod| {
            let script = "helper attempt sethostname unshare; helper caps | grep Seccomp:";
            let of = async |security| pod.run(script, security).await;
            let none = of(seccomp(SeccompProfile::Unconfined)).await;
            assert_eq!(none, "attempt sethostname: ok\nattempt unshare: ok\nSeccomp: 0\n");
            let local = of(seccomp(SeccompProfile::Localhost(file.clone()))).await;
            assert_eq!(
                local,
                "attempt sethostname: EPERM\nattempt unshare: ok\nSeccomp: 2\n"
            );
            // The default filter follows the capabilities.
            let admin = of(seccomp(SeccompProfile::RuntimeDefault)).await;
            assert_eq!(
                admin,
                "attempt sethostname: ok\nattempt unshare: ok\nSeccomp: 2\n"
            );
            let plain = ContainerSecurity {
                seccomp: SeccompProfile::RuntimeDefault,
                ..Default::default()
            };
            assert_eq!(
                of(plain).await,
                "attempt sethostname: EPERM\nattempt unshare: EPERM\nSeccomp: 2\n"
            );
            for path in [directory.path().join("missing.json"), broken] {
                let config = pod.script("bad", "true", seccomp(SeccompProfile::Localhost(path.clone())));
                let refused = pod.refusal(config).await;
                let named = path.file_name().unwrap().to_string_lossy().into_owned();
                assert!(
                    matches!(&refused, EngineError::InvalidArgument(why) if why.contains(&named)),
                    "{refused:?}"
                );
            }
        },
    );
}

/// A pod's own profile is that of its pause, which is confined by more than any could say; but it has to be there.
#[test]
fn a_pods_missing_profile_is_an_error() {
    let refused = Bench::new().refusal(|config| {
        config.security.seccomp = SeccompProfile::Localhost("/no/such/profile.json".into());
    });
    assert!(
        matches!(&refused, EngineError::InvalidArgument(why) if why.contains("/no/such/profile.json")),
        "{refused:?}"
    );
}

#[test]
fn apparmor_is_refused_where_it_is_off() {
    if crate::apparmor::is_enabled() {
        return;
    }
    let with = |apparmor| ContainerSecurity {
        apparmor,
        ..Default::default()
    };
    Bench::new().with(
        |_| (),
        async |pod| {
            for profile in [
                AppArmorProfile::RuntimeDefault,
                AppArmorProfile::Localhost("web".into()),
            ] {
                let refused = pod.refusal(pod.script("profile", "true", with(profile))).await;
                assert!(
                    refused.to_string().contains("AppArmor is not enabled"),
                    "{refused}"
                );
            }
            for profile in [AppArmorProfile::Unset, AppArmorProfile::Unconfined] {
                assert_eq!(pod.run("echo fine", with(profile)).await, "fine\n");
            }
        },
    );
}
