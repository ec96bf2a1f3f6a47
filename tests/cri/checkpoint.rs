//! Checkpoints. criu works on few kernels: what needs it to is ignored here, and run by `hack/vm/checkpoint` in a machine
//! with a kernel that it knows. What becomes of the container without it, or with one that misbehaves, is tested anywhere.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_cri::v1;
use nix::sys::signal::Signal;
use tonic::Code;

use crate::daemon::{Client, Daemon, PATIENCE, container};

/// Longer than criu takes on a slow machine.
const LONG: i64 = 120;

/// A pod with a container that counts, in its log.
struct Counter {
    sandbox: String,
    id: String,
    log: PathBuf,
}

impl Counter {
    async fn start(client: &mut Client, pod: &v1::PodSandboxConfig) -> Self {
        let sandbox = client.run(pod).await;
        let config = container("counter", &["tick", "--every", "20", "count"]);
        let id = client.started(&sandbox, pod, config).await;
        Self::of(client, sandbox, id).await
    }

    async fn of(client: &mut Client, sandbox: String, id: String) -> Self {
        let log = client.status(&id).await.unwrap().log_path.into();
        Self { sandbox, id, log }
    }

    /// What it has counted to.
    fn count(&self) -> u64 {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let mut numbers = log
            .lines()
            .filter_map(|line| line.split(' ').next_back()?.parse().ok());
        numbers.next_back().unwrap_or(0)
    }

    /// Waits until it has counted on.
    async fn goes_on(&self) {
        let from = self.count();
        eventually("the container counts on", || self.count() > from + 2).await;
    }
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn checkpoint(
    client: &mut Client,
    id: &str,
    location: &Path,
    timeout: i64,
) -> Result<(), tonic::Status> {
    let request = v1::CheckpointContainerRequest {
        container_id: id.to_owned(),
        location: location.to_string_lossy().into_owned(),
        timeout,
    };
    client.runtime.checkpoint_container(request).await.map(|_| ())
}

/// Puts a script in the place of criu, on the path of a daemon that was made by [`daemon_with_a_criu`].
fn replace_criu(daemon: &Daemon, script: &str) {
    let path = daemon.node.scratch().join("bin/criu");
    let new = path.with_extension("new");
    fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).unwrap();
    fs::rename(new, path).unwrap();
}

/// A daemon that finds only what a test puts there by the name of criu.
fn daemon_with_a_criu() -> Daemon {
    Daemon::start_with(|node, command| {
        let programs = node.scratch().join("bin");
        fs::create_dir(&programs).unwrap();
        for name in ["nft", "iptables", "ip6tables"] {
            let found = ["/usr/sbin", "/usr/local/sbin"].map(|directory| Path::new(directory).join(name));
            if let Some(found) = found.iter().find(|path| path.exists()) {
                std::os::unix::fs::symlink(found, programs.join(name)).unwrap();
            }
        }
        // Neither Debian's criu nor one that was built by hand.
        command.env("PATH", format!("{}:/usr/bin:/bin", programs.display()));
    })
}

#[test]
fn without_a_criu_that_works_the_verb_is_not_there() {
    let daemon = daemon_with_a_criu();
    let pod = daemon.sandbox("plain");
    let location = daemon.node.scratch().join("x.tar");
    daemon.with(async |mut client| {
        let counter = Counter::start(&mut client, &pod).await;
        let old = r#"echo "Version: 3.15""#;
        let strange = r#"[ "$1" = --version ] && echo "Version: 3.18" || { echo "Error (criu/vdso.c:381): vdso: Unexpected"; exit 1; }"#;
        for (script, why) in [
            (None, "criu 3.16 or newer, which is not found in PATH; install it."),
            (Some(old), "criu 3.16 or newer, and 3.15 is installed"),
            (Some("echo nothing"), "does not tell its version"),
            (Some(strange), "criu 3.18 can't work on this kernel: vdso: Unexpected"),
        ] {
            if let Some(script) = script {
                replace_criu(&daemon, script);
            }
            let refused = checkpoint(&mut client, &counter.id, &location, 0).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unimplemented, "{refused}");
            assert!(refused.message().contains(why), "{refused}");
            assert!(!location.exists());
            counter.goes_on().await;
            let status = v1::StatusRequest { verbose: true };
            let status = client.runtime.status(status).await.unwrap().into_inner();
            assert!(status.info["checkpoint"].contains(why), "{:?}", status.info);
        }
        client.remove_sandbox(&counter.sandbox).await;
    });
    fs::remove_dir_all(daemon.node.scratch().join("bin")).unwrap();
    daemon.finish();
}

