//! The asking end: what can be asked.

use std::collections::BTreeSet;
use std::io;
use std::net::TcpStream;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use super::super::debug::DebugContainer;
use super::super::inspect::{InspectError, Places};
use super::super::lock::PodLock;
use super::super::run::Host;
use super::super::terminal;
use super::call::{RootOf, Streams};
use super::error::CallError;
use super::handover::until_settled;
use super::listener::connect;
use super::protocol::{Answer, ContainerSummary, PodUsage, Request, Resize, SentWorkload, Taken};
use crate::plan::Objects;
use crate::pulls::Coming;
use crate::worker::PodRecord;

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
    pub(super) places: Places,
    pub(super) take_over: Arc<dyn TakeOver>,
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
        let mut told = false;
        until_settled(async |_| {
            let found = self.revive(pod).await.and_then(|()| Ok(self.places.find(pod)?));
            let (record, _) = match found {
                Ok(found) => found,
                // It ended with who was told.
                Err(CallError::Inspect(InspectError::NoPod(..))) if told => {
                    return ControlFlow::Break(Ok(true));
                }
                Err(error) => return ControlFlow::Break(Err(error)),
            };
            let uid = record.uid();
            match self.owner(&record).await {
                Ok(Some(wire)) => match self.put(wire, Request::Delete { uid, grace }, None).await {
                    Err(CallError::Lost) => {
                        told = true;
                        ControlFlow::Continue(Err(CallError::Lost))
                    }
                    asked => ControlFlow::Break(asked.map(|_| true)),
                },
                // The daemon that was started for it has not come to it yet.
                Ok(None) if self.is_the_daemon_s(&record) => ControlFlow::Continue(Ok(false)),
                Ok(None) => ControlFlow::Break(Ok(false)),
                Err(error) => ControlFlow::Break(Err(error)),
            }
        })
        .await
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
        until_settled(async |_| {
            match self.hand_over(workload.clone()).await {
                Ok(Answer::Taken(taken)) => ControlFlow::Break(Ok(taken)),
                Ok(_) => ControlFlow::Break(Err(CallError::Lost)),
                // A daemon that had nothing to do was ending.
                Err(error @ (CallError::Lost | CallError::Io(_))) => ControlFlow::Continue(Err(error)),
                Err(error) => ControlFlow::Break(Err(error)),
            }
        })
        .await
    }

    /// Asks the daemon, which is started if there is none, to run pods.
    async fn hand_over(&self, workload: SentWorkload) -> Result<Answer, CallError> {
        let started = self.take_over.start_daemon().await;
        started.map_err(CallError::Unavailable)?;
        let Some(pid) = PodLock::daemon(&self.places.kubelet_root) else {
            return Err(io::Error::from(io::ErrorKind::NotFound).into());
        };
        let wire = connect(&self.places.run_root, pid).await?;
        let request = Request::Run {
            workload: Box::new(workload),
        };
        Ok(self.put(wire, request, None).await?.answer)
    }
}
