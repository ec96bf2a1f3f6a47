//! How the process that runs a pod is found and asked; this one looks after a pod that nobody runs.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::super::detached;
use super::super::lock::{LockError, PodLock};
use super::super::run::node;
use super::call::{Call, Here, question};
use super::client::Caller;
use super::error::CallError;
use super::handover::until_settled;
use super::listener::connect;
use super::owned::Owned;
use super::protocol::Request;
use super::server::serve;
use super::wire::Wire;
use crate::identity::PodUid;
use crate::spec;
use crate::worker::PodRecord;

impl Caller {
    /// Puts a question to a process.
    pub(super) async fn put(
        &self,
        wire: Wire,
        request: Request,
        here: Option<Here>,
    ) -> Result<Call, CallError> {
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

    /// A pod was handed to the daemon.
    pub(super) fn is_the_daemon_s(&self, record: &PodRecord) -> bool {
        detached::has(&self.places.kubelet_root, &record.uid())
    }

    /// Starts the daemon if it has this pod and has died.
    pub(super) async fn revive(&self, pod: &str) -> Result<(), CallError> {
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
    pub(super) async fn ask(
        &self,
        pod: &str,
        request: impl Fn(PodUid) -> Request,
    ) -> Result<Call, CallError> {
        until_settled(async |may_follow| {
            match self.ask_once(pod, &request, may_follow).await {
                // The pod changes hands.
                Err(error @ (CallError::Lost | CallError::Lock(LockError::Taken { .. }))) => {
                    ControlFlow::Continue(Err(error))
                }
                asked => ControlFlow::Break(asked),
            }
        })
        .await
    }

    /// `may_wait` for the daemon, which was started for this pod and has not come to it yet.
    async fn ask_once(
        &self,
        pod: &str,
        request: impl Fn(PodUid) -> Request,
        may_wait: bool,
    ) -> Result<Call, CallError> {
        // Also after the first try: it may have been killed meanwhile.
        self.revive(pod).await?;
        let (record, _) = self.places.find(pod)?;
        let request = request(record.uid());
        match self.owner(&record).await? {
            Some(wire) => self.put(wire, request, None).await,
            None if may_wait && self.is_the_daemon_s(&record) => Err(CallError::Lost),
            None => {
                let (wire, here) = self.take(&record).await?;
                self.put(wire, request, Some(here)).await
            }
        }
    }

    /// A connection to who runs a pod; `None` if nobody does.
    pub(super) async fn owner(&self, record: &PodRecord) -> Result<Option<Wire>, CallError> {
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
