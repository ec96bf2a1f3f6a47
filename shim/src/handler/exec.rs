//! One more process in a container of another runtime.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_runtime::cgroups::{Cgroup, Subgroup};

use super::program::Streams;
use super::{Asked, Handler, Shim, Verb, Work, bundle, console, is_child, read_pid};
use crate::error::RequestError;
use crate::exec::ExecProcess;
use crate::protocol::{Event, Exec, ExecCgroup, Response};
use crate::reaper::KILLED;

/// A process that is being started.
pub(super) struct Starting {
    id: String,
    number: u32,
    asked: Asked,
    /// When it is to be killed, with its program or without.
    pub(super) deadline: Option<Instant>,
    tree: Tree,
    console: Option<OwnedFd>,
    files: Files,
    /// Who asked has gone.
    cancelled: bool,
}

/// The names of its files in the program's bundle.
struct Files {
    dir: PathBuf,
    process: String,
    pid: String,
    console: String,
}

impl Files {
    fn new(dir: PathBuf, job: u32) -> Self {
        let name = |what| format!("exec-{job}.{what}");
        Self {
            dir,
            process: name("json"),
            pid: name("pid"),
            console: name("sock"),
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for name in [&self.process, &self.pid, &self.console] {
            let _ = fs::remove_file(self.dir.join(name));
        }
    }
}

/// The group by which all that an exec starts is found again.
struct Tree {
    group: Option<Subgroup>,
    /// The program puts the process there from the beginning.
    option: Option<String>,
}

impl Tree {
    fn new(cgroup: &Cgroup, takes: ExecCgroup, exec: &str) -> Result<Self, RequestError> {
        let name = format!("exec-{exec}");
        let is_unified = cgroup.entry_fd().is_some();
        let freezer = match takes {
            ExecCgroup::Controllers if !is_unified => cgroup.freezer_subgroup(&name)?,
            _ => None,
        };
        if freezer.is_some() {
            return Ok(Self {
                group: freezer,
                option: Some(format!("freezer:{name}")),
            });
        }
        let group = cgroup.subgroup(&name)?;
        let told = is_unified && takes != ExecCgroup::Unknown && group.is_some();
        Ok(Self {
            group,
            option: told.then_some(name),
        })
    }

    fn remove(self) {
        if let Some(group) = self.group {
            if let Err(error) = group.kill() {
                eprintln!("What an exec has started can't be killed: {error}");
            }
            group.remove_if_empty();
        }
    }
}

impl Handler {
    /// Ends an exec that is still being started; `false` if there is none of that id.
    pub(super) fn cancel(&mut self, exec: &str) -> bool {
        for job in &mut self.jobs {
            if let Work::Exec(starting) = &mut job.work
                && starting.id == exec
            {
                starting.cancelled = true;
                return true;
            }
        }
        false
    }
}

impl Shim {
    pub(super) fn begin_exec(
        &mut self,
        request: Exec,
        fds: Vec<OwnedFd>,
        asked: Asked,
    ) -> Result<(), RequestError> {
        self.check_exec(&request.id)?;
        let terminal = request.process["terminal"].as_bool().unwrap_or_default();
        let streams = match <[OwnedFd; 3]>::try_from(fds) {
            Ok(fds) if !terminal => Streams::Inherited(fds),
            Err(fds) if terminal && fds.is_empty() => Streams::None,
            _ => return Err(RequestError::exec_streams()),
        };
        let number = self
            .number_of(&request.container)
            .ok_or_else(|| RequestError::NoContainer(request.container.clone()))?;
        let container = self.container(&request.container)?;
        container.check_running()?;
        let cgroup = container.cgroup().path().as_str().to_owned();
        let Some(handler) = &mut self.handler else {
            return Ok(());
        };
        let (job, takes) = (handler.next_job(), handler.program.exec_cgroup);
        let files = Files::new(bundle::place(&self.sandbox.dir, &request.container), job);
        let process = files.dir.join(&files.process);
        fs::write(&process, request.process.to_string())
            .map_err(RequestError::io(format!("write {}", process.display())))?;
        let console = terminal.then(|| console::open_socket(&files.dir, &files.console));
        let console = console
            .transpose()
            .map_err(RequestError::io("make the socket of a terminal"))?;
        let Some(cgroup) = Cgroup::open(&cgroup)? else {
            return Err(self.container(&request.container)?.wrong_state("has ended"));
        };
        let tree = Tree::new(&cgroup, takes, &request.id)?;
        let timeout = Duration::from_millis(request.timeout_ms);
        let (names, option) = (
            [files.process.clone(), files.pid.clone(), files.console.clone()],
            tree.option.clone(),
        );
        let verb = Verb::Exec {
            process: &names[0],
            pid_file: &names[1],
            console: terminal.then_some(names[2].as_str()),
            cgroup: option.as_deref(),
        };
        let starting = Starting {
            id: request.id,
            number,
            asked,
            deadline: Instant::now().checked_add(timeout).filter(|_| !timeout.is_zero()),
            tree,
            console,
            files,
            cancelled: false,
        };
        let doing = format!("run a command in container {}", request.container);
        let work = Work::Exec(Box::new(starting));
        self.try_program(&verb, &request.container, streams, doing, work)
            .map_err(|failed| {
                if let Work::Exec(starting) = failed.work {
                    starting.tree.remove();
                }
                failed.error
            })
    }

