//! One more process in a container, and everything that it starts.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use berth_runtime::cgroups::Subgroup;
use berth_runtime::{ExecTarget, Execed, Stdio as RuntimeStdio, oci};

use crate::bundle::terminal_of;
use crate::error::RequestError;
use crate::protocol::Exec;
use crate::repeat::Repeated;
use crate::run::Printed;
use crate::stdio::container_side;

/// A process that was started in a running container.
pub(crate) struct ExecProcess {
    /// The number of its container.
    pub(crate) container: u32,
    /// The number of the client that asked for it.
    pub(crate) client: u32,
    pid: Option<i32>,
    /// With a terminal: the container's side. The client has the other, and its going must hang up.
    terminal: Option<OwnedFd>,
    deadline: Option<Instant>,
    timed_out: bool,
    pub(crate) tree: Option<Subgroup>,
    /// What it prints, if it is run to its end, and somebody waits for that.
    pub(crate) printed: Option<Printed>,
    /// What repeats it, and is the process then.
    pub(crate) repeated: Option<Repeated>,
}

impl ExecProcess {
    /// Starts the process in a cgroup of its own where there is a hierarchy for that, so that all that it leaves
    /// running can be killed. Returns it with its terminal's master.
    pub(crate) fn start(
        request: &Exec,
        (container, client): (u32, u32),
        target: ExecTarget<'_>,
        tree: Option<Subgroup>,
        fds: Vec<OwnedFd>,
    ) -> Result<(Self, i32, Option<OwnedFd>), RequestError> {
        let process: oci::Process = oci::from_value(request.process.clone()).map_err(|error| {
            RequestError::Invalid(format!(
                "The process of exec {} makes no sense: {error}",
                request.id
            ))
        })?;
        let stdio = streams(&process, fds)?;
        let target = ExecTarget {
            subgroup: tree.as_ref(),
            ..target
        };
        let Execed {
            pid,
            terminal: master,
            ..
        } = match berth_runtime::exec(&target, &process, stdio, 0) {
            Ok(execed) => execed,
            Err(error) => {
                remove(tree);
                return Err(error.into());
            }
        };
        let terminal = master.as_ref().map(container_side).transpose();
        let timeout = Duration::from_millis(request.timeout_ms);
        let exec = Self {
            container,
            client,
            pid: Some(pid.as_raw()),
            terminal: terminal.unwrap_or_default(),
            deadline: Instant::now().checked_add(timeout).filter(|_| !timeout.is_zero()),
            timed_out: false,
            tree,
            printed: None,
            repeated: None,
        };
        Ok((exec, pid.as_raw(), master))
    }

    /// One that another runtime has started, with its terminal's master.
    pub(crate) fn handled(
        (container, client): (u32, u32),
        pid: i32,
        master: Option<&OwnedFd>,
        deadline: Option<Instant>,
        tree: Option<Subgroup>,
    ) -> io::Result<Self> {
        Ok(Self {
            container,
            client,
            pid: Some(pid),
            terminal: master.map(container_side).transpose()?,
            deadline,
            timed_out: false,
            tree,
            printed: None,
            repeated: None,
        })
    }

    /// One that is run to its end.
    pub(crate) fn run(
        (container, client): (u32, u32),
        pid: i32,
        timeout: Duration,
        tree: Option<Subgroup>,
        printed: Printed,
    ) -> Self {
        Self {
            container,
            client,
            pid: Some(pid),
            terminal: None,
            deadline: Instant::now().checked_add(timeout).filter(|_| !timeout.is_zero()),
            timed_out: false,
            tree,
            printed: Some(printed),
            repeated: None,
        }
    }

    /// One that is repeated.
    pub(crate) fn repeated(
        (container, client): (u32, u32),
        tree: Option<Subgroup>,
        repeated: Repeated,
    ) -> Self {
        Self {
            container,
            client,
            pid: Some(repeated.pid()),
            terminal: None,
            deadline: None,
            timed_out: false,
            tree,
            printed: None,
            repeated: Some(repeated),
        }
    }

    /// Its process id while it has not been reaped.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.pid
    }

    /// When it is to be killed, or its output is waited for no more.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline.or_else(|| self.printed.as_ref()?.deadline())
    }

    /// Kills what is over its time.
    pub(crate) fn on_time(&mut self, now: Instant) -> Result<(), RequestError> {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            self.timed_out = true;
            self.kill()?;
        }
        Ok(())
    }

    /// Kills the process and all that it started, also what left its process group and session.
    pub(crate) fn kill(&self) -> Result<(), RequestError> {
        if let Some(repeated) = &self.repeated {
            // First of all, or it would begin another one.
            repeated.kill();
        }
        if let Some(tree) = &self.tree {
            return Ok(tree.kill()?);
        }
        let Some(pid) = self.pid.and_then(rustix::process::Pid::from_raw) else {
            return Ok(());
        };
        // No hierarchy tells what belongs to it: its group is the best there is.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        Ok(())
    }

    /// Its process was reaped: was it for being over its time? What it left running stays within reach of
    /// [`ExecProcess::kill`].
    pub(crate) fn reaped(&mut self) -> bool {
        self.pid = None;
        self.terminal = None;
        self.deadline = None;
        self.timed_out
    }

    /// Whether nothing of it is left; its cgroup is gone then.
    pub(crate) fn is_over(&self) -> bool {
        self.pid.is_none()
            && self.printed.is_none()
            && self.tree.as_ref().is_none_or(|tree| tree.remove_if_empty())
    }

    /// Sets its terminal's size; `false` without a terminal.
    pub(crate) fn resize(&self, width: u16, height: u16) -> io::Result<bool> {
        match &self.terminal {
            Some(terminal) => crate::stdio::set_size(terminal, width, height).map(|()| true),
            None => Ok(false),
        }
    }
}

fn remove(tree: Option<Subgroup>) {
    if let Some(tree) = tree {
        tree.remove_if_empty();
    }
}

fn streams(process: &oci::Process, fds: Vec<OwnedFd>) -> Result<RuntimeStdio, RequestError> {
    let terminal = process.terminal;
    match <[OwnedFd; 3]>::try_from(fds) {
        Ok([stdin, stdout, stderr]) if !terminal => Ok(RuntimeStdio::Fds {
            stdin,
            stdout,
            stderr,
        }),
        Err(fds) if terminal && fds.is_empty() => Ok(terminal_of(process)),
        _ => Err(RequestError::exec_streams()),
    }
}
