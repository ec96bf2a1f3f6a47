//! A container that another runtime's program makes.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use berth_runtime::cgroups::Cgroup;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::bundle::{self, Prepared};
use super::delete::Then;
use super::program::Streams;
use super::{Asked, Handler, Shim, Verb, Work, console, is_child, read_pid};
use crate::container::{Container, open_log};
use crate::error::RequestError;
use crate::log::LogWriter;
use crate::process::Handled;
use crate::protocol::{BUNDLES_DIR, CreateContainer, Response};
use crate::stdio::{Pipes, Stdio};
use crate::unit::Unit;
use crate::volumes;

/// The file with the number of the container's first process.
pub(super) const PID_FILE: &str = "pid";
/// The socket for its terminal.
const CONSOLE: &str = "console.sock";

/// A container that is being made.
pub(super) struct Creating {
    request: CreateContainer,
    number: u32,
    asked: Asked,
    log: LogWriter,
    streams: Ours,
    prepared: Prepared,
}

/// The shim's side of the streams.
enum Ours {
    Pipes(Pipes),
    /// The socket on which the terminal comes.
    Console(OwnedFd),
}

impl Creating {
    /// Where else the program may have complained: its error output is the container's.
    pub(super) fn errors(&self) -> Option<&OwnedFd> {
        match &self.streams {
            Ours::Pipes(pipes) => Some(&pipes.stderr),
            Ours::Console(_) => None,
        }
    }
}

impl Handler {
    /// Nobody waits for the container any more.
    pub(super) fn give_up_making(&mut self, container: &str) {
        for job in &mut self.jobs {
            if job.container == container && matches!(job.work, Work::Create(_)) {
                job.run.expire();
            }
        }
    }
}

impl Shim {
    pub(super) fn begin_create(
        &mut self,
        request: CreateContainer,
        asked: Asked,
    ) -> Result<(), RequestError> {
        self.check_create(&request)?;
        let target = match &request.pid_target {
            Some(target) => Some(self.container(target)?.running_pid()?),
            None => None,
        };
        let number = self.next_number();
        let log = open_log(&request)?;
        let engines = self.sandbox.dir.join(BUNDLES_DIR).join(&request.id);
        volumes::mount_all(&engines, &request.volumes, self.sandbox.namespaces().user)?;
        let user = self.handler.as_ref().and_then(|handler| handler.user.as_ref());
        let prepared = bundle::prepare(&self.sandbox, &request, user, target)?;
        let dir = prepared.dir.clone();
        self.begin_prepared(request, number, asked, log, prepared)
            .inspect_err(|_| bundle::remove(&dir))
    }

    fn begin_prepared(
        &mut self,
        request: CreateContainer,
        number: u32,
        asked: Asked,
        log: LogWriter,
        prepared: Prepared,
    ) -> Result<(), RequestError> {
        let id = request.id.clone();
        let failed = RequestError::io(format!("make the streams of container {id}"));
        let (ours, theirs) = if prepared.terminal {
            let socket = console::open_socket(&prepared.dir, CONSOLE).map_err(failed)?;
            (Ours::Console(socket), Streams::None)
        } else {
            let (pipes, theirs) = Pipes::new(request.stdin).map_err(failed)?;
            let theirs = [theirs.stdin, theirs.stdout, theirs.stderr];
            (Ours::Pipes(pipes), Streams::Inherited(theirs))
        };
        let dir = prepared.dir.clone();
        let verb = Verb::Create {
            bundle: &dir,
            pid_file: PID_FILE,
            console: prepared.terminal.then_some(CONSOLE),
        };
        let creating = Creating {
            request,
            number,
            asked,
            log,
            streams: ours,
            prepared,
        };
        let doing = format!("create container {id}");
        self.run_program(&verb, &id, theirs, doing, Work::Create(Box::new(creating)))
    }

    /// The program has ended.
    pub(super) fn created(&mut self, creating: Creating, outcome: Result<(), RequestError>) {
        let (id, number, asked) = (creating.request.id.clone(), creating.number, creating.asked);
        let made = outcome.and_then(|()| self.take_in(creating));
        match made {
            Ok(container) => {
                let pid = container.live_pid().unwrap_or(0);
                self.containers.insert(number, container);
                self.answer(asked, Ok(Response::Created { pid }), Vec::new());
            }
            Err(error) => self.discard(&id, Then::Fail(asked, error)),
        }
    }

    /// Makes a container of the pod of what the program has made.
    fn take_in(&mut self, creating: Creating) -> Result<Container, RequestError> {
        let Creating {
            request,
            number,
            log,
            streams,
            prepared,
            ..
        } = creating;
        let handled = self.find(&request.id, &prepared)?;
        let unit = prepared.scope.clone().map(|scope| Unit::new(scope, None));
        let stdio = match streams {
            Ours::Pipes(pipes) => Stdio::pipes(number, &self.poller, log, pipes),
            Ours::Console(socket) => console::take_terminal(&socket)
                .and_then(|master| Stdio::terminal(number, &self.poller, log, master, request.stdin)),
        };
        let stdio = stdio.map_err(RequestError::io(format!(
            "use the streams of container {}",
            request.id
        )))?;
        let bundle = self.sandbox.dir.join(BUNDLES_DIR).join(&request.id);
        let size = terminal_size(&prepared.dir);
        if let Some((width, height)) = size.filter(|_| prepared.terminal) {
            let sized = stdio.resize(width, height);
            sized.map_err(RequestError::io("set the size of a terminal"))?;
        }
        Ok(Container::handled(
            &request,
            bundle,
            number,
            (handled, unit),
            stdio,
            &self.poller,
        ))
    }

    /// Finds the container's first process and its cgroup. Without either it could be neither waited for nor killed.
    fn find(&self, id: &str, prepared: &Prepared) -> Result<Handled, RequestError> {
        let refuse = |reason: String| RequestError::Handler {
            name: self
                .handler
                .as_ref()
                .map_or_else(String::new, |handler| handler.program.name.clone()),
            doing: format!("create container {id}"),
            reason,
            cannot_run: false,
        };
        let file: PathBuf = prepared.dir.join(PID_FILE);
        let pid = read_pid(&file).map_err(|error| {
            refuse(format!(
                "the number of its first process can't be read from {}: {error}",
                file.display()
            ))
        })?;
        if !is_child(pid) {
            return Err(refuse(format!(
                "its first process {pid} has ended, or its end could not be heard of: it is not left to its caller"
            )));
        }
        let pidfd = Pid::from_raw(pid)
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
            .map_err(|errno| {
                refuse(format!(
                    "its first process can't be held: {}",
                    io::Error::from(errno)
                ))
            })?;
        let cgroup = Cgroup::open(&prepared.cgroup)?.filter(|cgroup| {
            cgroup
                .pids()
                .is_ok_and(|pids| pids.iter().any(|member| member.as_raw() == pid))
        });
        let cgroup = cgroup.ok_or_else(|| {
            refuse(format!(
                "it did not put it in its cgroup {}, by which its limits hold and it is found again",
                prepared.cgroup
            ))
        })?;
        Ok(Handled { pid, pidfd, cgroup })
    }
}

/// What the configuration asks for.
fn terminal_size(dir: &std::path::Path) -> Option<(u16, u16)> {
    let text = std::fs::read(dir.join("config.json")).ok()?;
    let spec: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let size = &spec["process"]["consoleSize"];
    let cells = |name: &str| u16::try_from(size[name].as_u64()?).ok();
    Some((cells("width")?, cells("height")?))
}
