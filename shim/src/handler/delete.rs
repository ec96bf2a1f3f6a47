//! Removing a container of another runtime, with what a program that failed or hangs may leave.

use std::fs;

use berth_runtime::cgroups::Cgroup;
use rustix::process::{Pid, Signal, kill_process};

use super::create::PID_FILE;
use super::program::Streams;
use super::{Asked, Shim, Verb, Work, bundle, is_child, read_pid};
use crate::error::RequestError;
use crate::protocol::{RUNTIME_DIR, Response};

/// What follows a removal.
pub(super) enum Then {
    /// An answer to who asked for it.
    Answer(Asked),
    /// The answer to who asked for a container that could not be made.
    Fail(Asked, RequestError),
    /// Nothing: the pod ends.
    Nothing,
}

impl Shim {
    pub(super) fn begin_delete(&mut self, id: &str, asked: Asked) -> Result<(), RequestError> {
        let Ok(container) = self.container(id) else {
            self.forget_exit(id)?;
            self.answer(asked, Ok(Response::Done), Vec::new());
            return Ok(());
        };
        if container.is_running() {
            return Err(container.wrong_state("is running"));
        }
        self.run_delete(id, Then::Answer(asked));
        Ok(())
    }

    /// Removes what a program that failed to make a container has left.
    pub(super) fn discard(&mut self, id: &str, then: Then) {
        let dir = bundle::place(&self.sandbox.dir, id);
        // It may run elsewhere than where it was to be put.
        if let Ok(pid) = read_pid(&dir.join(PID_FILE))
            && is_child(pid)
            && let Some(pid) = Pid::from_raw(pid)
        {
            let _ = kill_process(pid, Signal::KILL);
        }
        let cgroup = bundle::cgroup_of(&dir);
        if let Ok(Some(cgroup)) = cgroup.map_or(Ok(None), |path| Cgroup::open(&path))
            && let Err(error) = cgroup.kill_all()
        {
            eprintln!("What was made of container {id} can't be killed: {error}");
        }
        self.run_delete(id, then);
    }

    /// At the pod's end: those that have ended and are not being removed yet.
    pub(crate) fn delete_handled(&mut self) {
        let Some(handler) = &self.handler else { return };
        let over: Vec<String> = self
            .containers
            .values()
            .filter(|container| container.is_over() && !handler.is_busy(&container.id))
            .map(|container| container.id.clone())
            .collect();
        for id in over {
            self.run_delete(&id, Then::Nothing);
        }
    }

    fn run_delete(&mut self, id: &str, then: Then) {
        if let Ok(container) = self.container(id) {
            // One that was never started is ended sooner here.
            container.kill_all();
            container.kill_first();
        }
        let doing = format!("remove container {id}");
        let begun = self.try_program(&Verb::Delete, id, Streams::None, doing, Work::Delete(then));
        if let Err(failed) = begun
            && let Work::Delete(then) = failed.work
        {
            self.deleted(id, then, Err(failed.error));
        }
    }

    /// The program has ended; what it has left is removed whatever it did.
    pub(super) fn deleted(&mut self, id: &str, then: Then, outcome: Result<(), RequestError>) {
        if let Err(error) = outcome {
            eprintln!("Warning: {error} What it has left is removed without it.");
        }
        let removed = self.clear_container(id);
        match then {
            Then::Answer(asked) => {
                let removed = removed.and_then(|()| self.forget_exit(id));
                self.answer(asked, removed.map(|()| Response::Done), Vec::new());
            }
            Then::Fail(asked, error) => self.answer(asked, Err(error), Vec::new()),
            Then::Nothing => {
                if let Err(error) = removed {
                    eprintln!("Something of container {id} is left behind: {error}");
                }
            }
        }
    }

    /// Ends what still runs, and removes the cgroup, the mounts and the program's state of a container.
    fn clear_container(&mut self, id: &str) -> Result<(), RequestError> {
        let dir = bundle::place(&self.sandbox.dir, id);
        if let Some(number) = self.number_of(id) {
            self.remove_container(number)?;
        } else if let Some(cgroup) = bundle::cgroup_of(&dir)
            && let Some(cgroup) = Cgroup::open(&cgroup)?
        {
            cgroup.kill_all()?;
            cgroup.delete()?;
        }
        bundle::remove(&dir);
        let state = self.sandbox.dir.join(RUNTIME_DIR).join(id);
        match fs::remove_dir_all(&state) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(RequestError::io(format!("remove {}", state.display()))(error))
            }
            _ => Ok(()),
        }
    }
}
