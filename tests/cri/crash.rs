//! SIGKILL of the daemon at random moments under clients that never pause. What was acknowledged is there afterwards, nothing
//! is restarted, exit codes and logs are whole, nothing is left. `BERTH_CRASH_ROUNDS` sets how often it is killed (25).

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use berth_cri::v1;
use berth_tests::{Moments, crash_rounds};
use tonic::{Code, Status};

use crate::daemon::{Client, Daemon, PATIENCE, Place, connect, container};

/// How many clients work beside each other.
const WORKERS: u64 = 4;
/// The longest life of a daemon.
const LONGEST: Duration = Duration::from_secs(1);
/// Lines that a container writes before it ends.
const LINES: usize = 300;
/// What a container ends with.
const CODE: i32 = 7;

/// A client that outlives daemons, as a kubelet does: it asks again what was cut off.
struct Stubborn {
    socket: PathBuf,
    client: Client,
    /// How many daemons were killed so far.
    kills: Rc<Cell<u32>>,
}

impl Stubborn {
    async fn new(socket: &Path, kills: &Rc<Cell<u32>>) -> Self {
        Self {
            socket: socket.to_owned(),
            client: connect(socket).await,
            kills: Rc::clone(kills),
        }
    }

    /// The outcome of a call that no kill cut off.
    async fn ask<T>(&mut self, call: impl AsyncFn(&mut Client) -> Result<T, Status>) -> Result<T, Status> {
        let mut deadline = Instant::now() + PATIENCE;
        loop {
            let before = self.kills.get();
            match call(&mut self.client).await {
                Err(status) if self.kills.get() != before || is_of_the_connection(&status) => {
                    if self.kills.get() != before {
                        // On a busy machine many daemons in a row may be too short-lived for this call.
                        deadline = Instant::now() + PATIENCE;
                    }
                    assert!(Instant::now() < deadline, "no daemon answers: {status}");
                    self.client = tokio::time::timeout(PATIENCE, connect(&self.socket))
                        .await
                        .unwrap();
                }
                outcome => return outcome,
            }
        }
    }
}

fn is_of_the_connection(status: &Status) -> bool {
    // The daemon's own sentences end in a full stop.
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal
    ) && !status.message().ends_with('.')
}

/// A pod's life with one container that ends by itself, over and over.
async fn churn(place: Place, worker: u64, mut asker: Stubborn, over: Rc<Cell<bool>>) -> u32 {
    let mut lives = 0;
    while !over.get() {
        let name = format!("{worker}-{lives}");
        let pod = place.sandbox(&name);
        let sandbox = run(&mut asker, &pod).await;
        let (lines, code) = (LINES.to_string(), CODE.to_string());
        let script = container("c", &["run", "lines", &lines, "40", ";", "exit", &code]);
        let id = asker
            .ask(async |client| client.create(&sandbox, &pod, script.clone()).await)
            .await
            .unwrap();
        start(&mut asker, &id).await;
        let status = ended(&mut asker, &id).await;
        assert_eq!(status.exit_code, CODE, "{name}: {status:?}");
        let log = std::fs::read_to_string(&status.log_path).unwrap();
        let whole = log.lines().filter(|line| line.contains(" stdout F ")).count();
        assert_eq!(whole, LINES, "{name}: the log is not whole");
        remove(&mut asker, &sandbox).await;
        lives += 1;
    }
    lives
}

async fn run(asker: &mut Stubborn, pod: &v1::PodSandboxConfig) -> String {
    let request = v1::RunPodSandboxRequest {
        config: Some(pod.clone()),
        runtime_handler: String::new(),
    };
    let made = asker
        .ask(async |client| client.runtime.run_pod_sandbox(request.clone()).await)
        .await;
    // What a kill left half made is no obstacle.
    made.unwrap().into_inner().pod_sandbox_id
}

async fn start(asker: &mut Stubborn, id: &str) {
    match asker.ask(async |client| client.start(id).await).await {
        Ok(()) => {}
        // It was started by a call that was cut off, and has ended since.
        Err(status) if status.code() == Code::FailedPrecondition => {}
        Err(status) => panic!("{status}"),
    }
}

async fn ended(asker: &mut Stubborn, id: &str) -> v1::ContainerStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = asker.ask(async |client| client.status(id).await).await.unwrap();
        if status.state() == v1::ContainerState::ContainerExited {
            return status;
        }
        assert_ne!(status.state(), v1::ContainerState::ContainerUnknown, "{status:?}");
        assert!(Instant::now() < deadline, "{id} does not end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn remove(asker: &mut Stubborn, sandbox: &str) {
    let pod_sandbox_id = sandbox.to_owned();
    let request = v1::StopPodSandboxRequest {
        pod_sandbox_id: pod_sandbox_id.clone(),
    };
    asker
        .ask(async |client| client.runtime.stop_pod_sandbox(request.clone()).await)
        .await
        .unwrap();
    let request = v1::RemovePodSandboxRequest { pod_sandbox_id };
    asker
        .ask(async |client| client.runtime.remove_pod_sandbox(request.clone()).await)
        .await
        .unwrap();
}

/// Commands in a container that lives all the time: what they print comes whole, or the call was cut off.
async fn execute(id: String, mut asker: Stubborn, over: Rc<Cell<bool>>) -> u32 {
    let request = v1::ExecSyncRequest {
        container_id: id,
        cmd: vec!["/bin/helper".into(), "lines".into(), "50".into(), "40".into()],
        timeout: 20,
    };
    let mut times = 0;
    while !over.get() {
        let output = asker
            .ask(async |client| client.runtime.exec_sync(request.clone()).await)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(output.exit_code, 0);
        assert_eq!(output.stdout.iter().filter(|&&byte| byte == b'\n').count(), 50);
        times += 1;
    }
    times
}

