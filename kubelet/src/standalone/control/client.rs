//! The asking end.

use std::collections::BTreeSet;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use super::super::debug::DebugContainer;
use tokio::sync::watch;

use super::super::inspect::{InspectError, Places};
use super::super::lock::{LockError, PodLock};
use super::super::run::{Host, node};
use super::super::terminal;
use super::call::{Call, Here, RootOf, Streams, question};
use super::listener::connect;
use super::protocol::{
    Answer, ContainerSummary, PodUsage, Refusal, RefusalKind, Request, Resize, SentWorkload, Taken,
};
use super::server::{Owned, serve};
use super::wire::Wire;
use crate::identity::PodUid;
use crate::plan::Objects;
use crate::pulls::Coming;
use crate::spec;
use crate::worker::PodRecord;

/// A pod that changes hands is looked at again after this,
const HANDOVER: Duration = Duration::from_millis(100);
/// so often.
const HANDOVERS: u32 = 50;
/// What a shell ends with if a program can't be executed.
const NOT_EXECUTABLE: u8 = 126;

/// Why something could not be asked, or was not done.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The pod can't be found.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// Its lock can't be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The command can't be executed in the container.
    #[error("{message}")]
    CannotRun {
        /// What a shell would end with: 127 if there is no such program, 126 if it is none that can be executed.
        exit_code: u8,
        /// Which program, and why.
        message: String,
    },
    /// It was refused.
    #[error("{0}")]
    Refused(String),
    /// The process that runs the pod ended before it answered.
    #[error("The process that runs the pod ended before it answered; try again.")]
    Lost,
    /// The process that runs the pod is not to be reached.
    #[error("The process that runs the pod can't be reached: {0}.")]
    Io(#[from] io::Error),
    /// The process that runs the pod is of another version of berth.
    #[error("{0}")]
    OtherVersion(String),
    /// Nobody runs the pod, and this process can't look after it.
    #[error("{0}")]
    Unavailable(String),
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> Self {
        match refusal.kind {
            RefusalKind::CannotRun => Self::CannotRun {
                exit_code: refusal.exit_code.unwrap_or(NOT_EXECUTABLE),
                message: refusal.message,
            },
            RefusalKind::NotUnderstood => Self::OtherVersion(refusal.message),
            RefusalKind::NotMine => Self::Lost,
            RefusalKind::Other => Self::Refused(refusal.message),
        }
    }
}

/// What a pod is looked after with when nobody runs it.
#[async_trait::async_trait]
pub trait TakeOver: Send + Sync {
    /// The machine's side of this node.
    fn host(&self) -> Result<Host, String>;
    /// Starts the daemon, unless it runs already, and returns when it answers.
    async fn start_daemon(&self) -> Result<(), String>;
}

/// Asks those who run pods.
pub struct Caller {
    places: Places,
    take_over: Arc<dyn TakeOver>,
}

/// A pod that connections are forwarded to.
pub struct Forwarder<'a> {
    caller: &'a Caller,
    pod: String,
    port: u16,
}

impl Forwarder<'_> {
    /// One more connection.
    ///
    /// # Errors
    /// Nothing listens on the port, or the pod has gone.
    pub async fn connect(&self) -> Result<TcpStream, CallError> {
        let port = self.port;
        let mut call = self
            .caller
            .ask(&self.pod, |uid| Request::PortForward { uid, port })
            .await?;
        let stream = call.fds.pop().ok_or(CallError::Lost)?;
        Ok(TcpStream::from(stream))
    }
}

impl Caller {
    /// Asks about the pods at these places.
    pub fn new(places: Places, take_over: Arc<dyn TakeOver>) -> Self {
        Self { places, take_over }
    }

    /// Where the pods are.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Starts a command in a container.
    ///
    /// # Errors
    /// It does not run there.
    pub async fn exec(
        &self,
        pod: &str,
        container: &str,
        command: &[String],
        stdin: bool,
        tty: bool,
    ) -> Result<Streams, CallError> {
        let size = tty.then(terminal::size).flatten();
        let size = size.map(|(width, height)| Resize { width, height });
        let request = |uid| Request::Exec {
            uid,
            container: container.to_owned(),
            command: command.to_vec(),
            stdin,
            tty,
            size,
        };
        self.ask(pod, request).await?.streams()
    }

    /// The streams of a container from now on.
    ///
    /// # Errors
    /// It does not run.
    pub async fn attach(&self, pod: &str, container: &str, stdin: bool) -> Result<Streams, CallError> {
        let request = |uid| Request::Attach {
            uid,
            container: container.to_owned(),
            stdin,
        };
        self.ask(pod, request).await?.streams()
    }

    /// The root of a running container.
    ///
    /// # Errors
    /// It does not run.
    pub async fn root(&self, pod: &str, container: &str) -> Result<RootOf, CallError> {
        let request = |uid| Request::Root {
            uid,
            container: container.to_owned(),
        };
        let mut call = self.ask(pod, request).await?;
        match (call.answer, call.fds.pop()) {
            (Answer::Root { uid, gid }, Some(root)) => Ok(RootOf {
                directory: root.into(),
                uid,
                gid,
                _here: call._here,
            }),
            _ => Err(CallError::Lost),
        }
    }

