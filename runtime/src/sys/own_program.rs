//! The file that this program runs from.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use berth_entry::arguments;

/// prctl(2)'s `struct prctl_mm_map`: where the parts of a process are, for who looks into /proc.
#[repr(C)]
struct MemoryMap {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// Goes on from another `file` with the same content, as if it had been executed from there: the process's mappings
/// of its program become mappings of that file, and so does `/proc/self/exe`. No other reference to the old file is
/// left, which the kernel checks. Takes a fraction of an execve(2).
///
/// # Errors
/// Where the process may not do that, the kernel can't, or the program began in another way than with [`berth_entry::begin`]. It
/// may then have mappings of both files.
pub(crate) fn run_from(file: BorrowedFd<'_>) -> io::Result<()> {
    let arguments = arguments().ok_or(io::ErrorKind::Unsupported)?;
    let mut map = where_strings_are(arguments);
    let segments = segments()?;
    for segment in segments {
        let (start, end) = (segment.p_vaddr, segment.p_vaddr + segment.p_memsz);
        match segment.p_type {
            libc::PT_LOAD if segment.p_flags & libc::PF_W == 0 => {
                map_again(segment, file)?;
                if segment.p_flags & libc::PF_X != 0 {
                    (map.start_code, map.end_code) = (start, end);
                }
            }
            libc::PT_LOAD => {
                detach(segment)?;
                (map.start_data, map.end_data) = (start, start + segment.p_filesz);
            }
            _ => {}
        }
    }
    // What the C library's start had protected, is again: its pages were replaced.
    if cfg!(target_env = "gnu") {
        for relro in segments.iter().filter(|s| s.p_type == libc::PT_GNU_RELRO) {
            let (start, end) = (page_of(relro.p_vaddr), page_of(relro.p_vaddr + relro.p_memsz));
            // SAFETY: the linker has put nothing there that is written to after the start.
            check(unsafe { libc::mprotect(at(start), end.saturating_sub(start), libc::PROT_READ) })?;
        }
    }
    // SAFETY: brk(2) with an address that can't be does nothing but tell the present one.
    let brk = unsafe { libc::syscall(libc::SYS_brk, 0) }.cast_unsigned();
    (map.start_brk, map.brk) = (brk, brk);
    map.exe_fd = file.as_raw_fd().unsigned_abs();
    // SAFETY: the structure is what the call takes with that size, and is only read.
    check(unsafe {
        libc::prctl(
            libc::PR_SET_MM,
            libc::PR_SET_MM_MAP,
            &raw const map,
            size_of::<MemoryMap>(),
            0,
        )
    })
}

/// What `/proc/self/cmdline` and `environ` show.
fn where_strings_are(arguments: *const *const c_char) -> MemoryMap {
    /// The first string's address and the end of the last one, of an array that a null pointer ends; and where the next
    /// array begins.
    fn extent(list: *const *const c_char, default: u64) -> (u64, u64, *const *const c_char) {
        let mut next = list;
        let mut last = None;
        // SAFETY: both arrays of the kernel's initial stack end with a null pointer, which is where this stops; what
        // is before it are C strings.
        unsafe {
            while !(*next).is_null() {
                last = Some(CStr::from_ptr(*next));
                next = next.add(1);
            }
            let first = (*list).addr() as u64;
            match last {
                Some(last) => (
                    first,
                    last.as_ptr().addr() as u64 + last.count_bytes() as u64 + 1,
                    next.add(1),
                ),
                None => (default, default, next.add(1)),
            }
        }
    }
    let start_stack = arguments.addr() as u64;
    let (arg_start, arg_end, environment) = extent(arguments, start_stack);
    let (env_start, env_end, _) = extent(environment, arg_end);
    MemoryMap {
        start_code: 0,
        end_code: 0,
        start_data: 0,
        end_data: 0,
        start_brk: 0,
        brk: 0,
        start_stack,
        arg_start,
        arg_end,
        env_start,
        env_end,
        auxv: 0,
        auxv_size: 0,
        exe_fd: 0,
    }
}

/// The program's headers. Their addresses are the real ones: it is linked to run where they say.
fn segments() -> io::Result<&'static [libc::Elf64_Phdr]> {
    let address = auxiliary(libc::AT_PHDR);
    if address == 0 || auxiliary(libc::AT_PHENT) != size_of::<libc::Elf64_Phdr>() as u64 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let count = size(auxiliary(libc::AT_PHNUM));
    // SAFETY: the kernel found that many headers there, in a part of the program that nobody writes to.
    let headers = unsafe {
        std::slice::from_raw_parts(
            ptr::with_exposed_provenance::<libc::Elf64_Phdr>(size(address)),
            count,
        )
    };
    // A program that may be anywhere is not where its headers say.
    let is_here = headers.iter().any(|segment| {
        segment.p_type == libc::PT_LOAD
            && (segment.p_vaddr..segment.p_vaddr + segment.p_filesz).contains(&address)
    });
    is_here
        .then_some(headers)
        .ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Replaces a mapping of the program by one of the same part of `file`.
fn map_again(segment: &libc::Elf64_Phdr, file: BorrowedFd<'_>) -> io::Result<()> {
    let (start, length) = file_pages(segment);
    let flag = |flag, protection| {
        if segment.p_flags & flag == 0 {
            0
        } else {
            protection
        }
    };
    // SAFETY: the file has the same content as the one that is mapped there now, so that nothing changes for who reads
    // or executes it, and nobody may write there.
    let mapped = unsafe {
        libc::mmap(
            at(start),
            length,
            flag(libc::PF_R, libc::PROT_READ) | flag(libc::PF_X, libc::PROT_EXEC),
            libc::MAP_PRIVATE | libc::MAP_FIXED,
            file.as_raw_fd(),
            page_of(segment.p_offset).cast_signed() as libc::off_t,
        )
    };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Replaces the mapping of what the program writes to by memory with the present content.
fn detach(segment: &libc::Elf64_Phdr) -> io::Result<()> {
    let (start, length) = file_pages(segment);
    // SAFETY: a mapping of no file, wherever there is room.
    let copy = unsafe {
        libc::mmap(
            ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if copy == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both have that many bytes, and are apart. Nothing is written to the old ones until the copy is in their
    // place: the process has one thread, which has its variables on the stack, and the system call is made as it is.
    // It leaves a mapping of the same size and content where the old one was.
    let moved = unsafe {
        copy.cast::<u8>()
            .copy_from_nonoverlapping(at(start).cast(), length);
        libc::syscall(
            libc::SYS_mremap,
            copy,
            length,
            length,
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
            at(start),
        )
    };
    match moved {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The pages of a segment that come from the file: address and length.
fn file_pages(segment: &libc::Elf64_Phdr) -> (usize, usize) {
    let start = page_of(segment.p_vaddr);
    let end = page_of(segment.p_vaddr + segment.p_filesz + page_size() - 1);
    (start, end - start)
}

/// The address of the page that an address is in.
fn page_of(address: u64) -> usize {
    size(address & !(page_size() - 1))
}

fn page_size() -> u64 {
    auxiliary(libc::AT_PAGESZ)
}

/// The program's headers are those of a machine with 64 bits, and so is this one.
fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// A value of the auxiliary vector; zero if it is not there.
fn auxiliary(kind: u64) -> u64 {
    // SAFETY: getauxval(3) reads what the kernel handed to the process.
    unsafe { libc::getauxval(kind) }
}

fn at(address: usize) -> *mut c_void {
    ptr::with_exposed_provenance_mut(address)
}

fn check(result: c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
