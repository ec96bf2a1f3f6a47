//! Signal dispositions.

use std::ptr;

/// Gives every signal its default effect back. execve(2) and `CLONE_CLEAR_SIGHAND` do that to handlers alone: what this
/// program ignores, or its starter did, would be ignored by whatever it starts.
pub(crate) fn default_signals() {
    (1..=LAST).for_each(default_signal);
}

/// As [`default_signals`], for a program that goes on itself: a broken pipe stays an error, and who was told by nohup(1) to
/// survive its terminal does.
pub(crate) fn default_own_signals() {
    let kept = |signal: &libc::c_int| matches!(*signal, libc::SIGPIPE | libc::SIGHUP);
    (1..=LAST).filter(|signal| !kept(signal)).for_each(default_signal);
}

/// The last real-time signal.
const LAST: libc::c_int = 64;

/// By the kernel's own call: a C library keeps two signals for itself and refuses to change them, but its starter's may have
/// been ignored.
fn default_signal(signal: libc::c_int) {
    // SIG_DFL, no flags, no restorer, an empty mask: a kernel's sigaction has no more, in whatever order.
    let action = [0_u64; 4];
    // SAFETY: the kernel reads the action, which is as large as it can be; SIG_DFL installs no handler, so nothing can run
    // at a bad moment. SIGKILL and SIGSTOP are refused.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            action.as_ptr(),
            ptr::null_mut::<u64>(),
            size_of::<u64>(),
        )
    };
}

/// Lets the signals that ask a process to end do so while a container waits for its start. Its process is the first one
/// of a PID namespace, which has nothing but handlers: a signal without one has no effect there. execve(2) takes the
/// handlers away again.
pub(crate) fn end_when_asked() {
    extern "C" fn end(signal: libc::c_int) {
        // SAFETY: _exit(2) may be called at any time.
        unsafe { libc::_exit(128 + signal) }
    }
    let handler: extern "C" fn(libc::c_int) = end;
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        // SAFETY: the handler touches nothing of the process.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}
