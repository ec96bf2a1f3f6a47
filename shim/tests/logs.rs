//! What reaches a container's log file: every byte, in order, in bounds, and only in that file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use berth_shim::protocol::Request;
use rustix::event::{EventfdFlags, eventfd};
use support::{LogLine, Pod, joined, parse_log, wait_until};

/// The live log and the rotated ones, oldest first.
fn all_logs(pod: &Pod, container: &str) -> Vec<PathBuf> {
    let live = pod.log_path(container);
    let mut files: Vec<PathBuf> = fs::read_dir(live.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| *path != live);
    files.sort();
    files.push(live);
    files
}

#[test]
fn every_byte_arrives_before_the_end_is_told() {
    let pod = Pod::start();
    let mut client = pod.client();
    client.subscribe();
    let script = "dd if=/dev/zero bs=1000 count=3000 2>/dev/null; echo; yes 'a line of text' | head -n 50000; echo -n tail";
    assert_eq!(client.run(pod.bundle("a", &["sh", "-c", script])).exit_code, 0);
    let lines = pod.log("a");
    let mut expected = vec![0; 3_000_000];
    expected.push(b'\n');
    expected.extend(b"a line of text\n".repeat(50_000));
    expected.extend(b"tail");
    assert!(joined(lines.iter()) == expected, "{} lines", lines.len());
    assert!(lines.iter().all(|line| line.content.len() <= 16 << 10));
    assert_eq!(
        lines.iter().filter(|line| !line.whole).count(),
        3_000_000 / (16 << 10) + 1
    );
    assert!(lines.is_sorted_by(|a, b| a.at <= b.at));
}

#[test]
fn rotation_keeps_to_the_byte_limit_and_the_number_of_files() {
    let pod = Pod::start();
    let mut client = pod.client();
    client.subscribe();
    let mut everything = pod.bundle(
        "all",
        &[
            "sh",
            "-c",
            "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done",
        ],
    );
    everything.log_max_size = 10_000;
    everything.log_max_files = 1000;
    let mut few = everything.clone();
    client.run(everything);
    let files = all_logs(&pod, "all");
    assert!(files.len() > 10);
    let mut lines: Vec<LogLine> = Vec::new();
    for file in &files {
        let text = fs::read(file).unwrap();
        assert!(
            text.len() <= 10_000,
            "{} has {} bytes",
            file.display(),
            text.len()
        );
        lines.extend(parse_log(&text));
    }
    let expected: String = (0..3000).map(|i| format!("line {i}\n")).collect();
    assert_eq!(String::from_utf8(joined(lines.iter())).unwrap(), expected);

    few.id = "few".into();
    few = berth_shim::protocol::CreateContainer {
        log_max_files: 3,
        ..few
    };
    let bundle = pod.bundle(
        "few",
        &[
            "sh",
            "-c",
            "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done",
        ],
    );
    client.run(berth_shim::protocol::CreateContainer {
        log_max_size: 10_000,
        log_max_files: 3,
        ..bundle
    });
    assert_eq!(few.log_max_files, 3);
    let files = all_logs(&pod, "few");
    assert_eq!(files.len(), 3);
    let kept: Vec<LogLine> = files
        .iter()
        .flat_map(|file| parse_log(&fs::read(file).unwrap()))
        .collect();
    assert!(
        expected.ends_with(&String::from_utf8(joined(kept.iter())).unwrap()),
        "the newest lines are kept"
    );
}

#[test]
fn a_link_in_place_of_the_log_is_not_followed() {
    let pod = Pod::start();
    let mut client = pod.client();
    client.subscribe();
    let victim = pod.root.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    let log = pod.log_path("a");
    fs::create_dir_all(log.parent().unwrap()).unwrap();
    symlink(&victim, &log).unwrap();
    let request = pod.bundle("a", &["echo", "overwritten"]);
    let failure = client.refused(Request::Create(Box::new(request.clone())));
    assert!(
        failure.message.contains(log.to_str().unwrap()),
        "{}",
        failure.message
    );
    assert!(client.state().containers.is_empty());

    // Swapped while the container runs: neither reopening nor rotating goes through the link.
    fs::remove_file(&log).unwrap();
    client.create(request);
    fs::remove_file(&log).unwrap();
    symlink(&victim, &log).unwrap();
    client.refused(Request::ReopenLog {
        container: "a".into(),
    });
    client.start("a");
    client.exited("a");
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
}

