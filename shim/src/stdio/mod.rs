//! A container's standard streams: pipes or a terminal, its log, and the clients that are attached to it.

mod attached;
mod input;
mod output;
mod sink;

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::log::{LogWriter, Stream};
use crate::poller::{Interest, Poller, Source};
use attached::Attached;
use input::Stdin;
use output::{Found, Output};

/// Memory that all containers' streams use in turn; nothing is kept in it.
#[derive(Default)]
pub(crate) struct Scratch {
    read: Vec<u8>,
    batch: Vec<u8>,
}

impl Scratch {
    /// Whether there is enough to be worth giving back.
    pub(crate) fn is_large(&self) -> bool {
        self.read.capacity() + self.batch.capacity() > 0
    }

    /// Gives the memory back.
    pub(crate) fn release(&mut self) {
        *self = Self::default();
    }
}

/// The container's ends of its streams.
pub(crate) struct ContainerEnds {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// The shim's ends of a container's pipes, which nobody watches yet.
pub(crate) struct Pipes {
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

impl Pipes {
    /// Pipes, and the ends to give to the container. Without `stdin` its input is `/dev/null`.
    pub(crate) fn new(stdin: bool) -> io::Result<(Self, ContainerEnds)> {
        let (stdout, their_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, their_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stdin, their_stdin) = if stdin {
            let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
            (Some(ours), theirs)
        } else {
            (None, std::fs::File::open("/dev/null")?.into())
        };
        Ok((
            Self {
                stdin,
                stdout,
                stderr,
            },
            ContainerEnds {
                stdin: their_stdin,
                stdout: their_stdout,
                stderr: their_stderr,
            },
        ))
    }
}

/// The shim's ends of a container's streams, and what is done with them.
pub(crate) struct Stdio {
    number: u32,
    poller: Poller,
    log: LogWriter,
    outputs: [Option<Output>; 2],
    stdin: Option<Stdin>,
    close_stdin_with_client: bool,
    /// With a terminal: the container's side of it, so that the shim's side never hangs up while the container might
    /// open it again.
    terminal: Option<OwnedFd>,
    clients: Vec<Attached>,
    last_client: u16,
    followers: Vec<OwnedFd>,
}

impl Stdio {
    /// The shim's ends of pipes, watched from now on.
    pub(crate) fn pipes(number: u32, poller: &Poller, log: LogWriter, pipes: Pipes) -> io::Result<Self> {
        let mut stdio = Self::empty(number, poller, log);
        if let Some(stdin) = pipes.stdin {
            stdio.stdin = Some(Stdin::new(poller, stdin, number)?);
        }
        stdio.watch_output(Stream::Stdout, pipes.stdout)?;
        stdio.watch_output(Stream::Stderr, pipes.stderr)?;
        Ok(stdio)
    }

    /// A terminal, by its master; input is wanted or thrown away.
    pub(crate) fn terminal(
        number: u32,
        poller: &Poller,
        log: LogWriter,
        master: OwnedFd,
        stdin: bool,
    ) -> io::Result<Self> {
        let mut stdio = Self::empty(number, poller, log);
        stdio.terminal = Some(container_side(&master)?);
        if stdin {
            stdio.stdin = Some(Stdin::new(poller, master.try_clone()?, number)?);
        }
        stdio.watch_output(Stream::Stdout, master)?;
        Ok(stdio)
    }

    fn empty(number: u32, poller: &Poller, log: LogWriter) -> Self {
        Self {
            number,
            poller: poller.clone(),
            log,
            outputs: [None, None],
            stdin: None,
            close_stdin_with_client: false,
            terminal: None,
            clients: Vec::new(),
            last_client: 0,
            followers: Vec::new(),
        }
    }

    fn watch_output(&mut self, stream: Stream, fd: OwnedFd) -> io::Result<()> {
        let source = Source::Output(self.number, stream);
        self.outputs[stream.index()] = Some(Output::new(&self.poller, fd, source)?);
        Ok(())
    }

    /// Close the input when the first attached client that gave some goes.
    pub(crate) fn close_stdin_with_client(&mut self) {
        self.close_stdin_with_client = true;
    }

    /// Both outputs have ended.
    pub(crate) fn is_at_end(&self) -> bool {
        self.outputs.iter().all(Option::is_none)
    }

    /// An output can be read: one read, so that no container keeps the others waiting.
    pub(crate) fn on_output(&mut self, stream: Stream, scratch: &mut Scratch) {
        let _ = self.read_once(stream, scratch);
        if self.clients.iter().any(|client| client.is_behind(stream)) {
            // The container waits for its slowest reader, as on a terminal.
            self.listen(stream, false);
        }
    }

    fn listen(&mut self, stream: Stream, listen: bool) {
        if let Some(output) = &mut self.outputs[stream.index()] {
            output.listen(listen);
        }
    }

    /// Reads what is there of both outputs, up to `limit` bytes each, whether or not attached clients keep up: the
    /// container is dead.
    pub(crate) fn drain(&mut self, scratch: &mut Scratch, limit: usize) {
        // Our hold on the terminal would keep it from ending.
        self.terminal = None;
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mut total = 0;
            while total < limit {
                match self.read_once(stream, scratch) {
                    Some(count) => total += count,
                    None => break,
                }
            }
            self.listen(stream, true);
        }
    }

    /// How much was read; `None` for nothing more for now, or ever.
    fn read_once(&mut self, stream: Stream, scratch: &mut Scratch) -> Option<usize> {
        match self.outputs[stream.index()].as_mut()?.read(&mut scratch.read) {
            Found::Bytes(count) => {
                self.take(stream, scratch);
                Some(count)
            }
            Found::Nothing => None,
            Found::End => {
                self.end_output(stream, scratch);
                None
            }
        }
    }

