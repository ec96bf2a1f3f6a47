//! Claims with `volumeMode: Block`, on loop devices.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use berth_tests::{Node, container, document, eventually, pod};
use serde_json::{Value, json};

/// A block device of the machine, over a file of the node.
struct Disk {
    file: PathBuf,
    device: String,
}

impl Disk {
    fn new(node: &Node, name: &str) -> Self {
        let file = node.scratch().join(name);
        fs::File::create(&file).unwrap().set_len(1 << 20).unwrap();
        let output = losetup(&["--find", "--show", &file.display().to_string()]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let device = text(&output.stdout).trim().to_owned();
        Self { file, device }
    }

    /// What was written to it.
    fn begins_with(&self, words: &str) -> bool {
        // The device's pages may not have reached the file yet.
        fs::File::open(&self.device).unwrap().sync_all().unwrap();
        fs::read(&self.file).unwrap().starts_with(words.as_bytes())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        losetup(&["--detach", &self.device]);
    }
}

fn losetup(words: &[&str]) -> Output {
    Command::new("losetup").args(words).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A claim of that name, and the volume that it is bound to.
fn claim(name: &str, path: &Path) -> String {
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": format!("{name}-volume") },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Mi" }, "volumeMode": "Block",
            "local": { "path": path },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "kubernetes.io/hostname", "operator": "Exists" }] }] } },
        },
    });
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": name },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "volumeMode": "Block", "volumeName": format!("{name}-volume"),
            "resources": { "requests": { "storage": "1Mi" } },
        },
    });
    format!("{}{}", document(&volume), document(&claim))
}

/// A pod that has the claim `disk` as `/dev/disk`.
fn with_disk(name: &str, command: &[&str], read_only: bool, more: Value) -> String {
    let mut spec = json!({
        "restartPolicy": "Never",
        "volumes": [{ "name": "disk", "persistentVolumeClaim": { "claimName": "disk", "readOnly": read_only } }],
        "containers": [container("main", command, json!({
            "volumeDevices": [{ "name": "disk", "devicePath": "/dev/disk" }],
        }))],
    });
    let fields = spec.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    pod(name, spec)
}

fn remove(node: &Node, claim: &str) {
    let output = node.berth(["volume", "rm", claim]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn a_block_volume_is_a_device() {
    let node = Node::new();
    let disk = Disk::new(&node, "disk.img");
    // By a link, as those of /dev/disk.
    let link = node.scratch().join("by-name");
    std::os::unix::fs::symlink(&disk.device, &link).unwrap();
    let first = json!({ "initContainers": [container("first", &["write", "/dev/disk", "from", "init"], json!({
        "volumeDevices": [{ "name": "disk", "devicePath": "/dev/disk" }],
    }))] });
    let words = [
        "run",
        "checks",
        "writable=/dev/disk",
        ";",
        "ls",
        "/dev/disk",
        ";",
        "append",
        "/dev/disk",
        "main",
    ];
    let writer = with_disk("writer", &words, false, first);
    let ended = node.run(&format!("{}{writer}", claim("disk", &link))).wait();
    let ended = ended.expect_code(0);
    assert!(
        ended
            .output
            .lines()
            .any(|line| line.contains("b0660") || line.contains("b 06")),
        "{}",
        ended.output
    );
    assert!(disk.begins_with("main\n"), "{}", ended.output);
    let reader = with_disk(
        "reader",
        &["checks", "readonly=/dev/disk", "exists=/dev/disk"],
        true,
        json!({}),
    );
    node.run(&reader).wait().expect_code(0);
    remove(&node, "disk");
    // What is on it is not berth's.
    assert!(disk.begins_with("main\n"));
    drop(disk);
    node.finish();
}

#[test]
fn a_device_is_let_go_of_after_a_crash() {
    let node = Node::new();
    let disk = Disk::new(&node, "disk.img");
    let sleeper = with_disk(
        "sleeper",
        &["run", "open", "/dev/disk", "w", ";", "sleep", "600"],
        false,
        json!({}),
    );
    let manifest = format!("{}{sleeper}", claim("disk", Path::new(&disk.device)));
    let killed = node.run(&manifest);
    killed.log("main", "ok");
    killed.kill();
    let adopted = node.run(&manifest);
    adopted.line("main");
    adopted.interrupt();
    adopted.wait().expect_no_panic();
    remove(&node, "disk");
    // The kernel would refuse it if somebody held it.
    let freed = losetup(&["--detach", &disk.device]);
    assert!(freed.status.success(), "{}", text(&freed.stderr));
    let backing = format!(
        "/sys/block/{}/loop/backing_file",
        disk.device.trim_start_matches("/dev/")
    );
    eventually("the device is free", || {
        let backing = fs::read_to_string(&backing).unwrap_or_default();
        (!backing.contains(&disk.file.display().to_string())).then_some(())
    });
    node.finish();
}

#[test]
fn a_volume_is_used_as_its_mode_says() {
    let node = Node::new();
    let file = node.scratch().join("file");
    fs::write(&file, "").unwrap();
    let mounted = pod(
        "mounted",
        json!({
            "volumes": [{ "name": "disk", "persistentVolumeClaim": { "claimName": "disk" } }],
            "containers": [container("main", &["true"], json!({
                "volumeMounts": [{ "name": "disk", "mountPath": "/disk" }],
            }))],
        }),
    );
    node.run(&format!("{}{mounted}", claim("disk", &file)))
        .wait()
        .expect_code(1)
        .expect_output(&["volume disk has volumeMode Block, but is specified in volumeMounts"]);
    // As upstream, no device is made of a file.
    let running = node.run(&format!(
        "{}{}",
        claim("disk", &file),
        with_disk("file", &["true"], false, json!({}))
    ));
    running.line("is a file, and its volumeMode is Block");
    running.interrupt();
    running.wait().expect_no_panic();
    remove(&node, "disk");
    node.finish();
}
