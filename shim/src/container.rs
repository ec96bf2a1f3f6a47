//! One container: created, running, ended, gone.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use berth_runtime::cgroups::{Cgroup, OomWatch};
use berth_runtime::{
    Created, ExecTarget, JoinedNamespaces, Stdio as RuntimeStdio, oci, remove_resctrl_groups, send_signal,
};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, waitpid};

use crate::bundle::{self, Bundle};
use crate::clock;
use crate::commands::Commands;
use crate::error::RequestError;
use crate::log::{LogLimits, LogWriter};
use crate::oom::OomState;
use crate::poller::{Interest, Poller, Source, Watched};
use crate::process::{Handled, Process};
use crate::protocol::{ContainerState, ContainerStatus, CreateContainer, ExitRecord};
use crate::reaper;
use crate::sandbox::Sandbox;
use crate::stdio::{Pipes, Scratch, Stdio};
use crate::unit::Unit;
use crate::volumes;

/// How long a dead container's output is waited for, when something still holds it open.
const DRAIN_PATIENCE: Duration = Duration::from_millis(200);
/// How much of a dead container's output is read in one go; a pipe never holds as much.
const DRAIN_LIMIT: usize = 4 << 20;

/// SIGRTMAX.
const LAST_SIGNAL: i32 = 64;

/// Where a container is in its life; it only ever goes forward.
enum Life {
    /// Stopped before its program.
    Created,
    /// Its program runs.
    Running { started_at: u64 },
    /// Reaped; its output is waited for until the deadline.
    Draining { record: ExitRecord, deadline: Instant },
    /// Over, and told.
    Exited(ExitRecord),
}

/// A container of the pod.
pub(crate) struct Container {
    pub(crate) id: String,
    bundle: PathBuf,
    process: Process,
    oom: OomState,
    oom_watch: Option<Watched<OomWatch>>,
    pub(crate) stdio: Stdio,
    life: Life,
    /// It was given groups of resctrl.
    in_resctrl: bool,
    /// Where systemd made its control group.
    unit: Option<Unit>,
    /// What starts its commands.
    pub(crate) commands: Commands,
}

impl Container {
    /// Makes a container from its bundle, up to the point before its program.
    pub(crate) fn create(
        request: &CreateContainer,
        number: u32,
        sandbox: &Sandbox,
        pid_namespace: Option<&OwnedFd>,
        poller: &Poller,
    ) -> Result<Self, RequestError> {
        let mut namespaces = sandbox.namespaces();
        namespaces.pid = pid_namespace.map(AsFd::as_fd).or(namespaces.pid);
        let bundle = Bundle::load(sandbox, &request.id)?;
        let (in_resctrl, unit) = (bundle.wants_resctrl(), bundle.unit());
        let log = open_log(request)?;
        volumes::mount_all(&bundle.dir, &request.volumes, namespaces.user)?;
        let (stdio, process) = if bundle.wants_terminal() {
            on_terminal(&bundle, request, number, (sandbox, namespaces), poller, log)?
        } else {
            on_pipes(&bundle, request, number, (sandbox, namespaces), poller, log)?
        };
        let mut container = Self {
            id: request.id.clone(),
            bundle: bundle.dir,
            process: Process::Own(Box::new(process)),
            oom: OomState::default(),
            oom_watch: None,
            stdio,
            life: Life::Created,
            in_resctrl,
            unit,
            commands: Commands::default(),
        };
        if request.stdin_once {
            container.stdio.close_stdin_with_client();
        }
        for warning in container.process.warnings() {
            eprintln!("Warning: container {}: {warning}", container.id);
        }
        container.watch_for_oom(number, poller);
        Ok(container)
    }

    /// A container that another runtime has made of the bundle.
    pub(crate) fn handled(
        request: &CreateContainer,
        bundle: PathBuf,
        number: u32,
        (process, unit): (Handled, Option<Unit>),
        stdio: Stdio,
        poller: &Poller,
    ) -> Self {
        let mut container = Self {
            id: request.id.clone(),
            bundle,
            process: Process::Handled(process),
            oom: OomState::default(),
            oom_watch: None,
            stdio,
            life: Life::Created,
            // That runtime's affair.
            in_resctrl: false,
            unit,
            commands: Commands::default(),
        };
        if request.stdin_once {
            container.stdio.close_stdin_with_client();
        }
        container.watch_for_oom(number, poller);
        container
    }

