//! `create`: everything up to the program.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use berth_runtime::{
    CreateArgs, Created, FirstProcess, JoinedNamespaces, Record, StateDir, Stdio, process_stat,
};
use lexopt::Arg;

use crate::bundle::Bundle;
use crate::failure::{Attempt, Failure, usage};
use crate::options::{Global, flag, number, text};
use crate::{log, terminal, time};

/// The options that `create` and `run` share.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) console_socket: Option<PathBuf>,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) preserve_fds: u32,
    pub(crate) no_pivot: bool,
    pub(crate) new_keyring: bool,
    /// `run` only: don't wait for the end.
    pub(crate) detach: bool,
    /// `run` only: don't delete after the end.
    pub(crate) keep: bool,
}

impl Options {
    /// Parses the command line of `create`, or with `run` of that.
    pub(crate) fn parse(mut parser: lexopt::Parser, run: bool) -> Result<Options, Failure> {
        let mut options = Options {
            id: String::new(),
            bundle: PathBuf::from("."),
            console_socket: None,
            pid_file: None,
            preserve_fds: 0,
            no_pivot: false,
            new_keyring: true,
            detach: false,
            keep: false,
        };
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("bundle") | Arg::Short('b') => options.bundle = parser.value()?.into(),
                Arg::Long("console-socket") => options.console_socket = Some(parser.value()?.into()),
                Arg::Long("pid-file") => options.pid_file = Some(parser.value()?.into()),
                Arg::Long("preserve-fds") => options.preserve_fds = number(&mut parser)?,
                Arg::Long("no-pivot") => options.no_pivot = flag(&mut parser)?,
                Arg::Long("no-new-keyring") => options.new_keyring = !flag(&mut parser)?,
                Arg::Long("detach") | Arg::Short('d') if run => options.detach = flag(&mut parser)?,
                Arg::Long("keep") if run => options.keep = flag(&mut parser)?,
                Arg::Value(id) if options.id.is_empty() => options.id = text(id)?,
                other => return Err(other.unexpected().into()),
            }
        }
        if options.id.is_empty() {
            return Err(usage("The container's id is missing."));
        }
        Ok(options)
    }
}

/// Creates a container that waits for `start`.
pub(crate) fn main(global: &Global, parser: lexopt::Parser) -> Result<ExitCode, Failure> {
    berth_runtime::protect_executable()?;
    let options = Options::parse(parser, false)?;
    let bundle = Bundle::load(&options.bundle, &options.id)?;
    terminal::check_socket(bundle.terminal(), options.console_socket.as_deref(), true)?;
    let state = global.root.create(&options.id)?;
    let created = create(global, &options, &bundle, &state, true).and_then(|created| {
        terminal::hand_over(created.terminal.as_ref(), options.console_socket.as_deref())?;
        Ok(created)
    });
    match created {
        Ok(created) => {
            created.detach()?;
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            // The library left nothing; what went wrong matters more than a directory that stays.
            let _ = state.remove();
            Err(failure)
        }
    }
}

/// Creates the container and remembers it: before anything of it exists, and again with its process.
pub(crate) fn create(
    global: &Global,
    options: &Options,
    bundle: &Bundle,
    state: &StateDir,
    listen: bool,
) -> Result<Created, Failure> {
    let rootfs = bundle.rootfs()?;
    let record = Record {
        bundle: bundle.path.clone(),
        rootfs: match &rootfs {
            berth_runtime::Rootfs::Path(path) => path.clone(),
            berth_runtime::Rootfs::Overlay { .. } => PathBuf::new(),
        },
        cgroup: bundle.cgroup().to_owned(),
        created: time::now(),
        process: None,
    };
    state.write(&record, &bundle.text)?;
    let listener: Option<OwnedFd> = if listen { Some(state.listen()?) } else { None };
    let (width, height) = bundle.terminal_size();
    let created = berth_runtime::create(CreateArgs {
        id: &options.id,
        bundle: &bundle.path,
        spec: &bundle.spec,
        rootfs,
        stdio: if bundle.terminal() {
            Stdio::Terminal { width, height }
        } else {
            Stdio::Inherit
        },
        namespaces: JoinedNamespaces::default(),
        preserve_fds: options.preserve_fds,
        no_pivot: options.no_pivot,
        new_keyring: options.new_keyring,
        find_program_now: true,
        listener,
    })?;
    for warning in &created.warnings {
        log::warning(global, warning);
    }
    let pid = created.pid.as_raw();
    let start_time = process_stat(pid).map(|(_, began)| began);
    let start_time =
        start_time.ok_or_else(|| usage("The container's process ended before it was started."))?;
    state.set_process(FirstProcess {
        pid,
        start_time,
        in_user_namespace: created.in_user_namespace,
    })?;
    if let Some(path) = &options.pid_file {
        write_pid_file(path, pid)?;
    }
    Ok(created)
}

/// Writes a pid file in one step.
pub(crate) fn write_pid_file(path: &Path, pid: i32) -> Result<(), Failure> {
    let doing = || format!("write the pid file {}", path.display());
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = std::fs::File::create(&new).attempt(doing)?;
    file.write_all(pid.to_string().as_bytes()).attempt(doing)?;
    std::fs::rename(&new, path).attempt(doing)
}
