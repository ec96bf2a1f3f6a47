//! What a pod's containers share, and what of it is left when the shim goes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;

use berth_runtime::cgroups::Cgroup;
use berth_shim::protocol::{
    BUNDLES_DIR, Event, FailureCode, ImageVolume, RECORD_NAME, Request, SOCKET_NAME, VOLUMES_DIR,
};
use serde_json::json;
use support::{Pod, is_alive, wait_until};

fn namespace(pid: i32, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}"))
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

#[test]
fn containers_share_the_pods_namespaces() {
    let pod = Pod::start_with(|config| {
        config
            .sysctls
            .insert("net.ipv4.ip_unprivileged_port_start".into(), "80".into());
    });
    let mut client = pod.client();
    client.subscribe();
    let pause = pod.record().pause_pid;
    let (a, b) = (
        client.create(pod.bundle("a", &["sleep", "1000"])),
        client.create(pod.bundle("b", &["sleep", "1000"])),
    );
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(namespace(a, kind), namespace(pause, kind));
        assert_eq!(namespace(b, kind), namespace(pause, kind));
        assert_ne!(
            namespace(a, kind),
            namespace(std::process::id().try_into().unwrap(), kind)
        );
    }
    assert_ne!(namespace(a, "pid"), namespace(b, "pid"));
    assert_ne!(namespace(a, "mnt"), namespace(b, "mnt"));
    client.run(pod.bundle(
        "c",
        &[
            "sh",
            "-c",
            "hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
        ],
    ));
    assert_eq!(pod.logged("c", "stdout"), b"pod\n80\n");
}

#[test]
fn an_images_layers_are_stacked_and_not_on_the_host() {
    let pod = Pod::start_with(|config| config.ipc = false);
    let mut client = pod.client();
    client.subscribe();
    let layers = ["new", "old"].map(|name| pod.root.path().join(name));
    for (layer, files) in layers.iter().zip([&["etc/both"][..], &["etc/both", "etc/one"]]) {
        fs::create_dir(layer).unwrap();
        fs::create_dir(layer.join("etc")).unwrap();
        for file in files {
            fs::write(layer.join(file), layer.file_name().unwrap().as_encoded_bytes()).unwrap();
        }
    }
    let bundle = pod.dir().join(BUNDLES_DIR).join("a");
    let mounts = [("/all", "0"), ("/part", "1")].map(|(destination, number)| {
        json!({
            "destination": destination,
            "type": "bind",
            "source": bundle.join(VOLUMES_DIR).join(number),
            "options": ["rbind", "rprivate", "ro"],
        })
    });
    let script = "cat /all/etc/both /part/both /part/one; echo x > /part/one || echo no";
    let mut request = pod.bundle_with("a", &["sh", "-c", script], |spec| {
        spec["mounts"].as_array_mut().unwrap().extend(mounts);
    });
    request.volumes = ["", "etc"]
        .map(|part| ImageVolume {
            label: String::new(),
            lower: layers.to_vec(),
            sub_path: part.into(),
        })
        .to_vec();
    client.run(request);
    assert_eq!(pod.logged("a", "stdout"), b"newnewoldno\n");
    let seen = fs::read_dir(bundle.join(VOLUMES_DIR).join("1")).unwrap().count();
    assert_eq!(seen, 0);
}

#[test]
fn the_pods_shared_memory_is_shared_and_not_on_the_host() {
    let pod = Pod::start();
    let mut client = pod.client();
    client.subscribe();
    let shm = pod.dir().join("shm");
    let with_shm = |id: &str, script: &str| {
        pod.bundle_with(id, &["sh", "-c", script], |spec| {
            let mount = serde_json::json!({ "destination": "/dev/shm", "type": "bind", "source": shm, "options": ["bind"] });
            spec["mounts"].as_array_mut().unwrap().push(mount);
        })
    };
    client.run(with_shm(
        "a",
        "echo shared > /dev/shm/x; stat -c %a /dev/shm || /bin/busybox stat -c %a /dev/shm",
    ));
    client.run(with_shm("b", "cat /dev/shm/x"));
    assert_eq!(pod.logged("b", "stdout"), b"shared\n");
    assert_eq!(pod.logged("a", "stdout"), b"1777\n");
    assert!(
        !fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .contains(shm.to_str().unwrap())
    );
    assert!(!shm.join("x").exists());
}