    /// Without a memory controller nothing can run out of its memory.
    fn watch_for_oom(&mut self, number: u32, poller: &Poller) {
        let watch = self.process.cgroup().oom_watch().map(|watch| {
            let interest = match watch {
                OomWatch::EventFd(_) => Interest::Read,
                OomWatch::Events(_) => Interest::Priority,
            };
            Watched::new(poller, watch, Source::Oom(number), interest)
        });
        match watch {
            Ok(Ok(watch)) => self.oom_watch = Some(watch),
            Ok(Err(error)) => eprintln!(
                "Out-of-memory kills of {} go unseen until it ends: {error}.",
                self.id
            ),
            Err(error) => eprintln!(
                "Out-of-memory kills of {} go unseen until it ends: {error}",
                self.id
            ),
        }
        self.oom = OomState::starting_at(self.process.cgroup().oom_kill_count().unwrap_or(0));
    }

    /// Lets the program run. Returns when it began. After an error of the runtime's the process is about to end.
    pub(crate) fn start(&mut self) -> Result<u64, RequestError> {
        let started_at = self.begin()?;
        let Process::Own(process) = &mut self.process else {
            return Ok(started_at);
        };
        let started = process.start();
        if let Err(error) = &started
            && !matches!(error, berth_runtime::Error::CannotRun { .. })
        {
            // Whatever went wrong, it is not to run half started. A program that can't run ends by itself.
            self.kill_first();
        }
        started?;
        Ok(started_at)
    }

    /// Its program runs, or is about to.
    pub(crate) fn begin(&mut self) -> Result<u64, RequestError> {
        match self.life {
            Life::Created => {}
            Life::Running { .. } => return Err(self.wrong_state("was started already")),
            Life::Draining { .. } | Life::Exited(_) => return Err(self.wrong_state("has ended")),
        }
        let started_at = clock::now();
        self.life = Life::Running { started_at };
        Ok(started_at)
    }

    /// Waits for a process that is known to be about to end. Returns its exit code.
    pub(crate) fn await_end(&self) -> Option<i32> {
        let (_, status) = waitpid(Pid::from_raw(self.pid()), WaitOptions::empty()).ok()??;
        Some(reaper::exit_code(status))
    }

    /// Kills the first process, which is a child that was not reaped.
    pub(crate) fn kill_first(&self) {
        let _ = rustix::process::pidfd_send_signal(self.process.pidfd(), Signal::KILL);
    }

    /// The first process was reaped: nothing else of the container may go on, and its output is read to the end.
    pub(crate) fn reaped(&mut self, exit_code: i32, scratch: &mut Scratch) {
        let started_at = self.started_at();
        if let Err(error) = self.process.cgroup().kill_all() {
            eprintln!("What container {} left running can't be killed: {error}", self.id);
        }
        self.commands = Commands::default();
        let mut record = self.record(exit_code, started_at);
        record.oom_killed = self.oom.was_ever_hit(self.process.cgroup().oom_kill_count().ok());
        self.oom_watch = None;
        self.stdio.drain(scratch, DRAIN_LIMIT);
        self.life = Life::Draining {
            record,
            deadline: Instant::now() + DRAIN_PATIENCE,
        };
    }

    fn record(&self, exit_code: i32, started_at: u64) -> ExitRecord {
        let finished_at = clock::now().max(started_at);
        ExitRecord {
            container: self.id.clone(),
            exit_code,
            oom_killed: false,
            started_at,
            finished_at,
        }
    }

    /// Once its output is complete, or has been waited for long enough: how it ended. Told once.
    pub(crate) fn take_end(&mut self, now: Instant) -> Option<ExitRecord> {
        match &self.life {
            Life::Draining { record, deadline } if self.stdio.is_at_end() || *deadline <= now => {
                let record = record.clone();
                self.life = Life::Exited(record.clone());
                Some(record)
            }
            _ => None,
        }
    }

