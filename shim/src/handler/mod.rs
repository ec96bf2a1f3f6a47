//! Containers of another runtime: made, started, signalled, changed and removed by its program, and otherwise the shim's
//! as all are. Their streams, logs, ends and out-of-memory kills are handled where those of its own containers are.
//!
//! A program runs beside the event loop, which hears of its end as of any child's. One that takes longer than it may is
//! killed with what it has started, and who asked hears why. While one makes, starts or removes a container, other
//! requests for that container wait in their order.

mod bundle;
mod command;
mod console;
mod create;
mod delete;
mod exec;
mod program;

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use berth_runtime::cgroups::Subgroup;
use berth_runtime::oci;
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};

use crate::error::RequestError;
use crate::protocol::{Event, RUNTIME_DIR, Request, Response, RuntimeProgram, UserNamespace};
use crate::reaper::Reaped;
use crate::requests::is_one_component;
use crate::shim::Shim;
use command::Verb;
use create::Creating;
use delete::Then;
use exec::Starting;
use program::{Begin, Run, Streams};

/// Who asked for something, to be answered later.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) client: u32,
    pub(crate) seq: u64,
}

/// The pod's other runtime.
pub(crate) struct Handler {
    program: RuntimeProgram,
    user: Option<UserNamespace>,
    jobs: Vec<Job>,
    waiting: Vec<Waiting>,
    /// Children that ended while programs ran, and may be what those have started.
    early: Vec<Reaped>,
    /// The groups of programs that have ended, in which something may run on.
    groups: Vec<Subgroup>,
    last_job: u32,
}

/// A program that runs, and what for.
struct Job {
    run: Run,
    container: String,
    work: Work,
}

enum Work {
    Create(Box<Creating>),
    Start { at: u64, asked: Asked },
    Signal(Asked),
    Update { file: PathBuf, asked: Asked },
    Exec(Box<Starting>),
    Delete(Then),
}

/// A program that could not be run.
struct NotBegun {
    error: RequestError,
    work: Work,
}

struct Waiting {
    container: String,
    request: Request,
    fds: Vec<OwnedFd>,
    asked: Asked,
}

impl Work {
    /// Nothing else may be done with the container meanwhile.
    fn is_exclusive(&self) -> bool {
        matches!(self, Self::Create(_) | Self::Start { .. } | Self::Delete(_))
    }
}

impl Handler {
    /// The runtime of a pod whose user namespace is `user`.
    pub(crate) fn new(program: RuntimeProgram, user: Option<UserNamespace>) -> Self {
        Self {
            program,
            user,
            jobs: Vec::new(),
            waiting: Vec::new(),
            early: Vec::new(),
            groups: Vec::new(),
            last_job: 0,
        }
    }

    /// When a program has taken long enough.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.jobs.iter().filter_map(|job| job.run.deadline()).min()
    }

    /// Kills programs that are over their time.
    pub(crate) fn on_time(&mut self, now: Instant) {
        self.jobs.iter_mut().for_each(|job| job.run.on_time(now));
    }

    /// Whether no program runs.
    pub(crate) fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// The pod ends: only removals go on.
    pub(crate) fn give_up(&mut self) {
        for job in &mut self.jobs {
            if !matches!(job.work, Work::Delete(_)) {
                job.run.expire();
            }
        }
    }

    /// Kills all programs, and waits for their end.
    pub(crate) fn kill_all(&mut self) {
        for job in self.jobs.drain(..) {
            job.run.kill();
            let _ =
                rustix::process::waitpid(Pid::from_raw(job.run.pid), rustix::process::WaitOptions::empty());
        }
    }

    fn is_busy(&self, container: &str) -> bool {
        self.jobs
            .iter()
            .any(|job| job.container == container && job.work.is_exclusive())
    }

    /// Whether a program is about to start the container: its end can't be told before its beginning.
    fn starts(&self, container: &str) -> bool {
        self.jobs
            .iter()
            .any(|job| job.container == container && matches!(job.work, Work::Start { .. }))
    }

    /// Keeps a child's end for whoever will ask for it.
    fn keep(&mut self, reaped: Reaped) {
        if !self.jobs.is_empty() {
            self.early.push(reaped);
        }
    }

    /// How a process ended that a program has started; `None` if it lives, and is this process's child.
    fn early_end(&mut self, pid: i32) -> Option<i32> {
        if is_child(pid) {
            return None;
        }
        let found = self.early.iter().position(|reaped| reaped.pid == pid)?;
        Some(self.early.swap_remove(found).exit_code)
    }

    /// Forgets what no program needs any more.
    fn tidy_up(&mut self, group: Option<Subgroup>) {
        self.groups.extend(group);
        self.groups.retain(|group| !group.remove_if_empty());
        if self.jobs.is_empty() {
            self.early.clear();
        }
    }

    /// A number for a job's files.
    fn next_job(&mut self) -> u32 {
        self.last_job += 1;
        self.last_job
    }
}