    /// The program has ended.
    pub(super) fn exec_started(
        &mut self,
        mut starting: Starting,
        timed_out: bool,
        outcome: Result<(), RequestError>,
    ) {
        let pid = read_pid(&starting.files.dir.join(&starting.files.pid));
        let terminal = starting
            .console
            .take()
            .map(|socket| console::take_terminal(&socket));
        let error = match (outcome, pid, terminal.transpose()) {
            (Ok(()), Ok(pid), Ok(terminal)) => return self.exec_runs(starting, pid, terminal),
            (Err(error), ..) => error,
            (Ok(()), Err(error), _) => RequestError::io("learn the number of a command's process")(error),
            (Ok(()), _, Err(error)) => RequestError::io("take the terminal of a command")(error),
        };
        starting.tree.remove();
        let over = starting
            .deadline
            .is_some_and(|deadline| deadline <= Instant::now());
        if !(timed_out && over) {
            self.answer(starting.asked, Err(error), Vec::new());
            return;
        }
        // To who asked it is all one command, whose time is over.
        eprintln!("Warning: {error}");
        self.answer(starting.asked, Ok(Response::ExecStarted { pid: 0 }), Vec::new());
        self.emit(&Event::ExecExited {
            exec: starting.id,
            exit_code: KILLED,
            timed_out: true,
        });
    }

    fn exec_runs(&mut self, starting: Starting, pid: i32, master: Option<OwnedFd>) {
        let Starting {
            id,
            number,
            asked,
            deadline,
            tree,
            cancelled,
            ..
        } = starting;
        if let Some(group) = tree.group.as_ref().filter(|_| tree.option.is_none()) {
            move_tree(group, pid);
        }
        let early = self.handler.as_mut().and_then(|handler| handler.early_end(pid));
        if early.is_none() && !is_child(pid) {
            tree.remove();
            let reason = "its process is not left to its caller, so that its end could not be heard of";
            let error = RequestError::Invalid(format!("The command {id} can't be waited for: {reason}"));
            return self.answer(asked, Err(error), Vec::new());
        }
        let exec =
            match ExecProcess::handled((number, asked.client), pid, master.as_ref(), deadline, tree.group) {
                Ok(exec) => exec,
                Err(error) => {
                    let error = RequestError::io("use the terminal of a command")(error);
                    return self.answer(asked, Err(error), Vec::new());
                }
            };
        let unwanted = cancelled || !self.clients.contains_key(&asked.client);
        if unwanted && let Err(error) = exec.kill() {
            eprintln!("An exec that nobody waits for can't be killed: {error}");
        }
        self.execs.insert(id.clone(), exec);
        let response = Response::ExecStarted { pid };
        self.answer(asked, Ok(response), master.into_iter().collect());
        if let Some(exit_code) = early {
            self.exec_reaped(&id, exit_code);
        }
    }
}

/// Moves a process and what it has started so far. Who starts something after it was moved has it in the group, too.
fn move_tree(group: &Subgroup, pid: i32) {
    let mut left = vec![pid];
    while let Some(pid) = left.pop() {
        // One that ended meanwhile need not be moved.
        if group.add_process(nix::unistd::Pid::from_raw(pid)).is_ok() {
            left.extend(children_of(pid).unwrap_or_default());
        }
    }
}

fn children_of(pid: i32) -> io::Result<Vec<i32>> {
    let mut children = Vec::new();
    for thread in fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"))? {
        let text = fs::read_to_string(thread?.path().join("children"))?;
        children.extend(
            text.split_ascii_whitespace()
                .filter_map(|pid| pid.parse::<i32>().ok()),
        );
    }
    Ok(children)
}