#[test]
fn a_shared_pid_namespace_is_reaped_by_the_pause() {
    let pod = Pod::start_with(|config| config.shared_pid = true);
    let mut client = pod.client();
    client.subscribe();
    let spec = |id: &str, script: &str| pod.bundle(id, &["sh", "-c", script]);
    let pid = client.create(spec("a", "(setsid sleep 0.1 &); echo $$; sleep 1000"));
    client.start("a");
    assert_eq!(namespace(pid, "pid"), namespace(pod.record().pause_pid, "pid"));
    client.run(spec("b", "exit 4"));
    client.kill("a");
    assert_eq!(client.exited("a").exit_code, 137);
    // The pause dies: told, and nothing new can be made.
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pod.record().pause_pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    client.wait_for(|event| matches!(event, Event::PauseExited).then_some(()));
    assert_eq!(client.state().pause_pid, None);
    let late = spec("late", "true");
    assert_eq!(
        client.refused(Request::Create(Box::new(late))).code,
        FailureCode::WrongState
    );
}

#[test]
fn an_oom_kill_is_told_and_recorded() {
    let pod = Pod::start();
    let mut client = pod.client();
    client.subscribe();
    let limited = |id: &str, script: &str| {
        pod.bundle_with(id, &["sh", "-c", script], |spec| {
            spec["linux"]["resources"] =
                serde_json::json!({ "memory": { "limit": 16 << 20, "swap": 16 << 20 } });
        })
    };
    // tail keeps all of a line in memory.
    let hog = "dd if=/dev/zero bs=1M count=100 2>/dev/null | /bin/busybox tail -n 1 | wc -c";
    client.create(limited("child", &format!("{hog}; sleep 1000")));
    client.start("child");
    let hit = client.wait_for(|event| match event {
        Event::Oom { container } => Some(container.clone()),
        _ => None,
    });
    assert_eq!(hit, "child");
    client.kill("child");
    assert!(client.exited("child").oom_killed);
    let record = client.run(limited("self", "exec /bin/busybox tail -n 1 < /dev/zero"));
    assert_eq!((record.exit_code, record.oom_killed), (137, true));
    assert!(!client.run(limited("fine", "true")).oom_killed);
}

#[test]
fn a_shutdown_leaves_nothing() {
    let pod = Pod::start();
    let mut client = pod.client();
    let record = pod.record();
    let running =
        client.create(pod.bundle("a", &["sh", "-c", "trap '' TERM; setsid sleep 1000 & sleep 1000"]));
    client.start("a");
    let created = client.create(pod.bundle("b", &["sleep", "1000"]));
    client.call(Request::Shutdown);
    for pid in [running, created, record.pause_pid] {
        assert!(!is_alive(pid));
    }
    wait_until("the shim has ended", || !is_alive(record.pid));
    for group in ["a", "b"] {
        assert!(
            Cgroup::open(&format!("{}/{group}", pod.id)).unwrap().is_none(),
            "{group}"
        );
    }
    assert_eq!(pod.exit_record("a").unwrap().exit_code, 137);
    for name in [SOCKET_NAME, RECORD_NAME] {
        assert!(!pod.dir().join(name).exists());
    }
}

#[test]
fn a_terminated_shim_shuts_down() {
    let pod = Pod::start();
    let mut client = pod.client();
    let container = client.create(pod.bundle("a", &["sleep", "1000"]));
    client.start("a");
    let shim = pod.record().pid;
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(shim).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    wait_until("both have ended", || !is_alive(shim) && !is_alive(container));
    assert!(pod.exit_record("a").is_some());
}