impl Shim {
    /// Takes what is the other runtime's to do, if there is one. What comes back is the shim's own.
    pub(crate) fn hand_over(
        &mut self,
        request: Request,
        fds: Vec<OwnedFd>,
        asked: Asked,
    ) -> Option<(Request, Vec<OwnedFd>)> {
        let Some(handler) = &mut self.handler else {
            return Some((request, fds));
        };
        let container = match &request {
            Request::Create(create) => &create.id,
            Request::Exec(exec) => &exec.container,
            Request::Kill { signal, all, .. } if *all || *signal == Signal::KILL.as_raw() => {
                return Some((request, fds));
            }
            Request::Start { container }
            | Request::Kill { container, .. }
            | Request::Delete { container }
            | Request::Update { container, .. } => container,
            Request::KillExec { exec } if handler.cancel(exec) => {
                self.answer(asked, Ok(Response::Done), Vec::new());
                return None;
            }
            _ => return Some((request, fds)),
        };
        let container = container.clone();
        if !is_one_component(&container) {
            // Refused where all are, or nothing to be done for.
            return Some((request, fds));
        }
        if handler.is_busy(&container) {
            if let Request::Delete { .. } = request {
                // Whoever wanted it made has gone.
                handler.give_up_making(&container);
            }
            handler.waiting.push(Waiting {
                container,
                request,
                fds,
                asked,
            });
            return None;
        }
        self.begin(request, fds, asked);
        None
    }

    /// Begins what is asked for, or says why not.
    fn begin(&mut self, request: Request, fds: Vec<OwnedFd>, asked: Asked) {
        let begun = match request {
            Request::Create(create) => self.begin_create(*create, asked),
            Request::Start { container } => self.begin_start(&container, asked),
            Request::Kill {
                container, signal, ..
            } => self.begin_signal(&container, signal, asked),
            Request::Update { container, resources } => self.begin_update(&container, resources, asked),
            Request::Exec(exec) => self.begin_exec(*exec, fds, asked),
            Request::Delete { container } => self.begin_delete(&container, asked),
            _ => Ok(()),
        };
        if let Err(error) = begun {
            self.answer(asked, Err(error), Vec::new());
        }
    }

    fn begin_start(&mut self, id: &str, asked: Asked) -> Result<(), RequestError> {
        let at = self.container(id)?.begin()?;
        let started = self.run_program(
            &Verb::Start,
            id,
            Streams::None,
            format!("start container {id}"),
            Work::Start { at, asked },
        );
        if started.is_err() {
            self.end_half_started(id);
        }
        started
    }

    fn begin_signal(&mut self, id: &str, signal: i32, asked: Asked) -> Result<(), RequestError> {
        if self.container(id)?.is_dead() {
            self.answer(asked, Ok(Response::Done), Vec::new());
            return Ok(());
        }
        let doing = format!("send signal {signal} to container {id}");
        self.run_program(&Verb::Kill(signal), id, Streams::None, doing, Work::Signal(asked))
    }

    fn begin_update(
        &mut self,
        id: &str,
        resources: serde_json::Value,
        asked: Asked,
    ) -> Result<(), RequestError> {
        let container = self.container(id)?;
        if container.is_dead() {
            return Err(container.wrong_state("has ended"));
        }
        let text = resources.to_string();
        // Read as for the shim's own containers, so that nonsense is refused in the same words.
        oci::from_value::<oci::LinuxResources>(resources).map_err(|error| {
            RequestError::Invalid(format!("The resources for container {id} make no sense: {error}"))
        })?;
        let Some(handler) = &mut self.handler else {
            return Ok(());
        };
        let name = format!("resources-{}.json", handler.next_job());
        let file = bundle::place(&self.sandbox.dir, id).join(&name);
        fs::write(&file, text).map_err(RequestError::io(format!("write {}", file.display())))?;
        let work = Work::Update {
            file: file.clone(),
            asked,
        };
        let doing = format!("change the limits of container {id}");
        self.run_program(&Verb::Update(&name), id, Streams::None, doing, work)
            .inspect_err(|_| drop(fs::remove_file(&file)))
    }

    /// Runs the program for a container.
    fn run_program(
        &mut self,
        verb: &Verb<'_>,
        container: &str,
        streams: Streams,
        doing: String,
        work: Work,
    ) -> Result<(), RequestError> {
        let begun = self.try_program(verb, container, streams, doing, work);
        begun.map_err(|failed| failed.error)
    }

