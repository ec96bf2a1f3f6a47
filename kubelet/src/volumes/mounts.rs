//! The few mounts that the node itself makes below its pods directory, and their undoing.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

/// Mounts a tmpfs for anybody to write to, as far as its mounts allow, and for `group` to own. `size` is in bytes; `None` is
/// the kernel's default, half of the machine's memory. What is in it never reaches a swap space, since Secrets are.
pub(crate) fn mount_tmpfs(target: &Path, size: Option<u64>, group: Option<u32>) -> io::Result<()> {
    let mut data = match group {
        Some(gid) => format!("mode=3777,gid={gid}"),
        None => "mode=1777".to_owned(),
    };
    if let Some(size) = size {
        data.push_str(&format!(",size={size}"));
    }
    let mount = |data: String| {
        let data = std::ffi::CString::new(data)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        Ok(rustix::mount::mount(
            "tmpfs",
            target,
            "tmpfs",
            flags,
            Some(data.as_c_str()),
        )?)
    };
    // Kernels before 6.4 don't know the option, and a user namespace's root may not use it.
    mount(format!("{data},noswap")).or_else(|_: io::Error| mount(data))
}

/// Mounts a hugetlbfs with pages of that many bytes, for at most `size` bytes.
pub(crate) fn mount_hugetlbfs(target: &Path, page: u64, size: Option<u64>) -> io::Result<()> {
    let mut data = format!("pagesize={page},mode=777");
    if let Some(size) = size {
        data.push_str(&format!(",size={size}"));
    }
    let data = std::ffi::CString::new(data)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    Ok(rustix::mount::mount(
        "nodev",
        target,
        "hugetlbfs",
        flags,
        Some(data.as_c_str()),
    )?)
}

/// Bind-mounts exactly the file or directory that `source` holds, whatever its path leads to by now.
pub(crate) fn bind_descriptor(source: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let source = format!("/proc/self/fd/{}", source.as_raw_fd());
    Ok(rustix::mount::mount_bind(source.as_str(), target)?)
}

/// Makes a directory a mount of itself that is shared: what is mounted below it later also appears in mount namespaces
/// that were copied from ours before, such as those of shims.
pub(crate) fn share(directory: &Path) -> io::Result<()> {
    let is_mounted = is_mount_point(directory)?;
    if !is_mounted {
        rustix::mount::mount_bind(directory, directory)?;
    }
    // Also one that was mounted: whoever did that may have been killed right after it.
    let shared = rustix::mount::mount_change(directory, MountPropagationFlags::SHARED);
    if shared.is_err() && !is_mounted {
        let _ = rustix::mount::unmount(directory, UnmountFlags::NOFOLLOW);
    }
    Ok(shared?)
}

/// Whether something is mounted at `path` itself.
pub(crate) fn is_mount_point(path: &Path) -> io::Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match rustix::fs::statx(CWD, path, flags, StatxFlags::empty()) {
        Ok(stat) => Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The same, as the kernel's table says, for a path without symbolic links: nothing is asked of the file system.
pub(crate) fn is_listed(path: &Path) -> io::Result<bool> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(mount_points(&table).iter().any(|point| point == path))
}

