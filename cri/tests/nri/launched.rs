//! Plugins that the engine starts itself.
//!
//! The plugin of these tests is this test program, started again to run [`as_a_plugin`]: a process of its own, with the
//! engine's socket.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use berth_cri::Engine;
use berth_cri::nri::api;
use prost::Message as _;

use super::adjustments::variable;
use super::bench::{Bench, PATIENCE, idle, shell};
use super::plugin::{Answer, Plugin, PluginConfig};
use crate::node::started;

/// Where the plugin writes down what it is told, and that it is a plugin at all.
const DIARY: &str = "BERTH_TEST_NRI_DIARY";

/// The plugin. What it says of itself when it registers is not what counts: the file's name is. It sets `WHO`, and
/// `SETTING` to its configuration.
#[test]
#[ignore = "a plugin that the other tests have the engine start"]
fn as_a_plugin() {
    let Ok(diary) = std::env::var(DIARY) else { return };
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let who = std::env::var("NRI_PLUGIN_IDX").unwrap() + "-" + &std::env::var("NRI_PLUGIN_NAME").unwrap();
    let mut setting = String::new();
    let note = move |what: &str| {
        let mut file = OpenOptions::new().create(true).append(true).open(&diary).unwrap();
        file.write_all(format!("{who} {} {what}\n", std::process::id()).as_bytes())
            .unwrap();
    };
    let handler = move |method: &str, payload: &[u8]| {
        if method == "Configure" {
            let request = api::ConfigureRequest::decode(payload).unwrap();
            note(&format!(
                "Configure {:?} of {}",
                request.config, request.runtime_name
            ));
            setting = request.config;
            return Answer::empty();
        }
        note(method);
        match method {
            "CreateContainer" => Answer::of(&api::CreateContainerResponse {
                adjust: Some(api::ContainerAdjustment {
                    env: vec![variable("SETTING", setting.trim())],
                    ..Default::default()
                }),
                ..Default::default()
            }),
            "StopPodSandbox" if setting.contains("die") => std::process::exit(1),
            _ => Answer::empty(),
        }
    };
    let plugin = Plugin::on(socket, PluginConfig::answering("77", "liar", handler)).calls();
    plugin.wait_closed();
}

/// Puts the plugin into the directory, under a name.
fn install(root: &Path, name: &str) {
    let program = std::env::current_exe().unwrap();
    // The engine gives it three variables and no others. The socket becomes its standard input, where the test finds it.
    let script = format!(
        "#!/bin/sh\n{DIARY}={} exec {} --ignored --exact launched::as_a_plugin --test-threads 1 <&$NRI_PLUGIN_SOCKET\n",
        diary(root).display(),
        program.display(),
    );
    write_program(&root.join("plugins").join(name), &script);
}

fn write_program(path: &Path, script: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn diary(root: &Path) -> PathBuf {
    root.join("plugins").join("diary")
}

/// What plugins wrote down: who, by which process, what.
fn entries(root: &Path) -> Vec<(String, u32, String)> {
    let text = fs::read_to_string(diary(root)).unwrap_or_default();
    let entry = |line: &str| {
        let mut words = line.splitn(3, ' ').map(str::to_owned);
        let (who, pid) = (words.next().unwrap(), words.next().unwrap());
        (who, pid.parse().unwrap(), words.next().unwrap())
    };
    text.lines().map(entry).collect()
}

fn written_by(root: &Path, plugin: &str) -> Vec<String> {
    let entries = entries(root).into_iter().filter(|(who, ..)| who == plugin);
    entries.map(|(_, _, what)| what).collect()
}

/// An engine that starts what is in the directory.
fn restart(bench: &mut Bench) {
    bench.kill();
    let _ = fs::remove_file(bench.socket());
    bench.start();
}

#[test]
fn a_launched_plugin_is_configured_and_adjusts_containers() {
    let mut bench = Bench::new();
    let root = bench.root().to_owned();
    install(&root, "20-second");
    install(&root, "10-first");
    fs::create_dir(root.join("conf.d")).unwrap();
    // The one by index and name wins over the one by name.
    fs::write(root.join("conf.d/10-first.conf"), "own\n").unwrap();
    fs::write(root.join("conf.d/first.conf"), "shared\n").unwrap();
    restart(&mut bench);
    assert_eq!(
        written_by(&root, "10-first"),
        ["Configure \"own\\n\" of berth", "Synchronize"]
    );
    assert_eq!(
        written_by(&root, "20-second"),
        ["Configure \"\" of berth", "Synchronize"]
    );
    let first: Vec<String> = entries(&root).into_iter().map(|(who, ..)| who).collect();
    assert_eq!(first[0], "10-first", "in their order");
    let pod = bench.pod("launched");
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        // Both set the same variable: the names of their files are those of the conflict, not what they registered as.
        let error = engine
            .create_container(&sandbox, idle("main"))
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("20-second and 10-first both set Env \"SETTING\""),
            "{error}"
        );
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    fs::remove_file(root.join("plugins/20-second")).unwrap();
    restart(&mut bench);
    let pod = bench.pod("launched2");
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        let id = started(engine, &sandbox, idle("main")).await;
        assert_eq!(shell(engine, &id, "echo $SETTING").await, "own\n");
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.finish();
}

