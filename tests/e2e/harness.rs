//! The harness itself: what it must see.

use std::fs;
use std::process::{Command, Stdio};

use berth_tests::{Layout, Node, Registry, eventually};
use serde_json::json;

fn ip(arguments: &str) {
    assert!(
        Command::new("ip")
            .args(arguments.split(' '))
            .status()
            .unwrap()
            .success(),
        "ip {arguments}"
    );
}

/// Makes something, and expects a node to name it.
fn leaves(needle: &str, make: impl FnOnce(&Node)) {
    let node = Node::new();
    make(&node);
    let leftovers = node.leftovers();
    assert!(
        leftovers.iter().any(|line| line.contains(needle)),
        "{needle:?} is not in {leftovers:#?}"
    );
    let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| node.finish()));
    assert!(end.is_err(), "finish let {needle:?} pass");
}

#[test]
fn nothing_done_is_nothing_left() {
    Node::new().finish();
}

#[test]
fn two_nodes_after_each_other_are_apart() {
    leaves("link", |_| ip("link add berth0 type bridge"));
    Node::new().finish();
}

#[test]
fn a_link_and_its_address_are_seen() {
    leaves("address", |_| {
        ip("link add berth0 type bridge");
        ip("addr add 10.9.9.1/24 dev berth0");
    });
}

#[test]
fn a_network_namespace_is_seen() {
    leaves("netns left", |_| ip("netns add left"));
}

#[test]
fn an_nft_table_is_seen() {
    leaves("nft table", |_| {
        assert!(
            Command::new("nft")
                .args(["add", "table", "inet", "left"])
                .status()
                .unwrap()
                .success()
        );
    });
}

#[test]
fn a_mount_is_seen() {
    leaves("mount", |node| {
        let place = node.scratch().join("place");
        fs::create_dir(&place).unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "none"])
            .arg(&place)
            .status()
            .unwrap();
        assert!(done.success());
    });
}

#[test]
fn a_process_is_seen_and_killed() {
    let mut child = None;
    leaves("sleep", |_| {
        child = Some(
            Command::new("sleep")
                .arg("3600")
                .stdin(Stdio::null())
                .spawn()
                .unwrap(),
        );
    });
    assert!(!child.unwrap().wait().unwrap().success());
}

#[test]
fn a_cgroup_is_seen_and_removed() {
    let mut made = None;
    leaves("cgroup", |node| {
        let (mount, _) = berth_tests::Controller::Pids.mount();
        let path = mount
            .join(node.cgroup().strip_prefix("/").unwrap())
            .join("kubepods");
        fs::create_dir_all(&path).unwrap();
        made = Some(path);
    });
    assert!(!made.unwrap().exists());
}

#[test]
fn a_file_is_seen() {
    leaves("file pods/one/left", |node| {
        fs::create_dir_all(node.root().join("pods/one")).unwrap();
        fs::write(node.root().join("pods/one/left"), "").unwrap();
    });
}

#[test]
fn images_may_stay() {
    let node = Node::new();
    fs::create_dir_all(node.root().join("var/lib/berth/images")).unwrap();
    fs::write(node.root().join("var/lib/berth/images/images.json"), "").unwrap();
    node.finish();
}

#[test]
fn a_small_disk_is_full_soon() {
    let node = Node::with_disk(1 << 20);
    let error = fs::write(node.root().join("big"), vec![0; 2 << 20]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    fs::remove_file(node.root().join("big")).unwrap();
    node.finish();
}

#[test]
fn an_image_that_was_pushed_can_be_fetched_and_is_counted() {
    let node = Node::new();
    let layout = Layout::make(
        &node.scratch().join("layout"),
        "x:1",
        json!({}),
        &[("/etc/motd", "hello")],
    );
    assert!(layout.archive().exists());
    let registry = Registry::start(&node);
    registry.push(&layout, "team/x", "1");
    let url = format!("http://{}/v2/team/x/blobs/{}", Registry::HOST, layout.layer);
    assert_eq!(registry.downloads(&layout.layer), 0);
    assert!(
        Command::new("curl")
            .args(["-sSf", "-o", "/dev/null", &url])
            .status()
            .unwrap()
            .success()
    );
    eventually("the download is in the log", || {
        (registry.downloads(&layout.layer) == 1).then_some(())
    });
    registry.stop();
    node.finish();
}

#[test]
fn a_node_s_disk_goes_with_it() {
    let node = Node::with_disk(1 << 20);
    let scratch = node.scratch().to_owned();
    node.finish();
    assert!(!scratch.exists(), "{} is still there", scratch.display());
}