#[test]
fn a_criu_that_fails_or_hangs_costs_the_checkpoint_only() {
    let daemon = daemon_with_a_criu();
    let pod = daemon.sandbox("patient");
    let location = daemon.node.scratch().join("x.tar");
    daemon.with(async |mut client| {
        let counter = Counter::start(&mut client, &pod).await;
        let able = r#"[ "$1" = --version ] && echo "Version: 3.18"; [ "$1" = swrk ] || exit 0"#;
        replace_criu(&daemon, &format!("{able}\nexit 1"));
        let failed = checkpoint(&mut client, &counter.id, &location, LONG)
            .await
            .unwrap_err();
        assert_eq!(failed.code(), Code::Unknown, "{failed}");
        assert!(
            failed.message().contains("criu ended without an answer"),
            "{failed}"
        );
        counter.goes_on().await;

        let gate = daemon.node.scratch().join("gate");
        replace_criu(
            &daemon,
            &format!("{able}\nwhile [ ! -e {} ]; do sleep 0.1; done", gate.display()),
        );
        let late = checkpoint(&mut client, &counter.id, &location, 1)
            .await
            .unwrap_err();
        assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
        assert!(late.message().contains("the container goes on"), "{late}");
        counter.goes_on().await;
        // The one that hangs is waited for, and does not keep the next from failing in time.
        let second = checkpoint(&mut client, &counter.id, &location, 1)
            .await
            .unwrap_err();
        assert_eq!(second.code(), Code::DeadlineExceeded, "{second}");
        fs::write(&gate, "").unwrap();
        let work = work_of(&daemon, &counter);
        eventually("the abandoned checkpoint is cleared away", || !work.exists()).await;
        assert!(!location.exists());

        for (location, why) in [
            (Path::new("x.tar"), "not the absolute path of a file"),
            (daemon.node.scratch(), "not the absolute path of a file"),
        ] {
            let refused = checkpoint(&mut client, &counter.id, location, LONG)
                .await
                .unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
            assert!(refused.message().contains(why), "{refused}");
        }
        let stop = v1::StopContainerRequest {
            container_id: counter.id.clone(),
            timeout: 0,
        };
        client.runtime.stop_container(stop).await.unwrap();
        let ended = checkpoint(&mut client, &counter.id, &location, LONG)
            .await
            .unwrap_err();
        assert_eq!(ended.code(), Code::FailedPrecondition, "{ended}");
        client.remove_sandbox(&counter.sandbox).await;
    });
    for name in ["bin", "gate"] {
        let path = daemon.node.scratch().join(name);
        let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
    }
    daemon.finish();
}

/// Where the daemon keeps a checkpoint that it makes.
fn work_of(daemon: &Daemon, counter: &Counter) -> PathBuf {
    let sandboxes = daemon.node.root().join("var/lib/berth/sandboxes");
    let container = sandboxes
        .join(&counter.sandbox)
        .join("containers")
        .join(&counter.id);
    container.join("checkpoint")
}

