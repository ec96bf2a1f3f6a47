//! Commands that are run to their end for who asked: the shim keeps what they print, and answers once.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use berth_runtime::output::{Output, file_of};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::RequestError;
use crate::exec::ExecProcess;
use crate::handler::Asked;
use crate::log::Stream;
use crate::poller::{Interest, Poller, Source, Watched};
use crate::protocol::{MAX_RUN_OUTPUT, Response, Run};
use crate::shim::Shim;

/// How long output may still come after the process has ended: a grandchild may hold the pipe for ever.
const DRAIN: Duration = Duration::from_millis(200);

/// What a command has printed so far.
pub(crate) struct Printed {
    number: u32,
    asked: Asked,
    outputs: [Output<Watched<OwnedFd>>; 2],
    end: Option<End>,
}

struct End {
    exit_code: i32,
    timed_out: bool,
    /// When the answer goes out, whatever is still to come.
    deadline: Instant,
}

impl Printed {
    /// Pipes for the outputs of a command, and its own ends of its streams.
    fn new(poller: &Poller, number: u32, asked: Asked, limit: u64) -> io::Result<(Self, [OwnedFd; 3])> {
        let (stdout, their_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, their_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        let stdin = File::open("/dev/null")?.into();
        let limit = usize::try_from(limit.min(MAX_RUN_OUTPUT)).unwrap_or(0);
        let watch = |fd: OwnedFd, stream| -> io::Result<_> {
            fcntl_setfl(&fd, OFlags::NONBLOCK)?;
            let watched = Watched::new(poller, fd, Source::Printed(number, stream), Interest::Read);
            Ok(Output::new(watched?, limit))
        };
        let printed = Self {
            number,
            asked,
            outputs: [watch(stdout, Stream::Stdout)?, watch(stderr, Stream::Stderr)?],
            end: None,
        };
        Ok((printed, [stdin, their_stdout, their_stderr]))
    }

    /// Its process was reaped: what it printed is there by now.
    pub(crate) fn ended(&mut self, exit_code: i32, timed_out: bool) {
        self.end = Some(End {
            exit_code,
            timed_out,
            deadline: Instant::now() + DRAIN,
        });
        self.outputs.iter_mut().for_each(Output::read);
    }

    /// When its output is waited for no more.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.end.as_ref().map(|end| end.deadline)
    }

    fn is_complete(&self, now: Instant) -> bool {
        let all_read = self.outputs.iter().all(|output| output.source().is_none());
        self.end
            .as_ref()
            .is_some_and(|end| all_read || end.deadline <= now)
    }

    /// The answer, with the file that holds the output.
    fn answer(&self) -> Result<(Response, Vec<OwnedFd>), RequestError> {
        let [stdout, stderr] = self.outputs.each_ref().map(|output| output.kept().len() as u64);
        let (exit_code, timed_out) = self
            .end
            .as_ref()
            .map_or((255, false), |end| (end.exit_code, end.timed_out));
        let response = Response::Ran {
            exit_code,
            timed_out,
            stdout,
            stderr,
        };
        let file = file_of(&self.outputs).map_err(RequestError::io("pass on what a command has printed"))?;
        Ok((response, file.into_iter().collect()))
    }
}

impl Shim {
    /// Starts a command whose end answers the request.
    pub(crate) fn run(&mut self, request: &Run, asked: Asked) -> Result<(), RequestError> {
        if request.args.is_empty() {
            let message = format!("The command {} has not even a program", request.id);
            return Err(RequestError::Invalid(message));
        }
        self.check_exec(&request.id)?;
        let number = self
            .number_of(&request.container)
            .ok_or_else(|| RequestError::NoContainer(request.container.clone()))?;
        self.container(&request.container)?.check_running()?;
        if request.period_ms > 0 {
            return self.repeat(request, number, asked);
        }
        let own_number = self.next_number();
        let (printed, streams) = Printed::new(&self.poller, own_number, asked, request.max_output)
            .map_err(RequestError::io("make the pipes of a command"))?;
        let container = self.container(&request.container)?;
        let tree = container.group_of_command(&request.id)?;
        let pid = match container.start_command(&request.args, streams, tree.as_ref()) {
            Ok(pid) => pid,
            Err(error) => {
                if let Some(tree) = tree {
                    // Nothing was started in it.
                    container.commands.keep(tree);
                }
                return Err(error);
            }
        };
        let timeout = Duration::from_millis(request.timeout_ms);
        let exec = ExecProcess::run((number, asked.client), pid, timeout, tree, printed);
        self.execs.insert(request.id.clone(), exec);
        Ok(())
    }

    /// A command wrote something, or has closed an output.
    pub(crate) fn on_printed(&mut self, number: u32, stream: Stream) {
        let mut printed = self.execs.values_mut().filter_map(|exec| exec.printed.as_mut());
        if let Some(printed) = printed.find(|printed| printed.number == number) {
            printed.outputs[stream.index()].read();
        }
    }

    /// Answers for those commands that have ended and said everything.
    pub(crate) fn answer_runs(&mut self, now: Instant) {
        let is_complete = |exec: &ExecProcess| {
            exec.printed
                .as_ref()
                .is_some_and(|printed| printed.is_complete(now))
        };
        while let Some((id, _)) = self.execs.iter().find(|(_, exec)| is_complete(exec)) {
            let id = id.clone();
            self.answer_run(&id);
        }
    }

    fn answer_run(&mut self, id: &str) {
        let Some(mut exec) = self.execs.remove(id) else {
            return;
        };
        let Some(printed) = exec.printed.take() else {
            return;
        };
        self.put_away(id, exec);
        match printed.answer() {
            Ok((response, fds)) => self.answer(printed.asked, Ok(response), fds),
            Err(error) => self.answer(printed.asked, Err(error), Vec::new()),
        }
    }

    /// A command has ended; what it left running can still be killed.
    pub(crate) fn put_away(&mut self, id: &str, mut exec: ExecProcess) {
        let container = self.containers.get_mut(&exec.container);
        exec.tree = match (exec.tree.take(), container) {
            (Some(tree), Some(container)) => container.commands.keep(tree),
            (tree, _) => tree,
        };
        if !exec.is_over() {
            self.execs.insert(id.to_owned(), exec);
        }
    }
}
