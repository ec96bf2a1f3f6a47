//! What a container's process finds: environment, user, privileges, limits, names, terminal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::process::Stdio;

use serde_json::json;
use support::{Bundle, failed, succeeded};

#[test]
fn the_environment_is_that_of_the_configuration_and_a_home() {
    let mut bundle = Bundle::new("env", &["/bin/env"]);
    bundle.config["process"]["env"] = json!(["PATH=/bin", "A=1"]);
    fs::create_dir(bundle.root().join("etc")).unwrap();
    fs::write(
        bundle.root().join("etc/passwd"),
        "root:x:0:0::/home/of/root:/bin/sh\n",
    )
    .unwrap();
    assert_eq!(bundle.output(), "PATH=/bin\nA=1\nHOME=/home/of/root");
    bundle.config["process"]["env"] = json!(["PATH=/bin", "HOME=/x"]);
    assert_eq!(bundle.output(), "PATH=/bin\nHOME=/x");
}

#[test]
fn a_large_environment_arrives_whole() {
    let mut bundle = Bundle::script("large-env", "echo ${#BIG}");
    bundle.config["process"]["env"] = json!(["PATH=/bin", format!("BIG={}", "x".repeat(100_000))]);
    assert_eq!(bundle.output(), "100000");
}

#[test]
fn the_working_directory_is_made_if_it_is_missing() {
    let mut bundle = Bundle::new("cwd", &["/bin/pwd"]);
    bundle.config["root"]["readonly"] = json!(false);
    bundle.config["process"]["cwd"] = json!("/a/b");
    assert_eq!(bundle.output(), "/a/b");
}

#[test]
fn user_groups_and_umask() {
    let mut bundle = Bundle::script(
        "user",
        "id -u; id -g; id -G; umask; touch /tmp/f; stat -c %a:%u:%g /tmp/f",
    );
    bundle.config["process"]["user"] =
        json!({ "uid": 1000, "gid": 1001, "umask": 0o027, "additionalGids": [7, 8] });
    bundle.mount("/tmp", "tmpfs", "tmpfs", &["mode=1777"]);
    assert_eq!(bundle.output(), "1000\n1001\n1001 7 8\n0027\n640:1000:1001");
    bundle.config["process"]["user"] = json!({ "uid": 0, "gid": 0 });
    assert_eq!(bundle.output(), "0\n0\n0\n0022\n644:0:0");
}

#[test]
fn capabilities_are_exactly_those_asked_for() {
    let script = "grep -E '^Cap' /proc/self/status | while read a b; do echo $a$b; done";
    let mut bundle = Bundle::script("caps", script);
    bundle.config["process"]["capabilities"] = json!({
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_CHOWN", "CAP_KILL"],
        "inheritable": ["CAP_KILL"],
        "ambient": ["CAP_KILL"]
    });
    // The set of root is worked out anew at the exec: bounding and inheritable.
    bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let expected = "CapInh:0000000000000020\nCapPrm:0000000000000020\nCapEff:0000000000000020\nCapBnd:0000000000002021\nCapAmb:0000000000000020";
    assert_eq!(bundle.output(), expected);
    bundle.config["process"]
        .as_object_mut()
        .unwrap()
        .remove("capabilities");
    bundle.config["process"]["user"] = json!({ "uid": 0, "gid": 0 });
    assert!(
        bundle
            .output()
            .contains("CapEff:0000000000000000\nCapBnd:0000000000000000")
    );
}

#[test]
fn no_new_privileges_is_set_when_asked_for() {
    let mut bundle = Bundle::script("nnp", "grep NoNewPrivs /proc/self/status");
    assert_eq!(bundle.output(), "NoNewPrivs:\t1");
    bundle.config["process"]["noNewPrivileges"] = json!(false);
    assert_eq!(bundle.output(), "NoNewPrivs:\t0");
}

#[test]
fn limits_are_set_and_refused_ones_are_a_warning() {
    let mut bundle = Bundle::script("limits", "ulimit -Sn; ulimit -Hn");
    bundle.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]);
    assert_eq!(bundle.output(), "100\n200");
    // Fewer descriptors than setting the container up takes.
    bundle.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 10, "hard": 200 }]);
    assert_eq!(bundle.output(), "10\n200");
    bundle.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 300, "hard": 200 }]);
    assert!(failed(&bundle.run()).contains("soft limit"));
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    bundle.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 10, "hard": hard + 1 }]);
    let output = bundle.run();
    // With CAP_SYS_RESOURCE the kernel does not refuse it.
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        succeeded(&output).ends_with(&(hard + 1).to_string())
            || said.contains("RLIMIT_NOFILE stays as it is")
    );
}

