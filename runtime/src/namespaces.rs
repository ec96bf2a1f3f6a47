//! Which namespaces a container gets: new ones, those of a path, or those that the caller holds open.

use std::os::fd::BorrowedFd;

/// Namespaces that the caller holds open and that a container joins, whatever its spec says about their kinds.
///
/// A user namespace is joined first, so that the mount namespace, which is always new, belongs to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct JoinedNamespaces<'a> {
    /// The user namespace, as is `/proc/<pid>/ns/user`.
    pub user: Option<BorrowedFd<'a>>,
    /// The network namespace.
    pub network: Option<BorrowedFd<'a>>,
    /// The System V IPC and POSIX message queue namespace.
    pub ipc: Option<BorrowedFd<'a>>,
    /// The host name's namespace.
    pub uts: Option<BorrowedFd<'a>>,
    /// The process id namespace.
    pub pid: Option<BorrowedFd<'a>>,
}