    /// Connections to a port of a pod.
    pub fn forwarder(&self, pod: &str, port: u16) -> Forwarder<'_> {
        Forwarder {
            caller: self,
            pod: pod.to_owned(),
            port,
        }
    }

    /// The containers of a pod.
    ///
    /// # Errors
    /// They can't be asked for.
    pub async fn containers(&self, pod: &str) -> Result<Vec<ContainerSummary>, CallError> {
        match self.ask(pod, |uid| Request::Containers { uid }).await?.answer {
            Answer::Containers(containers) => Ok(containers),
            _ => Err(CallError::Lost),
        }
    }

    /// What a pod uses.
    ///
    /// # Errors
    /// It can't be asked for.
    pub async fn usage(&self, pod: &str) -> Result<PodUsage, CallError> {
        match self
            .ask(pod, |uid| Request::Usage { uids: vec![uid] })
            .await?
            .answer
        {
            Answer::Usage(mut usage) => usage.pop().ok_or(CallError::Lost),
            _ => Err(CallError::Lost),
        }
    }

    /// Tells who runs a pod to end it. Returns at once; `false` if nobody runs it.
    ///
    /// # Errors
    /// There is no such pod.
    pub async fn delete(&self, pod: &str, grace: Option<Duration>) -> Result<bool, CallError> {
        let mut left = HANDOVERS;
        let mut told = false;
        loop {
            let (record, _) = match self.revive(pod).await.and_then(|()| Ok(self.places.find(pod)?)) {
                // It ended with who was told.
                Err(CallError::Inspect(InspectError::NoPod(..))) if told => return Ok(true),
                found => found?,
            };
            let uid = record.uid();
            match self.owner(&record).await? {
                Some(wire) => match self.put(wire, Request::Delete { uid, grace }, None).await {
                    Err(CallError::Lost) if left > 0 => told = true,
                    asked => return asked.map(|_| true),
                },
                // The daemon that was started for it has not come to it yet.
                None if left > 0 && self.is_the_daemon_s(&record) => {}
                None => return Ok(false),
            }
            left -= 1;
            tokio::time::sleep(HANDOVER).await;
        }
    }

    /// Starts running containers of a pod anew.
    ///
    /// # Errors
    /// Nobody runs the pod.
    pub async fn restart(&self, pod: &str, containers: Vec<String>) -> Result<(), CallError> {
        let request = |uid| Request::Restart {
            uid,
            containers: containers.clone(),
        };
        self.ask(pod, request).await.map(drop)
    }

    /// Adds an ephemeral container to a pod.
    ///
    /// # Errors
    /// Nobody runs the pod, or it can't have this container.
    pub async fn debug(&self, pod: &str, container: DebugContainer) -> Result<(), CallError> {
        let container = container.ephemeral();
        let request = |uid| Request::Debug {
            uid,
            container: Box::new(container.clone()),
        };
        self.ask(pod, request).await.map(drop)
    }

    /// The ConfigMaps and Secrets of a pod; `None` if nobody runs it.
    pub(in crate::standalone) async fn asked_objects(
        &self,
        record: &PodRecord,
    ) -> Result<Option<Objects>, CallError> {
        let Some(wire) = self.owner(record).await? else {
            return Ok(None);
        };
        let request = Request::Objects { uid: record.uid() };
        match self.put(wire, request, None).await.map(|call| call.answer) {
            Ok(Answer::Objects(workload)) => Ok(Some(workload.into_parts().1)),
            // It has ended or handed the pod on, right now.
            Err(CallError::Lost) => Ok(None),
            Ok(_) => Err(CallError::Lost),
            Err(error) => Err(error),
        }
    }

    /// How these images come in the process that runs a pod.
    ///
    /// # Errors
    /// It can't be asked.
    pub(in crate::standalone) async fn pulls(
        &self,
        pod: &str,
        images: BTreeSet<String>,
    ) -> Result<watch::Receiver<Coming>, CallError> {
        let call = self.ask(pod, |uid| Request::Pulls { uid }).await?;
        let (sender, receiver) = watch::channel(Coming::default());
        tokio::spawn(async move {
            while let Ok(Some((mut coming, _))) = call.wire.receive::<Coming>().await {
                coming.retain(|image| images.contains(image));
                sender.send_if_modified(|known| {
                    let is_new = *known != coming;
                    *known = coming;
                    is_new
                });
                if sender.is_closed() {
                    return;
                }
            }
        });
        Ok(receiver)
    }

    /// Puts a question to a process.
    async fn put(&self, wire: Wire, request: Request, here: Option<Here>) -> Result<Call, CallError> {
        let pid = wire.peer();
        question(wire, request, here).await.map_err(|error| match error {
            CallError::OtherVersion(why) => self.other_version(pid, &why),
            error => error,
        })
    }

    /// What there is to do about a process that does not understand this program, or the other way round.
    fn other_version(&self, pid: Option<u32>, why: &str) -> CallError {
        let is_daemon = pid.is_some() && pid == PodLock::daemon(&self.places.kubelet_root);
        let pid = pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
        let way_out = if is_daemon {
            format!(
                "Restart the daemon: `systemctl restart berth` where it is a service, else `kill {pid}`, and the next command \
                 starts it again. Its pods go on meanwhile."
            )
        } else {
            "End it, and run the pod again with this program.".to_owned()
        };
        CallError::OtherVersion(format!(
            "Process {pid}, which runs the pod, is of another version of berth than this program: {why} {way_out}"
        ))
    }

    /// Makes a running pod what is given.
    ///
    /// # Errors
    /// Nobody runs the pod, or the kernel refuses its new limits.
    pub async fn change(&self, shown: &str, pod: &Pod, objects: &Objects) -> Result<(), CallError> {
        let request = |_| Request::Change {
            pod: Box::new(pod.clone()),
            objects: Box::new(SentWorkload::new(Vec::new(), objects)),
        };
        self.ask(shown, request).await.map(drop)
    }

    /// Hands pods to the daemon, which is started if there is none.
    ///
    /// # Errors
    /// It does not take them.
    pub async fn run(&self, pods: Vec<Pod>, objects: &Objects) -> Result<Vec<Taken>, CallError> {
        let workload = SentWorkload::new(pods, objects);
        let mut left = HANDOVERS;
        loop {
            self.take_over
                .start_daemon()
                .await
                .map_err(CallError::Unavailable)?;
            let pid = PodLock::daemon(&self.places.kubelet_root);
            let wire = match pid {
                Some(pid) => connect(&self.places.run_root, pid).await,
                None => Err(io::ErrorKind::NotFound.into()),
            };
            let request = Request::Run {
                workload: Box::new(workload.clone()),
            };
            let asked = match wire {
                Ok(wire) => self.put(wire, request, None).await,
                Err(error) => Err(error.into()),
            };
            match asked.map(|call| call.answer) {
                Ok(Answer::Taken(taken)) => return Ok(taken),
                Ok(_) => return Err(CallError::Lost),
                // A daemon that had nothing to do was ending.
                Err(CallError::Lost | CallError::Io(_)) if left > 0 => {
                    left -= 1;
                    tokio::time::sleep(HANDOVER).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A pod was handed to the daemon.
    fn is_the_daemon_s(&self, record: &PodRecord) -> bool {
        super::super::detached::has(&self.places.kubelet_root, &record.uid())
    }

    /// Starts the daemon if it has this pod and has died.
    async fn revive(&self, pod: &str) -> Result<(), CallError> {
        let (record, _) = self.places.find(pod)?;
        if self.is_the_daemon_s(&record) && self.places.owner(&record).is_none() {
            self.take_over
                .start_daemon()
                .await
                .map_err(CallError::Unavailable)?;
        }
        Ok(())
    }

    /// Asks who runs a pod, or this process if nobody does.
    async fn ask(&self, pod: &str, request: impl Fn(PodUid) -> Request) -> Result<Call, CallError> {
        let mut left = HANDOVERS;
        loop {
            // Also after the first try: it may have been killed meanwhile.
            self.revive(pod).await?;
            let (record, _) = self.places.find(pod)?;
            let request = request(record.uid());
            let asked = match self.owner(&record).await? {
                Some(wire) => self.put(wire, request, None).await,
                // It was started for this pod, and has not come to it yet.
                None if left > 0 && self.is_the_daemon_s(&record) => Err(CallError::Lost),
                None => match self.take(&record).await {
                    Ok((wire, here)) => self.put(wire, request, Some(here)).await,
                    Err(error) => Err(error),
                },
            };
            match asked {
                // The pod changes hands.
                Err(CallError::Lost | CallError::Lock(LockError::Taken { .. })) if left > 0 => {
                    left -= 1;
                    tokio::time::sleep(HANDOVER).await;
                }
                asked => return asked,
            }
        }
    }

    async fn owner(&self, record: &PodRecord) -> Result<Option<Wire>, CallError> {
        let Some(pid) = self.places.owner(record) else {
            return Ok(None);
        };
        match connect(&self.places.run_root, pid).await {
            Ok(wire) => Ok(Some(wire)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Looks after a pod that nobody runs.
    async fn take(&self, record: &PodRecord) -> Result<(Wire, Here), CallError> {
        let (namespace, name) = (spec::namespace(&record.pod), spec::name(&record.pod));
        let lock = PodLock::take(&self.places.kubelet_root, namespace, name)?;
        let host = self.take_over.host().map_err(CallError::Unavailable)?;
        let owned = Owned::new(Arc::new(node(host).await), None);
        owned.add(record.uid(), Arc::new(record.pod.clone()), None);
        let (ours, theirs) = Wire::pair()?;
        let task = tokio::spawn(serve(Arc::new(owned), theirs));
        Ok((ours, Here { task, _lock: lock }))
    }
}
