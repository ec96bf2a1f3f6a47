//! Ways out of a root file system, or into what must not be covered, that mounts and paths offer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use support::{Bundle, failed, succeeded};

/// Runs the container, with more options, in a mount namespace that a script has prepared. `$@` runs it.
fn run_in(bundle: &Bundle, options: &[&str], script: &str) -> Output {
    let mut arguments = vec!["run", "--bundle", bundle.path().to_str().unwrap()];
    arguments.extend(options);
    arguments.push(bundle.id());
    let command = bundle.command(&arguments);
    Command::new("unshare")
        .args(["-m", "/bin/sh", "-ec", script, "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .output()
        .unwrap()
}

fn add_applets(bundle: &Bundle, applets: &[&str]) {
    for applet in applets {
        symlink("busybox", bundle.root().join("bin").join(applet)).unwrap();
    }
}

/// CVE-2019-19921, CVE-2025-31133, CVE-2025-52881: what is written to `/proc` must reach the kernel, and what is masked
/// there must stay masked.
#[test]
fn nothing_is_mounted_below_proc() {
    let refused = |mount: serde_json::Value, said: &str| {
        let mut bundle = Bundle::script("proc", "true");
        bundle.config["root"]["readonly"] = json!(false);
        fs::create_dir_all(bundle.path().join("fake/kernel")).unwrap();
        symlink("/proc/sys", bundle.root().join("link")).unwrap();
        symlink("proc/self/attr", bundle.root().join("attr")).unwrap();
        bundle.config["mounts"]
            .as_array_mut()
            .unwrap()
            .push(mount.clone());
        let message = failed(&bundle.run());
        assert!(message.contains(said), "{mount}: {message}");
    };
    for destination in [
        "/proc/sys",
        "/proc/sys/kernel",
        "/proc/self/attr",
        "proc/1",
        "/a/../proc/./sys",
        "/proc/acpi",
    ] {
        let bind =
            json!({ "destination": destination, "type": "bind", "source": "fake", "options": ["bind"] });
        refused(bind, "it is inside /proc");
        refused(
            json!({ "destination": destination, "type": "tmpfs" }),
            "it is inside /proc",
        );
    }
    for (kind, source) in [("bind", "fake"), ("tmpfs", "tmpfs"), ("sysfs", "sysfs")] {
        refused(
            json!({ "destination": "/proc", "type": kind, "source": source }),
            "only a procfs can be mounted there",
        );
    }
    // The image has links that lead there.
    for destination in ["/link/kernel", "/link", "/attr"] {
        let bind =
            json!({ "destination": destination, "type": "bind", "source": "fake", "options": ["bind"] });
        refused(bind, "it leads into /proc");
        refused(
            json!({ "destination": destination, "type": "tmpfs" }),
            "it leads into /proc",
        );
    }
    // Emulations of single files are what they are for.
    let mut bundle = Bundle::script("lxcfs", "cat /proc/uptime");
    fs::write(bundle.path().join("uptime"), "forever").unwrap();
    bundle.mount("/proc/uptime", "bind", "uptime", &["bind"]);
    assert_eq!(bundle.output(), "forever");
}

/// Where the host's root is shared, as systemd makes it, nothing that a container mounts may be seen there.
#[test]
fn mounts_do_not_reach_a_shared_host() {
    let mut bundle = Bundle::script(
        "shared-host",
        "mkdir -p /x; mount -t tmpfs inside /x; grep -c . /proc/self/mountinfo",
    );
    bundle.config["root"]["readonly"] = json!(false);
    bundle.capabilities(&["CAP_SYS_ADMIN"]);
    let script = "mount --make-rshared /; before=$(cat /proc/self/mountinfo); \"$@\"; after=$(cat /proc/self/mountinfo)\n\
                  [ \"$before\" = \"$after\" ] || { echo \"$after\"; exit 9; }";
    for options in [&[][..], &["--no-pivot"][..]] {
        let output = run_in(&bundle, options, script);
        let mounts: usize = succeeded(&output).parse().unwrap();
        assert!(mounts > 5);
    }
}

/// The host's tree is gone from the container's mount namespace, and nothing of it lies under the root.
#[test]
fn the_old_root_is_gone() {
    let bundle = Bundle::script("old-root", "cut -d' ' -f5 /proc/self/mountinfo; ls /");
    let marker = tempfile::Builder::new()
        .prefix("berth-old-root-")
        .tempdir_in("/")
        .unwrap();
    let name = marker.path().file_name().unwrap().to_str().unwrap().to_owned();
    let output = bundle.output();
    assert_eq!(output.lines().filter(|line| *line == "/").count(), 1, "{output}");
    assert!(!output.contains(&name), "{output}");
}

/// Without pivot_root(2) the host's procfs stays in the mount namespace, where the kernel takes it as a reason to let
/// user namespaces mount another one that nothing is masked in.
#[test]
fn without_pivot_root_no_unmasked_proc_can_be_mounted() {
    let script = "unshare -U -r -m -p -f mount -t proc p /mnt 2>&1; unshare -U -r -n -m mount -t sysfs s /mnt 2>&1; ls /proc/acpi | wc -l";
    let mut bundle = Bundle::script("no-pivot", script);
    bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    fs::create_dir(bundle.root().join("mnt")).unwrap();
    add_applets(&bundle, &["unshare"]);
    for options in [&[][..], &["--no-pivot"][..]] {
        let said = succeeded(&run_in(&bundle, options, "exec \"$@\""));
        assert_eq!(
            said.matches("permission denied").count(),
            2,
            "{options:?}: {said}"
        );
        assert!(said.ends_with('0'), "{said}");
    }
}

#[test]
fn without_pivot_root_the_root_is_the_same() {
    let mut bundle = Bundle::script(
        "no-pivot-root",
        "ls /; touch /x 2>&1; cut -d' ' -f5 /proc/self/mountinfo; cd /..; ls",
    );
    let expected = bundle.run();
    let with = String::from_utf8(expected.stdout).unwrap();
    assert!(with.contains("Read-only file system"), "{with}");
    let without = run_in(&bundle, &["--no-pivot"], "exec \"$@\"");
    assert_eq!(String::from_utf8(without.stdout).unwrap(), with);
    // In a user namespace the host's mounts can't be removed, only covered.
    bundle.namespace(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    bundle.config["linux"]["uidMappings"] = map.clone();
    bundle.config["linux"]["gidMappings"] = map;
    bundle.config["process"]["args"][2] =
        json!("unshare -U -r -m -p -f mount -t proc p /mnt 2>&1; ls /proc/self/fd >/dev/null && echo alive");
    fs::create_dir(bundle.root().join("mnt")).unwrap();
    add_applets(&bundle, &["unshare"]);
    let said = succeeded(&run_in(&bundle, &["--no-pivot"], "exec \"$@\""));
    assert!(
        said.contains("permission denied") && said.ends_with("alive"),
        "{said}"
    );
}

/// A root that is a link is refused, as in runc: what it leads to could change after it was looked at.
#[test]
fn a_root_that_is_a_link_is_refused() {
    let mut bundle = Bundle::script("root-link", "true");
    let outside = bundle.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink("outside", bundle.path().join("link")).unwrap();
    fs::create_dir(bundle.path().join("outside/below")).unwrap();
    fs::write(bundle.path().join("file"), "").unwrap();
    bundle.mount("/made", "tmpfs", "tmpfs", &[]);
    let whole = bundle.path().join("link").to_str().unwrap().to_owned();
    for (path, said) in [
        ("link", "symbolic link"),
        ("link/below", "symbolic link"),
        (whole.as_str(), "symbolic link"),
        ("rootfs/../link", "symbolic link"),
        ("file", "not a directory"),
        ("missing", "missing"),
    ] {
        bundle.config["root"]["path"] = json!(path);
        let message = failed(&bundle.run());
        assert!(message.contains(said), "{path}: {message}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "{path}");
    }
    // Relative and absolute, with dots, it is the same directory.
    let whole = bundle.root().to_str().unwrap().to_owned();
    for path in ["rootfs", "./rootfs/", "rootfs/../rootfs", whole.as_str()] {
        bundle.config["root"]["path"] = json!(path);
        bundle.output();
    }
}

/// The bundle's root is swapped for a link to the host and back while containers are made: places for mounts are made
/// in the directory or nowhere.
#[test]
fn a_root_that_is_swapped_does_not_lead_out() {
    let mut bundle = Bundle::script("root-race", "true");
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir_all(outside.path().join("bin")).unwrap();
    let [root, link, aside] = ["rootfs", "link", "aside"].map(|name| bundle.path().join(name));
    symlink(outside.path(), &link).unwrap();
    bundle.config["root"]["readonly"] = json!(false);
    bundle.mount("/made/here", "tmpfs", "tmpfs", &[]);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for (from, to) in [(&root, &aside), (&link, &root), (&root, &link), (&aside, &root)] {
                    fs::rename(from, to).unwrap();
                }
            }
        });
        let mut outcomes = [0, 0];
        for _ in 0..60 {
            let output = bundle.run();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                output.status.success() || said.starts_with("berth-oci: "),
                "{said}"
            );
            outcomes[usize::from(output.status.success())] += 1;
            if fs::read_dir(outside.path()).unwrap().count() > 1 {
                over.store(true, Ordering::Relaxed);
                panic!("something was made on the host after {outcomes:?} runs");
            }
        }
        over.store(true, Ordering::Relaxed);
    });
}

