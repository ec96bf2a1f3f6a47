//! eBPF programs that decide on access to devices (`bpf(2)`).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// One instruction, as the kernel's `struct bpf_insn` has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    opcode: u8,
    /// Destination in the low half, source in the high half; the other way round on big-endian machines, which no
    /// supported platform is.
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    pub(crate) const fn new(opcode: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Self {
        Self {
            opcode,
            registers: destination | source << 4,
            offset,
            immediate,
        }
    }
}

#[cfg(test)]
impl Instruction {
    pub(crate) const fn opcode(self) -> u8 {
        self.opcode
    }

    pub(crate) const fn destination(self) -> u8 {
        self.registers & 15
    }

    pub(crate) const fn source(self) -> u8 {
        self.registers >> 4
    }

    pub(crate) const fn offset(self) -> i16 {
        self.offset
    }

    pub(crate) const fn immediate(self) -> i32 {
        self.immediate
    }
}

// Commands and constants of linux/bpf.h.
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const REPLACE: u32 = 4;
/// More programs than anyone attaches to one group (the kernel's own limit is 64).
const MOST_PROGRAMS: usize = 64;

/// The leading part of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes the rest as zero.
#[repr(C)]
struct LoadAttr {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The same for `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
struct AttachAttr {
    target_fd: u32,
    program_fd: u32,
    attach_type: u32,
    flags: u32,
    replaced_fd: u32,
}

/// The same for `BPF_PROG_QUERY`; the kernel writes `count`.
#[repr(C)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

/// The same for `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
struct IdAttr {
    id: u32,
    next: u32,
    flags: u32,
}

/// Calls `bpf(2)`.
///
/// # Safety
/// `Attr` must be the layout that the command expects, and every address in it valid for what the command does there.
unsafe fn bpf<Attr>(command: libc::c_int, attr: &mut Attr) -> Result<libc::c_int, Errno> {
    let size = u32::try_from(size_of::<Attr>()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the caller vouches for the attributes, which live for as long as the call does.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size) };
    // The kernel's int, widened by the C library.
    Errno::result(result).map(|n| libc::c_int::try_from(n).unwrap_or(libc::c_int::MAX))
}

/// Loads a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`.
pub(crate) fn load_device_program(program: &[Instruction]) -> Result<OwnedFd, Errno> {
    let mut attr = LoadAttr {
        program_type: PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        instructions: program.as_ptr().expose_provenance() as u64,
        license: c"Apache-2.0".as_ptr().expose_provenance() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"berth_devices\0\0\0",
    };
    // SAFETY: LoadAttr is the beginning of the union's member for this command; `program` and the literal outlive the
    // call, and the kernel only reads them.
    let fd = unsafe { bpf(PROG_LOAD, &mut attr) }?;
    // SAFETY: the kernel made this descriptor for us; it always sets close-on-exec on it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The device programs that are attached to a group itself, in their order.
pub(crate) fn device_programs(group: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, Errno> {
    let mut ids = [0_u32; MOST_PROGRAMS];
    let mut attr = QueryAttr {
        target_fd: raw(group),
        attach_type: CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr().expose_provenance() as u64,
        count: ids.len().try_into().unwrap_or(0),
        padding: 0,
    };
    // SAFETY: QueryAttr is the union's member for this command; `ids` has room for `count` numbers.
    unsafe { bpf(PROG_QUERY, &mut attr) }?;
    let count = usize::try_from(attr.count).unwrap_or(0).min(ids.len());
    ids[..count].iter().map(|id| by_id(*id)).collect()
}

fn by_id(id: u32) -> Result<OwnedFd, Errno> {
    let mut attr = IdAttr {
        id,
        next: 0,
        flags: 0,
    };
    // SAFETY: IdAttr is the union's member for this command and holds no address.
    let fd = unsafe { bpf(PROG_GET_FD_BY_ID, &mut attr) }?;
    // SAFETY: the kernel made this descriptor for us, with close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a program to a group, atomically in the place of another one if that is given.
pub(crate) fn attach_device_program(
    group: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let mut attr = AttachAttr {
        target_fd: raw(group),
        program_fd: raw(program),
        attach_type: CGROUP_DEVICE,
        flags: ALLOW_MULTI | if replaced.is_some() { REPLACE } else { 0 },
        replaced_fd: replaced.map_or(0, raw),
    };
    // SAFETY: AttachAttr is the union's member for this command and holds no address.
    unsafe { bpf(PROG_ATTACH, &mut attr) }.map(drop)
}

/// Takes a program off a group.
pub(crate) fn detach_device_program(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut attr = AttachAttr {
        target_fd: raw(group),
        program_fd: raw(program),
        attach_type: CGROUP_DEVICE,
        flags: 0,
        replaced_fd: 0,
    };
    // SAFETY: AttachAttr is the union's member for this command and holds no address.
    unsafe { bpf(PROG_DETACH, &mut attr) }.map(drop)
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}
