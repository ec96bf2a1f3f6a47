//! What the options of a mount do: id maps, recursion, copies, remounts, propagation, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::process::{Command, Output};

use serde_json::{Value, json};
use support::{Bundle, failed, succeeded};

/// A container that can be written to, and a directory on the host for it.
fn writable(name: &str, script: &str) -> Bundle {
    let mut bundle = Bundle::script(name, script);
    bundle.config["root"]["readonly"] = json!(false);
    fs::create_dir(bundle.path().join("source")).unwrap();
    bundle
}

/// Runs the container in a mount namespace that a script has prepared; `$S` is its `source` directory.
fn run_after(bundle: &Bundle, preparation: &str) -> Output {
    let command = bundle.command(&["run", "--bundle", bundle.path().to_str().unwrap(), bundle.id()]);
    let script = format!("{preparation}\nexec \"$@\"");
    Command::new("unshare")
        .args(["-m", "/bin/sh", "-ec", &script, "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .env("S", bundle.path().join("source"))
        .output()
        .unwrap()
}

fn mapping(container: u32, host: u32, size: u32) -> Value {
    json!([{ "containerID": container, "hostID": host, "size": size }])
}

/// Adds a bind mount of `source` with maps.
fn mapped(bundle: &mut Bundle, destination: &str, options: &[&str], map: &Value) {
    bundle.mount(destination, "bind", "source", options);
    let mount = bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .last_mut()
        .unwrap();
    mount["uidMappings"] = map.clone();
    mount["gidMappings"] = map.clone();
}

fn with_user(bundle: &mut Bundle) {
    bundle.namespace(json!({ "type": "user" }));
    bundle.config["linux"]["uidMappings"] = mapping(0, 100_000, 65_536);
    bundle.config["linux"]["gidMappings"] = mapping(0, 100_000, 65_536);
    for place in ["proc", "dev", "sys", "m", "n"] {
        let _ = fs::create_dir(bundle.root().join(place));
    }
}

/// As a path of the host such a source would lead to what the mount covers, or to nothing.
#[test]
fn a_source_in_the_containers_own_root_is_what_was_mounted_there() {
    let script = "echo x > /a/sub/f; cat /b/f; echo y > /b/f; cat /a/sub/f; cat /all/sub/f
        grep -c ' /c ' /proc/self/mountinfo; ls /ro; touch /ro/f 2>&1 | grep -o 'Read-only'; cat /file";
    let mut bundle = writable("inside", script);
    let root = bundle.root();
    let at = |path: &str| format!("rootfs{path}");
    fs::create_dir(root.join("a")).unwrap();
    fs::write(root.join("a/covered"), "").unwrap();
    fs::write(bundle.path().join("source/f"), "of the host\n").unwrap();
    bundle.mount("/a", "tmpfs", "tmpfs", &["mode=755"]);
    bundle.mount("/a/sub", "tmpfs", "tmpfs", &[]);
    bundle.mount("/b", "bind", root.join("a/sub").to_str().unwrap(), &["bind"]);
    bundle.mount("/all", "bind", &at("/a"), &["rbind"]);
    bundle.mount("/c", "bind", &at("/./b/../a"), &["bind"]);
    bundle.mount("/r", "tmpfs", "tmpfs", &["ro"]);
    bundle.mount("/ro", "bind", &at("/r"), &["bind"]);
    bundle.mount("/m", "bind", "source", &["bind"]);
    bundle.mount("/file", "bind", &at("/m/f"), &["bind", "ro"]);
    assert_eq!(bundle.output(), "x\ny\ny\n1\nRead-only\nof the host");
    with_user(&mut bundle);
    assert_eq!(bundle.output(), "x\ny\ny\n1\nRead-only\nof the host");

    // Links lead where they lead inside.
    let mut bundle = writable("inside-link", "cat /l/f");
    symlink("/", bundle.root().join("out")).unwrap();
    fs::write(bundle.path().join("source/f"), "inside").unwrap();
    bundle.mount("/m", "bind", "source", &["bind"]);
    bundle.mount("/out/tmp", "tmpfs", "tmpfs", &[]);
    bundle.mount("/l", "bind", &at("/out/m"), &["bind"]);
    assert!(failed(&bundle.run()).contains("rootfs/out/m"));
    bundle.mount("/out/m/sub", "tmpfs", "tmpfs", &[]);
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    let last = mounts.len() - 1;
    mounts.swap(last - 1, last);
    assert_eq!(bundle.output(), "inside");

    let mut bundle = writable("inside-none", "true");
    bundle.mount("/a", "tmpfs", "tmpfs", &[]);
    bundle.mount("/b", "bind", &at("/a/none"), &["bind"]);
    let said = failed(&bundle.run());
    assert!(said.contains("/a/none of the container itself"), "{said}");
    mapped(&mut bundle, "/c", &["bind"], &mapping(0, 5000, 100));
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.last_mut().unwrap()["source"] = json!(at("/a"));
    let said = failed(&bundle.run());
    assert!(
        said.contains("the mount on /c") && said.contains("inside the container"),
        "{said}"
    );
}

#[test]
fn the_ids_of_a_bind_mount_are_mapped() {
    let mut bundle = writable(
        "idmap",
        "stat -c %u:%g /m/f /n/f; touch /m/new; stat -c %u /m/new",
    );
    let file = bundle.path().join("source/f");
    fs::write(&file, "").unwrap();
    chown(&file, Some(3), Some(4)).unwrap();
    fs::set_permissions(bundle.path().join("source"), fs::Permissions::from_mode(0o777)).unwrap();
    mapped(&mut bundle, "/m", &["bind", "idmap"], &mapping(0, 5000, 100));
    // Maps alone ask for it too.
    mapped(&mut bundle, "/n", &["bind"], &mapping(3, 3, 10));
    // A file can only be made by an id that the map has.
    bundle.config["process"]["user"] = json!({ "uid": 5007, "gid": 5007 });
    assert_eq!(bundle.output(), "5003:5004\n3:4\n5007");
    assert_eq!(fs::metadata(bundle.path().join("source/new")).unwrap().uid(), 7);
}

#[test]
fn without_maps_those_of_the_container_are_used() {
    let mut bundle = writable("idmap-own", "stat -c %u /m/f; touch /m/new && stat -c %u /m/new");
    fs::write(bundle.path().join("source/f"), "").unwrap();
    bundle.mount("/m", "bind", "source", &["bind", "idmap"]);
    let said = failed(&bundle.run());
    assert!(
        said.contains("mounts[/m].uidMappings") && said.contains("user namespace"),
        "{said}"
    );
    with_user(&mut bundle);
    assert_eq!(bundle.output(), "0\n0");
    assert_eq!(fs::metadata(bundle.path().join("source/new")).unwrap().uid(), 0);
    // The same in a user namespace that is joined.
    let mut first = Bundle::new("idmap-first", &["/bin/sleep", "1000"]);
    with_user(&mut first);
    first.start();
    let mut second = writable("idmap-join", "stat -c %u /m/f");
    fs::write(second.path().join("source/f"), "").unwrap();
    for place in ["proc", "dev", "sys", "m"] {
        fs::create_dir(second.root().join(place)).unwrap();
    }
    second.mount("/m", "bind", "source", &["bind", "idmap"]);
    let pid = first.state()["pid"].as_i64().unwrap();
    second.config.as_object_mut().unwrap().remove("hostname");
    for (kind, file) in [
        ("user", "user"),
        ("network", "net"),
        ("ipc", "ipc"),
        ("uts", "uts"),
    ] {
        second.namespace(json!({ "type": kind, "path": format!("/proc/{pid}/ns/{file}") }));
    }
    assert_eq!(second.output(), "0");
}

#[test]
fn ids_are_mapped_recursively_where_asked() {
    let mut bundle = writable("ridmap", "stat -c %u /m/f /m/sub/f");
    fs::create_dir(bundle.path().join("source/sub")).unwrap();
    // Not a tmpfs, which older kernels can't map.
    let prepare = "mkdir -p $S.other; touch $S/f $S.other/f; mount --bind $S.other $S/sub";
    mapped(&mut bundle, "/m", &["rbind", "idmap"], &mapping(0, 5000, 100));
    assert_eq!(succeeded(&run_after(&bundle, prepare)), "5000\n0");
    bundle.config["mounts"].as_array_mut().unwrap().pop();
    mapped(&mut bundle, "/m", &["rbind", "ridmap"], &mapping(0, 5000, 100));
    assert_eq!(succeeded(&run_after(&bundle, prepare)), "5000\n5000");
}

#[test]
fn what_can_not_be_mapped_is_refused_by_name() {
    let mut bundle = writable("idmap-bad", "true");
    let good = bundle.config.clone();
    // A procfs can't be; neither can what is mapped already, here because the source is the mount of a container.
    bundle.mount("/m", "bind", "/proc", &["bind", "idmap"]);
    let mount = bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .last_mut()
        .unwrap();
    mount["uidMappings"] = mapping(0, 5000, 100);
    mount["gidMappings"] = mapping(0, 5000, 100);
    assert!(failed(&bundle.run()).contains("Mapping the ids of the mount on /m is not supported"));
    bundle.config = good.clone();
    bundle.mount("/m", "tmpfs", "tmpfs", &["idmap"]);
    assert!(failed(&bundle.run()).contains("only bind mounts can be id-mapped"));
    bundle.config = good.clone();
    mapped(&mut bundle, "/m", &["bind", "idmap"], &mapping(0, 5000, 100));
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .last_mut()
        .unwrap()["gidMappings"] = json!([]);
    assert!(failed(&bundle.run()).contains("need each other"));
    bundle.config = good;
    mapped(&mut bundle, "/m", &["bind", "idmap"], &mapping(0, 5000, 0));
    assert!(failed(&bundle.run()).contains("uid_map"));
}

/// The flags of a mount, as the container sees them.
fn flags(mounts: &str, target: &str) -> String {
    let line = mounts.lines().find(|line| line.contains(&format!(" {target} ")));
    line.unwrap_or_else(|| panic!("{target} is not in {mounts}"))
        .split(' ')
        .nth(3)
        .unwrap()
        .to_owned()
}

#[test]
fn recursive_options_reach_what_is_mounted_below() {
    let mut bundle = writable("recursive", "cat /proc/self/mounts");
    fs::create_dir(bundle.path().join("source/sub")).unwrap();
    let cases = [
        ("rro", "ro"),
        ("rnosuid", "nosuid"),
        ("rnodev", "nodev"),
        ("rnoexec", "noexec"),
        ("rnodiratime", "nodiratime"),
        ("rnoatime", "noatime"),
        ("rrelatime", "relatime"),
        ("rnosymfollow", "nosymfollow"),
    ];
    for (option, _) in cases {
        bundle.mount(&format!("/{option}"), "bind", "source", &["rbind", option]);
    }
    bundle.mount("/rstrictatime", "bind", "source", &["rbind", "rstrictatime"]);
    let mounts = succeeded(&run_after(&bundle, "mount -t tmpfs none $S/sub"));
    for (option, flag) in cases {
        for target in [format!("/{option}"), format!("/{option}/sub")] {
            let flags = flags(&mounts, &target);
            assert!(flags.split(',').any(|f| f == flag), "{target}: {flags}");
        }
    }
    let strict = flags(&mounts, "/rstrictatime/sub");
    assert!(!strict.contains("atime"), "{strict}");
    // And the other way round: each takes away what the source has.
    let mut bundle = writable("unrecursive", "cat /proc/self/mounts");
    fs::create_dir(bundle.path().join("source/sub")).unwrap();
    let prepare = "mount -t tmpfs none $S/sub\n\
                   mount -o remount,bind,ro,nosuid,nodev,noexec,nodiratime,noatime,nosymfollow $S/sub";
    let cases = [
        ("rrw", "ro"),
        ("rsuid", "nosuid"),
        ("rdev", "nodev"),
        ("rexec", "noexec"),
        ("rdiratime", "nodiratime"),
        ("ratime", "noatime"),
        ("rsymfollow", "nosymfollow"),
        ("rnostrictatime", "x"),
        ("rnorelatime", "x"),
    ];
    for (option, _) in cases {
        bundle.mount(&format!("/{option}"), "bind", "source", &["rbind", option]);
    }
    let mounts = succeeded(&run_after(&bundle, prepare));
    for (option, flag) in cases {
        let flags = flags(&mounts, &format!("/{option}/sub"));
        assert!(!flags.split(',').any(|f| f == flag), "{option}: {flags}");
    }
}

#[test]
fn access_times_and_links_that_are_not_followed() {
    let mut bundle = writable("attributes", "cat /proc/self/mounts; cat /nosym/link 2>&1");
    fs::write(bundle.path().join("source/file"), "content").unwrap();
    symlink("file", bundle.path().join("source/link")).unwrap();
    bundle.mount("/nosym", "bind", "source", &["bind", "nosymfollow"]);
    bundle.mount("/noatime", "tmpfs", "t", &["noatime"]);
    bundle.mount("/relatime", "tmpfs", "t", &["relatime"]);
    bundle.mount("/strict", "tmpfs", "t", &["strictatime", "nodiratime"]);
    bundle.mount("/default", "tmpfs", "t", &[]);
    bundle.mount("/back", "tmpfs", "t", &["noatime", "atime"]);
    let output = bundle.run();
    let mounts = String::from_utf8(output.stdout).unwrap();
    for (target, flag, present) in [
        ("/nosym", "nosymfollow", true),
        ("/noatime", "noatime", true),
        ("/relatime", "relatime", true),
        ("/strict", "relatime", false),
        ("/strict", "nodiratime", true),
        ("/default", "relatime", true),
        ("/back", "relatime", true),
    ] {
        assert_eq!(
            flags(&mounts, target).split(',').any(|f| f == flag),
            present,
            "{target}\n{mounts}"
        );
    }
    assert!(mounts.contains("Too many levels of symbolic links"), "{mounts}");
}

#[test]
fn a_tmpfs_begins_with_a_copy_of_the_image() {
    let script = "cd /data; stat -c %n:%a:%u:%g:%F . sub sub/file link fifo setuid; cat sub/file; readlink link; \
                  stat -c %Y sub/file; touch sub/new; grep ' /data ' /proc/self/mounts | cut -d' ' -f3,4 | cut -d, -f1";
    let mut bundle = writable("copy-up", script);
    let data = bundle.root().join("data");
    fs::create_dir_all(data.join("sub")).unwrap();
    fs::write(data.join("sub/file"), "content\n").unwrap();
    fs::write(data.join("setuid"), "x").unwrap();
    symlink("/sub/file", data.join("link")).unwrap();
    nix_fifo(&data.join("fifo"));
    chown(data.join("sub/file"), Some(7), Some(8)).unwrap();
    chown(data.join("setuid"), Some(7), Some(8)).unwrap();
    fs::set_permissions(data.join("sub/file"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(data.join("sub"), fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(data.join("setuid"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o750)).unwrap();
    let file = fs::File::options()
        .write(true)
        .open(data.join("sub/file"))
        .unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000))
        .unwrap();
    bundle.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup"]);
    bundle.capabilities(&["CAP_DAC_OVERRIDE"]);
    let expected = ".:750:0:0:directory\nsub:711:0:0:directory\nsub/file:640:7:8:regular file\nlink:777:0:0:symbolic link\n\
                    fifo:600:0:0:fifo\nsetuid:4755:7:8:regular file\ncontent\n/sub/file\n1000\ntmpfs rw";
    assert_eq!(bundle.output(), expected);
    assert!(!data.join("sub/new").exists());
    // Read-only comes after the copy, and a copy that does not fit is an error.
    let mount = bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .last_mut()
        .unwrap();
    mount["options"] = json!(["tmpcopyup", "ro"]);
    bundle.config["process"]["args"] = json!(["/bin/cat", "/data/sub/file"]);
    assert_eq!(bundle.output(), "content");
    fs::write(data.join("large"), vec![1; 1 << 20]).unwrap();
    let mount = bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .last_mut()
        .unwrap();
    mount["options"] = json!(["tmpcopyup", "size=64k"]);
    let said = failed(&bundle.run());
    assert!(
        said.contains("copy /data of the image") && said.contains("No space"),
        "{said}"
    );
}

fn nix_fifo(path: &std::path::Path) {
    assert!(
        Command::new("mkfifo")
            .args(["-m", "600"])
            .arg(path)
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn a_tmpfs_keeps_the_mode_of_the_directory_that_it_covers() {
    let mut bundle = writable(
        "tmpfs-mode",
        "stat -c %n:%a /there /named /new; touch /late/x 2>&1; cat /late/below/f",
    );
    fs::write(bundle.path().join("source/f"), "bound").unwrap();
    for name in ["there", "named"] {
        fs::create_dir(bundle.root().join(name)).unwrap();
        fs::set_permissions(bundle.root().join(name), fs::Permissions::from_mode(0o1741)).unwrap();
    }
    bundle.mount("/there", "tmpfs", "tmpfs", &[]);
    bundle.mount("/named", "tmpfs", "tmpfs", &["mode=700,size=64k"]);
    bundle.mount("/new", "tmpfs", "tmpfs", &[]);
    // A read-only one takes mounts below it all the same.
    bundle.mount("/late", "tmpfs", "tmpfs", &["ro"]);
    bundle.mount("/late/below", "bind", "source", &["bind"]);
    let output = String::from_utf8(bundle.run().stdout).unwrap();
    let expected = "/there:1741\n/named:700\n/new:1777\ntouch: /late/x: Read-only file system\nbound";
    assert_eq!(output.trim_end(), expected);
}

#[test]
fn a_read_only_dev_gets_its_devices() {
    let mut bundle = writable("dev-ro", "ls /dev | wc -l; touch /dev/x");
    for mount in bundle.config["mounts"].as_array_mut().unwrap() {
        if mount["destination"] == "/dev" {
            mount["options"].as_array_mut().unwrap().push(json!("ro"));
        }
    }
    let output = bundle.run();
    assert!(String::from_utf8_lossy(&output.stderr).contains("Read-only file system"));
    let count: usize = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    assert!(count >= 12, "{count}");
}

#[test]
fn a_mount_is_remounted() {
    let mut bundle = writable("remount", "cat /proc/self/mounts; touch /b/x 2>&1");
    bundle.mount("/t", "tmpfs", "t", &["nosuid", "size=64k"]);
    bundle.mount("/t", "tmpfs", "t", &["remount", "size=128k", "noexec", "ro"]);
    bundle.mount("/b", "bind", "source", &["bind"]);
    bundle.mount("/b", "", "", &["remount", "bind", "ro", "nodev"]);
    bundle.mount("/w", "tmpfs", "t", &["ro"]);
    bundle.mount("/w", "tmpfs", "t", &["remount", "rw"]);
    bundle.mount("/", "", "", &["remount", "bind", "nosuid"]);
    let output = String::from_utf8(bundle.run().stdout).unwrap();
    let tmpfs = flags(&output, "/t");
    assert!(
        tmpfs.starts_with("ro,nosuid,noexec") && tmpfs.contains("size=128k"),
        "{tmpfs}"
    );
    assert!(flags(&output, "/b").starts_with("ro,nodev"), "{output}");
    assert!(flags(&output, "/w").starts_with("rw"), "{output}");
    assert!(flags(&output, "/").contains("nosuid"), "{output}");
    assert!(output.contains("/b/x: Read-only file system"), "{output}");
    // The host's file system is not reconfigured, and what is no mount can't be.
    let good = bundle.config.clone();
    bundle.mount("/b", "", "", &["remount", "sync"]);
    let said = failed(&bundle.run());
    assert!(
        said.contains("\"sync\"") && said.contains("not the container's own"),
        "{said}"
    );
    for place in ["/bin", "/not/there"] {
        bundle.config = good.clone();
        bundle.mount(place, "", "", &["remount", "ro"]);
        assert!(
            failed(&bundle.run()).contains("there is no mount to \"remount\""),
            "{place}"
        );
    }
}

#[test]
fn relative_destinations_begin_at_the_root() {
    let mut bundle = writable("relative", "cat /a/b/f; ls /c");
    fs::write(bundle.path().join("source/f"), "").unwrap();
    bundle.mount("a/b", "bind", "source", &["bind"]);
    bundle.mount("../../x/.././c", "bind", "source", &["bind"]);
    assert_eq!(bundle.output(), "f");
}

#[test]
fn a_link_that_leads_nowhere_is_followed_to_its_place() {
    let mut bundle = writable(
        "dangling",
        "cat /etc/resolv.conf /run/made/resolv; cat /up/f; ls -d /opt/new",
    );
    fs::write(bundle.path().join("source/f"), "bound\n").unwrap();
    let root = bundle.root();
    for directory in ["etc", "opt"] {
        fs::create_dir(root.join(directory)).unwrap();
    }
    symlink("../run/made/resolv", root.join("etc/resolv.conf")).unwrap();
    symlink("/../../../opt/./new", root.join("up")).unwrap();
    bundle.mount("/etc/resolv.conf", "bind", "source/f", &["bind"]);
    bundle.mount("/up", "bind", "source", &["bind"]);
    assert_eq!(bundle.output(), "bound\nbound\nbound\n/opt/new");
    // Links in a circle lead nowhere at all.
    symlink("two", root.join("one")).unwrap();
    symlink("one", root.join("two")).unwrap();
    bundle.mount("/one/x", "bind", "source", &["bind"]);
    assert!(failed(&bundle.run()).contains("/one/x"));
}

#[test]
fn mounts_are_made_in_their_order() {
    let mut bundle = writable("order", "ls /sys/fs/cgroup/x; ls /a; ls /b");
    fs::write(bundle.path().join("source/f"), "").unwrap();
    for mount in bundle.config["mounts"].as_array_mut().unwrap() {
        if mount["type"] == "cgroup" {
            mount["options"] = json!(["nosuid", "noexec", "nodev"]);
        }
    }
    // Below the control groups, which are mounted last; and one over another.
    if !fs::exists("/sys/fs/cgroup/cgroup.controllers").unwrap() {
        bundle.mount("/sys/fs/cgroup/x", "bind", "source", &["bind"]);
    } else {
        bundle.config["process"]["args"][2] = json!("echo f; ls /a; ls /b");
    }
    bundle.mount("/a", "tmpfs", "t", &[]);
    bundle.mount("/a", "bind", "source", &["bind"]);
    bundle.mount("/b", "bind", "source", &["bind"]);
    bundle.mount("/b", "tmpfs", "t", &[]);
    assert_eq!(bundle.output(), "f\nf");
}

#[test]
fn what_is_mounted_below_a_source_is_not_left_shared_with_the_host() {
    let script = "grep -E ' /(none|private|slave|both|shared)/sub ' /proc/self/mountinfo; grep ' /both ' /proc/self/mountinfo";
    let mut bundle = writable("below", script);
    fs::create_dir(bundle.path().join("source/sub")).unwrap();
    for (place, options) in [
        ("/none", &["rbind"][..]),
        ("/private", &["rbind", "private"]),
        ("/slave", &["rbind", "slave"]),
        ("/both", &["rbind", "rslave", "shared"]),
        ("/shared", &["rbind", "rshared"]),
    ] {
        bundle.mount(place, "bind", "source", options);
    }
    let prepare = "mount --bind $S $S; mount -t tmpfs none $S/sub; mount --make-rshared /";
    let mounts = succeeded(&run_after(&bundle, prepare));
    let shared: Vec<&str> = mounts
        .lines()
        .filter(|line| line.contains(" shared:"))
        .map(|line| line.split(' ').nth(4).unwrap())
        .collect();
    assert_eq!(shared, ["/shared/sub", "/both"], "{mounts}");
    // A mount can be a slave and shared with others.
    let both = mounts.lines().find(|line| line.contains(" /both ")).unwrap();
    assert!(both.contains(" master:"), "{mounts}");
}

#[test]
fn there_may_be_more_mounts_than_descriptors() {
    let mut bundle = writable("thousand", "grep -c ' /m/' /proc/self/mounts; ulimit -Sn");
    for number in 0..700 {
        bundle.mount(&format!("/m/{number}"), "bind", "source", &["bind"]);
    }
    let limited = "ulimit -Sn 300";
    bundle.config["process"]["rlimits"] = json!([]);
    assert_eq!(succeeded(&run_after(&bundle, limited)), "700\n300");
    // A limit of the configuration's own is set from there, and a hard one that is too low is told.
    bundle.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 200, "hard": 250 }]);
    assert_eq!(succeeded(&run_after(&bundle, limited)), "700\n200");
    let said = failed(&run_after(&bundle, "ulimit -n 300"));
    assert!(said.contains("Too many open files"), "{said}");
}

#[test]
fn missing_and_empty_fields_are_named() {
    for (mount, said) in [
        (json!({ "destination": "/m" }), "mounts[/m].type"),
        (json!({ "destination": "/m", "type": "" }), "mounts[/m].type"),
        (
            json!({ "destination": "/m", "type": "none", "source": "x" }),
            "mounts[/m].type",
        ),
        (
            json!({ "destination": "/m", "type": "bind" }),
            "mounts[/m].source",
        ),
        (
            json!({ "destination": "/m", "options": ["rbind"], "source": "" }),
            "mounts[/m].source",
        ),
        (
            json!({ "destination": "/m", "type": "bind", "source": "/not/there" }),
            "/not/there",
        ),
        (json!({ "destination": "/m", "type": "nonsense" }), "\"nonsense\""),
        (
            json!({ "destination": "/", "type": "tmpfs" }),
            "mounts[/].destination",
        ),
        (
            json!({ "destination": "", "type": "tmpfs" }),
            "mounts[/].destination",
        ),
        (json!({ "type": "tmpfs" }), "destination"),
        (
            json!({ "destination": "/m", "type": "tmpfs", "options": [""] }),
            "option",
        ),
        (
            json!({ "destination": "/m", "type": "tmpfs", "options": ["iversion"] }),
            "iversion",
        ),
    ] {
        let mut bundle = writable("fields", "true");
        bundle.config["mounts"]
            .as_array_mut()
            .unwrap()
            .push(mount.clone());
        let message = failed(&bundle.run());
        assert!(message.contains(said), "{mount}: {message}");
    }
    let mut bundle = writable("long", "true");
    let long = format!("context={}", "x".repeat(300));
    bundle.mount("/m", "tmpfs", "t", &[&long]);
    assert!(failed(&bundle.run()).contains("of more than 255 bytes"));
    let mut bundle = writable("no-options", "grep -c ' /m ' /proc/self/mounts");
    let mount = json!({ "destination": "/m", "type": "tmpfs" });
    bundle.config["mounts"].as_array_mut().unwrap().push(mount);
    assert_eq!(bundle.output(), "1");
}

#[test]
fn every_advertised_option_works() {
    let features = succeeded(&Bundle::new("features", &["/bin/true"]).oci(&["features"]));
    let features: Value = serde_json::from_str(&features).unwrap();
    let mut bundle = writable("advertised", "true");
    with_user(&mut bundle);
    let good = bundle.config.clone();
    let superblock = [
        "sync",
        "async",
        "dirsync",
        "lazytime",
        "nolazytime",
        "mand",
        "nomand",
    ];
    for option in features["mountOptions"].as_array().unwrap() {
        let option = option.as_str().unwrap();
        bundle.config = good.clone();
        match option {
            "tmpcopyup" => bundle.mount("/m", "tmpfs", "t", &[option]),
            "remount" => bundle.mount("/proc", "", "", &["bind", option, "nosuid"]),
            name if superblock.contains(&name) => bundle.mount("/m", "tmpfs", "t", &[option]),
            _ => bundle.mount("/m", "bind", "source", &["bind", option]),
        }
        let output = bundle.run();
        assert!(
            output.status.success(),
            "{option}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
}

/// What of a user namespace can't be mounted in it is the host's.
#[test]
fn in_a_user_namespace_the_hosts_file_systems_stand_in() {
    let script = "cat /proc/self/mounts; ls /sys/class/net; cat /proc/1/comm; cat /sys/fs/cgroup/pids/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null; true";
    let mut bundle = writable("stand-in", script);
    with_user(&mut bundle);
    let kept = ["mount", "user", "uts"];
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|n| kept.contains(&n["type"].as_str().unwrap()));
    let host = fs::read_to_string("/proc/self/mounts").unwrap();
    let has_queues = host.contains(" /dev/mqueue mqueue ");
    if !has_queues {
        // There is nothing to show.
        assert!(failed(&bundle.run()).contains("mount mqueue on /dev/mqueue: Operation not permitted"));
        let mounts = bundle.config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["type"] != "mqueue");
    }
    let output = bundle.output();
    assert!(
        flags(&output, "/sys").starts_with("ro,nosuid,nodev,noexec"),
        "{output}"
    );
    assert_eq!(output.contains(" /dev/mqueue mqueue "), has_queues, "{output}");
    // The host's network and processes, but its own group.
    for entry in fs::read_dir("/sys/class/net").unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(output.lines().any(|line| line == name), "{name}: {output}");
    }
    let first = fs::read_to_string("/proc/1/comm").unwrap();
    assert!(output.contains(first.trim()), "{output}");
    let own = output.lines().last().unwrap().parse::<u32>();
    assert!(own.is_ok_and(|pid| pid > 1), "{output}");
    let groups = output.lines().filter(|line| line.parse::<u32>().is_ok()).count();
    assert!(groups <= 3, "{output}");
}

/// The propagation of the root, and of what is mounted in it, in optional fields of mountinfo.
#[test]
fn the_root_propagates_as_it_is_told() {
    let script = "cut -d' ' -f5- /proc/self/mountinfo | grep -E '^/(b|s|t)? '; mkdir -p /c; mount -o bind / /c 2>&1 && echo bound; true";
    for (propagation, root, bind) in [
        (None, "master", "master"),
        (Some("slave"), "master", "master"),
        (Some("rslave"), "master", "master"),
        (Some("private"), "", ""),
        (Some("rprivate"), "", ""),
        (Some("shared"), "shared", "master"),
        (Some("rshared"), "shared", "shared"),
        (Some("unbindable"), "unbindable", "master"),
        (Some("runbindable"), "unbindable", "unbindable"),
    ] {
        let mut bundle = writable("root-propagation", script);
        bundle.capabilities(&["CAP_SYS_ADMIN"]);
        bundle.mount("/b", "bind", "source", &["bind"]);
        bundle.mount("/s", "bind", "source", &["bind", "rshared"]);
        bundle.mount("/t", "tmpfs", "t", &[]);
        if let Some(propagation) = propagation {
            bundle.config["linux"]["rootfsPropagation"] = json!(propagation);
        }
        let prepare = "B=$(dirname $S); mount --bind $B $B; mount --make-rshared /; cat /proc/self/mountinfo >$B/before\n\
                       \"$@\"; grep -v resolved /proc/self/mountinfo | diff $B/before -; exit 0";
        let output = run_after(&bundle, prepare);
        let mounts = succeeded(&output);
        assert!(!mounts.contains(['<', '>']), "{propagation:?} leaked: {mounts}");
        let fields = |target: &str| {
            let line = mounts
                .lines()
                .find(|line| line.starts_with(&format!("{target} ")));
            let fields = line.unwrap_or_else(|| panic!("{propagation:?}: {target}: {mounts}"));
            fields.split(" - ").next().unwrap().to_owned()
        };
        for (target, wanted) in [("/", root), ("/b", bind)] {
            let found = fields(target);
            let others = ["shared", "unbindable", "master"].into_iter();
            // A mount that became shared or unbindable may be a slave besides.
            for kind in others.filter(|kind| *kind == wanted || (*kind != "master" || wanted.is_empty())) {
                assert_eq!(
                    found.contains(kind),
                    kind == wanted,
                    "{propagation:?} {target}: {found}"
                );
            }
        }
        // A mount's own option holds, too.
        assert!(
            fields("/s").contains("shared") || propagation == Some("runbindable"),
            "{mounts}"
        );
        assert_eq!(
            mounts.contains("bound"),
            root != "unbindable",
            "{propagation:?}: {mounts}"
        );
    }
    let mut bundle = writable("root-propagation-bad", "true");
    bundle.config["linux"]["rootfsPropagation"] = json!("sideways");
    assert!(failed(&bundle.run()).contains("linux.rootfsPropagation: \"sideways\""));
}
