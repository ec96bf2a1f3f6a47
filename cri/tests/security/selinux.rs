//! SELinux where it is on: in the virtual machine of `hack/vm/selinux`. Elsewhere labels mean nothing.

use std::path::Path;

use berth_cri::{ContainerSecurity, EngineError, SelinuxOptions};

use crate::bench::Bench;

fn is_enabled() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

fn options(kind: &str, level: &str) -> SelinuxOptions {
    SelinuxOptions {
        kind: kind.into(),
        level: level.into(),
        ..Default::default()
    }
}

fn with(selinux: Option<SelinuxOptions>) -> ContainerSecurity {
    ContainerSecurity {
        selinux,
        ..Default::default()
    }
}

#[test]
fn labels_mean_nothing_where_it_is_off() {
    if is_enabled() {
        return;
    }
    let asked = || Some(options("spc_t", "s0:c1,c2"));
    Bench::new().with(
        |config| config.security.selinux = asked(),
        async |pod| assert_eq!(pod.run("echo fine", with(asked())).await, "fine\n"),
    );
}

#[test]
fn a_pods_wrong_label_is_refused() {
    if !is_enabled() {
        return;
    }
    let refused = Bench::new().refusal(|config| config.security.selinux = Some(options("", "s99")));
    assert!(
        matches!(&refused, EngineError::InvalidArgument(why) if why.contains("s99")),
        "{refused:?}"
    );
}
