//! Setting up a pod's volumes.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use super::event::EventReason;
use super::execute::{Done, Failure, Job, blocking, context};
use crate::defaults::POD_ATTACH_AND_MOUNT_TIMEOUT;
use crate::plan::Reason;
use crate::volumes::{self, Context, SettingUp};

impl Job {
    /// A server that does not answer may take its time, which is said after a while. When the pod is to end meanwhile, or
    /// this program does, what waits for the server is killed.
    pub(super) async fn set_up_volumes(&mut self) -> Result<Done, Failure> {
        let failed = |why: String| (Reason::FailedMount, why);
        let (going, wanted) = SettingUp::begin().map_err(|error| failed(error.to_string()))?;
        let (desired, node, dir) = (self.desired.clone(), Arc::clone(&self.node), self.dir.clone());
        let own = Arc::clone(&going);
        let work = blocking(move || {
            volumes::set_up(&Context {
                setting_up: Some(&own),
                ..context(&desired, &node, &dir)
            })
        });
        let late = || {
            let message = going.overdue(&self.desired.pod);
            self.reporter.pod(EventReason::FailedMount, message);
        };
        // The sender lives as long as this step.
        let unwanted = async { drop(self.unwanted.wait_for(|unwanted| *unwanted).await) };
        let mut work = pin!(telling_when_late(work, POD_ATTACH_AND_MOUNT_TIMEOUT, late));
        let ended = tokio::select! {
            ended = &mut work => Some(ended),
            () = unwanted => None,
        };
        let Some(set_up) = ended else {
            wanted.stop();
            // Whatever it was: nobody asks.
            let _ = work.await?;
            return Ok(Done::Nothing);
        };
        set_up?.map_err(|error| failed(error.to_string()))?;
        Ok(Done::Volumes(true))
    }
}

/// Tells once if something takes longer than that.
async fn telling_when_late<T>(work: impl Future<Output = T>, limit: Duration, late: impl FnOnce()) -> T {
    let mut work = pin!(work);
    match tokio::time::timeout(limit, &mut work).await {
        Ok(done) => done,
        Err(_) => {
            late();
            work.await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_late_is_told_once_and_goes_on() {
        for (takes, expected) in [(122, 0), (124, 1), (1000, 1)] {
            let told = Cell::new(0);
            let work = sleep(Duration::from_secs(takes));
            telling_when_late(work, POD_ATTACH_AND_MOUNT_TIMEOUT, || told.set(told.get() + 1)).await;
            assert_eq!(told.get(), expected, "{takes}");
        }
    }
}
