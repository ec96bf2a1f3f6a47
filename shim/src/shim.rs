//! The shim's event loop: one thread, one place to wait, every wake-up handled to its end.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::clients::Client;
use crate::container::Container;
use crate::exec::ExecProcess;
use crate::exits::Exits;
use crate::handler::Handler;
use crate::poller::{Interest, Poller, Source, Wakeup, Watched};
use crate::protocol::{Event, ShimState};
use crate::reaper;
use crate::sandbox::Sandbox;
use crate::shutdown::Shutdown;
use crate::stdio::Scratch;

/// Memory that logging used is given back after this long without any.
const KEEP_SCRATCH: Duration = Duration::from_secs(1);

/// What a shim waits on and writes to from its first moment: all that can fail before there is something to serve.
pub(crate) struct Watches {
    poller: Poller,
    listener: Watched<OwnedFd>,
    signals: Watched<SignalFd>,
    exits: Exits,
}

impl Watches {
    pub(crate) fn new(dir: &Path, listener: OwnedFd) -> io::Result<Self> {
        let mut wanted = SigSet::empty();
        wanted.add(Signal::SIGCHLD);
        wanted.add(Signal::SIGTERM);
        let signals = SignalFd::with_flags(&wanted, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let poller = Poller::new()?;
        Ok(Self {
            listener: Watched::new(&poller, listener, Source::Listener, Interest::Read)?,
            signals: Watched::new(&poller, signals, Source::Signals, Interest::Read)?,
            poller,
            exits: Exits::open(dir)?,
        })
    }
}

/// The shim of one pod.
pub(crate) struct Shim {
    pub(crate) poller: Poller,
    pub(crate) sandbox: Sandbox,
    pub(crate) exits: Exits,
    pub(crate) containers: BTreeMap<u32, Container>,
    pub(crate) execs: BTreeMap<String, ExecProcess>,
    pub(crate) clients: BTreeMap<u32, Client>,
    pub(crate) scratch: Scratch,
    pub(crate) shutdown: Option<Shutdown>,
    /// Another runtime, whose program makes the containers.
    pub(crate) handler: Option<Handler>,
    pub(crate) listener: Watched<OwnedFd>,
    /// When to accept clients again, after the system was out of descriptors.
    pub(crate) accept_again: Option<Instant>,
    signals: Watched<SignalFd>,
    last_number: u32,
}

impl Shim {
    pub(crate) fn new(sandbox: Sandbox, watches: Watches, handler: Option<Handler>) -> Self {
        let Watches {
            poller,
            listener,
            signals,
            exits,
        } = watches;
        Self {
            listener,
            signals,
            poller,
            sandbox,
            exits,
            containers: BTreeMap::new(),
            execs: BTreeMap::new(),
            clients: BTreeMap::new(),
            scratch: Scratch::default(),
            shutdown: None,
            handler,
            accept_again: None,
            last_number: 0,
        }
    }

    /// Serves until it is shut down.
    pub(crate) fn serve(mut self) -> io::Result<()> {
        let mut wakeups = Vec::new();
        loop {
            self.poller.wait(self.timeout(), &mut wakeups)?;
            if wakeups.is_empty() {
                self.scratch.release();
            }
            for wakeup in wakeups.drain(..) {
                self.on_wakeup(wakeup);
            }
            self.on_time(Instant::now());
            if self.shutdown.is_some() {
                self.delete_handled();
            }
            if self.is_shut_down() {
                self.finish();
                return Ok(());
            }
        }
    }

    fn on_wakeup(&mut self, wakeup: Wakeup) {
        match wakeup.source {
            Source::Listener => self.accept(),
            Source::Signals => self.on_signals(),
            Source::Client(number) => self.on_client(number, wakeup),
            Source::Oom(number) => self.check_oom(number, true),
            Source::Output(number, stream) => {
                if let Some(container) = self.containers.get_mut(&number) {
                    container.stdio.on_output(stream, &mut self.scratch);
                }
            }
            Source::Stdin(number) => self.with_container(number, |container| container.stdio.on_stdin()),
            Source::Sink(number, client, stream) => {
                self.with_container(number, |container| container.stdio.on_sink(client, stream));
            }
            Source::Input(number, client) => {
                self.with_container(number, |container| container.stdio.on_input(client));
            }
            Source::Printed(number, stream) => self.on_printed(number, stream),
        }
    }

    fn with_container(&mut self, number: u32, act: impl FnOnce(&mut Container)) {
        if let Some(container) = self.containers.get_mut(&number) {
            act(container);
        }
    }

    /// A number that nothing had before.
    pub(crate) fn next_number(&mut self) -> u32 {
        self.last_number += 1;
        self.last_number
    }

    fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        let containers = self.containers.values().filter_map(Container::deadline);
        let execs = self.execs.values().filter_map(ExecProcess::deadline);
        let shutdown = self.shutdown.iter().map(Shutdown::deadline);
        let earliest = containers
            .chain(execs)
            .chain(shutdown)
            .chain(self.handler.as_ref().and_then(Handler::deadline))
            .chain(self.accept_again)
            .min()
            .map(|at| at.saturating_duration_since(now));
        match earliest {
            None if self.scratch.is_large() => Some(KEEP_SCRATCH),
            other => other,
        }
    }

    /// Whatever was to happen by now.
    fn on_time(&mut self, now: Instant) {
        if self.accept_again.is_some_and(|at| at <= now) {
            self.resume_accepting();
        }
        if let Some(handler) = &mut self.handler {
            handler.on_time(now);
        }
        for exec in self.execs.values_mut() {
            if let Err(error) = exec.on_time(now) {
                eprintln!("An exec that is over its time can't be killed: {error}");
            }
        }
        self.answer_runs(now);
        let numbers: Vec<u32> = self.containers.keys().copied().collect();
        for number in numbers {
            let due = self.containers.get(&number).and_then(Container::deadline);
            if due.is_some_and(|due| due <= now) {
                self.check_oom(number, false);
            }
            self.tell_end(number, now);
        }
    }

    /// The record is on disk before anybody hears of the end.
    pub(crate) fn tell_end(&mut self, number: u32, now: Instant) {
        let Some(record) = self
            .containers
            .get_mut(&number)
            .and_then(|container| container.take_end(now))
        else {
            return;
        };
        if let Err(error) = self.exits.write(&record) {
            eprintln!(
                "The exit record of container {} can't be written: {error}.",
                record.container
            );
        }
        self.emit(&Event::Exited(record));
    }

    fn check_oom(&mut self, number: u32, hinted: bool) {
        let Some(container) = self.containers.get_mut(&number) else {
            return;
        };
        if !container.is_over() && container.check_oom(hinted) {
            let event = Event::Oom {
                container: container.id.clone(),
            };
            self.emit(&event);
        }
    }

    fn on_signals(&mut self) {
        let mut terminate = false;
        while let Ok(Some(signal)) = self.signals.get().read_signal() {
            terminate |= i32::try_from(signal.ssi_signo) == Ok(Signal::SIGTERM as i32);
        }
        while let Some(reaped) = reaper::next() {
            self.on_reaped(reaped);
        }
        if terminate && self.shutdown.is_none() {
            self.begin_shutdown(None);
        }
    }

    fn on_reaped(&mut self, reaped: reaper::Reaped) {
        if self.sandbox.pause_pid() == Some(reaped.pid) {
            self.sandbox.pause_ended();
            self.emit(&Event::PauseExited);
            return;
        }
        let Some(reaped) = self.reaped_program(reaped) else {
            return;
        };
        let of_container = self
            .containers
            .iter()
            .find(|(_, c)| c.live_pid() == Some(reaped.pid));
        if let Some(number) = of_container.map(|(number, _)| *number) {
            self.container_reaped(number, reaped.exit_code);
            return;
        }
        let of_exec = self.execs.iter().find(|(_, exec)| exec.pid() == Some(reaped.pid));
        if let Some(id) = of_exec.map(|(id, _)| id.clone()) {
            self.exec_reaped(&id, reaped.exit_code);
            return;
        }
        self.reaped_stranger(reaped);
    }

    /// A container's first process is gone.
    pub(crate) fn container_reaped(&mut self, number: u32, exit_code: i32) {
        if let Some(container) = self.containers.get_mut(&number) {
            container.reaped(exit_code, &mut self.scratch);
        }
        self.end_repetitions(number);
        self.tell_end(number, Instant::now());
    }

    /// An exec's process is gone.
    pub(crate) fn exec_reaped(&mut self, id: &str, exit_code: i32) {
        let Some(exec) = self.execs.get_mut(id) else {
            return;
        };
        let timed_out = exec.reaped();
        if let Some(repeated) = exec.repeated.take() {
            self.repeated(id, &repeated);
            return;
        }
        if let Some(output) = &mut exec.printed {
            output.ended(exit_code, timed_out);
            self.answer_runs(Instant::now());
            return;
        }
        self.forget_finished_execs();
        self.emit(&Event::ExecExited {
            exec: id.to_owned(),
            exit_code,
            timed_out,
        });
    }

    /// Those that left nothing running. The others can still be killed.
    pub(crate) fn forget_finished_execs(&mut self) {
        self.execs.retain(|_, exec| !exec.is_over());
    }

    /// Everything that a client may know.
    pub(crate) fn state(&self) -> ShimState {
        ShimState {
            pause_pid: self.sandbox.pause_pid(),
            containers: self.containers.values().map(Container::state).collect(),
            runs_commands: self.handler.is_none(),
            repeats_commands: self.handler.is_none(),
        }
    }
}