#[test]
fn a_log_that_was_moved_is_opened_again() {
    let pod = Pod::start();
    let mut client = pod.client();
    client.subscribe();
    let script = "echo before; while [ ! -e /tmp/go ]; do sleep 0.02; done; echo after";
    client.create(pod.bundle("a", &["sh", "-c", script]));
    client.start("a");
    wait_until("it wrote", || pod.logged("a", "stdout") == b"before\n");
    let moved = pod.log_path("a").with_extension("moved");
    fs::rename(pod.log_path("a"), &moved).unwrap();
    client.call(Request::ReopenLog {
        container: "a".into(),
    });
    client.exec("a", "go", &["sh", "-c", "true > /tmp/go"], 0);
    client.exited("a");
    assert_eq!(joined(parse_log(&fs::read(moved).unwrap()).iter()), b"before\n");
    assert_eq!(pod.logged("a", "stdout"), b"after\n");
}

#[test]
fn followers_are_woken_for_lines_and_for_the_end() {
    let pod = Pod::start();
    let mut client = pod.client();
    client.subscribe();
    client.create(pod.bundle("a", &["echo", "hello"]));
    let wake = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let follow = Request::FollowLog {
        container: "a".into(),
    };
    client.call_with(follow, vec![wake.try_clone().unwrap()]);
    client.start("a");
    client.exited("a");
    let mut count = [0; 8];
    rustix::io::read(&wake, &mut count).unwrap();
    assert!(u64::from_ne_bytes(count) >= 2, "a line and two ends");
    // A follower that comes late hears of the end at once.
    let late = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    client.call_with(
        Request::FollowLog {
            container: "a".into(),
        },
        vec![late.try_clone().unwrap()],
    );
    assert_eq!(rustix::io::read(&late, &mut count).unwrap(), 8);
}

/// A file system of 256 KiB, seen by this test process and the shim that it starts.
fn small_disk(pod: &Pod) -> PathBuf {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let target = pod.root.path().join("logs");
    fs::create_dir_all(&target).unwrap();
    mount("small", &target, "tmpfs", MountFlags::empty(), c"size=256k").unwrap();
    target
}

#[test]
fn a_full_disk_costs_output_but_not_the_container() {
    let pod = Pod::prepare(|_| {});
    let disk = small_disk(&pod);
    assert!(pod.run_shim().status.success());
    fs::write(disk.join("ballast"), vec![0; 200 << 10]).unwrap();
    let mut client = pod.client();
    client.subscribe();
    let script = "yes 'a line of text' | head -n 2000; echo flood over > /tmp/over; \
                  while [ ! -e /tmp/go ]; do sleep 0.02; done; echo dry again";
    client.create(pod.bundle("a", &["sh", "-c", script]));
    client.start("a");
    let overlay = pod.root.path().join("overlays/a/upper/tmp");
    wait_until("the flood is over", || overlay.join("over").exists());
    let complaints = || fs::read_to_string(pod.dir().join("shim.log")).unwrap();
    wait_until("the shim noticed", || complaints().contains("can't be written"));
    fs::remove_file(disk.join("ballast")).unwrap();
    client.exec("a", "go", &["sh", "-c", "true > /tmp/go"], 0);
    assert_eq!(client.exited("a").exit_code, 0);
    let lines = pod.log("a");
    let note = lines.iter().position(|line| line.stream == "stderr");
    let note =
        note.unwrap_or_else(|| panic!("no note in {} lines, the last is {:?}", lines.len(), lines.last()));
    let text = String::from_utf8(lines[note].content.clone()).unwrap();
    assert!(
        text.contains("dropped") && text.contains("No space left"),
        "{text}"
    );
    assert!(
        lines[..note]
            .iter()
            .all(|line| line.content == b"a line of text" && line.whole)
    );
    assert_eq!(lines.last().unwrap().content, b"dry again");
    let complaints = complaints();
    assert_eq!(complaints.matches("can't be written").count(), 1, "{complaints}");
    drop(client);
    // The check for leftover mounts looks at this process's own namespace.
    drop(pod_without_disk(pod, &disk));
}

fn pod_without_disk(pod: Pod, disk: &std::path::Path) -> Pod {
    pod.client()
        .client
        .call(Request::Shutdown, Vec::<OwnedFd>::new())
        .unwrap();
    rustix::mount::unmount(disk, rustix::mount::UnmountFlags::DETACH).unwrap();
    pod
}

#[test]
fn without_a_path_output_is_thrown_away() {
    let pod = Pod::start();
    let mut client = pod.client();
    client.subscribe();
    let mut request = pod.bundle("a", &["sh", "-c", "yes | head -n 100000"]);
    request.log_path = None;
    assert_eq!(client.run(request).exit_code, 0);
}
