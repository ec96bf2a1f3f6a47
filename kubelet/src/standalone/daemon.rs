//! The daemon: what runs pods that were handed over with `--detach`, and takes them up again after a restart of itself
//! or of the machine.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::control::{Listener, Owned, SentWorkload, Taken, Taker};
use super::detached::Detached;
use super::journal::Journal;
use super::lock::{LockError, PodLock};
use super::run::{Host, ending, node};
use crate::identity::PodUid;
use crate::plan::{Desired, Objects};
use crate::spec;
use crate::worker::{EventRouter, Node, PodHandle, PodRecord, Records, SpawnError, spawn};

/// A daemon that was started on demand and gets nothing to run ends after this.
const FIRST_POD: Duration = Duration::from_secs(10);

/// Why there is no daemon.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Its lock can't be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// No socket can be made.
    #[error("The socket in {} that the daemon is reached by can't be made: {source}.", path.display())]
    Listen {
        /// The run directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The list of its pods can't be read.
    #[error("The pods that were handed to the daemon can't be read: {0}.")]
    Detached(io::Error),
    /// The kernel refused.
    #[error("Signals can't be taken: {0}.")]
    Signals(io::Error),
}

/// Runs the pods that are handed to it until a signal ends it; the pods go on then. `on_demand`: it also ends when
/// nothing is left of its last pod. `say` is told what a log is to say; `ready` is called when the daemon is reached.
///
/// If there is a daemon already, one on demand returns at once; another waits for that to end, and takes its pods up.
///
/// # Errors
/// It can't begin.
pub async fn daemon(
    host: Host,
    on_demand: bool,
    say: impl Fn(&str) + Send + Sync + 'static,
    ready: impl FnOnce(),
) -> Result<(), DaemonError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Signals)?;
    let run_root = host.run_root.clone();
    let router = EventRouter::start(host.engine.as_ref());
    let node = Arc::new(node(host).await);
    let (count, mut counted) = watch::channel(0);
    let supervisor = Arc::new(Supervisor::new(Arc::clone(&node), router, count, say));
    let taker: Arc<dyn Taker> = Arc::clone(&supervisor) as _;
    let owned = Arc::new(Owned::new(Arc::clone(&node), Some(taker)));
    *supervisor.owned() = Some(Arc::clone(&owned));
    // Before the lock, which leads here.
    let listener = Listener::start(&run_root, owned).map_err(|source| DaemonError::Listen {
        path: run_root,
        source,
    })?;
    let taking = supervisor.taking.lock().await;
    let mut ready = Some(ready);
    let lock = match PodLock::take_daemon(&node.kubelet_root)? {
        Some(lock) => lock,
        None if on_demand => return Ok(()),
        None => {
            let owner = PodLock::daemon(&node.kubelet_root).map_or_else(String::new, |id| format!(" {id}"));
            supervisor.say(&format!(
                "process{owner} is the daemon; its pods are taken over when it ends"
            ));
            // Pods can be handed over: to that one.
            ready.take().into_iter().for_each(|ready| ready());
            tokio::select! {
                lock = PodLock::wait_to_be_daemon(&node.kubelet_root) => lock?,
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
            }
        }
    };
    supervisor.take_up().map_err(DaemonError::Detached)?;
    drop(taking);
    if let Some(ready) = ready {
        ready();
    }
    let idle = async {
        // Whoever started it brings something.
        let first = counted.wait_for(|count| *count > 0);
        let _ = tokio::time::timeout(FIRST_POD, first).await;
        loop {
            // Sent by the supervisor as long as it lives, which is as long as this.
            let _ = counted.wait_for(|count| *count == 0).await;
            // Nobody may be bringing a pod now.
            let taking = supervisor.taking.lock().await;
            if *counted.borrow() == 0 {
                return taking;
            }
        }
    };
    tokio::select! {
        _ = terminate.recv() => supervisor.say("ending; the pods go on"),
        _ = interrupt.recv() => supervisor.say("ending; the pods go on"),
        _taking = idle, if on_demand => {
            supervisor.say("ending: nothing is left to run");
            // In this order: who finds the lock taken finds the socket, or tries again.
            drop(listener);
            drop(lock);
            return Ok(());
        }
    }
    drop((listener, lock));
    Ok(())
}

