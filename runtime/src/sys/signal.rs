//! Signal dispositions.

/// Gives SIGPIPE its default effect back, which Rust's start-up code took.
pub(crate) fn default_sigpipe() {
    // SAFETY: SIG_DFL installs no handler, so nothing can run at a bad moment.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}