    /// When it wants to be looked at.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.life {
            Life::Draining { deadline, .. } => Some(*deadline),
            _ => self.oom.deadline(),
        }
    }

    /// Looks whether the OOM killer hit, after a hint or a while after one.
    pub(crate) fn check_oom(&mut self, hinted: bool) -> bool {
        if hinted && let Some(watch) = &self.oom_watch {
            watch.get().acknowledge();
        }
        self.oom.check(
            self.process.cgroup().oom_kill_count().ok(),
            hinted,
            Instant::now(),
        )
    }

    /// Sends a signal to the first process, or to all.
    pub(crate) fn kill(&self, signal: i32, all: bool) -> Result<(), RequestError> {
        if !(1..=LAST_SIGNAL).contains(&signal) {
            return Err(RequestError::Invalid(format!("There is no signal {signal}")));
        }
        if self.live_pid().is_none() {
            return Ok(());
        }
        // An ordinary user's container has no group. All of it ends with the first process of its PID namespace.
        let all = all && !self.process.cgroup().is_nowhere();
        if all && signal == Signal::KILL.as_raw() {
            return Ok(self.process.cgroup().kill_all()?);
        }
        if all {
            return self.signal_all(signal);
        }
        match send_signal(self.process.pidfd(), signal) {
            Err(error) if error.raw_os_error() != Some(Errno::SRCH.raw_os_error()) => {
                Err(RequestError::io(format!("signal container {}", self.id))(error))
            }
            _ => Ok(()),
        }
    }

    fn signal_all(&self, signal: i32) -> Result<(), RequestError> {
        for pid in self.process.cgroup().pids()? {
            // One that ended meanwhile needs no signal.
            if let Some(pid) = Pid::from_raw(pid.as_raw())
                && let Ok(process) = pidfd_open(pid, PidfdFlags::empty())
            {
                let _ = send_signal(process.as_fd(), signal);
            }
        }
        Ok(())
    }

    /// Kills everything that runs in it.
    pub(crate) fn kill_all(&self) {
        if self.process.cgroup().is_nowhere() && self.live_pid().is_some() {
            self.kill_first();
        }
        if let Err(error) = self.process.cgroup().kill_all() {
            eprintln!("Container {} can't be killed: {error}", self.id);
        }
    }

    /// Ends a container that never ran, and removes the cgroup of any, with its groups of resctrl. It must not run. May be asked again after an
    /// error.
    pub(crate) fn delete(&mut self) -> Result<(), RequestError> {
        self.kill_all();
        self.commands = Commands::default();
        if let Life::Created = self.life {
            self.kill_first();
            self.await_end();
            self.life = Life::Exited(self.record(128 + Signal::KILL.as_raw(), 0));
        }
        self.process.cgroup().delete()?;
        if let Some(unit) = &self.unit {
            unit.stop()?;
        }
        if self.in_resctrl {
            remove_resctrl_groups(&self.exec_spec()?, &self.id)?;
        }
        Ok(())
    }

    /// Its first process, while it runs.
    pub(crate) fn running_pid(&self) -> Result<i32, RequestError> {
        match self.life {
            Life::Running { .. } => Ok(self.pid()),
            _ => Err(self.wrong_state("does not run")),
        }
    }

    /// Its PID namespace, while it runs. Until it is reaped, which is this process's to do, its number is nobody else's.
    pub(crate) fn pid_namespace(&self) -> Result<OwnedFd, RequestError> {
        let path = format!("/proc/{}/ns/pid", self.running_pid()?);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        open(&path, flags, Mode::empty())
            .map_err(io::Error::from)
            .map_err(|error| {
                RequestError::io(format!("open the PID namespace of container {}", self.id))(error)
            })
    }

    /// Changes the limits, all of them or none.
    pub(crate) fn update(&mut self, resources: &oci::LinuxResources) -> Result<(), RequestError> {
        match &mut self.unit {
            Some(unit) => unit.update(self.process.cgroup(), resources)?,
            None => drop(self.process.cgroup().update(resources)?),
        }
        Ok(())
    }

    /// What an exec needs to know, with the configuration read again: it is large, and execs are rare.
    pub(crate) fn exec_spec(&self) -> Result<oci::Spec, RequestError> {
        bundle::load_spec(&self.bundle, &self.id)
    }

    /// The running container, as a target for execs.
    pub(crate) fn exec_target<'a>(&'a self, spec: &'a oci::Spec) -> Result<ExecTarget<'a>, RequestError> {
        self.check_running()?;
        let Process::Own(process) = &self.process else {
            return Err(self.wrong_state("is another runtime's"));
        };
        Ok(ExecTarget {
            id: &self.id,
            bundle: &self.bundle,
            cgroup: &process.cgroup,
            seccomp: process.seccomp.as_ref(),
            pidfd: process.pidfd.as_fd(),
            spec,
            in_user_namespace: process.in_user_namespace,
            scope: None,
            subgroup: None,
        })
    }

    /// Whether processes can be added to it.
    pub(crate) fn check_running(&self) -> Result<(), RequestError> {
        match &self.life {
            Life::Running { .. } => Ok(()),
            Life::Created => Err(self.wrong_state("was not started yet")),
            Life::Draining { .. } | Life::Exited(_) => Err(self.wrong_state("has ended")),
        }
    }

    /// The container's cgroup.
    pub(crate) fn cgroup(&self) -> &Cgroup {
        self.process.cgroup()
    }

    /// Whether its first process was reaped, or is about to be.
    pub(crate) fn is_dead(&self) -> bool {
        let ended = || {
            rustix::event::poll(
                &mut [PollFd::new(&self.process.pidfd(), PollFlags::IN)],
                Some(&Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                }),
            )
        };
        self.live_pid().is_none() || matches!(ended(), Ok(1))
    }

    fn pid(&self) -> i32 {
        self.process.pid()
    }

    fn started_at(&self) -> u64 {
        match &self.life {
            Life::Created => 0,
            Life::Running { started_at } => *started_at,
            Life::Draining { record, .. } | Life::Exited(record) => record.started_at,
        }
    }

    /// The first process's id, while it has not been reaped.
    pub(crate) fn live_pid(&self) -> Option<i32> {
        matches!(self.life, Life::Created | Life::Running { .. }).then(|| self.pid())
    }

    /// Whether its program runs, or its end is not told yet.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.life, Life::Running { .. } | Life::Draining { .. })
    }

    /// Whether its end is told.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.life, Life::Exited(_))
    }

    /// For a client.
    pub(crate) fn state(&self) -> ContainerState {
        let (status, exit) = match &self.life {
            Life::Created => (ContainerStatus::Created, None),
            // Not ended for anybody before its record is on disk.
            Life::Running { .. } | Life::Draining { .. } => (ContainerStatus::Running, None),
            Life::Exited(record) => (ContainerStatus::Exited, Some(record.clone())),
        };
        ContainerState {
            id: self.id.clone(),
            status,
            pid: self.pid(),
            started_at: self.started_at(),
            exit,
        }
    }

    /// The error for a request that comes too early or too late.
    pub(crate) fn wrong_state(&self, state: &'static str) -> RequestError {
        RequestError::WrongState {
            what: "container",
            id: self.id.clone(),
            state,
        }
    }
}

