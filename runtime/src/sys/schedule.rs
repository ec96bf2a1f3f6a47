//! When and where a process runs and from where its memory comes: sched_setattr(2), sched_setaffinity(2), ioprio_set(2),
//! set_mempolicy(2).

use std::io;

/// `struct sched_attr` of the kernel's `uapi/linux/sched/types.h`, in its second size, with utilization clamps.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SchedulingAttributes {
    /// Set by [`set_scheduling`].
    pub(crate) size: u32,
    /// `SCHED_*`.
    pub(crate) policy: u32,
    /// `SCHED_FLAG_*`.
    pub(crate) flags: u64,
    /// -20 to 19, for `SCHED_OTHER` and `SCHED_BATCH`.
    pub(crate) nice: i32,
    /// 1 to 99, for `SCHED_FIFO` and `SCHED_RR`.
    pub(crate) priority: u32,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub(crate) runtime: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub(crate) deadline: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub(crate) period: u64,
    /// The lower end of utilization, of 1024.
    pub(crate) util_min: u32,
    /// The upper end.
    pub(crate) util_max: u32,
}

/// Has this process scheduled that way.
pub(crate) fn set_scheduling(mut attributes: SchedulingAttributes) -> io::Result<()> {
    const SELF: libc::pid_t = 0;
    const NO_FLAGS: libc::c_uint = 0;
    attributes.size = u32::try_from(size_of::<SchedulingAttributes>()).unwrap_or(0);
    // SAFETY: the structure is laid out as the kernel's and lives through the call, and its first field is its size.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, SELF, &raw const attributes, NO_FLAGS) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets this process run on all processors that its cgroup has.
pub(crate) fn use_all_processors() -> io::Result<()> {
    /// The kernel's largest number of processors is 8192.
    const ALL: [u64; 128] = [u64::MAX; 128];
    const SELF: libc::pid_t = 0;
    // SAFETY: the kernel reads as many bytes as it is told, which are those of the array.
    match unsafe { libc::syscall(libc::SYS_sched_setaffinity, SELF, size_of_val(&ALL), ALL.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has input and output of this process served in a class (`IOPRIO_CLASS_*`) with a priority in it.
pub(crate) fn set_io_priority(class: u16, priority: u16) -> io::Result<()> {
    /// `IOPRIO_WHO_PROCESS` of ioprio_set(2).
    const PROCESS: libc::c_int = 1;
    const SELF: libc::c_int = 0;
    /// `IOPRIO_CLASS_SHIFT`.
    const CLASS: u32 = 13;
    let value = (libc::c_int::from(class) << CLASS) | libc::c_int::from(priority);
    // SAFETY: takes integers and changes an attribute of this process only.
    match unsafe { libc::syscall(libc::SYS_ioprio_set, PROCESS, SELF, value) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has memory of this process taken from these nodes; bit 0 of the first word is node 0. `mode` is `MPOL_*`, with
/// `MPOL_F_*` added.
pub(crate) fn set_memory_policy(mode: i32, nodes: &[u64]) -> io::Result<()> {
    // The kernel looks at one bit less than it is told.
    let bits = nodes.len() * 64 + 1;
    let (mask, bits) = if nodes.is_empty() {
        (std::ptr::null(), 0)
    } else {
        (nodes.as_ptr(), bits)
    };
    // SAFETY: the kernel reads one bit less than `bits`, which are in the slice.
    match unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
