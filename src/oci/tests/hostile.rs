//! What images and configurations have tried against runtimes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;
use support::{Bundle, failed, succeeded};

/// CVE-2024-21626: a working directory through a descriptor of the runtime's.
#[test]
fn a_working_directory_through_a_descriptor_is_refused() {
    let mut bundle = Bundle::script("cwd", "pwd; ls");
    for number in 3..24 {
        bundle.config["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
        failed(&bundle.run());
    }
    symlink("/proc/self/fd/9", bundle.root().join("link")).unwrap();
    bundle.config["process"]["cwd"] = json!("/link");
    failed(&bundle.run());
    let bundle = Bundle::new("cwd-exec", &["/bin/sleep", "1000"]);
    bundle.start();
    for number in 3..24 {
        let cwd = format!("/proc/self/fd/{number}");
        failed(&bundle.oci(&["exec", "--cwd", &cwd, bundle.id(), "/bin/ls"]));
    }
}

/// CVE-2019-5736: the runtime's own program, opened through /proc while it waits or as an entrypoint, is written to
/// once nothing runs it any more.
#[test]
fn the_runtimes_program_can_not_be_written() {
    let mut bundle = Bundle::new("self-exe", &["/bin/sleep", "1000"]);
    // A copy, since a program that any other test runs is busy and can't be written by anybody.
    let program = bundle.path().join("runtime");
    fs::copy(env!("CARGO_BIN_EXE_berth-oci"), &program).unwrap();
    let before = fs::read(&program).unwrap();
    bundle.mount("/tmp", "tmpfs", "tmpfs", &[]);
    bundle.capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"]);
    let oci = |bundle: &Bundle, arguments: &[&str]| {
        let command = bundle.command(arguments);
        let mut copy = std::process::Command::new(&program);
        copy.args(command.get_args())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null());
        copy
    };
    let path = bundle.path().to_str().unwrap().to_owned();
    assert!(
        oci(&bundle, &["create", "--bundle", &path, bundle.id()])
            .status()
            .unwrap()
            .success()
    );
    let attack = "exec 3</proc/1/exe || exit 9; echo > /tmp/opened; until [ -e /tmp/started ]; do sleep 0.01; done; \
                  mount -o remount,bind,rw /proc/self/fd/3; until dd if=/tmp/opened of=/proc/self/fd/3 conv=notrunc 2>/tmp/said; \
                  do grep -q busy /tmp/said || break; sleep 0.01; done; cat /tmp/said; touch /tmp/over; exec sleep 1000";
    // The attacker itself is started with the program that is on the read-only mount of another process.
    let attacker = bundle
        .command(&["exec", "-d", bundle.id(), "/bin/sh", "-c", attack])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    assert!(attacker.unwrap().success());
    let inside = |script: &str| bundle.exec(script).status.success();
    support::eventually("the attack", || inside("[ -e /tmp/opened ]"));
    assert!(oci(&bundle, &["start", bundle.id()]).status().unwrap().success());
    assert!(inside("echo > /tmp/started"));
    support::eventually("the end of the attack", || inside("[ -e /tmp/over ]"));
    let said = succeeded(&bundle.exec("cat /tmp/said"));
    assert!(said.contains("Read-only file system"), "{said}");
    assert!(fs::read(&program).unwrap() == before, "the program was written");
}

/// Every way to the program that a waiting process offers leads to the read-only mount: its mappings too.
#[test]
fn no_mapping_of_the_runtime_leads_to_a_file_that_can_be_written() {
    let bundle = Bundle::new("mappings", &["/bin/sleep", "1000"]);
    bundle.create();
    let process = std::path::PathBuf::from(format!("/proc/{}", bundle.state()["pid"]));
    let mappings = fs::read_dir(process.join("map_files")).unwrap();
    // It has no other files in its memory than its program.
    let mut links: Vec<_> = mappings.map(|entry| entry.unwrap().path()).collect();
    assert!(!links.is_empty());
    links.push(process.join("exe"));
    for link in links {
        let mount = nix::sys::statvfs::statvfs(&link).unwrap();
        assert!(
            mount.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY),
            "{}: {mount:?}",
            link.display()
        );
    }
    // Who looks for the process still finds it.
    let command = fs::read_to_string(process.join("cmdline")).unwrap();
    assert!(command.ends_with(&format!("{}\0", bundle.id())), "{command:?}");
    let environment = fs::read_to_string(process.join("environ")).unwrap();
    assert!(environment.contains("PATH="), "{environment:?}");
}