pub(crate) fn open_log(request: &CreateContainer) -> Result<LogWriter, RequestError> {
    let limits = LogLimits {
        max_size: request.log_max_size,
        max_files: request.log_max_files,
    };
    let path = request.log_path.as_deref();
    LogWriter::open(path, limits).map_err(|source| {
        let path = path.map_or_else(String::new, |path| path.display().to_string());
        RequestError::Io {
            doing: format!("open the log {path} of container {}", request.id),
            source,
        }
    })
}

fn on_pipes(
    bundle: &Bundle,
    request: &CreateContainer,
    number: u32,
    (sandbox, namespaces): (&Sandbox, JoinedNamespaces<'_>),
    poller: &Poller,
    log: LogWriter,
) -> Result<(Stdio, Created), RequestError> {
    let failed = RequestError::io(format!("make the streams of container {}", request.id));
    let pipes = Pipes::new(request.stdin)
        .and_then(|(pipes, theirs)| Ok((Stdio::pipes(number, poller, log, pipes)?, theirs)));
    let (stdio, theirs) = pipes.map_err(failed)?;
    let streams = RuntimeStdio::Fds {
        stdin: theirs.stdin,
        stdout: theirs.stdout,
        stderr: theirs.stderr,
    };
    Ok((
        stdio,
        bundle.create(&request.rootfs, streams, sandbox, namespaces)?,
    ))
}

fn on_terminal(
    bundle: &Bundle,
    request: &CreateContainer,
    number: u32,
    (sandbox, namespaces): (&Sandbox, JoinedNamespaces<'_>),
    poller: &Poller,
    log: LogWriter,
) -> Result<(Stdio, Created), RequestError> {
    let mut process = bundle.create(&request.rootfs, bundle.terminal(), sandbox, namespaces)?;
    let stdio = match process.terminal.take() {
        Some(master) => Stdio::terminal(number, poller, log, master, request.stdin),
        None => Err(io::ErrorKind::NotFound.into()),
    };
    match stdio {
        Ok(stdio) => Ok((stdio, process)),
        Err(source) => {
            // Closing its channel ends it; it is reaped as an orphan.
            let cgroup = process.cgroup;
            let _ = cgroup.kill_all().and_then(|()| cgroup.delete());
            let _ = bundle.unit().map(|unit| unit.stop());
            Err(RequestError::Io {
                doing: format!("use the terminal of container {}", request.id),
                source,
            })
        }
    }
}