#[test]
fn a_killed_shim_takes_the_pause_with_it_and_its_containers_are_found_by_cgroup() {
    let mut pod = Pod::start();
    pod.expect_leftovers();
    let mut client = pod.client();
    let created = client.create(pod.bundle("created", &["sleep", "1000"]));
    client.create(pod.bundle("running", &["sleep", "1000"]));
    client.start("running");
    let record = pod.record();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(record.pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    wait_until("shim, pause and what never ran are gone", || {
        ![record.pid, record.pause_pid, created].into_iter().any(is_alive)
    });
    assert!(
        !fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .contains(pod.root.path().to_str().unwrap())
    );
    let group = Cgroup::open(&pod.id).unwrap().unwrap();
    assert_eq!(group.pids().unwrap().len(), 1, "what ran is found");
    group.kill_all().unwrap();
    group.delete().unwrap();
    // The same sandbox can have a new shim.
    let output = pod.run_shim();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    pod.client().call(Request::Shutdown);
}

#[test]
fn a_second_shim_is_refused_and_harms_nothing() {
    let pod = Pod::start();
    let output = pod.run_shim();
    assert!(!output.status.success());
    let sentence = String::from_utf8(output.stderr).unwrap();
    assert!(
        sentence.starts_with("Another shim serves the sandbox"),
        "{sentence}"
    );
    assert_eq!(pod.client().state().pause_pid, Some(pod.record().pause_pid));
}

#[test]
fn a_shim_that_can_not_start_leaves_nothing() {
    let mut pod = Pod::prepare(|config| drop(config.sysctls.insert("kernel.panic".into(), "1".into())));
    let output = pod.run_shim();
    assert!(!output.status.success());
    let sentence = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(
        sentence.contains("kernel.panic") && sentence.lines().count() == 1,
        "{sentence}"
    );
    assert!(Cgroup::open(&format!("{}/sandbox", pod.id)).unwrap().is_none());
    fs::write(pod.dir().join("sandbox.json"), "{").unwrap();
    assert!(
        String::from_utf8(pod.run_shim().stderr)
            .unwrap()
            .contains("sandbox.json")
    );
    pod.config.sysctls.clear();
}

#[test]
fn clients_come_go_and_misbehave() {
    let pod = Pod::start();
    let mut first = pod.client();
    first.subscribe();
    first.create(pod.bundle("a", &["sh", "-c", "sleep 0.3; exit 6"]));
    first.start("a");
    drop(first);
    // Nonsense, half a frame, a frame that is too long, and a client that never reads.
    let connect = || UnixStream::connect(pod.dir().join(SOCKET_NAME)).unwrap();
    let mut nonsense = connect();
    nonsense.write_all(b"\x05\0\0\0hello").unwrap();
    let mut half = connect();
    half.write_all(b"\x50\0\0\0{").unwrap();
    let mut long = connect();
    long.write_all(b"\xff\xff\xff\xff").unwrap();
    let mut deaf = pod.client();
    deaf.subscribe();
    let mut second = pod.client();
    second.subscribe();
    if second.state().containers[0].exit.is_none() {
        second.exited("a");
    }
    assert_eq!(second.state().containers[0].exit.as_ref().unwrap().exit_code, 6);
    let flood = b"\x1c\0\0\0{\"seq\":1,\"request\":{\"op\":\"x\"".to_vec();
    let _ = connect().write_all(&flood);
    let ask = berth_shim::frame::encode(&berth_shim::protocol::Call {
        seq: 1,
        request: Request::State,
    })
    .unwrap();
    let mut never_reads = connect();
    never_reads.set_write_timeout(Some(support::PATIENCE)).unwrap();
    let many = ask.repeat(1000);
    let mut sent = 0;
    while never_reads.write_all(&many).is_ok() {
        sent += 1000;
        assert!(sent < 1_000_000, "it was never let go");
        if sent % 10_000 == 0 {
            second.state();
        }
    }
    drop(half);
    second.delete("a");
}

#[test]
fn a_sandbox_that_was_given_up_gets_no_shim() {
    let pod = Pod::prepare(|_| {});
    fs::remove_file(pod.dir().join("sandbox.json")).unwrap();
    let output = pod.run_shim();
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("sandbox.json"));
}

#[test]
fn a_pod_can_have_a_user_namespace() {
    let pod = Pod::start_in_user_namespace();
    let mut client = pod.client();
    client.subscribe();
    let shm = pod.dir().join("shm");
    let script = "cat /proc/self/uid_map; echo > /dev/shm/x && /bin/busybox stat -c %u /dev/shm/x; echo end";
    let record = client.run(pod.bundle_with("a", &["sh", "-c", script], |spec| {
        let mount = serde_json::json!({ "destination": "/dev/shm", "type": "bind", "source": shm, "options": ["bind"] });
        spec["mounts"].as_array_mut().unwrap().push(mount);
    }));
    assert_eq!(record.exit_code, 0);
    let out = String::from_utf8(pod.logged("a", "stdout")).unwrap();
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!(words, ["0", "200000", "65536", "0", "end"]);
    client.create(pod.bundle("b", &["sleep", "1000"]));
    client.start("b");
    let mut pipes = client.exec("b", "e", &["sh", "-c", "cat /proc/self/uid_map"], 0);
    let mut out = String::new();
    std::io::Read::read_to_string(&mut pipes.stdout, &mut out).unwrap();
    assert_eq!(
        out.split_whitespace().collect::<Vec<_>>(),
        ["0", "200000", "65536"]
    );
    assert_eq!(client.exec_exited("e"), (0, false));
}
