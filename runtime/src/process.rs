//! What every process that this one makes does to itself before its program: its ties to its creator, its privileges,
//! its user and its working directory.

use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::channel::{Channel, Failure, Message};
use crate::error::Doing;
use crate::identity::Identity;
use crate::{Error, Result, mount, seccomp, sys};

/// The exit code of a process that failed before its program, other than for lack of it.
const SETUP_FAILED: i32 = 125;

/// Tells an error to the other end, and gives the exit code for it.
pub(crate) fn report(error: &Error, to: &Channel) -> i32 {
    let failure = Failure::from(error);
    let exit_code = if failure.exit_code == 0 {
        SETUP_FAILED
    } else {
        i32::from(failure.exit_code)
    };
    // Without a listener nobody wants to know.
    let _ = to.send(&Message::Failed(failure));
    exit_code
}

/// Waits for that one message.
pub(crate) fn expect(channel: &Channel, message: &Message) -> Result<()> {
    let received = channel.receive().doing(|| "hear from the runtime".to_owned())?;
    if std::mem::discriminant(&received) == std::mem::discriminant(message) {
        return Ok(());
    }
    Err(Error::Vanished("the runtime ended".to_owned()))
}

/// Tells the creator what is left out. If it is gone, so is this process.
pub(crate) fn warn(channel: &Channel, warning: String) {
    let _ = channel.send(&Message::Warning(warning));
}

/// Until the container is started, the end of the creator is its end.
pub(crate) fn die_with_creator() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).doing(|| "follow the runtime's end".to_owned())
}

/// The program begins with no signal blocked and none ignored, whatever this one and its starter did: a shell, for
/// instance, can't trap what it was told to ignore.
pub(crate) fn reset_signals() {
    unblock_signals();
    sys::default_signals();
}

/// Undoes what this program's starter blocked and ignored, for this program and all that it starts. SIGHUP stays ignored
/// for who was started by nohup(1), and SIGPIPE as in every Rust program. To be called before there are threads.
pub fn forget_starters_signals() {
    unblock_signals();
    sys::default_own_signals();
}

/// No signal waits any more.
pub(crate) fn unblock_signals() {
    use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
    // It only fails for an operation that does not exist.
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// In a new user namespace the process is nobody until it takes an id that is mapped.
pub(crate) fn become_root() -> Result<()> {
    use rustix::fs::{Gid, Uid};
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let doing = || "become root of the user namespace".to_owned();
    // Where setgroups(2) is denied there are no groups to get rid of.
    let _ = set_thread_groups(&[]);
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).doing(doing)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).doing(doing)?;
    // The change of user made the kernel forget it.
    die_with_creator()
}

pub(crate) fn join_keyring(id: &str) -> Result<()> {
    let doing = || "join a session keyring".to_owned();
    let name = std::ffi::CString::new(format!("_ses.{id}"))
        .map_err(std::io::Error::from)
        .doing(doing)?;
    match sys::join_session_keyring(&name) {
        // A kernel without keyrings has none to share; a seccomp filter around the runtime may deny them.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(()),
        other => other.doing(doing),
    }
}

/// The container was acknowledged: it no longer depends on its creator.
pub(crate) fn outlive_creator() -> Result<()> {
    set_parent_process_death_signal(None).doing(|| "outlive the runtime".to_owned())
}

/// Keeps everything but the streams and the `preserved` descriptors after them from the program. Before a filter is in
/// force: profiles from before close_range(2) was known refuse it.
pub(crate) fn close_on_exec(preserved: u32) -> Result<()> {
    let first = i32::try_from(preserved).unwrap_or(i32::MAX - 3).saturating_add(3);
    sys::close_range(first, i32::MAX, true).doing(|| "keep descriptors from the program".to_owned())
}

/// Becomes the user, in its working directory. A filter that `install` installs here needs privileges, and holds from
/// then on for this process too. What is refused and left out is told to `warn`.
pub(crate) fn become_user(
    identity: &Identity,
    cwd: &Path,
    warn: impl FnMut(String),
    install: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let entered = enter_directory(cwd, true);
    let before_drop = || {
        die_with_creator()?;
        install()
    };
    identity.take_on(before_drop, warn)?;
    match entered {
        // Root may be locked out where the user is not, as on a network file system.
        Err(Error::System { .. }) => enter_directory(cwd, false),
        other => other,
    }
}

/// Makes `cwd` the working directory, which must be inside the container's root: a magic link such as
/// `/proc/self/fd/7` could lead out of it.
pub(crate) fn enter_directory(cwd: &Path, make: bool) -> Result<()> {
    let doing = || format!("enter the working directory {}", cwd.display());
    if cwd == Path::new("/") {
        return rustix::process::chdir("/").doing(doing);
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let root = crate::terminal::root_directory()?;
    let directory = match mount::retry(|| openat2(&root, cwd, flags, Mode::empty(), inside)) {
        Err(rustix::io::Errno::NOENT) if make => mount::make_directory(&root, cwd)?,
        other => other.doing(doing)?,
    };
    rustix::process::fchdir(&directory).doing(doing)?;
    let now = rustix::process::getcwd(Vec::new()).doing(doing)?;
    if now.as_bytes().first() != Some(&b'/') {
        return Err(Error::invalid(
            "process.cwd",
            format!("{} is outside of the container's root", cwd.display()),
        ));
    }
    Ok(())
}

/// When the first process of a container installs its filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FilterMoment {
    /// While it has its privileges: without no_new_privs the kernel wants them.
    Privileged,
    /// Before it waits for its start: its creator, who passes the listener on, may be gone later.
    Ready,
    /// Once it is started: a filter then has to allow little more than the hooks and the program need.
    Started,
}

impl FilterMoment {
    pub(crate) fn of(filter: &seccomp::Program, no_new_privileges: bool) -> FilterMoment {
        match (no_new_privileges, filter.needs_listener()) {
            (false, _) => FilterMoment::Privileged,
            (true, true) => FilterMoment::Ready,
            (true, false) => FilterMoment::Started,
        }
    }
}

/// Installs a filter, and hands its listener to the creator.
pub(crate) fn install_filter(filter: &seccomp::Program, creator: &Channel) -> Result<()> {
    let listener = filter
        .install()
        .doing(|| "install the seccomp filter".to_owned())?;
    match (listener, filter.handover()) {
        (Some(listener), Some(by)) => creator.send_listener(listener, by).doing(|| {
            "hand over the listener of the seccomp filter, which must allow the system call for it".to_owned()
        }),
        _ => Ok(()),
    }
}