#[test]
#[ignore = "criu does not know this kernel; hack/vm/checkpoint runs it"]
fn a_container_is_written_while_it_goes_on() {
    let daemon = Daemon::start();
    let pod = daemon.sandbox("written");
    let place = daemon.node.scratch().join("place");
    fs::create_dir(&place).unwrap();
    daemon.with(async |mut client| {
        let counter = Counter::start(&mut client, &pod).await;
        client.exec(&counter.id, &["write", "/tmp/kept", "hello"]).await;
        let location = place.join("x.tar");
        checkpoint(&mut client, &counter.id, &location, LONG)
            .await
            .unwrap();
        let at_checkpoint = counter.count();
        assert_eq!(fs::metadata(&location).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
        counter.goes_on().await;

        let unpacked = place.join("unpacked");
        fs::create_dir(&unpacked).unwrap();
        berth_images::apply(fs::File::open(&location).unwrap(), &unpacked, Default::default()).unwrap();
        let json = |name: &str| -> serde_json::Value {
            serde_json::from_slice(&fs::read(unpacked.join(name)).unwrap()).unwrap()
        };
        assert_eq!(json("config.dump")["id"], *counter.id);
        assert_eq!(json("config.dump")["rootfsImageName"], crate::daemon::IMAGE);
        assert_eq!(json("status.dump")["metadata"]["name"], "counter");
        assert_eq!(json("spec.dump")["process"]["args"][1], "tick");
        assert!(unpacked.join("checkpoint/inventory.img").exists());
        let log = fs::read_to_string(unpacked.join("dump.log")).unwrap();
        assert!(log.contains("Dumping finished successfully"), "{log}");
        let counted = fs::read_to_string(unpacked.join("container.log")).unwrap();
        let last = counted.lines().last().unwrap().split(' ').next_back().unwrap();
        assert!(last.parse::<u64>().unwrap() <= at_checkpoint);
        let changed = place.join("changed");
        fs::create_dir(&changed).unwrap();
        let diff = fs::File::open(unpacked.join("rootfs-diff.tar")).unwrap();
        berth_images::apply(diff, &changed, Default::default()).unwrap();
        assert_eq!(
            fs::read_to_string(changed.join("tmp/kept")).unwrap().trim(),
            "hello"
        );

        // Too little time: nothing appears, and the container is not held any longer than criu takes to notice.
        fs::remove_file(&location).unwrap();
        let late = checkpoint(&mut client, &counter.id, &location, 1)
            .await
            .unwrap_err();
        assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
        let work = work_of(&daemon, &counter);
        eventually("the abandoned checkpoint is cleared away", || !work.exists()).await;
        assert!(!location.exists());
        counter.goes_on().await;
        client.remove_sandbox(&counter.sandbox).await;
    });
    fs::remove_dir_all(&place).unwrap();
    daemon.finish();
}

#[test]
#[ignore = "criu does not know this kernel; hack/vm/checkpoint runs it"]
fn a_daemon_that_is_killed_meanwhile_loses_no_container() {
    let mut daemon = Daemon::start();
    let pod = daemon.sandbox("spared");
    let location = daemon.node.scratch().join("x.tar");
    let counter = daemon.with(async |mut client| Counter::start(&mut client, &pod).await);
    let work = work_of(&daemon, &counter);
    let begun = Instant::now();
    daemon.with(async |mut client| {
        checkpoint(&mut client, &counter.id, &location, LONG)
            .await
            .unwrap()
    });
    let whole = begun.elapsed();
    fs::remove_file(&location).unwrap();
    const ROUNDS: u32 = 6;
    for round in 1..=ROUNDS {
        daemon.with(async |mut client| {
            let id = counter.id.clone();
            let place = location.clone();
            let attempt = tokio::spawn(async move { checkpoint(&mut client, &id, &place, LONG).await });
            eventually("the checkpoint has begun", || work.exists()).await;
            tokio::time::sleep(whole * round / ROUNDS).await;
            attempt.abort();
        });
        daemon.stop(Signal::SIGKILL);
        daemon.start_again();
        daemon.with(async |mut client| {
            let status = client.status(&counter.id).await.unwrap();
            assert_eq!(
                status.state(),
                v1::ContainerState::ContainerRunning,
                "round {round}"
            );
            counter.goes_on().await;
            assert!(!work.exists(), "round {round}");
            // The last moment may have been after its end.
            let _ = fs::remove_file(&location);
        });
    }
    daemon.with(async |mut client| {
        // A criu of before may still be at it.
        let begun = Instant::now();
        while let Err(error) = checkpoint(&mut client, &counter.id, &location, LONG).await {
            assert!(begun.elapsed() < PATIENCE, "{error}");
        }
        counter.goes_on().await;
        client.remove_sandbox(&counter.sandbox).await;
    });
    fs::remove_file(&location).unwrap();
    daemon.finish();
}
