//! Calls that 32-bit x86 has behind one number: `socketcall` and `ipc`.
//!
//! Which call is meant is their first argument, where a filter can look; the arguments of the call itself are behind a
//! pointer, where none can.

/// A call as an argument of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Multiplexed {
    /// `socketcall` or `ipc`.
    pub(super) through: &'static str,
    /// The first argument that means the call.
    pub(super) call: u32,
    /// The bits of the first argument that the kernel looks at.
    pub(super) mask: u32,
}

/// How 32-bit x86 reaches a call besides its own number, if it does.
pub(super) fn multiplexed(name: &str) -> Option<Multiplexed> {
    if let Some((_, call)) = SOCKETCALL.iter().find(|(known, _)| *known == name) {
        return Some(Multiplexed {
            through: "socketcall",
            call: *call,
            mask: u32::MAX,
        });
    }
    // The upper half of ipc's first argument is the version of the interface.
    let (_, call) = IPC.iter().find(|(known, _)| *known == name)?;
    Some(Multiplexed {
        through: "ipc",
        call: *call,
        mask: 0xffff,
    })
}

/// linux/net.h.
const SOCKETCALL: [(&str, u32); 20] = [
    ("socket", 1),
    ("bind", 2),
    ("connect", 3),
    ("listen", 4),
    ("accept", 5),
    ("getsockname", 6),
    ("getpeername", 7),
    ("socketpair", 8),
    ("send", 9),
    ("recv", 10),
    ("sendto", 11),
    ("recvfrom", 12),
    ("shutdown", 13),
    ("setsockopt", 14),
    ("getsockopt", 15),
    ("sendmsg", 16),
    ("recvmsg", 17),
    ("accept4", 18),
    ("recvmmsg", 19),
    ("sendmmsg", 20),
];

/// linux/ipc.h.
const IPC: [(&str, u32); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];