#[test]
fn tight_limits_do_not_hit_the_runtime_itself() {
    let mut bundle = Bundle::new("tight", &["/bin/sleep", "1000"]);
    bundle.config["process"]["rlimits"] = json!([
        { "type": "RLIMIT_NOFILE", "soft": 3, "hard": 3 },
        { "type": "RLIMIT_FSIZE", "soft": 0, "hard": 0 },
        { "type": "RLIMIT_NPROC", "soft": 1, "hard": 1 },
        { "type": "RLIMIT_AS", "soft": 67108864, "hard": 67108864 },
        { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }
    ]);
    bundle.start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", bundle.state()["pid"])).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>()[3..5], ["3", "3"]);
    succeeded(&bundle.exec("true"));
}

#[test]
fn the_oom_score_is_set_or_warned_about() {
    let mut bundle = Bundle::script("oom", "cat /proc/self/oom_score_adj");
    bundle.config["process"]["oomScoreAdj"] = json!(500);
    assert_eq!(bundle.output(), "500");
    bundle.config["process"]["oomScoreAdj"] = json!(-900);
    let output = bundle.run();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(succeeded(&output) == "-900" || said.contains("OOM score adjustment could not be set to -900"));
}

#[test]
fn host_and_domain_name() {
    let mut bundle = Bundle::script("names", "hostname; cat /proc/sys/kernel/domainname");
    bundle.config["hostname"] = json!("container");
    bundle.config["domainname"] = json!("example.org");
    assert_eq!(bundle.output(), "container\nexample.org");
    let list = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    list.retain(|namespace| namespace["type"] != "uts");
    assert!(failed(&bundle.run()).contains("hostname"));
}

#[test]
fn sysctls_of_the_containers_namespaces() {
    let script =
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced /proc/sys/fs/mqueue/msg_max";
    let mut bundle = Bundle::script("sysctl", script);
    bundle.config["linux"]["sysctl"] =
        json!({ "net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "11" });
    assert_eq!(bundle.output(), "1\n1\n11");
    bundle.config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
    let list = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    list.retain(|namespace| namespace["type"] != "network");
    assert!(failed(&bundle.run()).contains("it would change the host"));
}

#[test]
fn a_terminal_in_the_foreground() {
    let mut bundle = Bundle::script(
        "tty",
        "tty; stty size; stat -c %t:%T /dev/console; head -n1; exit 5",
    );
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["consoleSize"] = json!({ "width": 91, "height": 17 });
    let mut run = bundle
        .command(&["run", "--bundle", bundle.path().to_str().unwrap(), bundle.id()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut run.stdin.take().unwrap(), b"typed\n").unwrap();
    let output = run.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(5), "{text}");
    assert!(!text.contains('\r'), "a pipe wants no carriage returns: {text:?}");
    // The terminal echoes what is typed whenever it comes, between any two of the program's lines.
    for line in ["/dev/pts/0\n", "17 91\n", "typed\n"] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn a_terminal_for_a_console_socket() {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut bundle = Bundle::script("console", "tty; read line; echo got $line");
    bundle.config["process"]["terminal"] = json!(true);
    let path = bundle.path().join("console.sock");
    assert!(
        failed(&bundle.oci(&["create", "--bundle", bundle.path().to_str().unwrap(), bundle.id()]))
            .contains("--console-socket")
    );
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let console = path.to_str().unwrap();
    let create = bundle
        .command(&[
            "create",
            "--console-socket",
            console,
            "--bundle",
            bundle.path().to_str().unwrap(),
            bundle.id(),
        ])
        .status()
        .unwrap();
    assert!(create.success());
    let (socket, _) = listener.accept().unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 64];
    recvmsg(
        &socket,
        &mut [std::io::IoSliceMut::new(&mut name)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .unwrap();
    let fd = control
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        })
        .unwrap();
    let mut master = fs::File::from(fd);
    succeeded(&bundle.oci(&["start", bundle.id()]));
    std::io::Write::write_all(&mut master, b"x\n").unwrap();
    let mut text = String::new();
    // A terminal says EIO once its program has ended.
    let mut byte = [0];
    while std::io::Read::read(&mut master, &mut byte).is_ok_and(|n| n > 0) {
        text.push(char::from(byte[0]));
    }
    assert!(
        text.contains("/dev/pts/0\r\n") && text.contains("got x\r\n"),
        "{text:?}"
    );
}

#[test]
fn no_descriptor_leaks_but_those_that_are_preserved() {
    use std::os::fd::AsRawFd;
    let mut bundle = Bundle::script("fds", "ls /proc/self/fd | wc -l; cat <&3");
    fs::write(bundle.path().join("passed"), "through three").unwrap();
    let other = fs::File::open("/dev/zero").unwrap();
    let passed = fs::File::open(bundle.path().join("passed")).unwrap();
    let (other, passed) = (other.as_raw_fd(), passed.as_raw_fd());
    // A shell around the runtime gives it descriptor 3 for the container, and 4 that it must not pass on.
    let run = |bundle: &Bundle, options: &str| {
        let command = bundle.command(&["run", "--bundle", bundle.path().to_str().unwrap()]);
        let words: Vec<_> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .collect();
        let line = words
            .iter()
            .map(|word| word.to_str().unwrap())
            .collect::<Vec<_>>()
            .join(" ");
        let id = bundle.id();
        let pid = std::process::id();
        let script =
            format!("exec 3</proc/{pid}/fd/{passed} 4</proc/{pid}/fd/{other}; exec {line} {options} {id}");
        std::process::Command::new("/bin/sh")
            .args(["-c", &script])
            .output()
            .unwrap()
    };
    // Standard streams, the directory that ls reads, and three.
    assert_eq!(succeeded(&run(&bundle, "--preserve-fds 1")), "5\nthrough three");
    bundle.config["process"]["args"] = json!(["/bin/sh", "-c", "ls /proc/self/fd | wc -l"]);
    assert_eq!(succeeded(&run(&bundle, "")), "4");
}

#[test]
fn unknown_capabilities_are_a_warning() {
    let script = "grep -E '^Cap(Bnd|Eff)' /proc/self/status";
    let mut bundle = Bundle::script("unknown-caps", script);
    bundle.capabilities(&["CAP_KILL", "CAP_OF_TOMORROW", "kill"]);
    let output = bundle.run();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("CAP_OF_TOMORROW") && said.contains("left out"),
        "{said}"
    );
    let mask = "0000000000000020";
    assert_eq!(succeeded(&output), format!("CapEff:\t{mask}\nCapBnd:\t{mask}"));
}

#[test]
fn an_ambient_capability_that_is_not_inheritable_is_a_warning() {
    let mut bundle = Bundle::script("ambient", "grep CapAmb /proc/self/status");
    bundle.capabilities(&["CAP_KILL"]);
    bundle.config["process"]["capabilities"]["ambient"] = json!(["CAP_KILL"]);
    let output = bundle.run();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("ambient") && said.contains("CAP_KILL"), "{said}");
    assert_eq!(succeeded(&output), "CapAmb:\t0000000000000000");
}