#[test]
fn a_launched_plugin_that_dies_is_done_without_until_the_next_start() {
    let mut bench = Bench::new();
    let root = bench.root().to_owned();
    install(&root, "10-mortal");
    fs::create_dir(root.join("conf.d")).unwrap();
    fs::write(root.join("conf.d/mortal.conf"), "die").unwrap();
    restart(&mut bench);
    let pods = ["one", "two"].map(|uid| bench.pod(uid));
    bench.run(async |engine| {
        for pod in pods {
            let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
            engine.remove_pod_sandbox(&sandbox).await.unwrap();
        }
    });
    // As upstream has it: nobody starts it again.
    let expected = [
        "Configure \"die\" of berth",
        "Synchronize",
        "RunPodSandbox",
        "StopPodSandbox",
    ];
    assert_eq!(written_by(&root, "10-mortal"), expected);
    restart(&mut bench);
    assert_eq!(written_by(&root, "10-mortal").len(), expected.len() + 2);
    bench.finish();
}

#[test]
fn launched_plugins_end_with_the_engine() {
    let mut bench = Bench::new();
    let root = bench.root().to_owned();
    install(&root, "10-plugin");
    // One that never registers, and ignores that its socket is closed.
    let pid = root.join("plugins/pid");
    let deaf = format!(
        "#!/bin/sh\ntrap '' TERM HUP\necho $$ > {}\nexec sleep 1000\n",
        pid.display()
    );
    write_program(&root.join("plugins/90-deaf"), &deaf);
    bench.timeouts.registration = std::time::Duration::from_secs(2);
    restart(&mut bench);
    let is_alive = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !status.is_empty() && !status.contains(") Z ")
    };
    let deaf = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    assert!(!is_alive(deaf), "one that does not register is killed");
    let plugin = entries(&root)[0].1;
    assert!(is_alive(plugin));
    bench.run(async |engine| engine.shut_down_nri().await);
    assert_eq!(written_by(&root, "10-plugin").last().unwrap(), "Shutdown");
    let deadline = std::time::Instant::now() + PATIENCE;
    bench.kill();
    while is_alive(plugin) {
        assert!(std::time::Instant::now() < deadline, "it outlives the engine");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    bench.finish();
}

#[test]
fn the_plugins_of_the_directory_are_started_with_what_they_need() {
    let mut bench = Bench::new();
    bench.kill();
    let _ = std::fs::remove_file(bench.socket());
    let root = bench.root().to_owned();
    let (plugins, configs) = (root.join("plugins"), root.join("conf.d"));
    for directory in [&plugins, &configs] {
        std::fs::create_dir(directory).unwrap();
    }
    let told = plugins.join("told");
    // No plugin: it leaves without registering, which the engine outlives. What it was given is what the test is about.
    let script = format!(
        "#!/bin/sh\n{{ echo $NRI_PLUGIN_IDX $NRI_PLUGIN_NAME $NRI_PLUGIN_SOCKET; readlink /proc/self/fd/3; readlink /proc/self/fd/0; }} > {}\n",
        told.display()
    );
    let program = plugins.join("07-of.the-shell");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(plugins.join("08-not-a-program"), "").unwrap();
    bench.start();
    let text = std::fs::read_to_string(told).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "07 of.the-shell 3");
    assert!(lines[1].starts_with("socket:"), "{text}");
    assert_eq!(lines[2], "/dev/null");
    bench.finish();
}
