//! A full disk: everything of the node is on a small one.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use berth_cri::v1;
use berth_tests::Node;
use tonic::Status;

use crate::daemon::{Client, Daemon, PATIENCE, container};
use crate::registry::{Manner, Registry};

const DISK: u64 = 96 << 20;

/// What fills the disk to its last byte.
struct Filler(PathBuf);

impl Filler {
    fn fill(&self) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.0)
            .unwrap();
        let chunk = vec![1; 64 << 10];
        let mut size = chunk.len();
        while size > 0 {
            match file.write(&chunk[..size]) {
                Ok(written) if written == size => {}
                // It took the last that fits.
                Ok(_) => size /= 2,
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
                    size /= 2;
                }
            }
        }
    }

    fn empty(&self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

fn assert_says_so(failure: &Status) {
    assert!(
        failure.message().contains("No space left on device") && failure.message().ends_with('.'),
        "{failure}"
    );
}

async fn exited(client: &mut Client, id: &str) -> v1::ContainerStatus {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let status = client.status(id).await.unwrap();
        if status.state() == v1::ContainerState::ContainerExited {
            return status;
        }
        assert!(std::time::Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

fn pull(image: &str) -> v1::PullImageRequest {
    v1::PullImageRequest {
        image: Some(v1::ImageSpec {
            image: image.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn a_full_disk_is_said_and_survived() {
    let mut daemon = Daemon::start_on(Node::with_disk(DISK), "");
    let registry = Registry::start();
    let image = registry.put(daemon.node.scratch(), "late", Manner::Honest, 1 << 20);
    let filler = Filler(daemon.node.root().join("filler"));
    let (old, next, gone) = (
        daemon.sandbox("old"),
        daemon.sandbox("next"),
        daemon.sandbox("gone"),
    );
    let (sandbox, kept, ending) = daemon.with(async |mut client| {
        let sandbox = client.run(&old).await;
        let kept = client
            .started(
                &sandbox,
                &old,
                container("kept", &["tick", "--every", "1", "tick"]),
            )
            .await;
        let ending = client
            .started(
                &sandbox,
                &old,
                container("ending", &["run", "wait-file", "/end", ";", "exit", "9"]),
            )
            .await;
        let doomed = client.run(&gone).await;
        let unstarted = client
            .create(&sandbox, &old, container("unstarted", &["sleep", "1000"]))
            .await
            .unwrap();
        let made_before = client
            .started(&doomed, &gone, container("c", &["sleep", "1000"]))
            .await;
        filler.fill();
        // Nothing new can be had, and everything says why.
        assert_says_so(&client.images.pull_image(pull(&image)).await.unwrap_err());
        assert_says_so(&client.try_run(&next).await.unwrap_err());
        let more = container("more", &["sleep", "1000"]);
        assert_says_so(&client.create(&sandbox, &old, more).await.unwrap_err());
        // What is there goes on.
        client.start(&unstarted).await.unwrap();
        let exec = v1::ExecSyncRequest {
            container_id: kept.clone(),
            cmd: vec!["/bin/helper".into(), "echo".into(), "hello".into()],
            timeout: 20,
        };
        let output = client.runtime.exec_sync(exec).await.unwrap().into_inner();
        assert_eq!(output.stdout, b"hello\n");
        // What is not wanted any more can be taken away, as space is to come from somewhere.
        client.stop(&made_before, 0).await.unwrap();
        client.remove(&made_before).await.unwrap();
        client.stop_pod(&doomed).await.unwrap();
        filler.fill();
        client.remove_pod(&doomed).await.unwrap();
        filler.fill();
        // An end is known, though it can't be written down.
        let pid = pid_of(&mut client, &ending).await;
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let status = exited(&mut client, &ending).await;
        assert_eq!(status.exit_code, 143);
        (sandbox, kept, ending)
    });
    // Nor does a new daemon need space.
    daemon.restart();
    daemon.with(async |mut client| {
        assert_eq!(client.status(&ending).await.unwrap().exit_code, 143);
        let status = client.status(&kept).await.unwrap();
        assert_eq!(status.state(), v1::ContainerState::ContainerRunning);
        assert_says_so(&client.try_run(&next).await.unwrap_err());
        // Until nothing of it fits any more.
        let length = || std::fs::metadata(&status.log_path).unwrap().len();
        let mut before = 0;
        while before < length() {
            before = length();
            filler.fill();
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        filler.empty();
        // Everything works again, and the log says what it lacks.
        let path = PathBuf::from(&status.log_path);
        let deadline = std::time::Instant::now() + PATIENCE;
        while !std::fs::read_to_string(&path)
            .unwrap()
            .contains("were dropped here")
        {
            assert!(std::time::Instant::now() < deadline, "the log does not go on");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        client.images.pull_image(pull(&image)).await.unwrap();
        let second = client.run(&next).await;
        let id = client
            .started(&second, &next, container("c", &["exit", "4"]))
            .await;
        assert_eq!(exited(&mut client, &id).await.exit_code, 4);
        client.remove_sandbox(&second).await;
        client.remove_sandbox(&sandbox).await;
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with('\n'));
        let well_formed = |line: &str| line.splitn(4, ' ').count() == 4;
        assert!(text.lines().all(well_formed), "half a line is in the log");
    });
    daemon.finish();
}

async fn pid_of(client: &mut Client, id: &str) -> nix::unistd::Pid {
    let request = v1::ContainerStatusRequest {
        container_id: id.to_owned(),
        verbose: true,
    };
    let info = client
        .runtime
        .container_status(request)
        .await
        .unwrap()
        .into_inner()
        .info;
    let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
    nix::unistd::Pid::from_raw(i32::try_from(info["pid"].as_i64().unwrap()).unwrap())
}