    fn take(&mut self, stream: Stream, scratch: &mut Scratch) {
        self.log.feed(stream, &scratch.read, &mut scratch.batch);
        for client in &mut self.clients {
            client.write(stream, &scratch.read);
        }
        self.forget_gone_clients();
        self.notify_followers();
    }

    fn end_output(&mut self, stream: Stream, scratch: &mut Scratch) {
        self.log.finish(stream, &mut scratch.batch);
        self.outputs[stream.index()] = None;
        for client in &mut self.clients {
            client.end(stream);
        }
        if self.is_at_end() {
            for client in &mut self.clients {
                // A terminal never had a second stream.
                client.end(Stream::Stderr);
            }
        }
        self.forget_gone_clients();
        self.notify_followers();
    }

    /// Copies output to a client from now on, and takes input from it.
    pub(crate) fn attach(
        &mut self,
        stdout: OwnedFd,
        stderr: OwnedFd,
        input: Option<OwnedFd>,
    ) -> io::Result<()> {
        self.last_client = self.last_client.wrapping_add(1);
        let mut client = Attached::new(&self.poller, self.number, self.last_client, [stdout, stderr])?;
        if let (Some(input), Some(_)) = (input, &self.stdin) {
            client.give_input(&self.poller, input)?;
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            if self.outputs[stream.index()].is_none() {
                client.end(stream);
            }
        }
        self.clients.push(client);
        self.update_input_interest();
        Ok(())
    }

    /// Whether attached clients may give input.
    pub(crate) fn has_stdin(&self) -> bool {
        self.stdin.is_some()
    }

    /// An attached client takes more output, or went.
    pub(crate) fn on_sink(&mut self, client: u16, stream: Stream) {
        if let Some(client) = self.clients.iter_mut().find(|c| c.number == client) {
            client.on_writable(stream);
        }
        self.forget_gone_clients();
        self.resume(stream);
    }

    fn resume(&mut self, stream: Stream) {
        if !self.clients.iter().any(|client| client.is_behind(stream)) {
            self.listen(stream, true);
        }
    }

    fn forget_gone_clients(&mut self) {
        let before = self.clients.len();
        self.clients.retain(|client| !client.is_gone());
        if self.clients.len() < before {
            // Nobody may be left to wait for.
            self.resume(Stream::Stdout);
            self.resume(Stream::Stderr);
        }
    }

    /// An attached client typed something, or has no more to say.
    pub(crate) fn on_input(&mut self, client: u16) {
        let Some(client) = self.clients.iter_mut().find(|c| c.number == client) else {
            return;
        };
        let Some(stdin) = &mut self.stdin else {
            client.drop_input();
            return;
        };
        if !stdin.has_pending() && !client.pass_input(stdin) {
            client.drop_input();
            if self.close_stdin_with_client {
                self.close_stdin();
            }
        }
        self.forget_gone_clients();
        self.update_input_interest();
    }

    /// The container takes more input.
    pub(crate) fn on_stdin(&mut self) {
        if self.stdin.as_mut().is_some_and(|stdin| stdin.flush().is_err()) {
            self.stdin = None;
        }
        self.update_input_interest();
    }

    /// Closes the container's input once it took what is on its way to it.
    pub(crate) fn close_stdin(&mut self) {
        match &mut self.stdin {
            Some(stdin) if stdin.has_pending() => stdin.close_when_empty(),
            _ => self.stdin = None,
        }
        self.update_input_interest();
    }

    fn update_input_interest(&mut self) {
        match &self.stdin {
            Some(stdin) => {
                let wanted = if stdin.has_pending() {
                    Interest::Nothing
                } else {
                    Interest::Read
                };
                self.clients
                    .iter_mut()
                    .for_each(|client| client.poll_input(wanted));
            }
            None => self.clients.iter_mut().for_each(Attached::drop_input),
        }
    }

    /// Sets the terminal's size; `false` without a terminal.
    pub(crate) fn resize(&self, width: u16, height: u16) -> io::Result<bool> {
        match &self.terminal {
            Some(terminal) => set_size(terminal, width, height).map(|()| true),
            None => Ok(false),
        }
    }

    /// Has an eventfd written to whenever the log changed.
    pub(crate) fn follow(&mut self, eventfd: OwnedFd) -> io::Result<()> {
        set_nonblocking(&eventfd)?;
        self.followers.push(eventfd);
        if self.is_at_end() {
            self.notify_followers();
        }
        Ok(())
    }

    fn notify_followers(&mut self) {
        self.followers
            .retain(|eventfd| match rustix::io::write(eventfd, &1u64.to_ne_bytes()) {
                // A full counter wakes its reader as well.
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => true,
                Err(_) => false,
            });
    }

    /// Opens the log anew at its path.
    pub(crate) fn reopen_log(&mut self) -> io::Result<()> {
        self.log.reopen()?;
        self.notify_followers();
        Ok(())
    }
}

/// Opens the container's side of a terminal by its master, without a path.
pub(crate) fn container_side(master: &OwnedFd) -> io::Result<OwnedFd> {
    use rustix::pty::OpenptFlags;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    Ok(rustix::pty::ioctl_tiocgptpeer(master, flags)?)
}

/// Sets a terminal's size.
pub(crate) fn set_size(terminal: &OwnedFd, width: u16, height: u16) -> io::Result<()> {
    Ok(tcsetwinsize(
        terminal,
        Winsize {
            ws_row: height,
            ws_col: width,
            ws_xpixel: 0,
            ws_ypixel: 0,
        },
    )?)
}

fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    Ok(rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?)
}