#[test]
fn a_daemon_that_is_killed_all_the_time_loses_nothing() {
    let mut daemon = Daemon::start();
    let place = daemon.place();
    let pod = place.sandbox("steady");
    let (sandbox, steady) = daemon.with(async |mut client| {
        let sandbox = client.run(&pod).await;
        let id = client
            .started(&sandbox, &pod, container("c", &["sleep", "10000"]))
            .await;
        let status = client.status(&id).await.unwrap();
        (sandbox, status)
    });
    let (lives, commands) = daemon.work(async |daemon| {
        let (kills, over) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let socket = daemon.socket();
                let mut workers = Vec::new();
                for worker in 0..WORKERS {
                    let asker = Stubborn::new(&socket, &kills).await;
                    let life = churn(place.clone(), worker, asker, Rc::clone(&over));
                    workers.push(tokio::task::spawn_local(life));
                }
                let asker = Stubborn::new(&socket, &kills).await;
                let commands = tokio::task::spawn_local(execute(steady.id.clone(), asker, Rc::clone(&over)));
                let mut moments = Moments::new();
                for _ in 0..crash_rounds(25) {
                    tokio::time::sleep(moments.next(LONGEST)).await;
                    kills.set(kills.get() + 1);
                    daemon.restart_any();
                }
                over.set(true);
                let mut lives = 0;
                for worker in workers {
                    lives += worker.await.unwrap();
                }
                (lives, commands.await.unwrap())
            })
            .await
    });
    println!("{lives} pods lived, {commands} commands were run");
    assert!(lives >= u32::try_from(WORKERS).unwrap() && commands > 0);
    daemon.with(async |mut client| {
        let status = client.status(&steady.id).await.unwrap();
        assert_eq!(status.state(), v1::ContainerState::ContainerRunning);
        assert_eq!(status.started_at, steady.started_at, "it was restarted");
        client.remove_sandbox(&sandbox).await;
        let left = client
            .runtime
            .list_pod_sandbox(v1::ListPodSandboxRequest { filter: None })
            .await
            .unwrap()
            .into_inner()
            .items;
        assert_eq!(left, [], "sandboxes that nobody asked for");
    });
    daemon.finish();
}

#[test]
fn a_hundred_pods_are_taken_over() {
    const PODS: usize = 100;
    let mut daemon = Daemon::start();
    let before = daemon.with(async |mut client| {
        let mut ids = Vec::new();
        for number in 0..PODS {
            let pod = daemon.sandbox(&format!("p{number}"));
            let sandbox = client.run(&pod).await;
            let id = client
                .started(&sandbox, &pod, container("c", &["sleep", "10000"]))
                .await;
            ids.push((sandbox, id));
        }
        ids
    });
    let began = Instant::now();
    daemon.restart();
    daemon.with(async |mut client| {
        let ready = v1::PodSandboxFilter {
            state: Some(v1::PodSandboxStateValue {
                state: v1::PodSandboxState::SandboxReady.into(),
            }),
            ..Default::default()
        };
        let request = v1::ListPodSandboxRequest { filter: Some(ready) };
        let ready = client
            .runtime
            .list_pod_sandbox(request)
            .await
            .unwrap()
            .into_inner()
            .items;
        println!("{} pods were taken over in {:?}", ready.len(), began.elapsed());
        assert_eq!(ready.len(), PODS);
        for (sandbox, id) in &before {
            assert_eq!(
                client.status(id).await.unwrap().state(),
                v1::ContainerState::ContainerRunning
            );
            client.remove_sandbox(sandbox).await;
        }
    });
    daemon.finish();
}

#[test]
fn a_killed_shim_takes_its_pod_along_and_no_other() {
    let daemon = Daemon::start();
    let (one, two) = (daemon.sandbox("one"), daemon.sandbox("two"));
    daemon.with(async |mut client| {
        let mut pods = Vec::new();
        for pod in [&one, &two] {
            let sandbox = client.run(pod).await;
            let id = client
                .started(&sandbox, pod, container("c", &["sleep", "10000"]))
                .await;
            pods.push((sandbox, id));
        }
        let mut events = client
            .runtime
            .get_container_events(v1::GetEventsRequest {})
            .await
            .unwrap()
            .into_inner();
        let record = daemon
            .node
            .root()
            .join("run/berth/sandboxes")
            .join(&pods[0].0)
            .join("shim.json");
        let record: serde_json::Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
        let shim = i32::try_from(record["pid"].as_i64().unwrap()).unwrap();
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(shim),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
        let mut stopped = Vec::new();
        while stopped.len() < 2 {
            let event = tokio::time::timeout(PATIENCE, events.message()).await.unwrap();
            let event = event.unwrap().unwrap();
            assert_eq!(
                event.container_event_type(),
                v1::ContainerEventType::ContainerStoppedEvent
            );
            stopped.push(event.container_id);
        }
        assert_eq!(stopped, [pods[0].1.clone(), pods[0].0.clone()]);
        let lost = client.status(&pods[0].1).await.unwrap();
        assert_ne!(lost.state(), v1::ContainerState::ContainerRunning);
        assert_eq!((lost.exit_code, &*lost.reason), (137, "ContainerStatusUnknown"));
        let other = client.status(&pods[1].1).await.unwrap();
        assert_eq!(other.state(), v1::ContainerState::ContainerRunning);
        for (sandbox, _) in &pods {
            client.remove_sandbox(sandbox).await;
        }
    });
    daemon.finish();
}
