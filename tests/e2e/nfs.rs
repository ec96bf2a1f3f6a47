//! Volumes that an NFS server exports. Only where the kernel has both ends and their programs are there (`hack/vm/pods`); it
//! is nothing elsewhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use berth_tests::{Node, container, document, eventually, pod};
use serde_json::{Value, json};

/// A server on the node's loopback that exports one directory.
struct Server {
    exported: PathBuf,
    mountd: Child,
}

fn run(words: &[&str]) -> bool {
    let status = Command::new(words[0]).args(&words[1..]).status();
    status.is_ok_and(|status| status.success())
}

fn can_serve() -> bool {
    let programs = [
        "/usr/sbin/rpc.nfsd",
        "/usr/sbin/rpc.mountd",
        "/usr/sbin/exportfs",
        "/sbin/mount.nfs",
    ];
    programs.iter().all(|program| Path::new(program).exists())
        && run(&["modprobe", "nfsd"])
        && run(&["modprobe", "nfsv4"])
}

impl Server {
    /// In the node's own mount and network namespaces, where the kernel has a server of its own.
    fn start(node: &Node) -> Self {
        let exported = node.scratch().join("exported");
        fs::create_dir(&exported).unwrap();
        assert!(run(&["mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd"]));
        assert!(run(&["mount", "-t", "tmpfs", "state", "/var/lib/nfs"]));
        for file in ["etab", "rmtab"] {
            fs::write(Path::new("/var/lib/nfs").join(file), "").unwrap();
        }
        for directory in ["v4recovery", "nfsdcltrack"] {
            fs::create_dir(Path::new("/var/lib/nfs").join(directory)).unwrap();
        }
        // After its start a server takes nothing but what clients had before, for so long; in seconds, no less are allowed.
        for file in ["nfsv4leasetime", "nfsv4gracetime"] {
            fs::write(Path::new("/proc/fs/nfsd").join(file), "10").unwrap();
        }
        let export = format!("127.0.0.1:{}", exported.display());
        assert!(run(&[
            "exportfs",
            "-i",
            "-o",
            "rw,no_root_squash,insecure,no_subtree_check",
            &export
        ]));
        let mountd = Command::new("rpc.mountd")
            .args(["--foreground", "--no-nfs-version", "2", "--no-nfs-version", "3"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        assert!(run(&["rpc.nfsd", "--no-nfs-version", "3", "--no-udp", "2"]));
        Self { exported, mountd }
    }

    fn stop(mut self) {
        assert!(run(&["rpc.nfsd", "0"]));
        self.mountd.kill().unwrap();
        self.mountd.wait().unwrap();
        assert!(run(&["umount", "/proc/fs/nfsd", "/var/lib/nfs"]));
    }
}

fn with_share(name: &str, claim: bool, command: &[&str], path: &Path) -> String {
    let source = if claim {
        json!({ "persistentVolumeClaim": { "claimName": "share" } })
    } else {
        json!({ "nfs": { "server": "127.0.0.1", "path": path, "readOnly": true } })
    };
    let mut volume: Value = source;
    volume["name"] = json!("share");
    pod(
        name,
        json!({
            "restartPolicy": "Never",
            "volumes": [volume],
            "containers": [container("main", command, json!({
                "volumeMounts": [{ "name": "share", "mountPath": "/share" }],
            }))],
        }),
    )
}

fn claim(path: &Path) -> String {
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": "share" },
        "spec": {
            "accessModes": ["ReadWriteMany"], "capacity": { "storage": "1Gi" }, "mountOptions": ["nfsvers=4.2", "soft"],
            "nfs": { "server": "127.0.0.1", "path": path },
        },
    });
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "share" },
        "spec": {
            "accessModes": ["ReadWriteMany"], "volumeName": "share",
            "resources": { "requests": { "storage": "1Gi" } },
        },
    });
    format!("{}{}", document(&volume), document(&claim))
}

#[test]
fn a_share_is_mounted_and_let_go_of() {
    if !can_serve() {
        return;
    }
    let node = Node::new();
    let server = Server::start(&node);
    let path = server.exported.clone();
    // A claim's volume has mount options, and can be written to.
    let writer = with_share("writer", true, &["write", "/share/word", "written"], &path);
    node.run(&format!("{}{writer}", claim(&path)))
        .wait()
        .expect_code(0);
    assert_eq!(fs::read_to_string(path.join("word")).unwrap().trim(), "written");
    let removed = node.berth(["volume", "rm", "share"]).output().unwrap();
    assert!(removed.status.success());
    // A killed berth leaves the mount to the next one, which unmounts it at last.
    let reader = [
        "run",
        "checks",
        "file=/share/word:written",
        "readonly=/share",
        ";",
        "sleep",
        "600",
    ];
    let manifest = with_share("reader", false, &reader, &path);
    let killed = node.run(&manifest);
    killed.log("main", "ok readonly=/share");
    killed.kill();
    let adopted = node.run(&manifest);
    adopted.line("main");
    adopted.interrupt();
    adopted.wait().expect_no_panic();
    eventually("nothing is mounted", || {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        (!mounts.contains(" nfs4 ")).then_some(())
    });
    server.stop();
    node.finish();
}