/// A container is not lost with its bundle.
#[test]
fn a_bundle_that_is_gone_does_not_keep_its_container() {
    let mut bundle = Bundle::new("bundle-gone", &["/bin/sleep", "1000"]);
    bundle.start();
    fs::remove_file(bundle.path().join("config.json")).unwrap();
    fs::rename(bundle.root(), bundle.path().join("elsewhere")).unwrap();
    bundle.config = serde_json::Value::Null;
    assert_eq!(bundle.status(), "running");
    assert_eq!(succeeded(&bundle.exec("echo still here")), "still here");
    succeeded(&bundle.oci(&["kill", bundle.id(), "KILL"]));
    support::eventually("the end", || bundle.status() == "stopped");
    succeeded(&bundle.oci(&["delete", bundle.id()]));
}

/// CVE-2021-30465, CVE-2023-27561: a place that is there on the host and in the container is that in the container.
#[test]
fn links_lead_to_places_inside() {
    let outside = tempfile::tempdir().unwrap();
    let path = outside.path().to_str().unwrap();
    for link in [path.to_owned(), format!("{}{path}", "../".repeat(12))] {
        let mut bundle = Bundle::script("inside", "cat /link/file /link/directory/data");
        let inside = bundle.root().join(path.trim_start_matches('/'));
        for root in [outside.path(), inside.as_path()] {
            fs::create_dir_all(root.join("directory")).unwrap();
            fs::write(root.join("file"), "covered\n").unwrap();
        }
        fs::create_dir(bundle.path().join("source")).unwrap();
        fs::write(bundle.path().join("source/data"), "bound\n").unwrap();
        symlink(&link, bundle.root().join("link")).unwrap();
        bundle.mount("/link/file", "bind", "source/data", &["bind"]);
        bundle.mount("/link/directory", "bind", "source", &["bind"]);
        assert_eq!(bundle.output(), "bound\nbound");
    }
}