    /// The same, with what was to be done given back.
    fn try_program(
        &mut self,
        verb: &Verb<'_>,
        container: &str,
        streams: Streams,
        doing: String,
        work: Work,
    ) -> Result<(), Box<NotBegun>> {
        let Some(handler) = &mut self.handler else {
            return Ok(());
        };
        handler.last_job += 1;
        let number = handler.last_job;
        let group = match self.sandbox.program_group(&format!("runtime-{number}")) {
            Ok(group) => group,
            Err(error) => {
                let error = error.into();
                return Err(Box::new(NotBegun { error, work }));
            }
        };
        let begin = Begin {
            program: &handler.program,
            root: &self.sandbox.dir.join(RUNTIME_DIR),
            systemd: self.sandbox.has_scopes(),
            directory: &bundle::place(&self.sandbox.dir, container),
            streams,
            doing,
            group,
            until: match &work {
                Work::Exec(starting) => starting.deadline,
                _ => None,
            },
        };
        match begin.run(number, verb, container) {
            Ok(run) => {
                handler.jobs.push(Job {
                    run,
                    container: container.to_owned(),
                    work,
                });
                Ok(())
            }
            Err(error) => Err(Box::new(NotBegun { error, work })),
        }
    }

    /// Looks whether a child that ended is one of the other runtime's. What comes back is not.
    pub(crate) fn reaped_program(&mut self, reaped: Reaped) -> Option<Reaped> {
        let Some(handler) = &mut self.handler else {
            return Some(reaped);
        };
        if let Some(found) = handler.jobs.iter().position(|job| job.run.pid == reaped.pid) {
            let job = handler.jobs.remove(found);
            self.job_ended(job, reaped.exit_code);
            return None;
        }
        let of_starting = self
            .containers
            .values()
            .any(|container| container.live_pid() == Some(reaped.pid) && handler.starts(&container.id));
        if of_starting {
            handler.keep(reaped);
            return None;
        }
        Some(reaped)
    }

    /// A child ended that nobody knows yet.
    pub(crate) fn reaped_stranger(&mut self, reaped: Reaped) {
        if let Some(handler) = &mut self.handler {
            handler.keep(reaped);
        }
    }

    fn job_ended(&mut self, job: Job, exit_code: i32) {
        let Job {
            mut run,
            container,
            work,
        } = job;
        let (outcome, group) = match &work {
            Work::Create(creating) => (run.outcome(exit_code, creating.errors()), run.take_group()),
            _ => (run.outcome(exit_code, None), run.take_group()),
        };
        match work {
            Work::Create(creating) => self.created(*creating, outcome),
            Work::Start { at, asked } => self.started(&container, at, asked, outcome),
            Work::Signal(asked) => {
                let is_dead = self
                    .container(&container)
                    .is_ok_and(|container| container.is_dead());
                let sent = if is_dead { Ok(()) } else { outcome };
                self.answer(asked, sent.map(|()| Response::Done), Vec::new());
            }
            Work::Update { file, asked } => {
                let _ = fs::remove_file(file);
                self.answer(asked, outcome.map(|()| Response::Done), Vec::new());
            }
            Work::Exec(starting) => self.exec_started(*starting, run.timed_out(), outcome),
            Work::Delete(then) => self.deleted(&container, then, outcome),
        }
        self.resume(&container);
        if let Some(handler) = &mut self.handler {
            handler.tidy_up(group);
        }
    }

    /// Does what waited for a program, up to what has others wait.
    fn resume(&mut self, container: &str) {
        while let Some(handler) = &mut self.handler {
            let next = handler
                .waiting
                .iter()
                .position(|waiting| waiting.container == container);
            let Some(next) = next.filter(|_| !handler.is_busy(container)) else {
                return;
            };
            let waiting = handler.waiting.remove(next);
            self.begin(waiting.request, waiting.fds, waiting.asked);
        }
    }

    fn started(&mut self, id: &str, at: u64, asked: Asked, outcome: Result<(), RequestError>) {
        let number = self.number_of(id);
        let pid = number
            .and_then(|number| self.containers.get(&number))
            .and_then(|container| container.live_pid());
        let early = match (&mut self.handler, pid) {
            (Some(handler), Some(pid)) => handler.early_end(pid),
            _ => None,
        };
        if outcome.is_ok() {
            self.emit(&Event::Started {
                container: id.to_owned(),
                at,
            });
        } else if early.is_none() {
            self.end_half_started(id);
        }
        if let (Some(number), Some(exit_code)) = (number, early) {
            self.container_reaped(number, exit_code);
        }
        self.answer(asked, outcome.map(|()| Response::Done), Vec::new());
    }

    /// Whatever went wrong, it is not to run half started.
    fn end_half_started(&mut self, id: &str) {
        if let Ok(container) = self.container(id) {
            container.kill_all();
            container.kill_first();
        }
    }
}

/// Whether it is a child of this process that was not reaped yet, so that its end will be heard of.
fn is_child(pid: i32) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Pid::from_raw(pid).is_some_and(|pid| waitid(WaitId::Pid(pid), options).is_ok())
}

/// The number in a file that a program has written.
fn read_pid(file: &Path) -> io::Result<i32> {
    let text = fs::read_to_string(file)?;
    let pid = text.trim().parse().ok().filter(|pid| *pid > 0);
    pid.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it holds no process id"))
}

fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    Ok(rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?)
}
