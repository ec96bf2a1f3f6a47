//! An engine that is all in memory, for the tests of workers. Its containers do as their [`Behaviour`] says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use berth_cri::{
    ContainerConfig, ContainerId, ContainerState, ContainerStatus, Engine, EngineError, EngineEvent,
    EngineEventKind, EventStream, ExecOutput, Image, ImageId, LinuxContainerResources, PodSandboxConfig,
    PodSandboxStatus, PullProgress, SandboxId, Session, StreamOptions, v1,
};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use super::{Clock, PodCgroupError, PodCgroups};
use crate::plan::PodCgroup;

/// What containers of a name do.
#[derive(Clone, Debug)]
pub(crate) struct Behaviour {
    /// They end by themselves after this, with this code.
    pub(crate) exits: Option<(Duration, i32)>,
    /// They end so long after their stop signal; `None`: they ignore it.
    pub(crate) stops_after: Option<Duration>,
    /// What commands in them end with.
    pub(crate) exec_code: i32,
    /// How long commands in them take.
    pub(crate) exec_takes: Duration,
    /// Their program is missing: they end at once, and their start fails a second later.
    pub(crate) cannot_run: bool,
    /// So many of them can't be made, which takes a second; meanwhile they are shown, as nobody knows what.
    pub(crate) unmakable: u32,
}

impl Default for Behaviour {
    fn default() -> Self {
        Behaviour {
            exits: None,
            stops_after: Some(Duration::ZERO),
            exec_code: 0,
            exec_takes: Duration::ZERO,
            cannot_run: false,
            unmakable: 0,
        }
    }
}

#[derive(Default)]
struct State {
    sandboxes: Vec<PodSandboxStatus>,
    containers: Vec<ContainerStatus>,
    behaviours: BTreeMap<String, Behaviour>,
    subscribers: Vec<mpsc::UnboundedSender<EngineEvent>>,
    images: Vec<String>,
    calls: Vec<(Duration, String)>,
    looks: u32,
    memory_used: u64,
    statistics_take: Duration,
    faults: Vec<Fault>,
    /// How often sandboxes were removed by others.
    forgotten: u32,
}

/// What goes wrong with calls.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// How the call begins, as [`FakeEngine::calls`] has it; `list` is each look at sandboxes.
    pub(super) call: &'static str,
    /// How many of them.
    pub(super) times: u32,
    /// How long they take more than others.
    pub(super) takes: Duration,
    /// What becomes of them then.
    pub(super) answer: Answer,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It does its work.
    Right,
    /// It does nothing and fails.
    Refused,
    /// It does its work, and says that it has failed.
    Lost,
}

/// The engine. Clones are the same one.
#[derive(Clone)]
pub(crate) struct FakeEngine {
    state: Arc<Mutex<State>>,
    clock: Clock,
    begun: tokio::time::Instant,
}