/// CVE-2021-30465: places are made where a link says, but never outside of the root.
#[test]
fn links_that_lead_nowhere_are_not_made_on_the_host() {
    let mut bundle = Bundle::script("dangling-out", "cat /escape/file");
    bundle.config["root"]["readonly"] = json!(false);
    let outside = tempfile::tempdir().unwrap();
    fs::write(bundle.path().join("data"), "bound").unwrap();
    let up = "../".repeat(12);
    let whole = outside.path().to_str().unwrap();
    for target in [
        format!("{whole}/new"),
        format!("{up}{whole}/new"),
        format!("/{up}{whole}/new/../new"),
    ] {
        symlink(&target, bundle.root().join("escape")).unwrap();
        bundle.mount("/escape/file", "bind", "data", &["bind"]);
        assert_eq!(bundle.output(), "bound", "{target}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{target}");
        let inside = bundle.root().join(whole.trim_start_matches('/'));
        assert!(inside.join("new/file").exists(), "{target}");
        fs::remove_dir_all(inside).unwrap();
        fs::remove_file(bundle.root().join("escape")).unwrap();
        bundle.config["mounts"].as_array_mut().unwrap().pop();
    }
    // A magic link of a procfs is not followed at all, be the container's root the runtime's own or not.
    for link in [
        "/proc/self/root/escape",
        "/proc/1/cwd/escape",
        "/proc/self/fd/5/escape",
    ] {
        symlink(link, bundle.root().join("magic")).unwrap();
        bundle.mount("/magic/file", "bind", "data", &["bind"]);
        failed(&bundle.run());
        assert!(!fs::exists("/escape").unwrap());
        fs::remove_file(bundle.root().join("magic")).unwrap();
        bundle.config["mounts"].as_array_mut().unwrap().pop();
    }
}

/// Masked and read-only paths whose place in a volume is swapped by another container never cover or open anything of
/// the host's, and a copy of the volume's contents holds links as links.
#[test]
fn a_copy_does_not_follow_links() {
    let mut bundle = Bundle::script("copy-links", "cat /data/link 2>&1; ls -l /data/link");
    bundle.config["root"]["readonly"] = json!(false);
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "the host's").unwrap();
    fs::create_dir(bundle.root().join("data")).unwrap();
    let secret = outside.path().join("secret");
    symlink(&secret, bundle.root().join("data/link")).unwrap();
    symlink(outside.path(), bundle.root().join("data/directory")).unwrap();
    bundle.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup"]);
    let output = bundle.output();
    assert!(!output.contains("the host's"), "{output}");
    assert!(output.contains(&format!("-> {}", secret.display())), "{output}");
}
