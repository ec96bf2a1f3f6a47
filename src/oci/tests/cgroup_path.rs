//! Where a container's group is, for all that `linux.cgroupsPath` may say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use serde_json::json;
use support::{Bundle, failed, leftovers};

/// A container that tells its groups as the host names them.
fn bundle(name: &str) -> Bundle {
    let mut bundle = Bundle::script(name, "cat /proc/self/cgroup");
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "cgroup");
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| mount["type"] != "cgroup");
    bundle
}

#[test]
fn relative_paths_and_dots_stay_below_the_root() {
    let mut bundle = bundle("dots");
    let group = format!("berth-oci-{}", bundle.id());
    for path in [
        group.clone(),
        format!("/{group}/"),
        format!("./a/..//{group}"),
        format!("../../../{group}"),
        format!("/..//{group}/b/.."),
    ] {
        bundle.config["linux"]["cgroupsPath"] = json!(path);
        let output = bundle.output();
        let unexpected = |line: &&str| !line.ends_with(&format!(":/{group}")) && !line.contains("name=");
        assert_eq!(output.lines().find(unexpected), None, "{path}: {output}");
        assert_eq!(leftovers(&group), Vec::<std::path::PathBuf>::new());
    }
}

#[test]
fn without_a_path_the_group_has_the_containers_name() {
    let mut bundle = bundle("unnamed");
    bundle.config["linux"]
        .as_object_mut()
        .unwrap()
        .remove("cgroupsPath");
    let output = bundle.output();
    assert!(output.contains(&format!(":/{}", bundle.id())), "{output}");
    assert_eq!(leftovers(bundle.id()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn what_is_no_group_is_refused() {
    let mut bundle = bundle("refused");
    let path = bundle.path().to_str().unwrap().to_owned();
    for bad in ["/", "..", "/a/..", "a\nb"] {
        bundle.config["linux"]["cgroupsPath"] = json!(bad);
        let message = failed(&bundle.oci(&["create", "--bundle", &path, bundle.id()]));
        assert!(message.contains("cgroup path"), "{bad:?}: {message}");
        assert!(!bundle.state_directory().exists());
    }
    bundle.config["linux"]["cgroupsPath"] = json!("berth-oci-none");
}