/// Unmounts everything at and below `directory`, the innermost first. A mount that is busy is detached: it goes away
/// with its last user.
pub(crate) fn unmount_below(directory: &Path) -> io::Result<()> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    let mut below: Vec<PathBuf> = mount_points(&table)
        .into_iter()
        .filter(|point| point.starts_with(directory))
        .collect();
    below.reverse();
    for point in below {
        match rustix::mount::unmount(&point, UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(rustix::io::Errno::BUSY) => {
                rustix::mount::unmount(&point, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The mount points of a mountinfo table, in the order in which they were mounted (proc_pid_mountinfo(5), field 5).
fn mount_points(table: &[u8]) -> Vec<PathBuf> {
    table
        .split(|&b| b == b'\n')
        .filter_map(|line| line.split(|&b| b == b' ').nth(4))
        .map(unescape)
        .collect()
}

/// Space, tab, newline and backslash stand as three octal digits after a backslash.
fn unescape(text: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| byte == b'\\');
        let code = octal.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match code {
            Some(code) => {
                out.push(code);
                rest = &tail[3..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    std::ffi::OsString::from_vec(out).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_unescaped() {
        let table = b"36 35 98:0 /m /mnt/a\\040b\\134 rw,noatime master:1 - ext3 /dev/root rw\n\
            37 35 98:0 / /x rw - tmpfs tmpfs rw\n";
        assert_eq!(
            mount_points(table),
            [PathBuf::from("/mnt/a b\\"), PathBuf::from("/x")]
        );
    }

    #[test]
    fn mounts_are_seen_and_undone_innermost_first() {
        let dir = tempfile::tempdir().unwrap();
        let outer = dir.path().join("outer");
        std::fs::create_dir(&outer).unwrap();
        assert!(!is_mount_point(&outer).unwrap());
        mount_tmpfs(&outer, Some(1 << 20), None).unwrap();
        let inner = outer.join("inner");
        std::fs::create_dir(&inner).unwrap();
        mount_tmpfs(&inner, None, None).unwrap();
        assert!(is_mount_point(&outer).unwrap() && is_mount_point(&inner).unwrap());
        let dir_path = dir.path().canonicalize().unwrap();
        assert!(
            is_listed(&dir_path.join("outer")).unwrap() && is_listed(&dir_path.join("outer/inner")).unwrap()
        );
        assert!(!is_listed(&dir_path).unwrap());
        unmount_below(dir.path()).unwrap();
        assert!(!is_mount_point(&outer).unwrap() && !inner.exists());
        unmount_below(dir.path()).unwrap();
        assert!(!is_mount_point(&dir.path().join("absent")).unwrap());
    }

    #[test]
    fn a_bind_mount_of_the_same_file_system_is_not_deleted() {
        use std::os::fd::AsFd;
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("host");
        let tree = dir.path().join("tree");
        std::fs::create_dir(&host).unwrap();
        std::fs::write(host.join("file"), "x").unwrap();
        std::fs::create_dir_all(tree.join("volume")).unwrap();
        let source = super::super::beneath::open_dir(&host).unwrap();
        bind_descriptor(source.as_fd(), &tree.join("volume")).unwrap();
        assert!(berth_cri::delete_tree(&tree).is_err());
        assert!(host.join("file").exists());
        unmount_below(dir.path()).unwrap();
        berth_cri::delete_tree(&tree).unwrap();
        assert!(host.join("file").exists());
    }

    #[test]
    fn what_a_killed_program_mounted_is_shared_after_all() {
        let dir = tempfile::tempdir().unwrap();
        let pod = dir.path().join("pod");
        std::fs::create_dir(&pod).unwrap();
        rustix::mount::mount_bind(&pod, &pod).unwrap();
        rustix::mount::mount_change(&pod, MountPropagationFlags::PRIVATE).unwrap();
        let is_shared = || {
            let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            let point = format!(" {} ", pod.display());
            let line = table
                .lines()
                .find(|line| line.contains(&point))
                .unwrap()
                .to_owned();
            line.contains(" shared:")
        };
        assert!(!is_shared());
        share(&pod).unwrap();
        let shared = is_shared();
        unmount_below(dir.path()).unwrap();
        assert!(shared);
    }

    #[test]
    fn mounts_below_a_shared_directory_reach_namespaces_that_are_older() {
        let dir = tempfile::tempdir().unwrap();
        let pod = dir.path().join("pod");
        std::fs::create_dir_all(pod.join("v")).unwrap();
        share(&pod).unwrap();
        share(&pod).unwrap();
        let (to_child, from_parent) = std::sync::mpsc::channel();
        let (to_parent, from_child) = std::sync::mpsc::channel();
        let file = pod.join("v/file");
        let child = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            to_parent.send(()).unwrap();
            from_parent.recv().unwrap();
            file.exists()
        });
        from_child.recv().unwrap();
        mount_tmpfs(&pod.join("v"), None, None).unwrap();
        std::fs::write(pod.join("v/file"), "").unwrap();
        to_child.send(()).unwrap();
        let seen = child.join().unwrap();
        unmount_below(dir.path()).unwrap();
        assert!(seen);
    }
}
