//! A server of an NFS share that does not answer, for which a mount.nfs stands that never ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use berth_tests::{Node, berth, container, eventually, pod};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

/// A mount.nfs on a node which waits for ever, together with what it has started.
struct Hanging {
    pids: PathBuf,
}

impl Hanging {
    /// In the node's own mount namespace, over the machine's programs.
    fn on(node: &Node) -> Self {
        let scratch = |name: &str| {
            let path = node.scratch().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let (programs, over) = (scratch("programs"), scratch("over"));
        let tmpfs = mount(
            Some("tmpfs"),
            &over,
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        );
        tmpfs.unwrap();
        let (upper, work) = (over.join("upper"), over.join("work"));
        fs::create_dir(&upper).unwrap();
        fs::create_dir(&work).unwrap();
        let pids = programs.join("pids");
        let script = format!(
            "#!/bin/sh\necho $$ >> {0}\nsleep 100000 &\necho $! >> {0}\nwait\n",
            pids.display()
        );
        let helper = upper.join("mount.nfs");
        fs::write(&helper, script).unwrap();
        fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
        let options = format!(
            "lowerdir=/usr/sbin,upperdir={},workdir={}",
            upper.display(),
            work.display()
        );
        let overlay = mount(
            Some("overlay"),
            "/usr/sbin",
            Some("overlay"),
            MsFlags::empty(),
            Some(options.as_str()),
        );
        overlay.unwrap();
        Self { pids }
    }

    /// The processes that were started so far, once there are so many.
    fn started(&self, count: usize) -> Vec<i32> {
        eventually("mount.nfs runs", || {
            let text = fs::read_to_string(&self.pids).ok()?;
            let pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
            (pids.len() == count).then_some(pids)
        })
    }

    fn all_gone(&self, count: usize) {
        for pid in self.started(count) {
            eventually("it was killed", || {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
                stat.map_or(true, |stat| stat.contains(") Z ")).then_some(())
            });
        }
    }

    fn end(self, node: Node) {
        umount2("/usr/sbin", MntFlags::empty()).unwrap();
        umount2(&node.scratch().join("over"), MntFlags::empty()).unwrap();
        node.finish();
    }
}

fn with_share(name: &str) -> String {
    pod(
        name,
        json!({
            "volumes": [{ "name": "share", "nfs": { "server": "192.0.2.1", "path": "/share" } }],
            "containers": [container("main", &["sleep", "inf"],
                json!({ "volumeMounts": [{ "name": "share", "mountPath": "/share" }] }))],
        }),
    )
}

#[test]
fn a_pod_that_waits_for_a_dead_server_can_be_ended() {
    let node = Node::new();
    let hanging = Hanging::on(&node);
    let waits = node.run(&with_share("waits"));
    hanging.started(2);
    // Others are not concerned.
    let other = pod(
        "other",
        json!({ "restartPolicy": "Never", "containers": [container("main", &["true"], json!({}))] }),
    );
    node.run(&other).wait().expect_code(0);
    waits.interrupt();
    waits.wait().expect_code(0).expect_no_panic();
    hanging.all_gone(2);
    hanging.end(node);
}

#[test]
fn a_daemon_with_a_pod_that_waits_for_a_dead_server_can_be_ended() {
    let node = Node::new();
    let hanging = Hanging::on(&node);
    let file = node.file("waits.yaml", &with_share("waits"));
    berth(&node, &["run", "-d", &file.display().to_string()]).expect_code(0);
    hanging.started(2);
    let lock = node.daemon_lock();
    let daemon: i32 = fs::read_to_string(lock).unwrap().parse().unwrap();
    kill(Pid::from_raw(daemon), Signal::SIGTERM).unwrap();
    eventually("the daemon ends", || {
        let stat = fs::read_to_string(format!("/proc/{daemon}/stat"));
        stat.map_or(true, |stat| stat.contains(") Z ")).then_some(())
    });
    hanging.all_gone(2);
    // The next one tries again; who asks for the pod starts it.
    berth(&node, &["exec", "waits", "--", "true"]);
    hanging.started(4);
    berth(&node, &["stop", "waits"]).expect_code(0);
    hanging.all_gone(4);
    hanging.end(node);
}
