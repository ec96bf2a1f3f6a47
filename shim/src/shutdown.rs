//! The end of a pod: everything is killed, waited for, and removed.

use std::fs;
use std::time::{Duration, Instant};

use crate::container::Container;
use crate::protocol::{Message, RECORD_NAME, Response, SOCKET_NAME};
use crate::shim::Shim;

/// How long killed processes may take to end, before the shim goes without them.
const PATIENCE: Duration = Duration::from_secs(10);

/// A shutdown that was asked for.
pub(crate) struct Shutdown {
    deadline: Instant,
    /// Who asked, and the number of the call.
    asked: Option<(u32, u64)>,
}

impl Shutdown {
    /// When the shim goes, whatever still runs.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl Shim {
    /// Kills everything. The rest follows when it is dead.
    pub(crate) fn begin_shutdown(&mut self, asked: Option<(u32, u64)>) {
        self.containers.values().for_each(Container::kill_all);
        if let Some(handler) = &mut self.handler {
            handler.give_up();
        }
        self.shutdown = Some(Shutdown {
            deadline: Instant::now() + PATIENCE,
            asked,
        });
    }

    /// Whether all that was killed has ended and is told.
    pub(crate) fn is_shut_down(&self) -> bool {
        self.shutdown.as_ref().is_some_and(|shutdown| {
            shutdown.deadline <= Instant::now()
                || match &self.handler {
                    // Its program has removed them, or failed to.
                    Some(handler) => handler.is_idle() && self.containers.is_empty(),
                    None => self.containers.values().all(|container| container.is_over()),
                }
        })
    }

    /// Removes what is left of the pod, and tells who asked: they remove the pod's own cgroup once this process is gone, which
    /// costs them nothing. Without anybody who asked the shim does so itself.
    pub(crate) fn finish(mut self) {
        self.execs.clear();
        if let Some(handler) = &mut self.handler {
            handler.kill_all();
        }
        for container in self.containers.values_mut() {
            if let Err(error) = container.delete() {
                eprintln!("Something of container {} is left behind: {error}", container.id);
            }
        }
        self.sandbox.end_pause();
        for name in [SOCKET_NAME, RECORD_NAME] {
            let _ = fs::remove_file(self.sandbox.dir.join(name));
        }
        let asked = self.shutdown.take().and_then(|shutdown| shutdown.asked);
        let Some((number, seq)) = asked else {
            self.sandbox.remove_cgroup();
            return;
        };
        if let Some(client) = self.clients.get_mut(&number) {
            let done = Message::Reply {
                seq,
                result: Ok(Response::Done),
            };
            let _ = client.connection.get_mut().send(&done, Vec::new());
        }
    }
}
