//! Kills a program at one of its system calls, or at one of what it started: with a debugger's means (ptrace(2)), so that the
//! program itself needs no hook.

use std::sync::mpsc;
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

/// Calls that make, change or take away something of the kernel's, or tell another process to.
const EFFECTS: [libc::c_long; 34] = [
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_symlink,
    libc::SYS_symlinkat,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_rmdir,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_execve,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_fsmount,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_kill,
    libc::SYS_pidfd_send_signal,
    libc::SYS_ftruncate,
    libc::SYS_chown,
    libc::SYS_fchmodat,
];

/// Whose calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The program's threads'.
    Own,
    /// Those of processes that work for it: its shims, what it starts meanwhile, and what all of these start.
    Others,
}

/// A thread that follows a program until that ends.
pub(crate) struct Tracer(JoinHandle<usize>);

impl Tracer {
    /// Follows a program from now on. It is killed at the n-th moment: each counted call has two of them, just before it and
    /// just after it.
    pub(crate) fn follow(program: Pid, others: Vec<Pid>, whose: Whose, nth: usize) -> Self {
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            seize(program, whose);
            if whose == Whose::Others {
                others.into_iter().for_each(|other| seize(other, whose));
            }
            ready.send(()).unwrap();
            Trace {
                program,
                whose,
                nth,
                seen: 0,
            }
            .run()
        });
        is_ready.recv().unwrap();
        Self(thread)
    }

    /// Waits for the program's end: how many moments there were.
    pub(crate) fn end(self) -> usize {
        self.0.join().unwrap()
    }
}

/// Stops every thread, so that [`Trace::run`] sets them going again.
fn seize(program: Pid, whose: Whose) {
    let mut options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
    if whose == Whose::Others {
        options |= Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK;
    }
    for thread in threads(program) {
        // One that has ended meanwhile, or is followed already because another made it.
        if ptrace::seize(thread, options).is_ok() {
            let _ = ptrace::interrupt(thread);
        }
    }
}

fn threads(program: Pid) -> Vec<Pid> {
    let tasks = std::fs::read_dir(format!("/proc/{program}/task")).unwrap();
    let name = |task: std::fs::DirEntry| task.file_name().to_string_lossy().parse().unwrap();
    tasks.flatten().map(|task| Pid::from_raw(name(task))).collect()
}

struct Trace {
    program: Pid,
    whose: Whose,
    nth: usize,
    seen: usize,
}

impl Trace {
    /// When this thread ends, the kernel lets go of all that is left.
    fn run(mut self) -> usize {
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        let any = flags | WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT;
        loop {
            let pid = match waitid(Id::All, any) {
                // The program's end is for its parent, another thread of this process, to take.
                Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) if pid == self.program => {
                    return self.seen;
                }
                Ok(status) => status.pid(),
                Err(_) => None,
            };
            match waitpid(pid, Some(flags)) {
                Ok(WaitStatus::PtraceSyscall(pid)) => {
                    if self.is_the_moment(pid) {
                        kill(self.program, Signal::SIGKILL).unwrap();
                        self.nth = usize::MAX;
                    }
                    go_on(pid, None);
                }
                Ok(WaitStatus::PtraceEvent(pid, ..)) => go_on(pid, None),
                Ok(WaitStatus::Stopped(pid, signal)) => go_on(pid, Some(signal)),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => return self.seen,
                Err(errno) => panic!("waiting for {}: {errno}", self.program),
            }
        }
    }

    fn is_the_moment(&mut self, pid: Pid) -> bool {
        // A process that is gone makes no call.
        let Ok(registers) = ptrace::getregs(pid) else {
            return false;
        };
        let is_own = std::path::Path::new(&format!("/proc/{}/task/{pid}", self.program)).exists();
        if is_own != (self.whose == Whose::Own) || !EFFECTS.contains(&registers.orig_rax.cast_signed()) {
            return false;
        }
        self.seen += 1;
        self.seen == self.nth
    }
}

fn go_on(pid: Pid, signal: Option<Signal>) {
    // One that was killed meanwhile needs no leave to go.
    let _ = ptrace::syscall(pid, signal);
}
