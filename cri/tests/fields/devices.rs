//! Host devices, and those of the Container Device Interface.

use std::collections::BTreeMap;
use std::fs;

use berth_cri::{ContainerConfig, Device, Engine};

use crate::bench::{Bench, idle};

fn with(host_path: &str, permissions: &str) -> ContainerConfig {
    ContainerConfig {
        devices: vec![Device {
            container_path: "/dev/mine".into(),
            host_path: host_path.into(),
            permissions: permissions.into(),
        }],
        ..idle()
    }
}

#[test]
fn a_device_can_be_used_as_its_permissions_say() {
    let bench = Bench::new();
    let link = bench.directory(".").join("link");
    std::os::unix::fs::symlink("/dev/fuse", &link).unwrap();
    bench.with_pod(async |bench, sandbox| {
        let id = bench
            .started(sandbox, with(&link.display().to_string(), "r"))
            .await;
        assert_eq!(bench.sh(&id, "stat -c '%t:%T' /dev/mine").await, "a:e5");
        assert_eq!(bench.sh(&id, ": < /dev/mine && echo read").await, "read");
        let written = bench.sh(&id, ": > /dev/mine").await;
        assert!(written.contains("Operation not permitted"), "{written}");
        bench.engine.remove_container(&id).await.unwrap();
        let error = bench.refused(sandbox, with("/etc/hostname", "rwm")).await;
        assert!(error.contains("/etc/hostname is not a device"), "{error}");
    });
}

const VENDOR: &str = r#"
cdiVersion: "0.6.0"
kind: vendor.com/thing
containerEdits:
  env:
  - COMMON=yes
devices:
- name: first
  containerEdits:
    env: ["FIRST=1"]
    deviceNodes:
    - path: /dev/thing
      hostPath: /dev/fuse
      permissions: r
    mounts:
    - hostPath: @SHARED@
      containerPath: /shared
      options: [rbind, ro]
- name: second
  containerEdits:
    env: ["SECOND=2"]
"#;

#[test]
fn a_vendors_file_says_what_its_device_needs() {
    let bench = Bench::new();
    let (cdi, shared) = (bench.directory("cdi"), bench.directory("shared"));
    fs::write(shared.join("file"), "shared").unwrap();
    fs::write(
        cdi.join("vendor.yaml"),
        VENDOR.replace("@SHARED@", &shared.display().to_string()),
    )
    .unwrap();
    bench.with_pod(async |bench, sandbox| {
        let config = ContainerConfig {
            cdi_devices: vec!["vendor.com/thing=first".into()],
            annotations: BTreeMap::from([("cdi.k8s.io/plugin".into(), "vendor.com/thing=second".into())]),
            ..idle()
        };
        let id = bench.started(sandbox, config).await;
        assert_eq!(bench.sh(&id, "echo $COMMON $FIRST $SECOND").await, "yes 1 2");
        assert_eq!(
            bench.sh(&id, ": < /dev/thing && cat /shared/file").await,
            "shared"
        );
        bench.engine.remove_container(&id).await.unwrap();
        let missing = ContainerConfig {
            cdi_devices: vec!["vendor.com/thing=third".into()],
            ..idle()
        };
        let error = bench.refused(sandbox, missing).await;
        assert!(error.contains("no CDI device vendor.com/thing=third"), "{error}");
    });
}
