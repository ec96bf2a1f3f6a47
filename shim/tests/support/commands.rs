//! Commands for containers, and what becomes of them.
#![allow(dead_code, unreachable_pub, missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use berth_runtime::cgroups::Cgroup;
use berth_shim::protocol::{Request, Response, Run};
use serde_json::Value;

use super::{Pod, TestClient};

/// What became of a command.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    pub exit_code: i32,
    pub timed_out: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn quietly(exit_code: i32) -> Self {
        Self {
            exit_code,
            timed_out: false,
            stdout: String::new(),
            stderr: String::new(),
        }
    }
}

pub fn request(id: &str, args: &[&str], timeout_ms: u64) -> Request {
    Request::Run(Box::new(Run {
        container: "a".into(),
        id: id.into(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        timeout_ms,
        max_output: 4096,
        period_ms: 0,
        first_in_ms: 0,
    }))
}

/// The command a tenth of a second from now, and then ten times a second.
pub fn repeated(id: &str, args: &[&str], timeout_ms: u64) -> Request {
    repeated_every(100, id, args, timeout_ms)
}

pub fn repeated_every(period_ms: u64, id: &str, args: &[&str], timeout_ms: u64) -> Request {
    let Request::Run(mut run) = request(id, args, timeout_ms) else {
        unreachable!()
    };
    (run.first_in_ms, run.period_ms) = (100, period_ms);
    Request::Run(run)
}

pub fn run_with(client: &mut TestClient, request: Request) -> Ran {
    ran(client.call_with(request, vec![]))
}

pub fn ran(answer: (Response, Vec<OwnedFd>)) -> Ran {
    match answer {
        (
            Response::Ran {
                exit_code,
                timed_out,
                stdout,
                stderr,
            },
            fds,
        ) => {
            let mut bytes = vec![0; usize::try_from(stdout + stderr).unwrap()];
            assert_eq!(fds.len(), usize::from(!bytes.is_empty()));
            if let Some(fd) = fds.into_iter().next() {
                let file = File::from(fd);
                file.read_exact_at(&mut bytes, 0).unwrap();
                assert_eq!(file.metadata().unwrap().len(), stdout + stderr);
            }
            let stderr = bytes.split_off(usize::try_from(stdout).unwrap());
            Ran {
                exit_code,
                timed_out,
                stdout: String::from_utf8(bytes).unwrap(),
                stderr: String::from_utf8(stderr).unwrap(),
            }
        }
        other => panic!("{other:?}"),
    }
}

pub fn run(client: &mut TestClient, id: &str, args: &[&str]) -> Ran {
    run_with(client, request(id, args, 0))
}

pub fn shell(client: &mut TestClient, id: &str, script: &str) -> Ran {
    run(client, id, &["sh", "-c", script])
}

/// A container whose commands a launcher starts; `None` where another runtime makes the containers.
pub fn sleeper(pod: &Pod, change: impl FnOnce(&mut Value)) -> Option<TestClient> {
    let mut client = pod.client();
    client.subscribe();
    if !client.state().runs_commands {
        return None;
    }
    client.create(pod.bundle_with("a", &["sleep", "1000"], change));
    client.start("a");
    Some(client)
}

pub fn warm_up(client: &mut TestClient) {
    for id in ["warm-1", "warm-2"] {
        assert_eq!(run(client, id, &["true"]), Ran::quietly(0));
    }
}

pub fn end(client: &mut TestClient) {
    client.kill("a");
    client.exited("a");
    client.delete("a");
}

/// The launcher: what the shim has for children beside the pause and the containers.
pub fn launchers(pod: &Pod, client: &mut TestClient) -> Vec<i32> {
    let state = client.state();
    let shim = pod.record().pid;
    let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
    let mut children: Vec<i32> = children
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect();
    children.retain(|pid| {
        Some(*pid) != state.pause_pid && !state.containers.iter().any(|container| container.pid == *pid)
    });
    children
}

/// How many processes of the container there are; a launcher is one of the shim's.
pub fn shell_processes(cgroup: &Cgroup) -> usize {
    let command = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let pids = cgroup.pids().unwrap();
    pids.iter()
        .filter(|pid| !command(pid.as_raw()).contains("examples/shim"))
        .count()
}
