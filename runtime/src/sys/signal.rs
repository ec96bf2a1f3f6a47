//! Signal dispositions.

/// Lets a write to a pipe that nobody reads be an error and no more.
pub(crate) fn ignore_sigpipe() {
    // SAFETY: SIG_IGN installs no handler, so nothing can run at a bad moment.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Gives SIGPIPE its default effect back, which the program's start took.
pub(crate) fn default_sigpipe() {
    // SAFETY: SIG_DFL installs no handler, so nothing can run at a bad moment.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
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
