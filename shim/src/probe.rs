//! Whether pods can have user namespaces here: tried out, because it depends on the kernel, its settings, and the file system.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use berth_runtime::{Rootfs, run_in_copy};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::close;
use rustix::fs::fstat;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::pipe::{PipeFlags, pipe_with};

/// Ids as a pod's are.
const FIRST: u32 = 1 << 20;
const COUNT: u32 = 1 << 16;

/// Shows two directories in `dir` as one with the ids of a new user namespace, as the layers of an image are in such a pod.
/// The calling process must be single-threaded and is to exit afterwards: it is in a mount namespace of its own then.
///
/// # Errors
/// That can't be had here.
pub fn probe_user_namespace(dir: &Path) -> io::Result<()> {
    let (from_child, to_parent) = pipe_with(PipeFlags::CLOEXEC)?;
    let (held, holding) = pipe_with(PipeFlags::CLOEXEC)?;
    let ours = holding.as_raw_fd();
    let child = move || {
        let _ = close(ours);
        let namespace = unshare(CloneFlags::CLONE_NEWUSER).map_err(io::Error::from);
        let told =
            namespace.and_then(|()| File::from(to_parent).write_all(&std::process::id().to_ne_bytes()));
        // Until the parent has its namespace, or is gone.
        i32::from(told.and_then(|()| File::from(held).read(&mut [0])).is_err())
    };
    run_in_copy(None, child)?;
    let mut pid = [0; 4];
    File::from(from_child).read_exact(&mut pid)?;
    let process = format!("/proc/{}", u32::from_ne_bytes(pid));
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("{process}/{map}"), format!("0 {FIRST} {COUNT}"))?;
    }
    let user = File::open(format!("{process}/ns/user"))?;
    drop(holding);
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let scratch = Scratch::new(dir)?;
    let [upper, lower, place] = ["upper", "lower", "place"].map(|name| scratch.0.join(name));
    for made in [&upper, &lower, &place] {
        fs::create_dir(made)?;
    }
    let shown =
        Rootfs::layers(&[upper, lower], Some((user.as_fd(), &place)), "").map_err(io::Error::other)?;
    match fstat(shown)?.st_uid {
        FIRST => Ok(()),
        id => Err(io::Error::other(format!(
            "what belongs to root is shown as {id}'s"
        ))),
    }
}

/// A directory that is removed again.
struct Scratch(PathBuf);

impl Scratch {
    fn new(dir: &Path) -> io::Result<Self> {
        let path = dir.join(format!(".probe-{}", std::process::id()));
        fs::create_dir(&path).map(|()| Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