#[test]
fn a_configuration_without_a_process_is_created_but_not_started() {
    let mut bundle = Bundle::new("no-process", &["/bin/true"]);
    bundle.config.as_object_mut().unwrap().remove("process");
    bundle.create();
    assert_eq!(bundle.status(), "created");
    assert!(failed(&bundle.oci(&["start", bundle.id()])).contains("process"));
    support::eventually("the end", || bundle.status() == "stopped");
}

#[test]
fn unsupported_settings_are_refused_by_name() {
    for (pointer, value, name) in [
        (
            "/process/selinuxLabel",
            json!("system_u:system_r:svirt_t:s0"),
            "process.selinuxLabel",
        ),
        ("/linux/mountLabel", json!("x"), "linux.mountLabel"),
        ("/process/commandLine", json!("cmd.exe"), "process.commandLine"),
        ("/process/user/username", json!("web"), "process.user.username"),
        (
            "/linux/personality",
            json!({ "domain": "LINUX", "flags": ["X"] }),
            "linux.personality.flags",
        ),
        ("/ociVersion", json!("2.0.0"), "ociVersion"),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/process/env", json!(["NOEQUALS"]), "process.env"),
        ("/process/args", json!([]), "process.args"),
        (
            "/linux/rootfsPropagation",
            json!("sideways"),
            "linux.rootfsPropagation",
        ),
        (
            "/linux/timeOffsets",
            json!({ "monotonic": { "secs": 1 } }),
            "linux.timeOffsets",
        ),
        (
            "/linux/uidMappings",
            json!([{ "containerID": 0, "hostID": 1, "size": 1 }]),
            "linux.uidMappings",
        ),
    ] {
        let mut bundle = Bundle::new("unsupported", &["/bin/true"]);
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        bundle.config.pointer_mut(parent).unwrap()[field] = value;
        let said = failed(&bundle.run());
        assert!(said.contains(name), "{name}: {said}");
    }
    if !fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .contains(" - resctrl ")
    {
        let mut bundle = Bundle::new("rdt", &["/bin/true"]);
        bundle.config["linux"]["intelRdt"] = json!({});
        let said = failed(&bundle.run());
        assert!(
            said.contains("linux.intelRdt") && said.contains("mounted"),
            "{said}"
        );
    }
}
