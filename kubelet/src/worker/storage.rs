//! The watch on what a pod takes of the node's disks.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::Node;
use super::event::EventReason;
use super::reporter::Reporter;
use crate::defaults::EVICTION_MONITORING_PERIOD;
use crate::local_storage::{Limits, measure};
use crate::volumes::PodDir;

/// After a measurement comes a pause of so many times what it took: one of a million files takes no more than a twentieth of a
/// processor.
const REST: u32 = 20;

/// Has a pod with limits of local storage measured while it is to run.
#[derive(Debug)]
pub(super) struct StorageWatch {
    limits: Option<Limits>,
    task: Option<AbortHandle>,
    sender: mpsc::UnboundedSender<String>,
}

impl StorageWatch {
    /// The watch, and where it tells what the pod exceeds.
    pub(super) fn new(pod: &Pod) -> (Self, mpsc::UnboundedReceiver<String>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let watch = StorageWatch {
            limits: Limits::of(pod),
            task: None,
            sender,
        };
        (watch, receiver)
    }

    /// Begins to watch, goes on, or ends.
    pub(super) fn keep(
        &mut self,
        wanted: bool,
        node: &Arc<Node>,
        pod: &Arc<Pod>,
        dir: &PodDir,
        reporter: &Reporter,
    ) {
        match &self.limits {
            Some(limits) if wanted => {
                if self.task.is_none() {
                    let watched = Watched {
                        limits: limits.clone(),
                        node: Arc::clone(node),
                        pod: Arc::clone(pod),
                        dir: dir.clone(),
                        reporter: reporter.clone(),
                        exceeded: self.sender.clone(),
                    };
                    self.task = Some(tokio::spawn(watched.watch()).abort_handle());
                }
            }
            _ => self.end(),
        }
    }

    fn end(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Drop for StorageWatch {
    fn drop(&mut self) {
        self.end();
    }
}

struct Watched {
    limits: Limits,
    node: Arc<Node>,
    pod: Arc<Pod>,
    dir: PodDir,
    reporter: Reporter,
    exceeded: mpsc::UnboundedSender<String>,
}

impl Watched {
    /// Measures until the pod exceeds a limit.
    async fn watch(self) {
        let mut pause = EVICTION_MONITORING_PERIOD;
        let mut last_failure = String::new();
        loop {
            sleep(pause).await;
            let begin = Instant::now();
            match measure(&self.node.engine, &self.pod, &self.dir, &self.limits).await {
                Ok(usage) => {
                    if let Some(message) = self.limits.exceeded(&usage) {
                        // Without a worker there is nobody to evict it.
                        let _ = self.exceeded.send(message);
                        return;
                    }
                }
                Err(error) => {
                    let message = format!("can't measure what the pod takes on disk: {error}");
                    if message != last_failure {
                        self.reporter.pod(EventReason::FailedSync, message.clone());
                        last_failure = message;
                    }
                }
            }
            pause = longer(begin.elapsed());
        }
    }
}

fn longer(took: Duration) -> Duration {
    EVICTION_MONITORING_PERIOD.max(took.saturating_mul(REST))
}