impl FakeEngine {
    pub(crate) fn new(clock: Clock) -> Self {
        FakeEngine {
            state: Arc::default(),
            clock,
            begun: tokio::time::Instant::now(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn add_image(&self, image: &str) {
        self.lock().images.push(image.to_owned());
    }

    pub(crate) fn behave(&self, name: &str, behaviour: Behaviour) {
        self.lock().behaviours.insert(name.to_owned(), behaviour);
    }

    fn behaviour(&self, name: &str) -> Behaviour {
        self.lock().behaviours.get(name).cloned().unwrap_or_default()
    }

    fn call(&self, what: String) {
        let at = self.begun.elapsed();
        let count = {
            let mut state = self.lock();
            state.calls.push((at, what));
            state.calls.len()
        };
        // On a clock that jumps, a worker that goes round in circles would do so for ever.
        assert!(
            count < 50_000,
            "no end in sight: {:?}",
            self.calls().split_off(count - 30)
        );
    }

    /// Has calls go wrong.
    pub(super) fn fault(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    /// Notes a call, which may be refused. One that is to say so after its work gives its error.
    async fn attempt(&self, what: String) -> Result<Result<(), EngineError>, EngineError> {
        let fault = self.next_fault(&what);
        if what != "list" {
            self.call(what);
        }
        let Some(fault) = fault else { return Ok(Ok(())) };
        tokio::time::sleep(fault.takes).await;
        let error = EngineError::Internal(format!("The engine failed at {}.", fault.call));
        match fault.answer {
            Answer::Right => Ok(Ok(())),
            Answer::Refused => Err(error),
            Answer::Lost => Ok(Err(error)),
        }
    }

    fn next_fault(&self, what: &str) -> Option<Fault> {
        let mut state = self.lock();
        let hits = |fault: &&mut Fault| fault.times > 0 && what.starts_with(fault.call);
        let fault = state.faults.iter_mut().find(hits)?;
        fault.times -= 1;
        Some(fault.clone())
    }

    /// Nobody hears of what happens any more, until somebody asks for events again.
    pub(super) fn close_events(&self) {
        self.lock().subscribers.clear();
    }

    /// Somebody else has removed all sandboxes with their containers.
    pub(super) fn forget_sandboxes(&self) {
        let mut state = self.lock();
        let gone: Vec<_> = state.sandboxes.drain(..).collect();
        state.containers.clear();
        state.forgotten += 1;
        for sandbox in gone {
            state.send(sandbox.config.uid, sandbox.id, EngineEventKind::SandboxLost);
        }
    }

    /// What was asked so far, each with its time since the beginning.
    pub(crate) fn calls(&self) -> Vec<(Duration, String)> {
        self.lock().calls.clone()
    }

    /// When calls that begin so were made, in whole seconds.
    pub(super) fn seconds_of(&self, prefix: &str) -> Vec<u64> {
        self.calls()
            .iter()
            .filter(|(_, call)| call.starts_with(prefix))
            .map(|(at, _)| at.as_secs())
            .collect()
    }

    /// The calls that begin with one of these words, in order.
    pub(super) fn order_of(&self, words: &[&str]) -> Vec<String> {
        let wanted = |call: &String| words.iter().any(|word| call.split(' ').next() == Some(word));
        self.calls()
            .into_iter()
            .map(|(_, call)| call)
            .filter(wanted)
            .collect()
    }

    /// How often somebody looked for sandboxes.
    pub(super) fn looks(&self) -> u32 {
        self.lock().looks
    }

    pub(super) fn is_empty(&self) -> bool {
        let state = self.lock();
        state.sandboxes.is_empty() && state.containers.is_empty()
    }

    pub(super) fn running(&self, name: &str) -> Option<ContainerId> {
        let state = self.lock();
        let mut running = state
            .containers
            .iter()
            .filter(|c| c.state == ContainerState::Running);
        running.find(|c| c.config.name == name).map(|c| c.id.clone())
    }

    /// The image that a running container was asked for with.
    pub(super) fn image_of(&self, name: &str) -> Option<String> {
        let state = self.lock();
        let mut running = state
            .containers
            .iter()
            .filter(|c| c.state == ContainerState::Running);
        running
            .find(|c| c.config.name == name)
            .map(|c| c.config.user_specified_image.clone())
    }

    /// One container of this name less can't be made.
    fn is_unmakable(&self, name: &str) -> bool {
        let mut state = self.lock();
        let Some(behaviour) = state.behaviours.get_mut(name).filter(|b| b.unmakable > 0) else {
            return false;
        };
        behaviour.unmakable -= 1;
        true
    }

    /// Enters a container that is being made; one that is there already is joined.
    fn record_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, EngineError> {
        let id = ContainerId(format!("{}-{}", config.name, config.attempt));
        let mut state = self.lock();
        if !state.sandboxes.iter().any(|s| s.id == *sandbox && s.ready) {
            return Err(EngineError::FailedPrecondition(
                "The sandbox is not ready.".into(),
            ));
        }
        if state.containers.iter().any(|c| c.id == id) {
            return Ok(id);
        }
        let twin = |c: &ContainerStatus| c.config.name == config.name && c.state == ContainerState::Running;
        assert!(
            !state.containers.iter().any(twin),
            "{id} was made while another one runs"
        );
        let pod_uid = state
            .sandboxes
            .iter()
            .find(|s| s.id == *sandbox)
            .unwrap()
            .config
            .uid
            .clone();
        state.containers.push(ContainerStatus {
            id: id.clone(),
            sandbox: sandbox.clone(),
            pod_uid,
            image_id: ImageId("sha256:1".into()),
            state: ContainerState::Created,
            created_at: self.clock.now(),
            started_at: 0,
            finished_at: 0,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            log_path: Path::new("/nonexistent").join(&config.log_path),
            pid: 0,
            user: None,
            stop_signal: 15,
            config,
        });
        Ok(id)
    }

    /// The shim of a container is gone, and nobody knows how it ended.
    pub(super) fn vanish(&self, id: &ContainerId) {
        let now = self.clock.now();
        let mut state = self.lock();
        let Some(container) = state.containers.iter_mut().find(|c| c.id == *id) else {
            return;
        };
        container.state = ContainerState::Unknown;
        container.exit_code = 137;
        container.finished_at = now;
        container.reason = "ContainerStatusUnknown".to_owned();
        let (uid, sandbox) = (container.pod_uid.clone(), container.sandbox.clone());
        state.send(uid, sandbox, EngineEventKind::ContainerExited(id.clone()));
    }

    /// Ends a container that runs.
    pub(super) fn exit(&self, id: &ContainerId, code: i32) {
        let now = self.clock.now();
        let mut state = self.lock();
        let Some(container) = state.containers.iter_mut().find(|c| c.id == *id) else {
            return;
        };
        if container.state != ContainerState::Running {
            return;
        }
        container.state = ContainerState::Exited;
        container.exit_code = code;
        container.finished_at = now;
        container.reason = if code == 0 { "Completed" } else { "Error" }.to_owned();
        let (uid, sandbox) = (container.pod_uid.clone(), container.sandbox.clone());
        state.send(uid, sandbox, EngineEventKind::ContainerExited(id.clone()));
    }

    /// Breaks a pod's sandbox; its containers end.
    pub(super) fn lose_sandbox(&self) {
        let running: Vec<ContainerId> = self.lock().containers.iter().map(|c| c.id.clone()).collect();
        running.iter().for_each(|id| self.exit(id, 137));
        let mut state = self.lock();
        let lost: Vec<_> = state
            .sandboxes
            .iter_mut()
            .filter(|s| s.ready)
            .map(|s| {
                s.ready = false;
                (s.config.uid.clone(), s.id.clone())
            })
            .collect();
        for (uid, id) in lost {
            state.send(uid, id, EngineEventKind::SandboxLost);
        }
    }

    /// What every container uses of memory, in bytes.
    pub(super) fn use_memory(&self, bytes: u64) {
        self.lock().memory_used = bytes;
    }

    /// How long it takes to say what containers use.
    pub(super) fn take_for_statistics(&self, time: Duration) {
        self.lock().statistics_take = time;
    }

    /// Sends an event that says nothing new.
    pub(super) fn noise(&self) {
        let mut state = self.lock();
        let all: Vec<_> = state
            .containers
            .iter()
            .map(|c| (c.pod_uid.clone(), c.sandbox.clone(), c.id.clone()))
            .collect();
        for (uid, sandbox, id) in all {
            state.send(uid, sandbox, EngineEventKind::ContainerOom(id));
        }
    }
}

impl State {
    fn send(&mut self, pod_uid: String, sandbox: SandboxId, kind: EngineEventKind) {
        let event = EngineEvent {
            pod_uid,
            sandbox,
            at: 0,
            kind,
        };
        self.subscribers
            .retain(|subscriber| subscriber.send(event.clone()).is_ok());
    }
}

fn absent(what: impl std::fmt::Display) -> EngineError {
    EngineError::NotFound(format!("There is no {what}."))
}

#[async_trait]
impl Engine for FakeEngine {
    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<SandboxId, EngineError> {
        tokio::task::yield_now().await;
        // Most tests have one pod.
        let of_pod = match config.uid.as_str() {
            "uid" => String::new(),
            uid => format!("{uid}-"),
        };
        // No id is ever given again.
        let since = match self.lock().forgotten {
            0 => String::new(),
            times => format!("-{times}"),
        };
        let id = SandboxId(format!("sandbox-{of_pod}{}{since}", config.attempt));
        let answer = self.attempt(format!("sandbox {}", config.attempt)).await?;
        let mut state = self.lock();
        assert!(
            !state
                .sandboxes
                .iter()
                .any(|s| s.ready && s.config.uid == config.uid),
            "a second sandbox while one is ready"
        );
        assert!(
            !state.sandboxes.iter().any(|s| s.id == id),
            "a sandbox was made twice"
        );
        let created_at = self.clock.now();
        let ips = vec!["127.0.0.1".parse().unwrap()];
        state.sandboxes.push(PodSandboxStatus {
            id: id.clone(),
            config,
            ready: true,
            created_at,
            ips,
        });
        answer.map(|()| id)
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<(), EngineError> {
        let answer = self.attempt(format!("stop-sandbox {id}")).await?;
        let inside: Vec<_> = self
            .lock()
            .containers
            .iter()
            .filter(|c| c.sandbox == *id)
            .map(|c| c.id.clone())
            .collect();
        inside.iter().for_each(|id| self.exit(id, 137));
        if let Some(sandbox) = self.lock().sandboxes.iter_mut().find(|s| s.id == *id) {
            sandbox.ready = false;
        }
        answer
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<(), EngineError> {
        self.stop_pod_sandbox(id).await?;
        let mut state = self.lock();
        state.sandboxes.retain(|s| s.id != *id);
        state.containers.retain(|c| c.sandbox != *id);
        Ok(())
    }

    async fn pod_sandbox_status(&self, id: &SandboxId) -> Result<PodSandboxStatus, EngineError> {
        self.lock()
            .sandboxes
            .iter()
            .find(|s| s.id == *id)
            .cloned()
            .ok_or_else(|| absent(id))
    }

    async fn list_pod_sandboxes(&self, uid: Option<&str>) -> Result<Vec<PodSandboxStatus>, EngineError> {
        let wanted = |s: &&PodSandboxStatus| uid.is_none_or(|uid| s.config.uid == uid);
        self.lock().looks += 1;
        self.attempt("list".to_owned()).await??;
        Ok(self.lock().sandboxes.iter().filter(wanted).cloned().collect())
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, EngineError> {
        tokio::task::yield_now().await;
        let name = config.name.clone();
        let answer = self.attempt(format!("create {name}-{}", config.attempt)).await?;
        let id = self.record_container(sandbox, config)?;
        if self.is_unmakable(&name) {
            tokio::time::sleep(Duration::from_millis(500)).await;
            self.vanish(&id);
            tokio::time::sleep(Duration::from_millis(500)).await;
            self.lock().containers.retain(|c| c.id != id);
            return Err(EngineError::Internal(format!(
                "Container {name} could not be made."
            )));
        }
        answer.map(|()| id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), EngineError> {
        tokio::task::yield_now().await;
        let answer = self.attempt(format!("start {id}")).await?;
        let name = {
            let now = self.clock.now();
            let mut state = self.lock();
            let container = state
                .containers
                .iter_mut()
                .find(|c| c.id == *id)
                .ok_or_else(|| absent(id))?;
            assert_eq!(container.state, ContainerState::Created, "{id} was started twice");
            container.state = ContainerState::Running;
            container.started_at = now;
            let (name, uid) = (container.config.name.clone(), container.pod_uid.clone());
            let sandbox = container.sandbox.clone();
            state.send(uid, sandbox, EngineEventKind::ContainerStarted(id.clone()));
            name
        };
        if self.behaviour(&name).cannot_run {
            self.exit(id, 127);
            tokio::time::sleep(Duration::from_secs(1)).await;
            if let Some(container) = self.lock().containers.iter_mut().find(|c| c.id == *id) {
                container.reason = "ContainerCannotRun".to_owned();
            }
            return Err(EngineError::CannotRun {
                exit_code: 127,
                message: "there is no such program".to_owned(),
            });
        }
        if let Some((after, code)) = self.behaviour(&name).exits {
            let (engine, id) = (self.clone(), id.clone());
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                engine.exit(&id, code);
            });
        }
        answer
    }

    async fn stop_container(&self, id: &ContainerId, timeout: Duration) -> Result<(), EngineError> {
        let name = match self.container_status(id).await {
            Ok(status) if status.state == ContainerState::Running => status.config.name,
            _ => return Ok(()),
        };
        let answer = self.attempt(format!("stop {id} {}", timeout.as_secs())).await?;
        let (after, code) = match self.behaviour(&name).stops_after {
            Some(after) if after <= timeout => (after, 0),
            _ => (timeout, 137),
        };
        tokio::time::sleep(after).await;
        self.exit(id, code);
        answer
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.exit(id, 137);
        self.lock().containers.retain(|c| c.id != *id);
        Ok(())
    }

    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus, EngineError> {
        self.lock()
            .containers
            .iter()
            .find(|c| c.id == *id)
            .cloned()
            .ok_or_else(|| absent(id))
    }

    async fn list_containers(&self, uid: Option<&str>) -> Result<Vec<ContainerStatus>, EngineError> {
        let wanted = |c: &&ContainerStatus| uid.is_none_or(|uid| c.pod_uid == uid);
        Ok(self.lock().containers.iter().filter(wanted).cloned().collect())
    }

    async fn update_container_resources(
        &self,
        id: &ContainerId,
        limits: LinuxContainerResources,
    ) -> Result<(), EngineError> {
        tokio::task::yield_now().await;
        let quota = limits.cpu_quota.unwrap_or(-1);
        let answer = self
            .attempt(format!(
                "update {id} {quota} {}",
                limits.memory_limit.unwrap_or(-1)
            ))
            .await?;
        let status = self.container_status(id).await?;
        if status.state != ContainerState::Running {
            return Err(EngineError::FailedPrecondition(format!("{id} does not run.")));
        }
        answer
    }

    async fn container_stats(&self, ids: &[ContainerId]) -> Result<Vec<v1::ContainerStats>, EngineError> {
        let time = self.lock().statistics_take;
        tokio::time::sleep(time).await;
        let memory = v1::MemoryUsage {
            usage_bytes: Some(v1::UInt64Value {
                value: self.lock().memory_used,
            }),
            ..v1::MemoryUsage::default()
        };
        let of = |id: &ContainerId| v1::ContainerStats {
            attributes: Some(v1::ContainerAttributes {
                id: id.0.clone(),
                ..v1::ContainerAttributes::default()
            }),
            memory: Some(memory),
            ..v1::ContainerStats::default()
        };
        Ok(ids.iter().map(of).collect())
    }

    async fn exec(&self, _: &ContainerId, _: Vec<String>, _: StreamOptions) -> Result<Session, EngineError> {
        Err(EngineError::Unavailable(
            "A worker runs its commands to their end.".into(),
        ))
    }

    async fn attach(&self, _: &ContainerId, _: StreamOptions) -> Result<Session, EngineError> {
        Err(EngineError::Unavailable("A worker attaches to nothing.".into()))
    }

    async fn port_forward(&self, _: &SandboxId, _: u16) -> Result<TcpStream, EngineError> {
        Err(EngineError::Unavailable("A worker forwards no ports.".into()))
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: Vec<String>,
        timeout: Duration,
        _: usize,
    ) -> Result<ExecOutput, EngineError> {
        let name = self.container_status(id).await?.config.name;
        self.call(format!("exec {id} {}", command.join(" ")));
        let takes = self.behaviour(&name).exec_takes;
        if !timeout.is_zero() && takes > timeout {
            tokio::time::sleep(timeout).await;
            return Err(EngineError::DeadlineExceeded("The command took too long.".into()));
        }
        tokio::time::sleep(takes).await;
        Ok(ExecOutput {
            exit_code: self.behaviour(&name).exec_code,
            ..ExecOutput::default()
        })
    }

    async fn watch_log(&self, id: &ContainerId) -> Result<watch::Receiver<u64>, EngineError> {
        Err(absent(id))
    }

    fn events(&self) -> EventStream {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.lock().subscribers.push(sender);
        receiver
    }

    async fn pull_image(
        &self,
        image: &str,
        _auth: Option<berth_cri::AuthConfig>,
        _: Arc<dyn Fn(PullProgress) + Send + Sync>,
    ) -> Result<ImageId, EngineError> {
        self.call(format!("pull {image}"));
        if image.contains("slow") {
            tokio::time::sleep(Duration::from_secs(100_000)).await;
        }
        if image.contains("missing") {
            return Err(EngineError::ImagePull(format!("The image {image} is not there.")));
        }
        self.add_image(image);
        Ok(ImageId("sha256:1".into()))
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>, EngineError> {
        let there = self.lock().images.iter().any(|known| known == image);
        Ok(there.then(|| Image {
            id: ImageId("sha256:1".into()),
            repo_tags: vec![image.to_owned()],
            repo_digests: Vec::new(),
            size: 1,
            user: String::new(),
            pinned: false,
        }))
    }
}

/// Cgroups that are only names.
#[derive(Default)]
pub(super) struct FakeCgroups(Mutex<Vec<PathBuf>>, Mutex<Vec<Option<i64>>>);

impl FakeCgroups {
    /// The limits of memory that groups got, in their order.
    pub(super) fn memory_limits(&self) -> Vec<Option<i64>> {
        self.1.lock().unwrap().clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
}

impl PodCgroups for FakeCgroups {
    fn ensure(&self, cgroup: &PodCgroup) -> Result<(), PodCgroupError> {
        self.0.lock().unwrap().push(cgroup.path.clone());
        self.1.lock().unwrap().push(cgroup.resources.memory_limit);
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<(), PodCgroupError> {
        self.0.lock().unwrap().retain(|group| group != path);
        Ok(())
    }

    fn memory_usage(&self, _: &Path) -> Option<u64> {
        None
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.lock().unwrap().iter().any(|group| group == path)
    }
}
