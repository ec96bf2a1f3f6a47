//! A runtime that is killed while it creates a container.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use support::{Bundle, eventually, succeeded};

/// Processes that are called with the container's id: the runtime's copies, which become the container.
fn processes(bundle: &Bundle) -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let id = bundle.id().as_bytes();
        line.split(|byte| *byte == 0).any(|word| word == id)
    })
    .collect()
}

/// Creates the container again and again, and kills the runtime a little later each time.
fn kill_while_creating(mut bundle: Bundle) {
    const ROUNDS: u64 = 40;
    const STEP: Duration = Duration::from_micros(700);
    bundle.config["process"]["args"] = json!(["/bin/sleep", "1000"]);
    let path = bundle.path().to_str().unwrap().to_owned();
    let mut cut_short = 0;
    for round in 0..ROUNDS {
        let mut create = bundle
            .command(&["create", "--bundle", &path, bundle.id()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(STEP * u32::try_from(round).unwrap());
        create.kill().unwrap();
        cut_short += u32::from(!create.wait().unwrap().success());
        // Whatever lives now is a container that waits for its start, and that the next command knows.
        eventually("the end of what is no container", || {
            processes(&bundle).is_empty()
                || (bundle.state_directory().exists() && bundle.status() == "created")
        });
        succeeded(&bundle.oci(&["delete", "--force", bundle.id()]));
        eventually("the end of the container", || processes(&bundle).is_empty());
        assert!(!bundle.state_directory().exists());
        assert!(support::leftovers(&bundle.cgroup()).is_empty());
    }
    assert!(cut_short > 0, "the runtime was never killed");
}

#[test]
fn leaves_no_process_that_is_no_container() {
    kill_while_creating(Bundle::new("killed", &[]));
}

#[test]
fn nor_one_that_another_process_made() {
    let mut bundle = Bundle::new("killed-middle", &[]);
    bundle.namespace(json!({ "type": "time" }));
    bundle.config["hooks"] = json!({ "createRuntime": [{ "path": "/bin/true" }] });
    kill_while_creating(bundle);
}

#[test]
fn nor_one_in_a_user_namespace() {
    let mut bundle = Bundle::new("killed-user", &[]);
    bundle.namespace(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    bundle.config["linux"]["uidMappings"] = map.clone();
    bundle.config["linux"]["gidMappings"] = map;
    for place in ["proc", "dev", "sys"] {
        let _ = fs::create_dir(bundle.root().join(place));
    }
    kill_while_creating(bundle);
}