/// Where the kernel does not let the runtime map itself anew, it executes itself once more.
#[test]
fn without_a_new_mapping_the_runtime_executes_itself_once_more() {
    let command = ["/runtime/berth-oci", "--root", "/tmp", "exec", "missing", "true"];
    let mut bundle = Bundle::new("self-exec", &command);
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_berth-oci"));
    let directory = program.parent().unwrap().to_str().unwrap();
    bundle.mount("/runtime", "bind", directory, &["bind"]);
    bundle.mount("/tmp", "tmpfs", "tmpfs", &[]);
    bundle.capabilities(&["CAP_SYS_ADMIN"]);
    let mut refuse = |calls: serde_json::Value| {
        bundle.config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": calls });
        failed(&bundle.run())
    };
    let mapping = json!({
        "names": ["prctl"], "action": "SCMP_ACT_ERRNO",
        "args": [{ "index": 0, "value": libc::PR_SET_MM, "op": "SCMP_CMP_EQ" }],
    });
    let execution = json!({ "names": ["execveat"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EXDEV });
    for refused in [json!([]), json!([mapping]), json!([execution])] {
        let said = refuse(refused);
        assert!(said.contains("does not exist"), "{said}");
    }
    let said = refuse(json!([mapping, execution]));
    assert!(
        said.contains("protect the runtime's executable: Cross-device link"),
        "{said}"
    );
}

/// As an entrypoint it runs the runtime once more, which is a program like any other there.
#[test]
fn the_runtime_as_an_entrypoint_is_on_a_read_only_mount_too() {
    let bundle = Bundle::new("self-entry", &["/proc/self/exe", "features"]);
    assert!(bundle.output().contains("ociVersionMax"));
}

#[test]
fn a_waiting_runtime_shows_nothing_of_itself() {
    let mut bundle = Bundle::new("dumpable", &["/bin/sleep", "1000"]);
    bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    bundle.create();
    let said =
        failed(&bundle.exec("ls /proc/1/fd; readlink /proc/1/exe; ls /proc/1/cwd/; cat /proc/1/environ"));
    assert!(said.matches("ermission denied").count() >= 3, "{said}");
}

#[test]
fn a_null_device_of_the_image_is_not_used() {
    for target in ["/secret", "/proc/self/fd/9", "/etc/passwd"] {
        let mut bundle = Bundle::script("null-link", "cat /proc/keys; stat -c %t:%T /dev/null");
        // The image brings its own /dev, and no mount covers it.
        bundle.config["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
        fs::create_dir(bundle.root().join("dev")).unwrap();
        fs::write(bundle.root().join("secret"), "secret").unwrap();
        symlink(target, bundle.root().join("dev/null")).unwrap();
        let said = failed(&bundle.run());
        assert!(said.contains("null"), "{said}");
    }
}

/// CVE-2025-31133 and its like: what is masked must be masked wherever links lead.
#[test]
fn a_masked_path_through_a_link_stays_inside() {
    let mut bundle = Bundle::script("mask-link", "cat /hidden; ls -A /inner");
    fs::create_dir(bundle.root().join("inner")).unwrap();
    fs::write(bundle.root().join("inner/secret"), "secret").unwrap();
    symlink("/inner/secret", bundle.root().join("hidden")).unwrap();
    bundle.config["linux"]["maskedPaths"] = json!(["/hidden"]);
    assert_eq!(bundle.output(), "secret");
    // As a link to the host it leads nowhere: the host's file is not covered, and nothing is mounted.
    let mut bundle = Bundle::script("mask-out", "true");
    let outside = bundle.path().join("outside");
    fs::write(&outside, "host").unwrap();
    symlink(
        format!("../../../../../..{}", outside.display()),
        bundle.root().join("hidden"),
    )
    .unwrap();
    bundle.config["linux"]["maskedPaths"] = json!(["/hidden"]);
    bundle.config["linux"]["readonlyPaths"] = json!(["/hidden"]);
    bundle.output();
    assert_eq!(fs::read_to_string(outside).unwrap(), "host");
}

/// CVE-2021-30465, CVE-2023-27561: a mount's target is a link out of the root.
#[test]
fn mount_targets_are_resolved_inside() {
    let mut bundle = Bundle::script("target", "cat /etc-of-host/data; ls /x");
    bundle.config["root"]["readonly"] = json!(false);
    let outside = bundle.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(bundle.path().join("data"), "bound").unwrap();
    let up = format!("../../../../../../../..{}", outside.display());
    symlink(&up, bundle.root().join("up")).unwrap();
    symlink(&outside, bundle.root().join("absolute")).unwrap();
    let data = bundle.path().join("data");
    // The links lead to places of that name inside the root, which don't exist: a dangling link is not followed.
    for target in ["/up/file", "/absolute/file"] {
        let mut bundle_config = bundle.config.clone();
        std::mem::swap(&mut bundle.config, &mut bundle_config);
        bundle.mount(target, "bind", data.to_str().unwrap(), &["bind"]);
        let _ = bundle.run();
        bundle.config = bundle_config;
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{target}");
    }
    // Where the place exists inside, it is that which is covered.
    let inside = bundle.root().join(outside.strip_prefix("/").unwrap());
    fs::create_dir_all(&inside).unwrap();
    bundle.mount("/absolute/file", "bind", data.to_str().unwrap(), &["bind"]);
    bundle.config["process"]["args"] = json!(["/bin/cat", "/absolute/file"]);
    assert_eq!(bundle.output(), "bound");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(fs::read_dir(&inside).unwrap().count(), 1);
}

/// CVE-2019-16884 and CVE-2025-52881: a procfs that is not one.
#[test]
fn a_proc_of_the_image_gets_no_writes() {
    let mut bundle = Bundle::script("proc-link", "cat /proc/sys/net/ipv4/ip_forward");
    fs::create_dir_all(bundle.root().join("fake/sys/net/ipv4")).unwrap();
    fs::write(bundle.root().join("fake/sys/net/ipv4/ip_forward"), "fake").unwrap();
    symlink("/fake", bundle.root().join("proc")).unwrap();
    bundle.config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
    bundle.config["root"]["readonly"] = json!(false);
    assert!(failed(&bundle.run()).contains("proc must be mounted on an ordinary directory"));
    assert_eq!(
        fs::read_to_string(bundle.root().join("fake/sys/net/ipv4/ip_forward")).unwrap(),
        "fake"
    );
    // Without any procfs, too, sysctls reach the kernel and nothing else.
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|m| m["destination"] != "/proc");
    bundle.config["process"]["args"] = json!(["/bin/cat", "/proc/sys/net/ipv4/ip_forward"]);
    bundle.config["linux"]["maskedPaths"] = json!([]);
    bundle.config["linux"]["readonlyPaths"] = json!([]);
    assert_eq!(bundle.output(), "fake");
}

/// CVE-2022-0811 and its like.
#[test]
fn sysctls_can_not_reach_the_host() {
    let before = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    for (name, value) in [
        ("kernel.core_pattern", "|/attack"),
        (
            "kernel.shm_rmid_forced",
            "1+kernel.core_pattern=|/attack\nkernel.core_pattern=|/attack",
        ),
        ("kernel.shm_rmid_forced+kernel.core_pattern", "|/attack"),
        ("net/../kernel/core_pattern", "|/attack"),
        ("net.ipv4.conf.../../kernel/core_pattern", "|/attack"),
        ("vm.overcommit_memory", "1"),
    ] {
        let mut bundle = Bundle::new("sysctl", &["/bin/true"]);
        bundle.config["linux"]["sysctl"] = json!({ name: value });
        assert!(failed(&bundle.run()).contains("linux.sysctl"), "{name}");
    }
    assert_eq!(
        fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(),
        before
    );
}

/// CVE-2022-0492.
#[test]
fn a_release_agent_can_not_be_written() {
    let script = "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do [ -e $d/release_agent ] && echo /attack > $d/release_agent && echo written; \
                  touch $d/x 2>/dev/null && echo made; done; echo done";
    assert_eq!(Bundle::script("release-agent", script).output(), "done");
    let mut bundle = Bundle::script("release-agent-rw", script);
    for mount in bundle.config["mounts"].as_array_mut().unwrap() {
        if mount["type"] == "cgroup" {
            mount["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
        }
    }
    assert!(!bundle.output().contains("written"));
}

#[test]
fn ids_are_single_harmless_components() {
    let bundle = Bundle::new("ids", &["/bin/true"]);
    for id in ["../x", "a/b", "", ".", "..", "a b", "x\ny"] {
        let output = bundle.oci(&["create", "--bundle", bundle.path().to_str().unwrap(), "--", id]);
        assert!(failed(&output).contains("id"), "{id:?}");
        for verb in ["state", "start", "kill", "delete"] {
            failed(&bundle.oci(&[verb, "--", id]));
        }
    }
}

#[test]
fn a_fork_bomb_stays_under_its_limit() {
    let mut bundle = Bundle::script(
        "bomb",
        "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done 2>/dev/null; ls /proc | grep -c '^[0-9]'",
    );
    bundle.config["linux"]["resources"]["pids"] = json!({ "limit": 5 });
    let _ = bundle.run();
}

#[test]
fn broken_configurations_are_errors() {
    let mut bundle = Bundle::new("broken", &["/bin/true"]);
    let good = bundle.config.clone();
    bundle.config = serde_json::Value::Null;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let half = good.to_string().split_at(300).0.to_owned();
    for text in [
        "",
        "{",
        "[]",
        "null",
        half.as_str(),
        deep.as_str(),
        "{\"ociVersion\":\"1.0.0\"}",
        "\u{0}",
    ] {
        fs::write(bundle.path().join("config.json"), text).unwrap();
        failed(&bundle.run());
    }
    bundle.config = good;
}

/// CVE-2021-30465: two containers share a volume; one replaces directories by links while mounts of the other are
/// attached below them.
#[test]
fn racing_links_do_not_move_mounts_out() {
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("target")).unwrap();
    let volume = tempfile::tempdir().unwrap();
    fs::create_dir(volume.path().join("a")).unwrap();
    let up = format!("../../../../../../../..{}", outside.path().display());
    // The volume's owner swaps the directory for a link to the host and back, as fast as it can.
    let script = format!(
        "cd /v; ln -s {up} link; touch /v/ready; while [ ! -e /v/stop ]; do mv a b; mv link a; mv a link; mv b a; done"
    );
    let mut racer = Bundle::script("racer", &script);
    for applet in ["ln", "mv"] {
        symlink("busybox", racer.root().join("bin").join(applet)).unwrap();
    }
    racer.mount("/v", "bind", volume.path().to_str().unwrap(), &["rbind"]);
    racer.config["root"]["readonly"] = json!(false);
    racer.start();
    support::eventually("the race", || volume.path().join("ready").exists());
    let mut victim = Bundle::script("victim", "true");
    victim.config["root"]["readonly"] = json!(false);
    let data = victim.path().join("data");
    fs::write(&data, "x").unwrap();
    victim.mount("/v", "bind", volume.path().to_str().unwrap(), &["rbind"]);
    victim.mount("/v/a/made/here", "bind", data.to_str().unwrap(), &["bind"]);
    for _ in 0..60 {
        // It may fail; it must not make anything outside of the volume.
        let _ = victim.run();
        let names: Vec<_> = fs::read_dir(outside.path())
            .unwrap()
            .flatten()
            .map(|e| e.file_name())
            .collect();
        assert_eq!(names, ["target"]);
        assert_eq!(fs::read_dir(outside.path().join("target")).unwrap().count(), 0);
    }
    fs::write(volume.path().join("stop"), "").unwrap();
}