pub(super) struct Supervisor {
    pub(super) node: Arc<Node>,
    router: EventRouter,
    pub(super) detached: Detached,
    /// Set once, right after this was made.
    owned: Mutex<Option<Arc<Owned>>>,
    /// Held by whoever takes pods on.
    pub(super) taking: tokio::sync::Mutex<()>,
    /// How many pods there are.
    pub(super) count: watch::Sender<usize>,
    say: Box<dyn Fn(&str) + Send + Sync>,
}

impl Supervisor {
    pub(super) fn new(
        node: Arc<Node>,
        router: EventRouter,
        count: watch::Sender<usize>,
        say: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        Self {
            detached: Detached::new(&node.kubelet_root),
            owned: Mutex::new(None),
            taking: tokio::sync::Mutex::default(),
            node,
            router,
            count,
            say: Box::new(say),
        }
    }

    pub(super) fn say(&self, text: &str) {
        (self.say)(text);
    }

    fn owned(&self) -> MutexGuard<'_, Option<Arc<Owned>>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn desired(&self, pod: Pod, objects: Arc<Objects>) -> Desired {
        Desired {
            uid: PodUid(pod.metadata.uid.clone().unwrap_or_default()),
            pod: Arc::new(pod),
            objects,
            node: Arc::clone(&self.node.facts),
            user_ids: None,
            deletion: None,
        }
    }

    /// Runs a pod until nothing of it is left.
    pub(super) fn supervise(self: &Arc<Self>, desired: Desired, lock: PodLock) -> Result<(), SpawnError> {
        let (sender, events) = mpsc::unbounded_channel();
        let (uid, pod) = (desired.uid.clone(), Arc::clone(&desired.pod));
        let objects = Arc::clone(&desired.objects);
        let journal = Journal::of(&self.node, &desired);
        let engine_events = self.router.subscribe(&uid);
        let mut handle = spawn(Arc::clone(&self.node), desired, engine_events, sender)?;
        // Whoever reads its logs has opened them.
        handle.release_logs();
        if let Some(owned) = self.owned().as_ref() {
            owned.keep(uid.clone(), objects);
            owned.add(uid.clone(), Arc::clone(&pod), Some(handle.control()));
        }
        self.count.send_modify(|count| *count += 1);
        let supervisor = Arc::clone(self);
        tokio::spawn(async move {
            let name = format!("{}/{}", spec::namespace(&pod), spec::name(&pod));
            supervisor.watch(&name, handle, events, journal).await;
            if let Some(owned) = supervisor.owned().as_ref() {
                owned.remove(&uid);
            }
            supervisor.detached.remove(&uid);
            drop(lock);
            supervisor.say(&format!("{name}: nothing is left of it"));
            supervisor.count.send_modify(|count| *count -= 1);
        });
        Ok(())
    }

    async fn watch(
        &self,
        name: &str,
        mut handle: PodHandle,
        mut events: mpsc::UnboundedReceiver<crate::worker::PodEvent>,
        mut journal: Journal,
    ) {
        while let Some(event) = events.recv().await {
            let container = event
                .container
                .as_deref()
                .map_or_else(String::new, |name| format!("{name}: "));
            self.say(&format!("{name}: {container}{}", event.message));
            if let Err(error) = journal.enter(&event) {
                self.say(&format!("{name}: its events can't be kept: {error}"));
            }
        }
        handle.gone().await;
    }

    /// What is to become of a pod that somebody brings.
    fn look(&self, pod: &Pod, records: &[PodRecord]) -> Result<Fate, String> {
        let (namespace, name) = (spec::namespace(pod), spec::name(pod));
        let same = records
            .iter()
            .find(|record| spec::name(&record.pod) == name && spec::namespace(&record.pod) == namespace);
        match PodLock::take(&self.node.kubelet_root, namespace, name) {
            Ok(lock) => Ok(Fate::New {
                lock,
                predecessor: same
                    .filter(|record| {
                        record.pod.metadata.uid != pod.metadata.uid || record.deletion().is_some()
                    })
                    .cloned()
                    .map(Box::new),
            }),
            Err(LockError::Taken { owner, .. })
                if owner == std::process::id().to_string()
                    && same.is_some_and(|same| same.pod.metadata.uid == pod.metadata.uid) =>
            {
                Ok(Fate::Unchanged)
            }
            Err(LockError::Taken { owner, .. }) if owner == std::process::id().to_string() => Err(format!(
                "Pod {namespace}/{name} is run by the daemon already, from another manifest; `berth apply` changes it, \
                 `berth stop` ends it."
            )),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn take_all(self: &Arc<Self>, workload: SentWorkload) -> Result<Vec<Taken>, String> {
        let (pods, objects) = workload.into_parts();
        let records = Records::new(&self.node.kubelet_root);
        let list = records
            .list()
            .map_err(|error| format!("The records of earlier pods can't be read: {error}."))?;
        // In one order, so that two programs with the same pods don't each hold one of them; and all before any, so that
        // a refusal leaves nothing half done.
        let mut fates = BTreeMap::new();
        for pod in &pods {
            let name = format!("{}/{}", spec::namespace(pod), spec::name(pod));
            fates.insert(name, (pod.clone(), self.look(pod, &list)?));
        }
        let objects = Arc::new(objects);
        let mut taken = Vec::new();
        for (name, (pod, fate)) in fates {
            let unchanged = matches!(fate, Fate::Unchanged);
            if let Fate::New { lock, predecessor } = fate {
                if let Some(predecessor) = predecessor {
                    self.end(*predecessor).await?;
                }
                let desired = self.desired(pod.clone(), Arc::clone(&objects));
                let sent = SentWorkload::new(vec![pod], &objects);
                self.detached
                    .save(&desired.uid, &sent)
                    .map_err(|error| format!("Pod {name} can't be kept: {error}."))?;
                self.supervise(desired, lock).map_err(|error| error.to_string())?;
            }
            taken.push(Taken { pod: name, unchanged });
        }
        Ok(taken)
    }

    /// Ends a pod of the same name that a program left which is dead.
    async fn end(&self, predecessor: PodRecord) -> Result<(), String> {
        let (sender, _) = mpsc::unbounded_channel();
        let desired = ending(&self.node, predecessor, None);
        let (uid, engine_events) = (desired.uid.clone(), self.router.subscribe(&desired.uid));
        let mut handle = spawn(Arc::clone(&self.node), desired, engine_events, sender)
            .map_err(|error| error.to_string())?;
        handle.release_logs();
        handle.gone().await;
        self.detached.remove(&uid);
        Ok(())
    }
}

enum Fate {
    Unchanged,
    New {
        lock: PodLock,
        predecessor: Option<Box<PodRecord>>,
    },
}

/// The daemon as those who bring pods see it.
#[async_trait]
impl Taker for Supervisor {
    async fn take(self: Arc<Self>, workload: SentWorkload) -> Result<Vec<Taken>, String> {
        let _taking = self.taking.lock().await;
        self.take_all(workload).await
    }

    fn leave(&self, uid: &PodUid) -> io::Result<()> {
        self.detached.end(uid)
    }

    fn change(&self, pod: &Pod, objects: &Objects) -> io::Result<()> {
        let uid = PodUid(pod.metadata.uid.clone().unwrap_or_default());
        self.detached
            .save(&uid, &SentWorkload::new(vec![pod.clone()], objects))
    }
}
