//! The watch on the node's other pods, for one whose resize is deferred: when they end or are resized, there may be room.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::record::Records;
use crate::watch::Watch;

/// All records of the node are read after a change, and there may be many changes: no more than one look in this time.
const PAUSE: Duration = Duration::from_secs(1);

/// Has a pod looked at again when other pods change. Whoever runs them writes down what becomes of them.
#[derive(Debug)]
pub(super) struct RoomWatch {
    task: Option<AbortHandle>,
    sender: mpsc::UnboundedSender<()>,
}

impl RoomWatch {
    /// The watch, and where it tells of changes.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<()>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { task: None, sender }, receiver)
    }

    /// Where others may tell of changes, too.
    pub(super) fn sender(&self) -> mpsc::UnboundedSender<()> {
        self.sender.clone()
    }

    /// Begins to watch, goes on, or ends.
    pub(super) fn keep(&mut self, wanted: bool, records: &Records) {
        if !wanted {
            return self.end();
        }
        if self.task.is_none() {
            let watched = watch(records.directory().to_owned(), self.sender.clone());
            self.task = Some(tokio::spawn(watched).abort_handle());
        }
    }

    fn end(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Drop for RoomWatch {
    fn drop(&mut self) {
        self.end();
    }
}

/// Without inotify(7) the pod is looked at by the clock alone.
async fn watch(directory: std::path::PathBuf, changed: mpsc::UnboundedSender<()>) {
    let Ok(watch) = Watch::new(vec![directory]) else {
        return;
    };
    loop {
        if watch.arm().is_err() {
            return;
        }
        // Also what happened before the watch began.
        if changed.send(()).is_err() {
            return;
        }
        sleep(PAUSE).await;
        if watch.changed().await.is_err() {
            return;
        }
    }
}
