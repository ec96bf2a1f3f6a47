//! The two networks that the relay is between. A socket stays in the network that it was made in, whoever uses it.

use std::fs::File;
use std::io;
use std::sync::mpsc;

use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// Where a socket is made.
#[derive(Clone)]
pub(super) enum Side {
    /// In the machine's network.
    Machine,
    /// In the node's, by a thread that is there.
    Node(mpsc::Sender<Job>),
}

impl Side {
    /// Begins the thread that is in the node's network, and takes this process into the node's user namespace for it.
    pub(super) fn node(keeper: i32) -> io::Result<Self> {
        let network = File::open(format!("/proc/{keeper}/ns/net"))?;
        super::enter_user_namespace(keeper)?;
        let (jobs, wanted) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        std::thread::Builder::new()
            .name("node".to_owned())
            .spawn(move || {
                let entered = setns(network, CloneFlags::CLONE_NEWNET);
                let is_there = entered.is_ok();
                // The other end waits.
                let _ = tell.send(entered);
                if is_there {
                    wanted.iter().for_each(|job| job());
                }
            })?;
        told.recv().map_err(io::Error::other)??;
        Ok(Self::Node(jobs))
    }

    /// Makes a socket there; `make` may not wait.
    pub(super) async fn make<T: Send + 'static>(
        &self,
        make: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let Self::Node(jobs) = self else {
            return make();
        };
        let (tell, told) = oneshot::channel();
        let job = move || {
            // Nobody may wait for it any more.
            let _ = tell.send(make());
        };
        let ended = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        jobs.send(Box::new(job)).map_err(ended)?;
        told.await.map_err(io::Error::other)?
    }
}
